"""The command `perdure`.

    root        the group of all commands, its help and its exit codes
    install     install, uninstall, sql
    dev         a private Postgres with Perdure in it
    work        worker, register
    talk        start, signal
    acts        cancel, terminate, pause, resume, retry
    look        runs, explain
    show        one run's timeline; `timeline` draws it
    doctor      what is wrong with an installation; `checks` has the single checks

Below them: `session` (whom to connect to, and how), `trouble` (every failure as one sentence), `statements` (all the
SQL there is), `records` (one run, read), `output` (tables, times, JSON), `values` (what is typed), `loading`
(MODULE:APP).

What a run is and may do is decided by the database alone: nothing here branches on a run's state but to choose a colour.
"""

from perdure.cli.root import main

__all__ = ["main"]
