"""The connection is cut between COMMIT and its answer, and the caller makes the same call again: one effect.

For every public function. What one effect is, is told by the same call in a transaction that is rolled back.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from support.calls import CALLS, CRON, Arguments, Call, Stage, plain
from support.database import Database, PostgresServer, eventually
from support.effects import Snapshot, added, snapshot
from support.engine import Connection, Row, with_no_grace
from support.proxy import Moment, Proxy


@pytest.fixture(scope="module")
def shared(server: PostgresServer) -> Iterator[Database]:
    """One database for all calls, whose clock stands: each call has workflow, queue and workers of its own."""
    made = server.installed_database()
    with_no_grace(made)
    made.clock.stop()
    yield made
    made.drop()


@pytest.fixture(scope="module")
def proxy(shared: Database) -> Iterator[Proxy]:
    """A proxy that cuts when it is told to."""
    with Proxy(shared.dsn()) as made:
        yield made


@pytest.fixture
def conn(shared: Database) -> Iterator[Connection]:
    """Whoever prepares and looks on."""
    made = shared.connect()
    yield made
    made.close()


def once(database: Database, call: Call, arguments: Arguments) -> tuple[list[Row] | None, Snapshot]:
    """Make the call without an accident, for the answer and the effect that it has, and take it back."""
    conn = database.connect(autocommit=call.is_procedure)
    answer = call.make(conn, arguments) if call.function != "run_ticks" else []
    if call.function == "run_ticks":
        conn.execute("begin")
        conn.execute("select perdure.tick()")
    found = snapshot(conn)
    conn.rollback()
    conn.close()
    return plain(answer), found


def cut(call: Call, arguments: Arguments, proxy: Proxy, moment: Moment, *, in_transaction: bool) -> None:
    """Make the call, and lose the connection before the commit is sent or before it is answered."""
    with psycopg.connect(proxy.dsn, autocommit=not in_transaction) as conn:
        if in_transaction:
            call.make(conn, arguments)
        proxy.cut_next(moment)
        with pytest.raises(psycopg.OperationalError):
            conn.commit() if in_transaction else call.make(conn, arguments)
        assert conn.closed


def expected(call: Call, first: list[Row] | None) -> list[Row] | None:
    """What the same call answers the second time."""
    if call.again is None:
        return []
    return [{**row, **call.again} for row in first or []]


def without_tick(answer: list[Row] | None) -> list[Row] | None:
    """What a tick did is whatever there was to do."""
    return [{**row, "tick": "#"} if "tick" in row else row for row in answer or []]


@pytest.mark.parametrize("in_transaction", [False, True], ids=["autocommit", "transaction"])
@pytest.mark.parametrize("call", [call for call in CALLS if call.function not in CRON], ids=lambda call: call.name)
def test_a_call_made_again_has_one_effect(
    shared: Database, conn: Connection, proxy: Proxy, call: Call, in_transaction: bool
) -> None:
    if in_transaction and call.is_procedure:
        pytest.skip("a procedure that commits cannot be in a transaction")
    arguments = call.prepare(Stage(shared, conn, f"{call.name}/{in_transaction}"))
    before = snapshot(conn)
    answer, done = once(shared, call, arguments)

    cut(call, arguments, proxy, "unsent", in_transaction=in_transaction)
    eventually(lambda: snapshot(conn) == before, seconds=60, what="no effect")
    cut(call, arguments, proxy, "unanswered", in_transaction=in_transaction)
    eventually(lambda: snapshot(conn) == done, seconds=60, what="the effect of the call")

    def again() -> list[Row] | None:
        with psycopg.connect(shared.dsn(), autocommit=True) as retrying:
            return plain(call.make(retrying, arguments))

    if call.raises is not None:
        with pytest.raises(psycopg.Error) as refused:
            again()
        assert refused.value.sqlstate == call.raises
    elif call.function in ("worker_lock", "listen"):  # until the server has noticed that the first session is gone
        eventually(lambda: again() == answer, seconds=60)
    else:
        assert without_tick(again()) == without_tick(expected(call, answer))
    after = snapshot(conn)
    assert added(done, after) == call.adds
    assert not done - after, "nothing of the first is undone"
    assert after == done or call.adds
    if call.afterwards:
        conn.execute(call.afterwards)
    assert conn.execute("select invariant, run_id, detail from perdure.violations").fetchall() == []


def test_every_public_function_is_called_here(shared: Database) -> None:
    public = {
        name
        for (name,) in shared.admin.execute(
            "select p.proname from pg_proc as p where p.pronamespace = 'perdure'::regnamespace and p.proname !~ '^_'"
        )
    }
    assert {call.function for call in CALLS} == public


def test_what_a_second_call_does_is_told_where_it_is_not_the_same(shared: Database) -> None:
    comments: dict[str, str] = dict(
        shared.admin.execute(
            "select p.proname, obj_description(p.oid) from pg_proc as p"
            " where p.pronamespace = 'perdure'::regnamespace and p.proname !~ '^_'"
        ).fetchall()
    )
    untold = [
        call.name
        for call in CALLS
        if (call.again is None or call.again or call.raises or call.adds)
        and not (call.says and call.says in " ".join(comments[call.function].split()))
    ]
    assert untold == []
