-- Invariant: a head tells from where an index is worth reading; it may cost time, never a run. Whatever appears below
-- it (a transaction that commits late, a clock that was set back) is found by the next read from the bottom.
-- Lock order: none; a session keeps its heads for itself, in a setting that its rollback takes back.
-- Why: while some transaction keeps an old snapshot, the index entries of all that was done since stay before the first
-- live one. A head is kept only where many were read in vain, so a healthy server always reads from the bottom. They
-- are counted by pg_stat_get_xact_tuples_returned; with track_counts off there are no heads.

create or replace function perdure._recall_heads(setting text, whose text, now timestamptz)
returns jsonb
language plpgsql
stable
as $$
declare
  v_kept constant pg_catalog.jsonb := nullif(current_setting(_recall_heads.setting, true), '')::jsonb;
begin
  if v_kept ->> 'whose' = _recall_heads.whose
    and _recall_heads.now between (v_kept ->> 'read_at')::timestamptz and (v_kept ->> 'until')::timestamptz
  then
    return v_kept;
  end if;
  return null;
end;
$$;
comment on function perdure._recall_heads(text, text, timestamptz) is
'Read the heads that this session keeps in a setting, where they are of the same reader and their time is not over.
Null where there are none: all is to be read from the bottom.';

create or replace function perdure._keep_heads(
  setting text, whose text, kept jsonb, heads jsonb, read_at timestamptz, pause integer
)
returns void
language plpgsql
volatile
as $$
declare
  v_now constant pg_catalog.timestamptz := perdure._now();
begin
  perform set_config(
    _keep_heads.setting,
    (coalesce(
      _keep_heads.kept,
      jsonb_build_object(
        'whose', _keep_heads.whose, 'read_at', _keep_heads.read_at,
        'until', v_now + _keep_heads.pause * (v_now - _keep_heads.read_at)))
    || jsonb_build_object('heads', _keep_heads.heads))::text,
    false);
end;
$$;
comment on function perdure._keep_heads(text, text, jsonb, jsonb, timestamptz, integer) is
'Keep heads for the next calls of this session; kept is what _recall_heads returned.
After a read from the bottom, which began at read_at, the next one is due after pause times as long as this one took.';

create or replace function perdure._head(head text, now timestamptz)
returns timestamptz
language plpgsql
stable
as $$
begin
  return least(coalesce(_head.head, '-infinity')::timestamptz, _head.now - interval '100 ms');
end;
$$;
comment on function perdure._head(text, timestamptz) is
'Tell from where to read: from the bottom without a head, and always from 100 ms ago at the latest.
Transactions that are a little late are the rule.';
