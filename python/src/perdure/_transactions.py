"""Transaction and SQL steps: the user's writes and the checkpoint are one commit.

Invariant: after an error that leaves it open whether the commit took place, nothing later of the
run is delivered until that is known; if it cannot be known here, the run is given back and replayed.
A transaction never waits long for its turn: what it waits for may be waiting, in a pooler, for its backend.
A connection that breaks decides nothing about a step: while the run is held, it runs again from its beginning.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from psycopg.rows import tuple_row

from ._connect import BackOff
from ._engine import ConnectionLost, Save
from ._errors import ClaimLost, Error
from ._failures import described

if TYPE_CHECKING:
    from ._steps import StepCall

logger = logging.getLogger("perdure")

_TRY_AGAIN = frozenset({"40001", "40P01", "55P03"})
_MAX_TRIES = 10
_MAX_BREAKS = 5  # in a row: so often a server and its pooler hardly go, a step that ends its own connection does
_PATIENCE = 1.0  # seconds that a transaction is held open for the answer to a question of its own run


class HeldUp(Error):
    """The transaction could not be saved, because the database did not answer another question of the run."""


class _OnlyAsked(Exception):
    """Ends a transaction that is not to be committed."""


async def transact(call: StepCall) -> None:
    """Run a transaction step to its acknowledged commit, its failed try, or the loss of the run."""
    this_try = _Try(call)
    while not await this_try.is_over():
        continue


class _Try:
    """One try of a transaction step, over as many passes of its code as it takes until one decides something."""

    def __init__(self, call: StepCall) -> None:
        self._call = call
        self._host = call.host
        assert call.request.plan is not None
        self._plan = call.request.plan
        self._left = 1 if self._plan.at_most_once else _MAX_TRIES
        self._breaks_left = 1 if self._plan.at_most_once else _MAX_BREAKS
        self._pauses = BackOff(0.01, 0.5)
        self._break_pauses = BackOff(0.1, 2.0)

    async def is_over(self) -> bool:
        """Run the step's code once; return false where that decided nothing."""
        call, host = self._call, self._host
        ordinal, save, checkpoint = None, None, None
        try:
            async with host.engine.transaction() as connection:
                text, value = await call.invoke(self._plan.fn, connection)
                ordinal = await self._turn()
                save = call.save_of(ordinal, text)
                checkpoint = await host.engine.save_in_transaction(connection, host.claimed, save)
        except ClaimLost:
            self._forget(ordinal)
            await self._still_held(None)
            host.stop(None)  # the key is on record: replay will find it
            return True
        except Exception as error:  # noqa: BLE001  judged below, where it is no context of what is raised
            failure = error
        except BaseException:
            self._forget(ordinal)
            raise
        else:
            host.acknowledged(ordinal, call.request, checkpoint, value)
            return True
        if isinstance(failure, HeldUp):
            await self._again(failure)
            await host.ledger.freed()
        elif isinstance(failure, ConnectionLost) or (checkpoint is not None and _leaves_doubt(failure)):
            try:
                if checkpoint is not None and save is not None and not await self._is_undone(save):
                    host.stop(None)  # replay will find it
                    return True
            finally:
                self._forget(ordinal)
            await self._connect_again(failure)
        else:
            self._forget(ordinal)
            if _sqlstate(failure) not in _TRY_AGAIN:
                raise failure
            await self._again(failure)
            await self._still_held(failure)
            await asyncio.sleep(self._pauses.pause())
        return call.request.is_withdrawn or host.is_stopping

    async def _again(self, failure: Exception) -> None:
        self._left -= 1
        if not self._left:
            raise failure

    async def _connect_again(self, failure: Exception) -> None:
        """Go on once the database can be asked, or raise what the step raised where that comes of the step."""
        cause = failure.__cause__ if isinstance(failure, ConnectionLost) else failure
        self._breaks_left -= 1
        if isinstance(cause, Exception) and (not self._breaks_left or isinstance(cause, TimeoutError)):
            raise cause
        await self._still_held(cause)
        logger.warning(
            "run %s, step %s: its connection broke, it runs again from its beginning: %s",
            self._host.claimed.run_id, self._call.request.key, described(cause or failure),
        )  # fmt: skip
        await asyncio.sleep(self._break_pauses.pause())

    async def _is_undone(self, save: Save) -> bool:
        """Tell whether a commit in doubt did not take place and never will; false also where nobody can tell here.

        A save of the same key waits for its end, and is refused where the key is on record.
        """
        engine, pauses = self._host.engine, BackOff(0.05, 2.0)
        while not self._host.is_stopping:
            try:
                async with engine.transaction() as connection:
                    await engine.save_in_transaction(connection, self._host.claimed, save)
                    raise _OnlyAsked
            except _OnlyAsked:
                return True
            except ClaimLost as error:
                await self._still_held(error)
                return False
            except Exception as error:  # noqa: BLE001  whatever it is, it does not tell
                logger.warning(
                    "run %s, step %s: nobody knows yet whether its commit took place: %s",
                    self._host.claimed.run_id, save.key, described(error),
                )  # fmt: skip
            await asyncio.sleep(pauses.pause())
        return False

    async def _still_held(self, failure: BaseException | None) -> None:
        if not await self._host.engine.still_held(self._host.claimed):
            raise ClaimLost("the run was lost while a transaction of it was under way") from failure

    async def _turn(self) -> int:
        try:
            return await asyncio.wait_for(self._host.ledger.turn(), _PATIENCE)
        except asyncio.TimeoutError:
            raise HeldUp("another question of the run was not answered; has the pooler too few connections?") from None

    def _forget(self, ordinal: int | None) -> None:
        if ordinal is not None:
            self._host.ledger.answered(ordinal)


def _leaves_doubt(error: Exception) -> bool:
    state = _sqlstate(error)
    return state is None or state.startswith(("08", "57P"))


def _sqlstate(error: BaseException) -> str | None:
    state = getattr(error, "sqlstate", None) or getattr(getattr(error, "orig", None), "sqlstate", None)
    return state if isinstance(state, str) else None


async def run_query(connection: Any, query: str, args: Mapping[str, Any]) -> Any:
    """Run a SQL step: one column gives its value, several an object, no row None."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(query, args or None)
        if cursor.description is None:
            return None
        rows = await cursor.fetchmany(2)
        if len(rows) > 1:
            raise TooManyRows("a SQL step returns one row at most; aggregate them, or use a transaction step")
        if not rows:
            return None
        names = [column.name for column in cursor.description]
        return rows[0][0] if len(names) == 1 else dict(zip(names, rows[0], strict=True))


class TooManyRows(Error, TypeError):
    """A SQL step returned more than one row; no other try would help (it is a TypeError)."""
