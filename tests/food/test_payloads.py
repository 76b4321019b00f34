"""Any JSON text, and any value of Python: kept and given back as it is, or refused; what others do goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import perdure
from support.database import Database
from support.engine import Connection, Worker, drain, scalar, start

PATIENCE = timedelta(seconds=60)
DIGITS = st.integers(1, 5_000).map(lambda n: "7" * n)
NUMBERS = st.one_of(
    DIGITS,
    st.builds("{}{}e{}".format, st.sampled_from(["", "-"]), DIGITS, st.integers(-20_000, 200_000)),
    st.sampled_from(
        ["-0", "-0.0", "1e400", "1e-400", "1e131071", "1e131072", "1e-16383", "1e-16384", "9007199254740993", "0." + "1" * 400,
         "NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "0x10", "1_000"]
    ),
)  # fmt: skip
STRINGS = st.one_of(
    st.text().map(json.dumps),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).map(
        lambda text: json.dumps(text, ensure_ascii=False)
    ),
    st.sampled_from(['"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\x"', '"\x01"', '"', "''"]),
    st.integers(1, 300_000).map(lambda n: f'"{"x" * n}"'),
)
DEEP = st.builds(
    lambda pair, depth: pair[0] * depth + "1" + pair[1] * depth,
    st.sampled_from([("[", "]"), ('{"a":', "}")]),
    st.integers(1, 20_000),
)
TEXTS = st.recursive(
    st.one_of(st.sampled_from(["null", "true", "{}", "[]", "", " ", "nul"]), NUMBERS, STRINGS, DEEP),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda parts: f"[{','.join(parts)}]"),
        st.lists(st.tuples(STRINGS, inner), max_size=4).map(
            lambda members: "{" + ",".join(f"{key}:{value}" for key, value in members) + "}"
        ),
        inner.map(lambda text: f'{{"a":1,"a":{text}}}'),
    ),
    max_leaves=6,
)
STEP = '"key":"k","kind":"step","ordinal":1'
LAST = "perdure.run where workflow = 'eaten' order by run_id desc limit 1"

# How a client hands over a text, and where it is found again: a column, and of what.
DOORS = {
    "input": ("select perdure.start('eaten', %s::jsonb)", "input", LAST),
    "inputs": ("select perdure.start_many('eaten', array[%s::jsonb])", "input", LAST),
    "tags": ("select perdure.start('eaten', tags => %s::jsonb)", "tags", LAST),
    "headers": ("select perdure.start('eaten', headers => %s::jsonb)", "headers", LAST),
    "payload": (
        "select perdure.signal((select run_id from perdure.run where workflow = 'told'), 'ear', %s::jsonb)",
        "payload",
        "perdure.signal order by sequence desc limit 1",
    ),
    "setting": ("select perdure.put_setting('allow_unknown_names', %s::jsonb)", "", ""),
}
# A worker's calls that keep a text, and where.
CALLS: dict[str, tuple[str, Callable[[str, str], str], str]] = {
    "save": ("save_steps", lambda run, text: f'[{{{run},{STEP},"result":{text}}}]', "result from perdure.step"),
    "transaction": (
        "save_transaction_step",
        lambda run, text: f'{{{run},{STEP.replace("step", "transaction")},"result":{text}}}',
        "result from perdure.step",
    ),
    "complete": (
        "complete_runs",
        lambda run, text: f'[{{{run},"result":{text},"saves":[]}}]',
        "result from perdure.outcome",
    ),
    "fail": (
        "fail_runs",
        lambda run, text: f'[{{{run},"error":{text},"saves":[]}}]',
        'nullif(error, \'{"type":"unknown","message":null}\') from perdure.outcome',  # what JSON null becomes
    ),
    "fail_step": (
        "fail_steps",
        lambda run, text: f'[{{{run},{STEP},"attempt":1,"error":{text},"policy":{{"max_attempts":2}}}}]',
        "error from perdure.step_attempt",
    ),
}


def nested(value: Any, depth: int) -> Any:
    """A value within so many lists."""
    return nested([value], depth - 1) if depth else value


class Table:
    """A client and two workers: one for what is eaten, one for the run beside it that must not notice."""

    def __init__(self, database: Database) -> None:
        self.conn = database.connect()
        self.conn.execute("select perdure.put_workflow(w) from unnest(array['eaten', 'canary', 'told']) as w")
        self.eater = Worker(database, workflows=["eaten"], lease="1 day")
        self._canary = Worker(database, workflows=["canary"], lease="1 day")
        start(self.conn, workflow="told")

    def taken(self, conn: Connection, statement: str, parameters: list[Any]) -> bool:
        """Hand a text over; False where it is refused as bad data, by a limit of the program or by one of Perdure."""
        try:
            with conn.transaction():
                conn.execute(statement.encode(), parameters).fetchall()
        except psycopg.Error as error:
            assert (error.sqlstate or "").startswith(("22", "54", "PD")), (error.sqlstate, str(error)[:300])  # noqa: PT017
            return False
        return True

    def others_go_on(self) -> None:
        """An ordinary run goes its way, and a tick is done."""
        run_id = start(self.conn, workflow="canary")
        held = self._canary.claim_one()
        assert held.run_id == run_id
        assert self._canary.save(held, "step", {"n": 1}) == "saved"
        assert self._canary.complete(held, {"n": 2}) == "done"
        scalar(self.conn, "tick")


@pytest.fixture
def table(database: Database) -> Table:
    return Table(database)


@settings(settings.get_profile("food"))
@pytest.mark.parametrize("door", DOORS)
@given(text=TEXTS)
def test_a_client_is_answered_or_refused_and_nobody_else_hears_of_it(table: Table, door: str, text: str) -> None:
    statement, column, place = DOORS[door]
    if table.taken(table.conn, statement, [text]) and place:
        kept = table.conn.execute(f"select {column} = %s::jsonb from {place}".encode(), [text]).fetchone()
        assert kept == (True,), (door, text[:300])
    table.others_go_on()


@settings(settings.get_profile("food"))
@pytest.mark.parametrize("name", CALLS)
@given(text=TEXTS)
def test_a_worker_is_answered_or_refused_and_nobody_else_hears_of_it(table: Table, name: str, text: str) -> None:
    function, batch, place = CALLS[name]
    eater = table.eater
    run_id = start(table.conn, workflow="eaten")
    held = eater.claim_one()
    assert held.run_id == run_id
    run = f'"run_id":"{run_id}","claim":"{held.claim}"'
    statement = f"select count(*) from perdure.{function}(%s, %s::jsonb)"
    if table.taken(eater.conn, statement, [eater.worker_id, batch(run, text)]):
        kept = table.conn.execute(
            f"select bool_and(e.value = %s::jsonb) from (select {place} where run_id = %s) as e (value)".encode(),
            [text, run_id],
        ).fetchone()
        assert kept in ((True,), (None,)), (name, text[:300])
    table.others_go_on()
    table.conn.execute("select perdure.terminate(%s)", [run_id])
    drain(table.conn)
    assert table.conn.execute("select count(*) from perdure.dispatch where run_id = %s", [run_id]).fetchone() == (0,)


WORDS = st.one_of(st.text(), st.text(st.characters()), st.sampled_from(["\0", "\ud800", "\udc00\ud83d", "\U0001f600"]))
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), WORDS,
        st.sampled_from([10**4_000, 2**64, 5e-324, 1.7976931348623157e308, -0.0]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(WORDS, inner, max_size=4),
        st.dictionaries(st.one_of(st.integers(), st.sampled_from(["1", "2"])), inner, max_size=3),
        st.builds(nested, inner, st.integers(1, 250)),
    ),
    max_leaves=10,
)  # fmt: skip


@settings(settings.get_profile("food"), max_examples=settings.get_profile("food").max_examples // 4)
@given(values=st.lists(VALUES, min_size=10, max_size=30))
@example(values=[nested(1e41, depth) for depth in range(188, 204)])
def test_a_value_of_python_comes_back_equal_or_is_refused_where_it_is_passed(
    database: Database, values: list[Any]
) -> None:
    asyncio.run(passed(database, values))


async def passed(database: Database, values: list[Any]) -> None:
    """Pass each value to a run, which passes it to a step and returns what comes back."""
    app = perdure.App(database.dsn())

    async def chew(value: Any) -> Any:
        return value

    @app.workflow()
    async def eaten(run: perdure.AsyncRun, value: Any) -> Any:
        return await run.step(chew, value)

    async with app, app.worker():
        answers = await asyncio.gather(*(app.start(eaten, value) for value in values), return_exceptions=True)
        for value, answer in zip(values, answers, strict=True):
            if isinstance(answer, BaseException):
                assert isinstance(answer, perdure.EncodingFailed) and not is_json(value), repr(value)[:300]
                continue
            try:
                came = await answer.result(timeout=PATIENCE) == json.loads(json.dumps(value))
            except perdure.RunFailed as failure:  # the arguments of a step are a level or two deeper than an input
                came = (failure.error or {}).get("type") == "EncodingFailed" and not is_json(value)
            assert came, repr(value)[:300]
    assert database.value("select count(*) from perdure.violations") == 0


def is_json(value: Any) -> bool:
    """Whether jsonb keeps a value without a loss, and Perdure promises to; in 200 levels it does."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
        return "\\u0000" not in text and depth(json.loads(text, object_pairs_hook=without_twins)) < 190
    except (ValueError, RecursionError):
        return False


def without_twins(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different."""
    made = dict(members)
    if len(made) < len(members):
        raise ValueError("two keys are the same in JSON")
    return made


def depth(value: Any) -> int:
    """How deep a value is nested."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inner), default=0)
