-- What can be seen: the public views, and two private ones that they share. They lock nothing.
-- A view calls no function per row that reads a table. It reads tables with the owner's rights, but
-- calls functions with the reader's: those few stand in the matrix.

\ir views/holds.sql
\ir views/runs.sql
\ir views/steps.sql
\ir views/signals.sql
\ir views/workers.sql
\ir views/queues.sql
\ir views/workflows.sql
\ir views/settings.sql
\ir views/stuck.sql
\ir views/history.sql
\ir views/periods.sql
\ir views/metrics.sql
\ir views/violations.sql
