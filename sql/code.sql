-- All behaviour, replaced as a whole by every install and every upgrade.

\ir functions/clock.sql
\ir functions/errors.sql
\ir functions/ids.sql
\ir functions/check.sql
\ir functions/setting.sql
\ir functions/install.sql
\ir functions/role.sql
\ir functions/run.sql
\ir functions/result.sql
\ir functions/signal.sql
\ir functions/act.sql
\ir functions/retry.sql
\ir functions/worker.sql
\ir functions/end.sql
\ir functions/drain.sql
\ir functions/claim.sql
\ir functions/checkpoint.sql
\ir functions/attempt.sql
\ir functions/wait.sql
\ir functions/recovery.sql
\ir functions/tick.sql
\ir functions/cron.sql
\ir grants.sql
