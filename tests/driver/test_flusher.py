"""What gathers while a flush is under way goes out together, in order, and nobody pays for somebody else's call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from perdure import ClaimLost, LimitExceeded
from perdure._backlog import COMPLETE, RELEASE, SAVE, SUSPEND, TRY, Backlog, Call, Kind, Row
from perdure._flusher import Flusher
from perdure._sql import COMMIT, Schema
from support.aio import until
from support.database import Database
from support.engine import Worker, call, dispatch, outcome, scalar, start


class Holder:
    """A worker that holds what it claims and executes nothing."""

    def __init__(self, worker_id: UUID, max_runs: int) -> None:
        self.worker_id: UUID | None = worker_id
        self.max_runs = max_runs
        self.rows: dict[UUID, Row] = {}
        self.later: dict[UUID, Sequence[Row]] = {}
        self.forgotten = 0

    def room(self, ending: int = 0) -> int:
        return self.max_runs - len(self.rows) + ending

    def held(self) -> Mapping[UUID, UUID]:
        return {run_id: row["claim"] for run_id, row in self.rows.items()}

    def claimed(self, rows: Sequence[tuple[Row, Sequence[Row]]]) -> None:
        self.rows |= {row["run_id"]: row for row, _ in rows}
        self.later |= {row["run_id"]: later for row, later in rows}

    def let_go(self, call: Call, answer: str) -> None:
        if answer in ("done", "suspended", "lost"):
            self.rows.pop(call.run_id, None)

    def drop(self, run_ids: Iterable[UUID]) -> None:
        for run_id in run_ids:
            self.rows.pop(run_id, None)

    def unknown(self, worker_id: UUID, reason: ClaimLost) -> None:
        self.forgotten += 1
        self.worker_id = None
        self.rows.clear()


class Losing(psycopg.AsyncConnection[Any]):
    """A connection that breaks right after a COMMIT has taken effect, when it is told to."""

    breaks = 0

    async def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        done = await super().execute(query, *args, **options)
        if query == COMMIT and Losing.breaks:
            Losing.breaks -= 1
            assert self._pipeline is not None
            await self._pipeline.sync()
            self.pgconn.finish()
            raise psycopg.OperationalError("the answer of the commit is lost")
        return done


class Bench:
    """A flusher that runs, and its holder."""

    def __init__(self, database: Database, flusher: Flusher, holder: Holder, backlog: Backlog) -> None:
        self.database = database
        self.flusher = flusher
        self.holder = holder
        self.backlog = backlog
        self.conn = database.connect()

    def start(self, n: int) -> list[UUID]:
        rows = call(self.conn, "start_many", workflow="order", inputs=[Jsonb({"n": n}) for n in range(n)])
        return [row["run_id"] for row in rows]

    async def claim(self, n: int) -> list[UUID]:
        run_ids = self.start(n)
        self.holder.max_runs += n
        self.flusher.wake()
        await until(lambda: all(run_id in self.holder.rows for run_id in run_ids))
        return run_ids

    def ask(self, function: Kind, run_id: UUID, key: str | None = None, /, **fields: Any) -> asyncio.Task[Any]:
        claim = self.holder.rows[run_id]["claim"]
        text = json.dumps({"run_id": str(run_id), "claim": str(claim), **({"key": key} if key else {}), **fields})
        return asyncio.ensure_future(self.flusher.call(function, run_id, text, key))

    def save(self, run_id: UUID, ordinal: int = 1, key: str = "a", **fields: Any) -> asyncio.Task[Any]:
        fields = {"kind": "step", "ordinal": ordinal, "result": ordinal, **fields}
        return self.ask(SAVE, run_id, key, **fields)

    def saved(self, run_id: UUID) -> list[str]:
        rows = self.database.admin.execute("select key from perdure.step where run_id = %s order by ordinal", [run_id])
        return [row[0] for row in rows]


def _note(done: list[str], name: str, _: asyncio.Task[Any]) -> None:
    done.append(name)


@asynccontextmanager
async def opened(database: Database, connect: Callable[[], Awaitable[Any]] | None = None) -> AsyncIterator[Bench]:
    conn = database.connect()
    conn.execute("select perdure.put_workflow('order')")
    [row] = conn.execute("select perdure.register_worker(array['default'], array['order'])").fetchall()
    holder, backlog = Holder(row[0], 0), Backlog()

    async def plain() -> Any:
        conn = await Losing.connect(database.dsn(), autocommit=True)
        await conn.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)  # as the worker does
        return conn

    flusher = Flusher(Schema(), connect or plain, holder, backlog, ["default"])
    running = asyncio.create_task(flusher.run())
    try:
        yield Bench(database, flusher, holder, backlog)
    finally:
        Losing.breaks = 0
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    async with opened(database) as made:
        yield made


async def test_what_gathers_goes_out_in_one_commit(bench: Bench) -> None:
    run_ids = await bench.claim(50)
    before = bench.flusher.flushes
    saves = [bench.save(run_id, n, f"s{n}") for run_id in run_ids for n in (1, 2)]
    rows = [row for row, _ in await asyncio.gather(*saves)]
    assert {row["answer"] for row in rows} == {"saved"}
    assert bench.flusher.flushes - before <= 2
    assert all(bench.saved(run_id) == ["s1", "s2"] for run_id in run_ids)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (r'{"result":"\u0000"}', psycopg.DataError),
        ('{"result":"\0"}', psycopg.DataError),
        ('{"result":"\ud800"}', UnicodeEncodeError),
        ('{"result":', psycopg.DataError),
    ],
    ids=["NUL in JSON", "a raw NUL", "a lone surrogate", "no JSON"],
)
async def test_a_call_that_is_refused_harms_no_other(bench: Bench, text: str, error: type[Exception]) -> None:
    run_ids = await bench.claim(20)
    saves = [bench.save(run_id) for run_id in run_ids]
    bad = asyncio.ensure_future(bench.flusher.call(SAVE, run_ids[7], text, "b"))
    later = bench.save(run_ids[7], 2, "c")
    with pytest.raises(error):
        await bad
    assert {row["answer"] for row, _ in await asyncio.gather(*saves, later)} == {"saved"}
    assert bench.saved(run_ids[7]) == ["a", "c"]


async def test_a_too_large_result_is_its_own_steps_trouble(bench: Bench) -> None:
    bench.conn.execute("select perdure.put_setting('payload_hard_limit', '10000')")
    run_ids = await bench.claim(8)
    saves = [bench.save(run_id) for run_id in run_ids[1:]]
    with pytest.raises(LimitExceeded):
        await bench.save(run_ids[0], result="".join(str(n) for n in range(10_000)))
    assert {row["answer"] for row, _ in await asyncio.gather(*saves)} == {"saved"}


async def test_a_busy_run_holds_up_only_its_own_later_calls(bench: Bench) -> None:
    blocked, free = await bench.claim(2)
    other = bench.database.connect(autocommit=False)
    other.execute("select from perdure.dispatch where run_id = %s for update", [blocked])
    first, other_kind, second = (
        bench.save(blocked, 1, "s1"),
        bench.ask(
            TRY, blocked, "t", kind="step", ordinal=2, attempt=1, error={"type": "E"}, policy={"max_attempts": 1}
        ),
        bench.save(blocked, 3, "s3"),
    )
    end = bench.ask(COMPLETE, blocked, result=1)
    assert (await bench.save(free, 1, "s1"))[0]["answer"] == "saved"
    assert (await bench.save(free, 2, "s2"))[0]["answer"] == "saved"
    assert not (first.done() or second.done() or end.done())
    other.rollback()
    done: list[str] = []
    for name, task in [("s1", first), ("t", other_kind), ("s3", second), ("end", end)]:
        task.add_done_callback(partial(_note, done, name))
    await end
    assert done == ["s1", "t", "s3", "end"]
    assert bench.saved(blocked) == ["s1", "t", "s3"]
    assert outcome(bench.database, blocked) == "completed"


async def test_a_lost_claim_is_told_to_its_run_alone(bench: Bench) -> None:
    lost, kept = await bench.claim(2)
    bench.database.admin.execute("update perdure.dispatch set claim = gen_random_uuid() where run_id = %s", [lost])
    with pytest.raises(ClaimLost):
        await bench.save(lost)
    assert (await bench.save(kept))[0]["answer"] == "saved"
    assert bench.saved(lost) == []


async def test_a_worker_declared_dead_is_told_once_and_for_all(bench: Bench) -> None:
    (run_id,) = await bench.claim(1)
    bench.database.admin.execute("delete from perdure.worker")
    bench.holder.max_runs = 0
    save = bench.save(run_id)
    await until(lambda: bench.holder.forgotten)
    bench.backlog.forget()
    with pytest.raises(ClaimLost):
        await save
    assert bench.saved(run_id) == []


async def test_a_commit_without_an_answer_is_answered_the_same_again(bench: Bench) -> None:
    saved, tried, spent, ended, released = await bench.claim(5)
    failure = {"kind": "step", "ordinal": 1, "attempt": 1, "error": {"type": "E", "message": "m"}}
    Losing.breaks = 1
    answers = await asyncio.gather(
        bench.save(saved),
        bench.ask(TRY, tried, "t", **failure, policy={}),
        bench.ask(TRY, spent, "t", **failure, policy={"max_attempts": 1}),
        bench.ask(COMPLETE, ended, result=1),
        bench.ask(RELEASE, released, pause_reason="so that nobody claims it"),
    )
    assert not Losing.breaks
    # on record, and in doubt: so it is our own
    assert [(row["answer"], call.was_in_doubt) for row, call in answers] == [
        ("on_record", True),
        ("retry", True),
        ("exhausted", True),
        ("done", True),
        ("done", True),
    ]
    assert answers[0][0]["result"] == 1 and answers[0][0]["saved_at"] is not None
    assert answers[2][0]["checkpoint"]["error"]["message"] == "m"
    assert outcome(bench.database, ended) == "completed"


@pytest.mark.parametrize("kind", ["signal", "sleep"])
async def test_a_wait_whose_answer_was_lost_is_answered_the_same_again(bench: Bench, kind: str) -> None:
    (run_id,) = await bench.claim(1)
    if kind == "signal":
        bench.conn.execute("select perdure.signal(%s, 'paid', '{\"n\": 1}')", [run_id])
    waits = [{"key": "w", "kind": kind, "name": "paid", "until": None if kind == "signal" else "2020-01-01"}]
    bench.holder.max_runs = 0
    Losing.breaks = 1
    row, doubt = await bench.ask(SUSPEND, run_id, waits=waits)
    assert doubt
    assert row["answer"] == "answered"
    assert row["checkpoint"]["key"] == "w"
    assert bench.saved(run_id) == ["w"]
    assert dispatch(bench.database, run_id)["worker_id"] == str(bench.holder.worker_id)


async def test_claims_whose_answer_was_lost_do_not_hang(bench: Bench) -> None:
    Losing.breaks = 1
    run_ids = await bench.claim(3)
    assert not Losing.breaks
    assert all(dispatch(bench.database, run_id)["recoveries"] == 0 for run_id in run_ids)
    claims = {run_id: UUID(dispatch(bench.database, run_id)["claim"]) for run_id in run_ids}
    assert claims == bench.holder.held()


async def test_what_the_database_gave_to_others_is_dropped_after_a_lost_connection(bench: Bench) -> None:
    gone, kept = await bench.claim(2)
    bench.holder.max_runs = 0
    Losing.breaks = 1
    call(bench.database.connect(), "start", workflow="order")
    await bench.save(kept)
    bench.database.admin.execute(
        "update perdure.dispatch set worker_id = null, ready_at = 'infinity' where run_id = %s", [gone]
    )
    Losing.breaks = 1
    await bench.save(kept, 2, "b")
    await until(lambda: gone not in bench.holder.rows)
    assert kept in bench.holder.rows


async def test_a_long_history_comes_whole(bench: Bench) -> None:
    run_id = start(bench.conn)
    before = Worker(bench.database)
    held = before.claim_one()
    long = "".join(str(n) for n in range(2_000))
    before.call("save_steps", saves=[held.named(**held.save(f"s{n}", long)) for n in range(200)])
    before.release(held)
    before.stop()
    bench.holder.max_runs = 1
    bench.flusher.wake()
    await until(lambda: run_id in bench.holder.rows)
    row, later = bench.holder.rows[run_id], bench.holder.later[run_id]
    assert [step["ordinal"] for step in [*row["steps"], *later]] == list(range(1, 201))


LISTENS = """
select exists (
  select from pg_locks as l
  where l.locktype = 'advisory' and l.mode = 'ExclusiveLock'
    and l.classid::bigint << 32 | l.objid::bigint = perdure._queue_key('default'))
"""


async def test_a_lock_taken_in_vain_is_given_back_with_its_session(database: Database) -> None:
    """Else each start would notify somebody who is not told."""
    database.admin.execute("create sequence public.times")
    database.admin.execute("grant all on sequence public.times to public")
    database.admin.execute(
        "create or replace function perdure.listen(worker_id uuid, queues text[] default null) returns text[]"
        " language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$ begin"
        " if nextval('public.times') = 1 then"
        " perform pg_advisory_lock(perdure._queue_key('default')); raise query_canceled; end if;"
        " return array[]::text[]; end $$"
    )
    async with opened(database) as bench:
        bench.holder.max_runs = 1
        bench.flusher.wake()
        await until(lambda: database.value("select last_value > 1 from public.times"))
        assert not database.value(LISTENS)


async def test_whose_leave_is_rolled_back_leaves_again(database: Database) -> None:
    """The lock is given back whatever becomes of the transaction, the channel is not."""
    heard: list[object] = []

    async def connect() -> Any:
        conn = await psycopg.AsyncConnection.connect(database.dsn(), autocommit=True)
        conn.add_notify_handler(heard.append)
        return conn

    async with opened(database, connect) as bench:
        bench.holder.max_runs = 1
        bench.flusher.wake()
        await until(lambda: database.value(LISTENS))
        rename = "alter function perdure.{}(uuid, integer) rename to {}"
        database.admin.execute(rename.format("claim_runs", "no_claim_runs").encode())
        bench.start(1)
        await until(lambda: not database.value(LISTENS))
        await asyncio.sleep(0.1)
        bench.holder.max_runs = 0
        with database.connect() as other:
            worker = Worker(database, conn=other)
            assert scalar(other, "listen", worker_id=worker.worker_id) == ["default"]
            before = len(heard)
            bench.start(1)
            other.execute("select")
            assert list(other.notifies(timeout=0))
        database.admin.execute(rename.format("no_claim_runs", "claim_runs").encode())
        bench.holder.max_runs = 2
        bench.flusher.wake()
        await until(lambda: len(bench.holder.rows) == 2)
        assert len(heard) == before
