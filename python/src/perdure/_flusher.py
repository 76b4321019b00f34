"""Send what runs have to save, many at a time: one round trip, one transaction, one commit.

Invariants:

* One connection, one flush at a time: what comes meanwhile gathers and goes out with the next one.
* Claims come back within the transaction that saves, and are handed on after its commit.
* A call is answered once its commit is acknowledged. After a commit of unknown fate it is sent
  again with the same token, and gets the same answer.
* Rows are read in binary, which DateStyle and IntervalStyle of the database do not change.
* A call that the database refuses is found by halving, and it alone gets the exception.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from . import _sql
from ._asking import Asking
from ._backlog import ENDS, KINDS, LOOK, MAX_CALLS, SUSPEND, Backlog, Call, Kind, Row
from ._connect import PASSING, BackOff, Complaints
from ._errors import ClaimLost
from ._sql import Schema
from ._unreadable import Unreadable

logger = logging.getLogger("perdure")

Connection = psycopg.AsyncConnection[Any]


class Host(Protocol):
    """What the flusher asks of its worker, between two flushes."""

    @property
    def worker_id(self) -> UUID | None:
        """Who we are; None while nobody knows us."""
        ...

    def room(self, ending: int = 0) -> int:
        """Return how many runs may be claimed now, or once so many have ended."""
        ...

    def held(self) -> Mapping[UUID, UUID]:
        """Return the claims by run that are in memory."""
        ...

    def claimed(self, rows: Sequence[tuple[Row, Sequence[Row]]]) -> None:
        """Take over claimed runs, each with the steps that did not fit into its row."""
        ...

    def let_go(self, call: Call, answer: str) -> None:
        """Note that an acknowledged answer ended what was in memory of the run, if it did."""
        ...

    def drop(self, run_ids: Iterable[UUID]) -> None:
        """Forget runs that the database gave to others."""
        ...

    def unknown(self, worker_id: UUID, reason: ClaimLost) -> None:
        """Drop everything: the database refuses this worker from now on."""
        ...


class Flusher:
    """Natural batching of a worker's calls, and its claims with them."""

    def __init__(
        self,
        schema: Schema,
        connect: Callable[[], Awaitable[Connection]],
        host: Host,
        backlog: Backlog,
        queues: Sequence[str],
    ) -> None:
        self._schema = schema
        self._connect = connect
        self._host = host
        self._backlog = backlog
        self._wake = asyncio.Event()
        self._conn: Connection | None = None
        self._must_reconcile = False
        self._is_closing = False
        self._asking = Asking(schema, queues, self._wake.set)
        self._trouble = BackOff(0.05, 2.0)
        self._complaints = Complaints()
        self.flushes = 0

    async def call(self, kind: Kind, run_id: UUID, text: str, key: str | None = None) -> tuple[Row, Call]:
        """Send a call with the next flush; return its row, and the call itself."""
        answer: asyncio.Future[Row] = asyncio.get_running_loop().create_future()

        def told(_: Call, row: Row | None, error: Exception | None) -> None:
            if answer.done():
                return
            if row is None:
                answer.set_exception(error or AssertionError("neither an answer nor an error"))
            else:
                answer.set_result(row)

        call = Call(kind, run_id, key, text, told)
        self.send(call)
        try:
            return await answer, call
        finally:
            call.give_up()

    def send(self, call: Call) -> None:
        """Send a call with the next flush."""
        self._backlog.add(call)
        if not self._wake.is_set():
            self._wake.set()

    def wake(self) -> None:
        """Look again whether there is something to do: there is room for more runs."""
        self._asking.worked()
        self._wake.set()

    def reconcile(self) -> None:
        """Compare with the database what is held, before the next flush."""
        self._must_reconcile = True
        self._wake.set()

    def close(self) -> None:
        """Send what is there, then let `run` return."""
        self._is_closing = True
        self._wake.set()

    async def run(self) -> None:
        """Flush and claim until closed."""
        try:
            while True:
                await self._rest()
                if self._is_closing and not self._backlog:
                    return
                await self._round()
        finally:
            if self._conn is not None:
                await self._conn.close()

    # When

    async def _rest(self) -> None:
        """Wait until there is something to send, a claim is due, or the end has come."""
        while not (self._is_closing and not self._backlog):
            self._wake.clear()
            pause = self._pause()
            if pause is not None and pause <= 0:
                return
            timer = None if pause is None else asyncio.get_running_loop().call_later(pause, self._wake.set)
            with self._asking.ears(self._conn):
                await self._wake.wait()
            if timer is not None:
                timer.cancel()

    def _pause(self) -> float | None:
        if self._host.worker_id is None:
            return None
        if self._must_reconcile or self._asking.must_leave:
            return 0.0
        now = asyncio.get_running_loop().time()
        due_at = self._backlog.due_at()
        if self._host.room() > 0:
            due_at = self._asking.due_at() if due_at is None else min(due_at, self._asking.due_at())
        return None if due_at is None else due_at - now

    # What

    async def _round(self) -> None:
        """Send one batch with a claim, and bring all of its calls to an answer or a later round."""
        worker_id = self._host.worker_id
        if worker_id is None:
            return
        calls: list[Call] = []
        try:
            conn = await self._connected()
            calls = self._backlog.batch(asyncio.get_running_loop().time())
            if self._must_reconcile:
                if calls:
                    await self._send(conn, worker_id, calls, 0)
                await self._reconcile(conn, worker_id)
                self._must_reconcile = False
                return
            await self._send(conn, worker_id, calls, self._claimable(calls))
            self._trouble.reset()
        except psycopg.Error as error:
            if isinstance(reason := _sql.refusal(error), ClaimLost):
                if self._conn is not None:
                    await self._conn.close()  # nobody may be told there of what nobody here can claim
                self._host.unknown(worker_id, reason)
                return
            for call in calls:
                call.was_in_doubt = True
            if isinstance(error, psycopg.errors.ReadOnlySqlTransaction) and self._conn is not None:
                await self._conn.close()  # a standby: the primary may be another of the hosts by now
            if self._conn is None or self._conn.closed:
                self._conn = None
                self._must_reconcile = True
                self._complaints.tell("the worker's connection is lost, it connects again", error)
            else:
                self._complaints.tell("a flush failed, it is sent again", error)
            await asyncio.sleep(self._trouble.pause())
        except Exception:  # a worker that saves nothing any more must not go on in silence
            logger.exception("a flush failed, it is sent again on a new connection")
            self._must_reconcile = True
            if self._conn is not None:
                await self._conn.close()
            await asyncio.sleep(self._trouble.pause())

    async def _connected(self) -> Connection:
        if self._conn is None or self._conn.closed:
            self._conn = await self._connect()
            self._asking.connected(self._conn)
        return self._conn

    def _claimable(self, calls: Sequence[Call]) -> int:
        """Return how many runs to claim along with these calls: whose claims they end makes room at once."""
        if self._is_closing or asyncio.get_running_loop().time() < self._asking.due_at(rides=bool(calls)):
            return 0
        return max(0, min(self._host.room(sum(call.kind in ENDS for call in calls)), MAX_CALLS))

    async def _send(self, conn: Connection, worker_id: UUID, calls: Sequence[Call], claimable: int) -> None:
        """Send calls in one transaction; on a refusal find the call that it is about."""
        if not calls and not claimable and not self._asking.must_leave:
            return
        if claimable:
            self._asking.sent()
        try:
            answers, claimed = await self._transact(conn, worker_id, calls, claimable)
        except (psycopg.Error, ValueError, OverflowError) as error:
            if isinstance(error, psycopg.Error) and (conn.closed or _passes(error)):
                raise
            if not calls and not claimable:  # a leave alone: there is nothing to halve
                raise
            if claimable and not calls:
                self._complaints.tell("runs cannot be claimed", error)
                self._asking.refused()
            elif claimable:
                await self._send(conn, worker_id, calls, 0)
            elif len(calls) == 1:
                self._settle(calls[0], error)
            else:
                middle = len(calls) // 2
                await self._send(conn, worker_id, calls[:middle], 0)
                # what was busy in the first half holds up its own run
                stopped = {call.run_id for call in calls[:middle] if not call.is_over}
                await self._send(conn, worker_id, [c for c in calls[middle:] if c.run_id not in stopped], 0)
            return
        self._take_answers(calls, answers)
        if claimable:
            self._complaints.reset()
            await self._take_claims(conn, worker_id, *claimed)

    async def _transact(
        self, conn: Connection, worker_id: UUID, calls: Sequence[Call], claimable: int
    ) -> tuple[dict[Kind, list[Row]], tuple[list[Row], timedelta | None]]:
        cursors: dict[Kind, psycopg.AsyncCursor[Row]] = {}
        claims: psycopg.AsyncCursor[Row] | None = None
        ahead: psycopg.AsyncCursor[Any] | None = None
        leaves = self._asking.must_leave
        try:
            async with conn.pipeline():
                await conn.execute(_sql.BEGIN, prepare=False)
                if leaves:
                    await self._asking.leave(conn)
                for kind in KINDS:
                    texts = [call.text for call in calls if call.kind is kind]
                    if texts:
                        parameters = {"worker_id": worker_id, "calls": f"[{','.join(texts)}]"}
                        if kind in (SUSPEND, LOOK):
                            parameters["keep"] = kind is LOOK
                        cursor = cursors[kind] = conn.cursor(row_factory=dict_row, binary=True)
                        await cursor.execute(self._schema(kind.statement), parameters)
                if claimable:
                    claims = conn.cursor(row_factory=dict_row, binary=True)
                    await claims.execute(self._schema(_sql.CLAIM_RUNS), {"worker_id": worker_id, "max_runs": claimable})
                    if self._asking.looks_ahead:
                        ahead = conn.cursor(binary=True)
                        await ahead.execute(self._schema(_sql.NEXT_DUE), {"worker_id": worker_id})
                await conn.execute(_sql.COMMIT, prepare=False)
        except BaseException:
            if not conn.closed:
                await conn.rollback()
            raise
        self.flushes += 1
        if leaves:
            self._asking.left()
        answers = {kind: await cursor.fetchall() for kind, cursor in cursors.items()}
        rows = [] if claims is None else await claims.fetchall()
        found = None if ahead is None else await ahead.fetchone()
        return answers, (rows, None if found is None else found[0])

    # Answers

    def _take_answers(self, calls: Sequence[Call], answers: Mapping[Kind, list[Row]]) -> None:
        found = {(kind, row["run_id"], row.get("key")): row for kind, rows in answers.items() for row in rows}
        now = asyncio.get_running_loop().time()
        for call in calls:
            row = found[call.kind, call.run_id, call.key]
            if row["answer"] == "busy":
                self._backlog.put_off(call, now)
            else:
                self._settle(call, row)

    def _settle(self, call: Call, outcome: Row | Exception) -> None:
        self._backlog.remove(call)
        if isinstance(outcome, dict):
            self._host.let_go(call, outcome["answer"])
        if isinstance(outcome, Exception):
            refused = _sql.refusal(outcome) if isinstance(outcome, psycopg.Error) else None
            call.tell(None, refused or outcome)
        elif outcome["answer"] == "lost":
            call.tell(None, ClaimLost(f"the claim on run {call.run_id} is lost"))
        else:
            call.tell(outcome, None)

    async def _take_claims(
        self, conn: Connection, worker_id: UUID, rows: Sequence[Row], next_due: timedelta | None
    ) -> None:
        if not rows:
            await self._asking.found_nothing(conn, worker_id, next_due)
            return
        self._asking.worked()
        claimed = []
        for row in rows:
            later: list[Row] = []
            while row["has_more"] and not isinstance(row["steps"], Unreadable):
                page = await self._read_steps(conn, row["run_id"], (later or row["steps"])[-1])
                if isinstance(page, Unreadable):
                    row["steps"] = page  # the run is refused where it is taken over
                elif page:
                    later += page
                else:
                    break
            claimed.append((row, later))
        if self._host.worker_id == worker_id:  # else they were the runs of who we were
            self._host.claimed(claimed)

    async def _read_steps(self, conn: Connection, run_id: UUID, last: Row) -> list[Row] | Unreadable:
        cursor = await conn.execute(
            self._schema(_sql.READ_STEPS), {"run_id": run_id, "after": last["ordinal"], "max_bytes": 1_048_576}
        )
        found = await cursor.fetchone()
        assert found is not None
        steps: list[Row] | Unreadable = found[0]
        return steps

    async def _reconcile(self, conn: Connection, worker_id: UUID) -> None:
        """Release what the database says we hold but do not, drop what we hold but it does not say so."""
        cursor = conn.cursor(row_factory=dict_row, binary=True)
        await cursor.execute(self._schema(_sql.WORKER_RUNS), {"worker_id": worker_id})
        theirs = {row["run_id"]: row["claim"] for row in await cursor.fetchall()}
        ours = self._host.held()
        strange = [(run_id, claim) for run_id, claim in theirs.items() if ours.get(run_id) != claim]
        if strange:
            logger.warning("%s claimed runs never arrived here, they are released", len(strange))
            text = ",".join(f'{{"run_id":"{run_id}","claim":"{claim}"}}' for run_id, claim in strange)
            async with conn.transaction():
                await cursor.execute(self._schema(_sql.RELEASE_RUNS), {"worker_id": worker_id, "calls": f"[{text}]"})
        gone = [run_id for run_id, claim in ours.items() if theirs.get(run_id) != claim]
        if gone:
            logger.warning("%s runs are not this worker's any more, they are dropped", len(gone))
            self._backlog.forget(gone)
            self._host.drop(gone)


def _passes(error: psycopg.Error) -> bool:
    return (error.sqlstate or "").startswith(PASSING) or isinstance(_sql.refusal(error), ClaimLost)
