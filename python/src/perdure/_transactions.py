"""Transaction and SQL steps: the user's writes and the checkpoint are one commit.

Invariant: after an error that leaves it open whether the commit took place, nothing later of the
run is delivered until that is known; if it cannot be known here, the run is given back and replayed.
A transaction never waits long for its turn: what it waits for may be waiting, in a pooler, for its backend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from psycopg.rows import tuple_row

from ._errors import ClaimLost, Error

if TYPE_CHECKING:
    from ._steps import StepCall

_TRY_AGAIN = frozenset({"40001", "40P01", "55P03"})
_MAX_TRIES = 10
_PATIENCE = 1.0  # seconds that a transaction is held open for the answer to a question of its own run


class HeldUp(Error):
    """The transaction could not be saved, because the database did not answer another question of the run."""


async def transact(call: StepCall) -> None:
    """Run a transaction step to its acknowledged commit, its failed try, or the loss of the run."""
    plan, host = call.request.plan, call.host
    assert plan is not None
    in_doubt: list[int] = []
    for n in range(_MAX_TRIES):
        ordinal = None
        try:
            async with host.engine.transaction() as connection:
                text, value = await call.invoke(plan.fn, connection)
                ordinal = await _turn(call)
                save = call.save_of(ordinal, text)
                checkpoint = await host.engine.save_in_transaction(connection, host.claimed, save)
        except HeldUp:
            if in_doubt:
                _forget(call, None, in_doubt)
                host.stop(None)
                return
            if n == _MAX_TRIES - 1:
                raise
            await host.ledger.freed()
            if call.request.is_withdrawn or host.is_stopping:
                return
            continue
        except ClaimLost:
            _forget(call, ordinal, in_doubt)
            if await host.engine.still_held(host.claimed):
                host.stop(None)  # the key is on record: replay will find it
                return
            raise
        except Exception as error:
            state = _sqlstate(error)
            if ordinal is not None and (state is None or state.startswith(("08", "57P"))):
                in_doubt.append(ordinal)
            elif ordinal is not None:
                host.ledger.answered(ordinal)
            if in_doubt or (state in _TRY_AGAIN and n < _MAX_TRIES - 1):
                if not await host.engine.still_held(host.claimed):
                    raise ClaimLost("the run was lost while its transaction was in doubt") from error
                if not call.request.is_withdrawn and n < _MAX_TRIES - 1 and (ordinal is not None or not in_doubt):
                    await asyncio.sleep(min(0.5, 0.01 * 2**n))
                    continue
                _forget(call, None, in_doubt)
                host.stop(None)
                return
            raise
        except BaseException:
            _forget(call, ordinal, in_doubt)
            raise
        _forget(call, None, in_doubt)
        host.acknowledged(ordinal, call.request, checkpoint, value)
        return


async def _turn(call: StepCall) -> int:
    try:
        return await asyncio.wait_for(call.host.ledger.turn(), _PATIENCE)
    except asyncio.TimeoutError:
        raise HeldUp("another question of the run was not answered; has the pooler too few connections?") from None


def _forget(call: StepCall, ordinal: int | None, in_doubt: list[int]) -> None:
    for each in (*in_doubt, *(() if ordinal is None else (ordinal,))):
        call.host.ledger.answered(each)


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
