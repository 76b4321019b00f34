"""What is kept, and how it goes: a period of ended runs, dropped while somebody works."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from bench.alone import CYCLE, workers
from bench.pgbench import pgbench
from bench.side import Side
from bench.stage import Stage, Stuck

# A period of its own for the runs of long ago, below the first that there is.
_MAKE_PERIOD = """
do $$
declare
  v_table text;
  v_first constant timestamptz := (select min(c.begins_at) from perdure._cuts as c);
  v_cuts constant uuid[] := array(
    select perdure._bound_at(v_first - n.days * interval '1 day') from unnest(array[60, 40, 0]) as n (days));
begin
  foreach v_table in array perdure._run_tables() loop
    execute format('alter table perdure.%I detach partition perdure.%I', v_table, v_table || '_old');
    for v_n in 1 .. 2 loop
      execute format(
        'create table perdure.%I partition of perdure.%I for values from (%L) to (%L)',
        v_table || to_char(perdure._time_of(v_cuts[v_n]) at time zone 'UTC', '_YYYYMMDD'), v_table,
        v_cuts[v_n], v_cuts[v_n + 1]);
    end loop;
    execute format(
      'alter table perdure.%I attach partition perdure.%I for values from (minvalue) to (%L)',
      v_table, v_table || '_old', v_cuts[1]);
  end loop;
end;
$$
"""
# What 1-step runs leave behind, all at once: it is what is kept that counts here, not how it came to be.
_FILL = """
with made as materialized (
  select perdure._uuid7(c.begins_at + g.n * interval '1 millisecond') as run_id, c.begins_at as at, g.n
  from (select min(s.begins_at) as begins_at from perdure._cuts as s) as c
  cross join generate_series(%(first)s::bigint, %(last)s::bigint) as g (n)
),

runs as (
  insert into perdure.run (run_id, workflow, queue, priority, input, tags, headers, max_recoveries, created_at, created_by)
  select run_id, 'one', 'default', 3, to_jsonb(n), '{}', '{}', 10, at, current_user from made
),

steps as (
  insert into perdure.step (run_id, key, kind, ordinal, fingerprint, result, started_at, saved_at)
  select run_id, 'add', 'step', 1, '\\x00000000000000000000000000000000', to_jsonb(n), at, at from made
)

insert into perdure.outcome (run_id, status, result, begun_at, finished_at, claim)
select run_id, 'completed', to_jsonb(n), at, at, gen_random_uuid() from made
"""
_CHUNK = 50_000
_PATIENCE = 60.0


class Worker(threading.Thread):
    """Starts, claims and completes a run, again and again, and notes how long each round took."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self._dsn = dsn
        self._end = threading.Event()
        self.rounds: list[tuple[float, float]] = []

    def run(self) -> None:
        """Work until told to end."""
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            ((worker_id,),) = conn.execute("select perdure.register_worker('{default}', '{one}', lease => '1 hour')")
            while not self._end.is_set():
                began = time.monotonic()
                conn.execute("select perdure.start('one', '1')")
                for run_id, claim in conn.execute("select run_id, claim from perdure.claim_runs(%s, 1)", [worker_id]):
                    ends = [{"run_id": str(run_id), "claim": str(claim), "result": 1}]
                    conn.execute("select answer from perdure.complete_runs(%s, %s)", [worker_id, Jsonb(ends)])
                self.rounds.append((began, time.monotonic()))

    def longest_ms(self, since: float, until: float) -> float:
        """Return the longest round that touches this time."""
        return max((end - began for began, end in self.rounds if end >= since and began <= until), default=0.0) * 1000

    def end(self) -> None:
        """End it."""
        self._end.set()
        self.join()


def retention(stage: Stage, side: Side) -> Mapping[str, float]:
    """Keep runs that have ended, see what a run costs beside them, then drop their period while somebody works."""
    kept = stage.scale.kept
    with workers(stage, side) as (dsn, conn):
        conn.execute(_MAKE_PERIOD)
        for first in range(0, kept, _CHUNK):
            conn.execute(_FILL, {"first": first, "last": min(kept, first + _CHUNK) - 1})
        conn.execute("analyze")
        before = stage.server.cpu_ms()
        bout = pgbench(stage.server.bin, dsn, CYCLE, clients=4, seconds=stage.scale.backlog_seconds)
        beside = (stage.server.cpu_ms() - before) / (bout.count * 100)
        worker = Worker(dsn)
        worker.start()
        try:
            began = time.monotonic()
            time.sleep(1)
            quiet = worker.longest_ms(began + 0.2, time.monotonic())
            seconds, pause = _drop(conn, worker)
        finally:
            worker.end()
        ((left,),) = conn.execute(
            "select count(*) from perdure.run where run_id < perdure._bound_at(now() - interval '9 days')"
        )
    if left:
        raise Stuck(f"{left} runs are still there")
    return {"postgres_ms": beside, "seconds": seconds, "pause_ms": pause, "quiet_ms": quiet}


def _drop(conn: psycopg.Connection[Any], worker: Worker) -> tuple[float, float]:
    """Let the engine drop what is due: how many seconds it worked, and the longest round of the worker meanwhile."""
    spent, began, until, is_dropped = 0.0, time.monotonic(), time.monotonic() + _PATIENCE, False
    while not is_dropped:
        if time.monotonic() > until:
            raise Stuck("the period is not dropped")
        at = time.monotonic()
        ((did,),) = conn.execute("select perdure.rotate()")
        spent += time.monotonic() - at
        is_dropped = did.get("period") == "dropped"
        if did.get("period") is None:
            conn.execute("update perdure.chore set next_at = '-infinity'")
            time.sleep(0.05)
    ended = time.monotonic()
    time.sleep(0.2)
    return spent, worker.longest_ms(began, ended)
