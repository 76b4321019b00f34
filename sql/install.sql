-- Installs Perdure, in one transaction: its own (psql -1 -v ON_ERROR_STOP=1 -f) or that of the
-- migration tool that runs the file. To install under another name, build the file with that name.

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
