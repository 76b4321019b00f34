"""What Perdure alone is asked: its protocol without any driver, under old snapshots, and beside a long queue."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg

from bench.pgbench import pgbench
from bench.side import Side
from bench.stage import Stage
from support.plans import fewest_pages

_CLIENTS = 4
_BATCH = 100

_START = (
    "select count(*) from perdure.start_many('one', array(select to_jsonb(g) from generate_series(1, {rows}) as g)"
    "{options});\n"
)
_SLEEPING = ", start_at => now() + interval '1 day'"
# Each answer is put together by the server and goes back to it as it came: no driver has a part in it. As a driver does
# it, the last step of a run is saved by the call that ends the run.
_WORK = f"""
select worker_id from bench_worker where client = :client_id \\gset
begin;
select coalesce(jsonb_agg(jsonb_build_object(
         'run_id', c.run_id, 'claim', c.claim, 'result', c.input, 'saves', jsonb_build_array(jsonb_build_object(
           'key', 'add', 'name', 'add', 'kind', 'step', 'ordinal', 1, 'attempt', 1, 'result', c.input,
           'fingerprint', '00000000000000000000000000000000', 'started_at', now(), 'saved_at', now())))), '[]') as ends
from perdure.claim_runs(:worker_id, {_BATCH}) as c \\gset
select count(*) from perdure.complete_runs(:worker_id, :ends);
commit;
"""
CYCLE = _START.format(rows=_BATCH, options="") + _WORK


class Housekeeper(threading.Thread):
    """Does each second what a worker's driver does beside its runs: beats and ticks."""

    def __init__(self, dsn: str, workers: list[Any]) -> None:
        super().__init__(daemon=True)
        self._dsn = dsn
        self._workers = workers
        self._end = threading.Event()

    def run(self) -> None:
        """Beat and tick until told to end."""
        with ExitStack() as stack:
            conns = [stack.enter_context(psycopg.connect(self._dsn, autocommit=True)) for _ in self._workers]
            while not self._end.wait(1.0):
                for conn, worker_id in zip(conns, self._workers, strict=True):
                    conn.execute("select perdure.beat(%s)", [worker_id])
                conns[0].execute("select perdure.tick()")

    def end(self) -> None:
        """End it."""
        self._end.set()
        self.join()


@contextmanager
def workers(stage: Stage, side: Side) -> Iterator[tuple[str, psycopg.Connection[Any]]]:
    """Make a database in which each of pgbench's clients is a worker."""
    with stage.database(side) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "create table bench_worker as select n - 1 as client,"
            " perdure.register_worker('{default}', '{one}', name => 'client ' || n) as worker_id"
            " from generate_series(1, 4) as n"
        )
        housekeeper = Housekeeper(dsn, [row[0] for row in conn.execute("select worker_id from bench_worker")])
        housekeeper.start()
        try:
            yield dsn, conn
        finally:
            housekeeper.end()


def fill(stage: Stage, dsn: str, runs: int, options: str = "") -> None:
    """Start so many runs, or a few more."""
    rows = min(1000, runs)
    clients = min(_CLIENTS, runs // rows)
    script = _START.format(rows=rows, options=options)
    pgbench(stage.server.bin, dsn, script, clients=clients, each=-(-runs // (rows * clients)))


def protocol(stage: Stage, side: Side) -> Mapping[str, float]:
    """Drain 1-step runs by claim_runs and complete_runs with what they save, in one transaction, a hundred at a time."""
    runs = stage.scale.protocol
    server = stage.server
    with workers(stage, side) as (dsn, conn):
        fill(stage, dsn, runs)
        cpu, wal = server.cpu_ms(), server.wal_bytes()
        bout = pgbench(server.bin, dsn, _WORK, clients=_CLIENTS, each=-(-runs // (_BATCH * _CLIENTS)))
        cpu, wal = server.cpu_ms() - cpu, server.wal_bytes() - wal
        ((ended,),) = conn.execute("select count(*) from perdure.outcome")
    seconds = bout.count / bout.rate
    return {"rate": ended / seconds, "postgres_ms": cpu / ended, "wal": wal / ended}


def hold(stage: Stage, side: Side) -> Mapping[str, float]:
    """Start, claim, save and complete for a while, first undisturbed, then under an old snapshot, then under an open writer."""
    figures: dict[str, float] = {}
    for name, statements in (
        ("free", ()),
        ("snapshot", ("begin isolation level repeatable read", "select count(*) from bench_held")),
        ("writer", ("begin", "insert into bench_held values (1)")),
    ):
        with workers(stage, side) as (dsn, conn), psycopg.connect(dsn, autocommit=True) as holder:
            conn.execute("create table bench_held (n integer)")
            for statement in statements:
                holder.execute(statement)
            bout = pgbench(stage.server.bin, dsn, CYCLE, clients=_CLIENTS, seconds=stage.scale.hold_seconds)
            settled = bout.seconds[1:] or [bout.rate]  # in the first second each session makes its plans
            part = max(1, len(settled) // 6)
            first, last = (sum(some) / part * _BATCH for some in (settled[:part], settled[-part:]))
            figures |= {f"{name}_first": first, f"{name}_last": last, f"{name}_kept": last / (first or 1) * 100}
            figures[f"{name}_runs"] = bout.count * _BATCH
            figures[f"{name}_buffers"] = _claim_buffers(conn)
    return figures


def _claim_buffers(conn: psycopg.Connection[Any]) -> float:
    """Return the fewest buffers that a claim of one run touches, in a session that has its plans."""
    ((worker_id,),) = conn.execute("select worker_id from bench_worker where client = 0")
    conn.execute(_START.format(rows=20, options="").encode())
    return float(fewest_pages(conn, "select * from perdure.claim_runs(%s, 1)", worker_id))


def growth(stage: Stage, side: Side) -> Mapping[str, float]:
    """Start, claim, save and complete beside queued runs, then beside sleeping ones: what does a run cost the server?"""
    scale = stage.scale
    figures = {}
    for name, beside, options in (
        *((f"{runs}_queued", runs, "") for runs in scale.backlogs),
        (f"{scale.sleeping}_sleeping", scale.sleeping, _SLEEPING),
    ):
        with workers(stage, side) as (dsn, conn):
            fill(stage, dsn, beside, options)
            conn.execute("analyze")
            before = stage.server.cpu_ms()
            bout = pgbench(stage.server.bin, dsn, CYCLE, clients=_CLIENTS, seconds=scale.backlog_seconds)
            figures[f"{name}_postgres_ms"] = (stage.server.cpu_ms() - before) / (bout.count * _BATCH)
            figures[f"{name}_rate"] = bout.rate * _BATCH
    return figures
