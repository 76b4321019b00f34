"""Names, intervals and times that nobody would pass: each is refused by its name, or does what it says, and stops nobody."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from support.calls import CALLS, CRON, Call, Stage
from support.database import Database
from support.engine import Connection, Worker, call, scalar, start
from support.hostile import callables

ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Monrovia"]
NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=250),
    st.sampled_from(
        ["", " ", "\n", "\t \r\n", "~", "x" * 200, "x" * 201, "x" * 100_000, "\u00e9" * 200, "\U0001f600" * 201]
    ),
    st.sampled_from(["\ufeff", "\u202e", "\u200b", "\x7f", "\x01", "e\u0301", "'", '"', "\\", "%", "infinity", "null"]),
)
MICROS = 9_223_372_036_854_775_807
INTERVALS = st.one_of(
    st.tuples(
        st.integers(-2_136_000_000, 2_136_000_000), st.integers(-(2**31), 2**31 - 1), st.integers(-MICROS, MICROS)
    ).map(lambda t: f"{t[0]} mons {t[1]} days {t[2] / 1_000_000:.6f} secs"),
    st.tuples(st.integers(-1200, 1200), st.integers(-36_600, 36_600), st.integers(-90_000, 90_000)).map(
        lambda t: f"{t[0]} mons {t[1]} days {t[2]} secs"
    ),
    st.sampled_from(
        ["0", "1 us", "-1 us", "1 mon -30 days", "-1 mon 31 days", "100 years", "100 years 1 us", "178000000 years",
         "-178000000 years", "1 day", "24 hours", "1 second", "999 ms", "1 day 1 us"]
    ),
)  # fmt: skip
TIMES = st.one_of(
    st.integers(-210_866_803_200, 9_224_318_015).map(lambda s: f"epoch {s}"),
    st.integers(-10_000_000, 10_000_000).map(lambda s: f"now {s}"),
    st.sampled_from(
        ["infinity", "-infinity", "4714-11-24 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00", "0001-01-01 BC",
         "9999-12-31 23:59:59.999999", "2026-03-29 02:30:00", "2026-10-25 02:30:00", "2011-12-30 12:00:00",
         "2026-04-05 01:45:00", "1972-01-07 00:20:00", "2027-03-14 02:30 America/New_York"]
    ),
)  # fmt: skip
KINDS = {"text": NAMES, "text[]": NAMES, "name": NAMES, "interval": INTERVALS, "timestamp with time zone": TIMES}

# What a message calls an argument whose name alone would not say what it is.
WORDS = {
    "name": ["workflow", "queue", "setting", "signal", "value"],
    "from_step": ["step"],
    "kind": ["kind"],
    "id": ["signal id"],
}


def parsed(conn: Connection, kind: str, value: str) -> Any:
    """The value as Postgres writes it; None where it is none that the type has."""
    if value.startswith("epoch "):
        return conn.execute("select to_timestamp(%s)::text", [float(value[6:])]).fetchone()[0]  # type: ignore[index]
    if value.startswith("now "):
        return conn.execute("select (perdure._now() + %s * interval '1 s')::text", [int(value[4:])]).fetchone()[0]  # type: ignore[index]
    try:
        conn.execute(sql.SQL("select {}::{}").format(value, sql.SQL(kind)))
    except psycopg.DataError:
        return None
    return value


class Table:
    """What there is to be called in one database: each public function with arguments that are fine."""

    def __init__(self, database: Database) -> None:
        self.conn = database.connect()
        self.calls: dict[str, list[tuple[Call, dict[str, Any], str]]] = {kind: [] for kind in KINDS}
        routines = {routine.name: routine for routine in callables(database)}
        for n, each in enumerate({each.function: each for each in CALLS}.values()):
            if each.is_procedure or each.function in CRON:
                continue
            routine = routines[each.function]
            lawful = dict(each.prepare(Stage(database, self.conn, f"w{n}")))
            for name, kind in zip(routine.arguments, routine.types, strict=True):
                if kind in KINDS:
                    self.calls[kind].append((each, lawful, name))
            if each.function == "adopt":  # it was prepared by a hold, under which nothing is claimed
                self.conn.execute("select perdure.adopt()")


@pytest.fixture
def made(database: Database) -> Table:
    return Table(database)


@settings(settings.get_profile("food"), max_examples=3 * settings.get_profile("food").max_examples)
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_what_is_not_taken_is_refused_by_its_name(made: Table, kind: str, data: st.DataObject) -> None:
    each, lawful, name = data.draw(st.sampled_from(made.calls[kind]), "call")
    zone = data.draw(st.sampled_from(ZONES), "zone")
    conn = made.conn
    conn.execute("select set_config('TimeZone', %s, false)", [zone])
    value = parsed(conn, kind, data.draw(KINDS[kind], "value"))
    if value is None:
        return
    options = {"deadline": "timeout", "timeout": "deadline", "start_at": "delay", "delay": "start_at"}
    arguments = {**lawful, name: [value] if kind == "text[]" else value}
    arguments.pop(options.get(name, ""), None)
    try:
        with conn.transaction(force_rollback=True):
            each.make(conn, arguments)
    except psycopg.Error as error:
        refused = f"{error.diag.message_primary} {error.diag.message_detail} {error.diag.message_hint}"
        said = (each.function, name, value[:100], error.sqlstate, refused[:300])
        # a role that does not exist is what Postgres says of one
        assert (error.sqlstate or "").startswith(("22", "PD", "42704")), said  # noqa: PT017
        words = [name, name.rstrip("s"), *WORDS.get(name, [])]
        assert any(word in refused for word in words), said


def canary(conn: Connection, worker: Worker) -> None:
    """An ordinary run goes its way."""
    run_id = start(conn, workflow="canary")
    held = worker.claim_one()
    assert held.run_id == run_id
    assert worker.save(held, "step", {"n": 1}) == "saved"
    assert worker.complete(held, {"n": 2}) == "done"


@pytest.fixture
def party(database: Database) -> tuple[Connection, Worker, Worker]:
    """A client's connection, a worker for the canaries and one for the runs with odd times."""
    conn = database.connect()
    conn.execute("select perdure.put_workflow(w) from unnest(array['canary', 'timed']) as w")
    return (
        conn,
        Worker(database, workflows=["canary"], lease="1 day"),
        Worker(database, workflows=["timed"], lease="1 day"),
    )


@settings(settings.get_profile("food"))
@given(data=st.data())
def test_whatever_time_was_taken_stops_nobody(
    database: Database, party: tuple[Connection, Worker, Worker], data: st.DataObject
) -> None:
    conn, worker, timed = party
    for each in (conn, worker.conn, timed.conn):
        each.execute("select set_config('TimeZone', %s, false)", [data.draw(st.sampled_from(ZONES))])

    def tried(function: str, **arguments: Any) -> bool:
        try:
            with conn.transaction():
                call(conn, function, **arguments)
        except psycopg.Error as error:
            assert (error.sqlstate or "").startswith(("22", "PD")), (function, arguments)  # noqa: PT017
            return False
        return True

    time = parsed(conn, "timestamptz", data.draw(TIMES, "time"))
    until = parsed(conn, "timestamptz", data.draw(TIMES, "until"))
    interval = data.draw(INTERVALS, "interval")
    tried("start", workflow="timed", start_at=time)
    tried("start", workflow="timed", deadline=time)
    tried("start", workflow="timed", delay=interval)
    tried("start", workflow="timed", timeout=interval)
    tried("start_many", workflow="timed", inputs=[psycopg.types.json.Jsonb(n) for n in range(2)], start_at=time)
    tried("put_workflow", name="timed", timeout=interval)
    tried("put_queue", name="default", retention=interval)
    kinds = data.draw(st.permutations(["sleep", "timer", "retry", "signal"]), "kinds")
    for kind, held in zip(kinds, timed.claim(4), strict=False):
        wait = {"key": "w", "kind": kind, "until": until}
        try:
            with timed.conn.transaction():
                timed.call("suspend_runs", suspensions=[held.named(waits=[{**wait, "name": "n"}])])
        except psycopg.Error as error:
            assert (error.sqlstate or "").startswith("22"), until  # noqa: PT017
            timed.release(held)
        tried("cancel", run_id=held.run_id, grace=interval)
    canary(conn, worker)
    done = scalar(conn, "tick")
    assert "held" not in done
    for (run_id,) in conn.execute(
        "select run_id from perdure.run where workflow = 'timed' order by run_id desc limit 3"
    ).fetchall():
        conn.execute("select * from perdure.explain(%s)", [run_id]).fetchall()
    for view in ("runs", "steps", "waits", "queues", "workers", "metrics", "stuck", "history"):
        exists = conn.execute("select to_regclass('perdure.' || %s) is not null", [view]).fetchone()
        if exists == (True,):
            conn.execute(sql.SQL("select v::text from perdure.{} as v").format(sql.Identifier(view))).fetchall()
    broken = database.admin.execute("select distinct invariant, detail from perdure.violations").fetchall()
    assert broken == []
    assert database.value("select count(*) from perdure.audit where act = 'set_aside'") == 0, "a run was set aside"


@pytest.mark.parametrize("timeout", ["178000000 years", "-178000000 years", "1 mon -30 days", None])
def test_await_takes_any_time_out(conn: Connection, timeout: str | None) -> None:
    """Of an ended run it returns at once; of another one a time-out that is over ends it."""
    worker = Worker.__new__(Worker)
    worker.conn = conn
    [row] = call(conn, "register_worker", queues=["default"], workflows=["order"])
    worker.worker_id = row["register_worker"]
    start(conn)
    held = worker.claim_one()
    worker.complete(held, 7)
    assert conn.execute("call perdure.await(%s, %s)", [held.run_id, timeout]).fetchone() == (7,)
    if timeout is not None and timeout.startswith("-"):
        with pytest.raises(psycopg.Error) as refused:
            conn.execute("call perdure.await(%s, %s)", [start(conn), timeout])
        assert refused.value.sqlstate == "PD007"


@pytest.mark.parametrize(
    ("max_seconds", "every"),
    [(None, "1 second"), (1, None), (1, "0"), (1, "-1 hour"), (1, "178000000 years"), (1, "1 mon -30 days")],
)
def test_ticks_are_refused_a_rhythm_that_has_none(conn: Connection, max_seconds: int | None, every: str | None) -> None:
    conn.execute("set statement_timeout = '60s'")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="max_seconds" if max_seconds is None else "every"):
        conn.execute("call perdure.run_ticks(%s, %s)", [max_seconds, every])
