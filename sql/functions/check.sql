-- Invariant: whatever a caller passes is data, checked here before it is stored. Locks nothing.

create or replace function perdure._read_setting(name text)
returns jsonb
language plpgsql
stable
parallel safe
as $$
begin
  return (
    select s.value from perdure.setting as s where s.name = _read_setting.name
  );
end;
$$;
comment on function perdure._read_setting(text) is 'Read a setting.';

create or replace function perdure._check_name(what text, name text)
returns void
language plpgsql
immutable
parallel safe
as $$
begin
  if _check_name.name is null or length(_check_name.name) not between 1 and 200
    or translate(_check_name.name, ' ' || chr(9) || chr(10) || chr(13), '') = '' then
    raise exception '% must have 1 to 200 characters, not all of them blank', _check_name.what
      using errcode = '22023',
            detail = format('It has %s.', coalesce(length(_check_name.name)::text, 'no value')),
            hint = format('Pass a shorter, non-empty %s.', _check_name.what);
  end if;
end;
$$;
comment on function perdure._check_name(text, text) is 'Refuse a null, blank or over-long name. Raises 22023.';

create or replace function perdure._check_interval(what text, duration interval)
returns void
language plpgsql
stable
parallel safe
as $$
declare
  v_day constant pg_catalog.timestamptz := timestamptz '2000-01-01 00:00+00';
begin
  -- the engine adds it to a time under a lock, where an overflow would stop everybody; months and days that cancel out
  -- in a comparison of intervals do not in an addition, so the sum is what is judged
  if _check_interval.duration not between interval '0' and interval '100 years'
    or v_day + _check_interval.duration not between v_day and v_day + interval '101 years' then
    raise exception '% must be between 0 and 100 years', _check_interval.what
      using errcode = '22023',
            detail = format('It is %s.', perdure._typed(_check_interval.duration)),
            hint = 'Pass an interval such as ''90 seconds'' or ''3 days''.';
  end if;
end;
$$;
comment on function perdure._check_interval(text, interval) is
'Refuse a negative or unusably long interval; null passes. Raises 22023.';

create or replace function perdure._check_time(what text, at timestamptz)
returns void
language plpgsql
stable
parallel safe
as $$
begin
  -- it is read by others, with many runs at once, and few languages have times beyond the years 1 to 9999 of their zone
  if _check_time.at not between '1900-01-01 00:00+00' and '9999-01-01 00:00+00' then
    raise exception '% must lie between the years 1900 and 9999', _check_time.what
      using errcode = '22023',
            detail = format('It is %s.', _check_time.at),
            hint = 'Leave it out where there is no such time.';
  end if;
end;
$$;
comment on function perdure._check_time(text, timestamptz) is
'Refuse a time that not every driver can read; null passes. Raises 22023.';

create or replace function perdure._check_times(
  start_at timestamptz,
  delay interval,
  deadline timestamptz,
  timeout interval
)
returns void
language plpgsql
stable
as $$
begin
  if _check_times.start_at is not null and _check_times.delay is not null then
    raise exception 'start_at and delay exclude each other'
      using errcode = '22023', hint = 'Pass one of them.';
  elsif _check_times.deadline is not null and _check_times.timeout is not null then
    raise exception 'deadline and timeout exclude each other'
      using errcode = '22023', hint = 'Pass one of them: a timeout runs from the first claim.';
  elsif isfinite(_check_times.start_at) and _check_times.start_at > '290000-01-01 00:00+00' then
    -- start_many spreads its runs behind it: a sum past the end of time would be an error without a name
    raise exception 'start_at must lie before the year 290000'
      using errcode = '22023',
            detail = format('It is %s.', _check_times.start_at),
            hint = 'Leave it out for a run that begins at once.';
  elsif _check_times.timeout = interval '0' then
    raise exception 'timeout must not be zero'
      using errcode = '22023', hint = 'Pass a longer one, or null for the workflow''s own.';
  end if;
  perform perdure._check_time('deadline', _check_times.deadline);
  perform perdure._check_interval('delay', _check_times.delay);
  perform perdure._check_interval('timeout', _check_times.timeout);
end;
$$;
comment on function perdure._check_times(timestamptz, interval, timestamptz, interval) is
'Refuse times of a start that contradict each other. Raises 22023.';

create or replace function perdure._payload_limit()
returns bigint
language plpgsql
stable
parallel safe
as $$
begin
  return (
    select min(s.value::bigint) from perdure.setting as s where s.name in ('payload_soft_limit', 'payload_hard_limit')
  );
end;
$$;
comment on function perdure._payload_limit() is 'Tell above how many bytes a payload needs a look.';

create or replace function perdure._small_payload()
returns integer
language sql  -- without a SET clause: so it is inlined
immutable
parallel safe
as $$ select 1000 $$;
comment on function perdure._small_payload() is
'Tell up to how many bytes a payload needs no look at the limits: put_setting takes none below.';

create or replace function perdure._bytes(payload jsonb)
returns integer
language sql  -- without a SET clause: so it is inlined
stable
parallel safe
as $$
  -- what comes from a table may be compressed, a hundredfold and more
  select case
    when pg_catalog.pg_column_compression(_bytes.payload) is null then pg_catalog.pg_column_size(_bytes.payload)
    else pg_catalog.octet_length(_bytes.payload::text)
  end
$$;
comment on function perdure._bytes(jsonb) is 'Tell how many bytes a payload has, uncompressed.';

create or replace function perdure._is_above(batch jsonb, bytes bigint)
returns boolean
language sql  -- without a SET clause: so it is inlined
stable
parallel safe
as $$
  select pg_catalog.pg_column_size(_is_above.batch) > _is_above.bytes
    or pg_catalog.pg_column_compression(_is_above.batch) is not null
$$;
comment on function perdure._is_above(jsonb, bigint) is
'Tell whether something in a batch may have more than so many bytes: nothing in it is larger than the whole.';

create or replace function perdure._limit_for(batch jsonb)
returns bigint
language sql  -- without a SET clause: so it is inlined
stable
parallel safe
as $$
  select case when perdure._is_above(_limit_for.batch, perdure._small_payload()) then perdure._payload_limit() end
$$;
comment on function perdure._limit_for(jsonb) is
'Tell above how many bytes a payload in a batch needs a look; null where none in it does.';

create or replace function perdure._check_payload(what text, payload jsonb)
returns void
language plpgsql
stable
parallel safe
as $$
declare
  v_bytes constant integer := perdure._bytes(_check_payload.payload);
begin
  if _check_payload.payload is null then
    raise exception '% must not be null', _check_payload.what
      using errcode = '22023',
            hint = 'Pass the JSON value null where nothing is meant.';
  end if;
  if v_bytes <= perdure._payload_limit() then
    return;
  elsif v_bytes > perdure._read_setting('payload_hard_limit')::bigint then
    raise exception '% has % bytes, more than the limit', _check_payload.what, v_bytes
      using errcode = 'PD010',  -- limit_exceeded
            detail = format('The setting payload_hard_limit is %s bytes.', perdure._read_setting('payload_hard_limit')),
            hint = 'Store large data in a table or file of your own and pass its key.';
  elsif v_bytes > perdure._read_setting('payload_soft_limit')::bigint then
    raise warning '% has % bytes', _check_payload.what, v_bytes
      using hint = 'Store large data in a table or file of your own and pass its key.';
  end if;
end;
$$;
comment on function perdure._check_payload(text, jsonb) is
'Refuse a null or too large payload; warn about a large one. Raises 22023 and PD010.';

create or replace function perdure._check_object(what text, object jsonb)
returns void
language plpgsql
immutable
parallel safe
as $$
begin
  if jsonb_typeof(_check_object.object) is distinct from 'object' then
    raise exception '% must be a JSON object', _check_object.what
      using errcode = '22023',
            detail = format('It is %s.', coalesce(jsonb_typeof(_check_object.object), 'null')),
            hint = 'Pass something like {"customer": "7"}.';
  end if;
end;
$$;
comment on function perdure._check_object(text, jsonb) is 'Refuse JSON that is not an object. Raises 22023.';

create or replace function perdure._check_array(what text, list jsonb)
returns void
language plpgsql
immutable
parallel safe
as $$
begin
  if jsonb_typeof(_check_array.list) is distinct from 'array' then
    raise exception '% must be a JSON array', _check_array.what
      using errcode = '22023',
            detail = format('It is %s.', coalesce(jsonb_typeof(_check_array.list), 'null')),
            hint = 'Pass an array of objects, one per run.';
  end if;
end;
$$;
comment on function perdure._check_array(text, jsonb) is 'Refuse JSON that is not an array. Raises 22023.';

create or replace function perdure._fingerprint(value jsonb)
returns bytea
language plpgsql
immutable
strict
parallel safe
as $$
begin
  return substring(sha256(convert_to(_fingerprint.value::text, 'UTF8')) for 16);
end;
$$;
comment on function perdure._fingerprint(jsonb) is 'Take the first 16 bytes of the sha256 of a jsonb text.';

create or replace function perdure._distance(a text, b text)
returns integer
language plpgsql
immutable
strict
parallel safe
as $$
declare
  v_above integer[] := array(select generate_series(0, length(_distance.b)));
  v_row integer[];
begin
  for i in 1..length(_distance.a) loop
    v_row := array[i];
    for j in 1..length(_distance.b) loop
      v_row[j + 1] := least(
        v_row[j] + 1,
        v_above[j + 1] + 1,
        v_above[j] + (substr(_distance.a, i, 1) <> substr(_distance.b, j, 1))::integer);
    end loop;
    v_above := v_row;
  end loop;
  return v_above[length(_distance.b) + 1];
end;
$$;
comment on function perdure._distance(text, text) is
'Count the edits between two words (Levenshtein): for the hints of errors only.';

create or replace function perdure._nearest(word text, known text[])
returns text
language sql
immutable
parallel safe
as $$
  select k.name
  from (select n.name from unnest(_nearest.known) as n (name) order by abs(length(n.name) - length(_nearest.word)) limit 100) as k
  order by perdure._distance(left(lower(_nearest.word), 60), left(lower(k.name), 60)), k.name
  limit 1
$$;
comment on function perdure._nearest(text, text[]) is 'Find the known name that looks most like a word; null where none is known.';

create or replace function perdure._raise_unknown(what text, name text, known text[])
returns void
language plpgsql
immutable
as $$
declare
  v_nearest constant pg_catalog.text := perdure._nearest(_raise_unknown.name, _raise_unknown.known);
begin
  raise exception '% "%" is not known', _raise_unknown.what, _raise_unknown.name
    using errcode = '22023',
          detail = case
            when v_nearest is null then format('No %s is known yet.', _raise_unknown.what)
            else format('The nearest known name is "%s".', v_nearest)
          end,
          hint = case _raise_unknown.what
            when 'workflow' then 'Start a worker that knows it, run "perdure register MODULE:APP", or call perdure.put_workflow.'
            when 'queue' then 'Call perdure.put_queue, or start a worker for it.'
            else 'Name one that exists.'
          end;
end;
$$;
comment on function perdure._raise_unknown(text, text, text[]) is
'Refuse a name that nobody has registered, with the nearest one that is. Raises 22023.';
