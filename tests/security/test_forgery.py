"""Nobody acts by an id, a claim or a name that is not his: what is not held is not touched, and the audit names who did it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors, sql

from support.database import Database
from support.engine import (
    Connection,
    Held,
    Worker,
    act,
    call,
    declare_dead,
    dispatch,
    drain,
    outcome,
    scalar,
    signal,
    start,
    steps,
    wait,
)
from support.hostile import callables, role_of


@pytest.fixture
def holder(granted: Database) -> tuple[Worker, Held]:
    """A worker with a run in its hands, which nobody else may touch."""
    client = granted.connect(role_of("client"))
    granted.connect().execute("select perdure.put_workflow('order')")
    start(client)
    worker = Worker(granted, conn=granted.connect(role_of("worker")))
    return worker, worker.claim_one()


def everything(database: Database, run_id: UUID) -> Any:
    """All that is on record of a run."""
    return (
        dispatch(database, run_id),
        steps(database, run_id),
        database.admin.execute("select * from perdure.outcome where run_id = %s", [run_id]).fetchall(),
        database.admin.execute("select * from perdure.step_attempt where run_id = %s", [run_id]).fetchall(),
        database.admin.execute("select * from perdure.act where run_id = %s", [run_id]).fetchall(),
    )


def attempts(run_id: UUID, claim: object) -> list[tuple[str, dict[str, Any]]]:
    """One call of each function that takes a claim."""
    named = {"run_id": str(run_id), "claim": None if claim is None else str(claim)}
    save = {"key": "forged", "kind": "step", "ordinal": 1, "result": 666}
    tried = {
        "key": "forged",
        "kind": "step",
        "ordinal": 1,
        "attempt": 1,
        "error": {"type": "E", "message": ""},
        "policy": {},
    }
    return [
        ("save_steps", {"saves": [named | save]}),
        ("save_transaction_step", {"save": named | save | {"kind": "transaction"}}),
        ("fail_steps", {"tries": [named | tried]}),
        ("suspend_runs", {"suspensions": [named | {"waits": [wait("w")], "saves": [save]}]}),
        ("suspend_runs", {"suspensions": [named | {"waits": [wait("w")], "saves": [save]}], "keep": True}),
        ("complete_runs", {"ends": [named | {"result": 666, "saves": [save]}]}),
        ("fail_runs", {"ends": [named | {"error": {"type": "E"}, "saves": [save]}]}),
        ("release_runs", {"releases": [named | {"saves": [save]}]}),
        ("release_runs", {"releases": [named | {"pause_reason": "forged", "saves": [save]}]}),
    ]


def refused(conn: Connection, worker_id: UUID | None, function: str, arguments: dict[str, Any]) -> str:
    """What a forged call is answered."""
    try:
        rows = call(conn, function, worker_id=worker_id, **arguments)
    except psycopg.Error as error:
        return error.sqlstate or "?"
    return ",".join(sorted(str(row["answer"]) for row in rows))


@pytest.mark.parametrize("which", ["guessed", "null", "of another run", "of an earlier hold", "by another worker"])
def test_what_is_not_held_by_this_worker_and_claim_is_not_touched(
    granted: Database, holder: tuple[Worker, Held], which: str
) -> None:
    worker, held = holder
    thief = Worker(granted, conn=granted.connect(role_of("worker")))
    claim: object = uuid4()
    if which == "null":
        claim = None
    elif which == "of another run":
        start(granted.connect(role_of("client")))
        claim = thief.claim_one().claim
    elif which == "of an earlier hold":
        claim = held.claim
        worker.release(held)
        held = worker.claim_one()
    elif which == "by another worker":
        claim = held.claim
    caller = thief if which in ("of another run", "by another worker") else worker
    before = everything(granted, held.run_id)
    for function, arguments in attempts(held.run_id, claim):
        answer = refused(caller.conn, caller.worker_id, function, arguments)
        assert answer in ("lost", "PD002"), (function, answer)
    assert everything(granted, held.run_id) == before
    assert worker.save(held, "mine") == "saved"


@pytest.mark.parametrize("which", ["unknown", "null", "dead", "stopped"])
def test_a_worker_that_is_not_there_does_nothing(granted: Database, holder: tuple[Worker, Held], which: str) -> None:
    worker, held = holder
    worker_id: UUID | None = uuid4()
    if which == "null":
        worker_id = None
    elif which != "unknown":
        gone = Worker(granted, conn=granted.connect(role_of("worker")))
        worker_id = gone.worker_id
        declare_dead(granted, gone) if which == "dead" else gone.stop()
    before = everything(granted, held.run_id)
    for function, arguments in attempts(held.run_id, held.claim):
        assert refused(worker.conn, worker_id, function, arguments) == "PD002", function
    for function, arguments in (("claim_runs", {"max_runs": 5}), ("beat", {"runs_held": 1})):
        with pytest.raises(psycopg.Error) as caught:
            call(worker.conn, function, worker_id=worker_id, **arguments)
        assert caught.value.sqlstate == "PD002"
    assert call(worker.conn, "worker_runs", worker_id=worker_id) == []
    assert scalar(worker.conn, "stop_worker", worker_id=worker_id) == 0
    assert everything(granted, held.run_id) == before
    assert worker.complete(held) == "done"


def test_a_batch_is_not_carried_by_the_valid_claim_that_it_also_names(
    granted: Database, holder: tuple[Worker, Held]
) -> None:
    worker, held = holder
    before = everything(granted, held.run_id)
    for function, arguments in attempts(held.run_id, held.claim):
        if function == "save_transaction_step":
            continue
        [(name, [good])] = [(k, v) for k, v in arguments.items() if isinstance(v, list)]
        for claim in (str(uuid4()), None):
            for batch in ([good, good | {"claim": claim}], [good | {"claim": claim}, good]):
                with pytest.raises(errors.InvalidParameterValue, match="two claims"):
                    call(worker.conn, function, worker_id=worker.worker_id, **(arguments | {name: batch}))
    assert everything(granted, held.run_id) == before


SAVING = ("save_steps", "save_transaction_step", "complete_runs", "suspend_runs", "fail_steps")


def test_a_worker_does_not_record_by_the_keys_or_kinds_of_the_engine(
    holder: tuple[Worker, Held], granted: Database
) -> None:
    forged: list[dict[str, Any]] = [
        *({"key": key} for key in ("~cancel", "~", "~value", "~sleep:1", "", None, "x" * 1001)),
        *({"kind": kind} for kind in ("cancel", "signal", "sleep", "timer", "retry", "", None, "Step", "anything")),
    ]
    for each in forged:
        for function in SAVING:
            refuses_save(granted, holder, function, each)


def refuses_save(database: Database, holder: tuple[Worker, Held], function: str, forged: dict[str, Any]) -> None:
    """A secret in what is refused is told to nobody, either."""
    worker, held = holder
    save = held.save("a", "s3cret-payload") | forged
    before = everything(database, held.run_id)
    arguments: dict[str, Any] = {
        "save_steps": {"saves": [held.named(**save)]},
        "save_transaction_step": {"save": held.named(**({"kind": "transaction"} | save | forged))},
        "complete_runs": {"ends": [held.named(saves=[save])]},
        "suspend_runs": {"suspensions": [held.named(waits=[wait("w")], saves=[save])]},
        "fail_steps": {"tries": [held.named(**save, attempt=1, error={"type": "s3cret-payload"}, policy={})]},
    }[function]
    with pytest.raises(errors.InvalidParameterValue) as caught:
        call(worker.conn, function, worker_id=worker.worker_id, **arguments)
    diag = caught.value.diag
    assert "s3cret" not in f"{caught.value} {diag.message_detail} {diag.message_hint} {diag.context}"
    assert everything(database, held.run_id) == before


def test_a_worker_of_one_queue_is_given_nothing_of_another(granted: Database) -> None:
    owner = granted.connect()
    owner.execute("select perdure.put_workflow('order', 'bills')")
    run_id = start(granted.connect(role_of("client")))
    conn = granted.connect(role_of("worker"))
    stranger = Worker(granted, conn=conn, queues=["letters"])
    unknowing = Worker(granted, conn=conn, queues=["bills"], workflows=["other"])
    assert stranger.claim(100) == []
    assert unknowing.claim(100) == []
    mine = Worker(granted, conn=conn, queues=["bills"])
    held = mine.claim_one()
    assert held.run_id == run_id
    before = everything(granted, run_id)
    for function, arguments in attempts(run_id, held.claim):
        assert refused(conn, stranger.worker_id, function, arguments) in ("lost", "PD002")
    assert everything(granted, run_id) == before


def test_what_the_role_worker_may_read_needs_an_id_and_is_no_more_than_was_promised(
    granted: Database, holder: tuple[Worker, Held]
) -> None:
    """One domain of trust (decision 32): who knows an id may read history and result, and nothing lists ids."""
    worker, held = holder
    worker.save(held, "a", {"n": 1})
    other = granted.connect(role_of("worker"))
    assert [step["key"] for step in scalar(other, "read_steps", run_id=held.run_id)] == ["a"]
    assert scalar(other, "read_steps", run_id=uuid4()) == []
    assert not scalar(other, "read_steps", run_id=None)
    assert call(other, "run_results", run_ids=[]) == []
    assert call(other, "worker_runs", worker_id=None) == []
    for view in ("runs", "workers", "steps", "signals", "waits", "history"):
        with pytest.raises(errors.InsufficientPrivilege):
            other.execute(sql.SQL("select * from perdure.{}").format(sql.Identifier(view)))
    client = granted.connect(role_of("client"))
    for function, arguments in (
        ("read_steps", {"run_id": held.run_id}),
        ("worker_runs", {"worker_id": worker.worker_id}),
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            call(client, function, **arguments)


def test_no_row_made_up_by_a_caller_gets_into_a_private_function(granted: Database) -> None:
    taking_rows = [
        each
        for each in callables(granted)
        if any(granted.value("select typtype = 'c' from pg_type where oid = %s::regtype", kind) for kind in each.types)
    ]
    assert len(taking_rows) > 5
    assert [each.name for each in taking_rows if each.is_public] == []
    for role in ("client", "worker", "observer", "admin", "both", "stranger"):
        conn = granted.connect(role_of(role))
        for each in taking_rows:
            with pytest.raises(errors.InsufficientPrivilege):
                conn.execute(each.call(*[sql.SQL("null")] * len(each.types)))
        with pytest.raises(errors.InsufficientPrivilege):
            conn.execute('select perdure._checkpoint(jsonb_populate_record(null::perdure.step, \'{"key": "a"}\'))')


# -- the caller's name


def by(database: Database, queue: str) -> str | None:
    name: str | None = database.value(
        "select done_by from perdure.audit where act = 'put_queue' and detail ->> 'name' = %s", queue
    )
    return name


def test_functions_run_with_the_right_callers_name(granted: Database) -> None:
    conn = granted.connect(granted.superuser)
    admin = sql.Identifier(role_of("admin"))
    for n, (begin, named) in enumerate(
        (
            (sql.SQL("select"), granted.superuser),
            (sql.SQL("set role {}").format(admin), role_of("admin")),
            (sql.SQL("select set_config('role', {}, false)").format(role_of("admin")), role_of("admin")),
            (sql.SQL("set session authorization {}").format(admin), role_of("admin")),
        )
    ):
        conn.execute(begin)
        conn.execute("select perdure.put_queue(%s)", [f"q{n}"])
        conn.execute("reset session authorization; reset role")
        assert by(granted, f"q{n}") == named


def test_the_audit_never_carries_a_name_that_its_caller_may_not_become(granted: Database) -> None:
    admin = role_of("admin")
    tried = 0
    for target in (granted.owner, granted.superuser, role_of("client"), "no such role", "none"):
        for forge in FORGERIES:
            conn = granted.connect(admin)
            with suppress(psycopg.Error):
                conn.execute(sql.SQL(forge).format(role=sql.Identifier(target), text=sql.Literal(target)))
            with suppress(psycopg.Error):
                conn.execute("select pg_temp.forged()")
            conn.close()
            conn = granted.connect(admin)  # what was set for its next login counts now
            conn.execute("set perdure.caller = 'postgres'; select perdure.put_queue('q')")
            conn.execute(sql.SQL("alter role {} reset all").format(sql.Identifier(admin)))
            conn.close()
            tried += 1
    names = granted.admin.execute(
        "select done_by, count(*) from perdure.audit where act = 'put_queue' group by 1"
    ).fetchall()
    assert [name for name, _ in names] == [admin]
    assert names[0][1] >= tried


# Each says in one session what it would like to be called, and then calls.
FORGERIES = (
    "set role {role}; select perdure.put_queue('q')",
    "set session authorization {role}; select perdure.put_queue('q')",
    "select set_config('role', {text}, false); select perdure.put_queue('q')",
    "select set_config('session_authorization', {text}, false); select perdure.put_queue('q')",
    "update pg_settings set setting = {text} where name = 'role'; select perdure.put_queue('q')",
    "begin; set local role {role}; select perdure.put_queue('q'); commit",
    "create function pg_temp.forged() returns void language sql set role = {text} as 'select perdure.put_queue(''q'')'",
    "create function pg_temp.forged() returns void language sql set session_authorization = {text}"
    " as 'select perdure.put_queue(''q'')'",
    "alter role current_user set role = {text}",
)


def test_a_definers_wrapper_is_told_by_the_name_of_who_logged_in(granted: Database) -> None:
    """The wrapper's owner lends its rights, not its name."""
    owner = granted.connect()
    owner.execute(
        "create function public.wrapped(q text) returns void language sql security definer"
        " set search_path = pg_catalog, pg_temp as 'select perdure.put_queue(q)'"
    )
    granted.connect(role_of("stranger")).execute("select public.wrapped('by wrapper')")
    assert by(granted, "by wrapper") == role_of("stranger")


def test_runs_signals_acts_and_workers_carry_their_callers_name(granted: Database) -> None:
    granted.connect().execute("select perdure.put_workflow('order')")
    both = granted.connect(role_of("both"))
    run_id = start(both)
    worker = Worker(granted, conn=granted.connect(role_of("worker")))
    held = worker.claim_one()
    worker.suspend(held, wait("paid"))
    signal(granted.connect(role_of("client")), run_id)
    act(granted.connect(role_of("admin")), "pause", run_id, reason="look")
    drain(granted.connect())
    row = granted.admin.execute(
        "select r.created_by, s.sent_by, a.asked_by, w.registered_by from perdure.run as r"
        " join perdure.signal as s using (run_id) join perdure.act as a using (run_id), perdure.worker as w"
    ).fetchone()
    assert row == (role_of("both"), role_of("client"), role_of("admin"), role_of("worker"))
    assert outcome(granted, run_id) is None
