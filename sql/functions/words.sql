-- Invariant: times and reasons are said the same way everywhere. Locks nothing.

create or replace function perdure._span(span interval)
returns text
language sql
stable
strict
parallel safe
as $$
  select case
    when s.seconds < 10 then trim_scale(round(s.seconds, 1)) || ' s'
    when s.seconds < 120 then round(s.seconds) || ' s'
    when s.seconds < 7200 then round(s.seconds / 60) || ' min'
    when s.seconds < 172800 then round(s.seconds / 3600) || ' h'
    else round(s.seconds / 86400) || ' days'
  end
  from (select greatest(extract(epoch from _span.span), 0) as seconds) as s
$$;
comment on function perdure._span(interval) is 'Say how long something lasts, in one unit.';

create or replace function perdure._typed(span interval)
returns text
language sql
stable
strict
parallel safe
as $$
  select case
    -- a month has no length; what is infinite has neither
    when extract(year from _typed.span) <> 0 or extract(month from _typed.span) <> 0 then _typed.span::text
    else (
      select format('%s %s%s', trim_scale(s.seconds / u.seconds), u.name, case when abs(s.seconds) <> u.seconds then 's' end)
      from (select extract(epoch from _typed.span) as seconds) as s
      cross join (values (86400, 'day'), (3600, 'hour'), (60, 'minute'), (1, 'second')) as u (seconds, name)
      where u.seconds = 1 or s.seconds % u.seconds = 0
      order by u.seconds desc
      limit 1
    )
  end
$$;
comment on function perdure._typed(interval) is
'Say a span as people type it: -1 second, which is "-00:00:01" to psql and "-1 days +23:59:59" as drivers send it.';

create or replace function perdure._when(at timestamptz, now timestamptz)
returns text
language sql
stable
strict
parallel safe
as $$
  select case
    when not isfinite(_when.at) then 'never'
    when _when.at between _when.now - interval '1 second' and _when.now
      then format('%s (now)', date_trunc('second', _when.at))
    when _when.at > _when.now
      then format('%s (in %s)', date_trunc('second', _when.at), perdure._span(_when.at - _when.now))
    else format('%s (%s ago)', date_trunc('second', _when.at), perdure._span(_when.now - _when.at))
  end
$$;
comment on function perdure._when(timestamptz, timestamptz) is
'Say when something is, and how far away that is.';

create or replace function perdure._because(reason text)
returns text
language sql
immutable
parallel safe
as $$ select coalesce(': ' || nullif(_because.reason, ''), '') $$;
comment on function perdure._because(text) is 'Append a reason, if there is one.';

create or replace function perdure._shell_word(text text)
returns text
language sql
immutable
strict
parallel safe
as $$
  select case
    when _shell_word.text ~ '^[A-Za-z0-9_./-]+$' then _shell_word.text
    else '''' || replace(_shell_word.text, '''', '''"''"''') || ''''
  end
$$;
comment on function perdure._shell_word(text) is 'Write a name of somebody''s choice as one word of a command to be typed, which does nothing but name it.';
