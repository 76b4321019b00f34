-- Invariant: an operator's change of the install is audited in the same transaction.
-- Lock order: the one row that changes, then audit.

create or replace function perdure._audit(act text, run_id uuid, reason text, detail jsonb default '{}')
returns void
language plpgsql
volatile
as $$
declare
  v_now constant pg_catalog.timestamptz := perdure._now();
begin
  insert into perdure.audit (audit_id, act, run_id, reason, detail, done_by, done_at)
  values (
    perdure._uuid7(v_now), _audit.act, _audit.run_id, _audit.reason, _audit.detail, perdure._caller(), v_now);
end;
$$;
comment on function perdure._audit(text, uuid, text, jsonb) is 'Note who did what and why.';

create or replace function perdure._check_span_setting(name text, value text)
returns void
language plpgsql
stable
as $$
declare
  v_span interval;
begin
  begin
    v_span := _check_span_setting.value::interval;
  exception
    when data_exception then
      v_span := '-1 second';
  end;
  perform perdure._check_interval(format('setting "%s"', _check_span_setting.name), v_span);
  if _check_span_setting.name = 'partition_period' and v_span not between interval '1 day' and interval '1 year' then
    raise exception 'setting "partition_period" must be between 1 day and 1 year'
      using errcode = '22023', hint = 'Pass a text such as "7 days".';
  end if;
end;
$$;
comment on function perdure._check_span_setting(text, text) is
'Refuse what is no interval that a setting can have. Raises 22023.';

create or replace function perdure.put_setting(name text, value jsonb, reason text default null)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  v_old jsonb;
begin
  perform perdure._check_caller_of_copy();
  select s.value into v_old from perdure.setting as s where s.name = put_setting.name collate "C" for update;
  if not found then
    perform perdure._raise_unknown('setting', put_setting.name, array(select s.name from perdure.setting as s));
  end if;
  if jsonb_typeof(put_setting.value) is distinct from jsonb_typeof(v_old) then
    raise exception 'setting "%" takes a JSON %', put_setting.name, jsonb_typeof(v_old)
      using errcode = '22023',
            detail = format('It is %s now; the new value is %s.', v_old, coalesce(put_setting.value::text, 'null')),
            hint = 'Pass a value of the type that it has now.';
  end if;
  if put_setting.name in ('retention', 'failed_retention', 'partition_period') then
    perform perdure._check_span_setting(put_setting.name, put_setting.value #>> '{}');
  elsif put_setting.name = 'notify' then
    if put_setting.value #>> '{}' not in ('auto', 'always', 'never') then
      raise exception 'setting "notify" must be auto, always or never'
        using errcode = '22023',
              detail = format('The new value is %s.', put_setting.value),
              hint = 'auto notifies unless max_prepared_transactions is above 0: what notifies cannot be prepared.';
    end if;
  elsif put_setting.name in ('payload_soft_limit', 'payload_hard_limit') then
    -- read at each start, signal and save: what is no number of bytes there would stop everybody; and what is small
    -- does not ask
    if not (put_setting.value::numeric between perdure._small_payload() and 67108864 and put_setting.value::numeric % 1 = 0) then
      raise exception 'setting "%" takes a whole number of bytes from % to 67108864',
        put_setting.name, perdure._small_payload()
        using errcode = '22023',
              detail = format('It is %s now.', v_old),
              hint = 'Pass a number such as 1048576; store larger data in a table of your own and pass its key.';
    end if;
  end if;
  update perdure.setting as s set value = put_setting.value where s.name = put_setting.name collate "C";
  perform perdure._audit('put_setting', null, put_setting.reason,
    jsonb_build_object('name', put_setting.name, 'old', v_old, 'new', put_setting.value));
end;
$$;
comment on function perdure.put_setting(text, jsonb, text) is
'Change a setting of the install; audited each time, also when nothing changes.
Raises 22023 for an unknown setting, a value of another JSON type, a notify that is not auto, always or never, a limit that is not a whole number from 1000 bytes to
64 MB, or a time that is no interval from 0 to 100 years (a period: 1 day to 1 year), 55P03 after 5 s behind an open transaction that puts it too. Locks the setting''s row.';
