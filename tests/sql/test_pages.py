"""What people ask of the views is answered from a few pages, however many runs are kept.

Statistics are those that autovacuum leaves: of partitions, never of the tables that they are parts of; or none at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support.checks import assert_none
from support.database import Database, PostgresServer
from support.engine import Connection
from support.plans import nodes, pages, plan_of

RUNS = 100_000
GROWING = re.compile("(run|outcome|step|signal)(_old|_[0-9]+)?")

# Half of the runs are in the partition before all periods, half in the one of today. One of two hundred is unfinished, most
# of these wait; one of a hundred has failed; the others have completed. Some have a key, a signal, a failed try.
FILL = """
with made as materialized (
  select
    perdure._uuid7(date_trunc('day', now(), 'UTC') + (g.n - %(count)s / 2) * interval '1 ms') as run_id,
    now() - (%(count)s - g.n) * interval '1 minute' as at,
    g.n
  from generate_series(1, %(count)s) as g (n)
),
runs as (
  insert into perdure.run (
    run_id, workflow, queue, priority, input, key, tags, headers, max_recoveries, created_at, created_by)
  select
    run_id, 'order', 'default', 3, jsonb_build_object('order', n), case when n %% 10 = 3 then 'o-' || n end,
    '{}', '{}', 10, at, 'me'
  from made
),
waiting as (
  insert into perdure.dispatch (run_id, workflow, queue, priority, ready_at, claim, begun_at, claimed_at, waits, max_recoveries)
  select
    run_id, 'order', 'default', 3, case when n %% 1000 = 0 then at else 'infinity' end,
    case when n %% 1000 > 0 then gen_random_uuid() end, case when n %% 1000 > 0 then at end, case when n %% 1000 > 0 then at end,
    case when n %% 1000 > 0 then '[{"key": "paid", "kind": "signal", "name": "paid"}]'::jsonb end, 10
  from made where n %% 200 = 0
),
steps as (
  insert into perdure.step (run_id, key, kind, ordinal, result, started_at, saved_at)
  select run_id, 'reserve', 'step', 1, '1', at, at from made
),
tries as (
  insert into perdure.step_attempt (run_id, key, attempt, error, failed_at, retry_at)
  select run_id, 'charge', 1, '{"type": "Declined", "message": "declined"}', at, at from made where n %% 50 = 1
),
told as (
  insert into perdure.signal (run_id, id, name, payload, sent_at, sequence, sent_by)
  select run_id, 'm-' || n, 'ping', '{}', at, n, 'me' from made where n %% 5 = 0
)
insert into perdure.outcome (run_id, status, result, error, begun_at, finished_at, claim)
select
  run_id, case when n %% 100 = 1 then 'failed' else 'completed' end, case when n %% 100 <> 1 then '1'::jsonb end,
  case when n %% 100 = 1 then '{"type": "Declined", "message": "declined"}'::jsonb end, at, at, gen_random_uuid()
from made where n %% 200 <> 0
"""

# Each with the pages that it may touch: those of what it tells, and the way to them in the indexes of few partitions. How
# many of the unfinished runs wait nobody knows before they were looked at: there it may look at all of them.
QUESTIONS = {
    "select * from perdure.runs order by run_id desc limit 50": 1500,
    "select * from perdure.runs where run_id < '{early}' order by run_id desc limit 50": 1500,
    "select * from perdure.runs where workflow = 'order' order by run_id desc limit 50": 1500,
    "select * from perdure.runs where queue = 'default' order by run_id desc limit 50": 1500,
    "select * from perdure.runs where state = 'failed' and finished_at is not null order by run_id desc limit 50": 1500,
    "select * from perdure.runs where state = 'dead' and finished_at is not null order by run_id desc limit 50": 30,
    "select * from perdure.runs where state = 'completed' and finished_at is not null order by run_id desc limit 50": 1500,
    "select * from perdure.runs where state = 'running' and worker_id is not null order by run_id desc limit 50": 50,
    "select * from perdure.runs where state = 'waiting' and finished_at is null order by run_id desc limit 50": 3000,
    "select * from perdure.runs where finished_at is null and state is not null order by run_id desc limit 50": 1500,
    "select * from perdure.runs where state = 'failed' and finished_at > now() - interval '1 day' order by run_id desc limit 50": 600,
    "select count(*) from perdure.runs where state = 'failed' and finished_at > now() - interval '1 day'": 300,
    "select * from perdure.runs where key = 'o-4443' order by run_id desc limit 50": 60,
    "select * from perdure.runs where run_id = '{early}'": 40,
    "select * from perdure.runs where run_id = '{waiting}'": 40,
    "select * from perdure.steps where run_id = '{early}' order by ordinal": 40,
    "select * from perdure.signals where run_id = '{waiting}'": 40,
    "select * from perdure.waits where run_id = '{waiting}'": 40,
    "select * from perdure.history where run_id = '{early}' order by at": 80,
    "select * from perdure.workers": 40,
    "select * from perdure.versions": 40,
}

ONLY_ANALYSED = {"select * from perdure.runs where key = 'o-4443'": 60}


def asked(database: Database, questions: dict[str, int]) -> dict[str, int]:
    """Fill in the runs that some of the questions are about."""
    runs = {
        "early": database.value("select run_id from perdure.step_attempt order by run_id offset 10 limit 1"),
        "waiting": database.value("select run_id from perdure.dispatch order by run_id offset 11 limit 1"),
    }
    return {question.format(**runs): limit for question, limit in questions.items()}


def wrong(conn: Connection, question: str, limit: int) -> Iterator[str]:
    """How a question is answered otherwise than from a few pages."""
    conn.execute(question.encode())  # the first look reads the catalog
    plan = plan_of(conn, question)
    if (touched := pages(plan)) > limit:
        yield f"{touched} pages instead of {limit}: {question}"
    for node in nodes(plan):
        if (
            node["Node Type"] == "Seq Scan"
            and GROWING.fullmatch(node["Relation Name"])
            and node["Actual Rows"] + node.get("Rows Removed by Filter", 0) > 100
        ):
            yield f"all of {node['Relation Name']}: {question}"


@pytest.fixture(scope="module")
def kept(server: PostgresServer) -> Iterator[Database]:
    """A database with runs that have ended and that wait, never analysed."""
    made = server.installed_database()
    made.connect().execute("select perdure.put_workflow('order')")
    made.admin.execute(FILL, {"count": RUNS})
    yield made
    made.drop()


def test_what_people_ask_is_answered_from_a_few_pages_never_analysed(kept: Database) -> None:
    assert_none(
        (each for question, limit in asked(kept, QUESTIONS).items() for each in wrong(kept.admin, question, limit)),
        "reads too much",
    )


def test_what_people_ask_is_answered_from_a_few_pages_after_autovacuum(kept: Database) -> None:
    leaves = kept.admin.execute(
        "select relname from pg_class where relnamespace = 'perdure'::regnamespace and relkind = 'r'"
    ).fetchall()
    for (leaf,) in leaves:
        kept.admin.execute(f'vacuum analyze perdure."{leaf}"'.encode())
    assert_none(
        (
            each
            for question, limit in asked(kept, QUESTIONS | ONLY_ANALYSED).items()
            for each in wrong(kept.admin, question, limit)
        ),
        "reads too much",
    )
