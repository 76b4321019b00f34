-- Installs Perdure. A source: build it (make build, or perdure sql install) rather than run it, so
-- that the schema gets its name. Runs in one transaction, its own or the caller's.

\ir schema/open.sql
\ir schema/install.sql
\ir schema/setting.sql
\ir schema/run.sql
\ir schema/dispatch.sql
\ir schema/step.sql
\ir schema/signal.sql
\ir schema/worker.sql
\ir schema/partition.sql
\ir code.sql
\ir schema/close.sql
