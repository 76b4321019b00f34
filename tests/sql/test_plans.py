"""The hot functions read by index, whatever the statistics say, and a claim costs the same behind any backlog."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from support.checks import assert_none
from support.database import Database, PostgresServer
from support.engine import Connection, Held, Worker, act, call, drain, scalar, signal, start, wait
from support.plans import Plan, fewest_pages, nodes, pages, plan_of

# Few rows, however busy the engine is.
SMALL = {"worker", "worker_beat", "workflow", "queue", "setting", "timeline", "install"}

# A row per database of the server, or per one with settings: the planner knows how many there are, and has an index
# where there are many.
CATALOG = {"pg_database", "pg_db_role_setting"}

# Read as a whole, by design: (table, index) -> why.
WHOLE = {
    ("wake", "wake_drain_idx"): "the oldest wakes, up to a limit: there are no others to skip",
    ("dispatch", "dispatch_predecessor_idx"): "what waits for another run to end",
}


class Watched:
    """A superuser's session that tells the plan of every statement, those inside functions too."""

    def __init__(self, database: Database) -> None:
        self.conn = database.connect(database.superuser)
        for setting, value in {
            "log_min_duration": "0", "log_nested_statements": "on", "log_format": "json", "log_level": "notice",
            "log_analyze": "on", "log_timing": "off", "log_buffers": "on",
        }.items():  # fmt: skip
            self.conn.execute("load 'auto_explain'")
            self.conn.execute("select set_config(%s, %s, false)", [f"auto_explain.{setting}", value])
        self.plans: dict[str, list[Plan]] = {}
        self._now = ""
        self.conn.add_notice_handler(self._note)

    def _note(self, notice: psycopg.errors.Diagnostic) -> None:
        text = notice.message_primary or ""
        if self._now and "plan:" in text:
            self.plans.setdefault(self._now, []).append(json.loads(text.partition("plan:")[2]))

    @contextmanager
    def watch(self, name: str) -> Iterator[None]:
        """Keep the plans of what is called meanwhile, under this name."""
        self._now = name
        try:
            yield
        finally:
            self._now = ""


def table(node: Plan) -> str:
    """The table that a node reads; a partition counts as its table."""
    return re.sub(r"_(old|\d{8})$", "", node["Relation Name"])


def text(plan: Plan) -> str:
    return " ".join(plan["Query Text"].split())[:150]


def slow_reads(plans: list[Plan]) -> set[str]:
    """Each way in which a table that grows is read but by what is looked for."""
    found = set()
    for plan in plans:
        for node in nodes(plan["Plan"]):
            if "Relation Name" not in node or node["Node Type"] in ("ModifyTable", "Tid Scan"):
                continue
            of = table(node)
            if of in SMALL | CATALOG or node["Relation Name"].endswith(
                "_old"
            ):  # empty: any way to read nothing is as good
                continue
            if node["Node Type"] not in ("Index Scan", "Index Only Scan", "Bitmap Heap Scan"):
                found.add(f"{node['Node Type']} of {of} in: {text(plan)}")
            for index in nodes(node):
                if "Index Name" in index and "Index Cond" not in index and (of, index["Index Name"]) not in WHOLE:
                    found.add(f"all of {index['Index Name']} in: {text(plan)}")
    return found


def fill(database: Database, count: int) -> None:
    """Have so many runs: half of them ended, of the rest some sleep and most are due."""
    database.admin.execute(
        """
        with made as materialized (
          -- of yesterday: the partition of today is new, and known to be empty
          select perdure._uuid7(now() - interval '1 day' + g.n * interval '1 ms') as run_id, g.n
          from generate_series(1, %(count)s) as g (n)
        ),
        runs as (
          insert into perdure.run (
            run_id, workflow, queue, priority, input, tags, headers, max_recoveries, created_at, created_by)
          select run_id, 'order', 'default', 3, '{}', '{}', '{}', 10, now(), 'me' from made
        ),
        ended as (
          insert into perdure.outcome (run_id, status, result, finished_at)
          select run_id, 'completed', '1', now() from made where n %% 2 = 0
        )
        insert into perdure.dispatch (run_id, workflow, queue, priority, ready_at, claim, claimed_at, waits, max_recoveries)
        select
          run_id, 'order', 'default', 3,
          case when n %% 5 = 0 then now() + interval '1 day' else now() - interval '1 hour' + n * interval '1 ms' end,
          case when n %% 5 = 0 then gen_random_uuid() end, case when n %% 5 = 0 then now() end,
          case when n %% 5 = 0 then '[{"key": "nap", "kind": "sleep", "until": "2100-01-01"}]'::jsonb end, 10
        from made where n %% 2 = 1
        """,
        {"count": count},
    )


def live(watched: Watched, conn: Connection, database: Database) -> None:
    """Let runs go through everything that a worker and the engine do, each under its function's name."""
    worker = Worker(database, conn=watched.conn)
    runs = [start(conn, priority=1) for _ in range(6)]

    def watch(name: str, work: Callable[[], Any]) -> Any:
        with watched.watch(name):
            return work()

    held: list[Held] = []
    for _ in range(10):
        held += [each for each in watch("claim_runs", lambda: worker.claim(6)) if each.run_id in runs]
    held = held[:6]
    assert len(held) == 6, "a lower priority took the place of each"
    for each in held:
        watch("save_steps", lambda each=each: worker.save(each, "reserve"))
        watch("fail_steps", lambda each=each: worker.fail_step(each, "charge", 1, policy={"max_attempts": 1}))
    waits = [wait("paid"), wait("late", "timer", until="2100-01-01")]
    watch("suspend_runs", lambda: [worker.suspend(each, *waits) for each in held[:3]])
    watch("suspend_runs", lambda: worker.suspend(held[3], *waits, keep=True))
    for each in held[:3]:
        signal(conn, each.run_id, "paid")
    act(conn, "cancel", held[2].run_id)
    watch("drain", lambda: drain(watched.conn))
    again = {each.run_id: each for each in watch("claim_runs", lambda: worker.claim(3))}
    watch("complete_runs", lambda: [worker.complete(again[each.run_id]) for each in held[:2]])
    watch("fail_runs", lambda: worker.fail(held[3]))
    watch("release_runs", lambda: worker.release(held[4]))
    watch("beat", lambda: worker.beat(1))
    watch("worker_runs", worker.runs)
    watch("read_steps", lambda: scalar(watched.conn, "read_steps", run_id=held[5].run_id))
    watch("run_results", lambda: call(watched.conn, "run_results", run_ids=runs))
    watch("stop_worker", worker.stop)
    watched.conn.execute("delete from perdure.worker")
    watch("recover", lambda: scalar(watched.conn, "recover"))
    watch("tick", lambda: scalar(watched.conn, "tick"))
    watch("start", lambda: start(watched.conn, key="o-1"))
    watch("start", lambda: start(watched.conn, key="o-1"))
    watch("signal", lambda: signal(watched.conn, held[2].run_id, "again"))


@pytest.fixture(scope="module")
def crowded(server: PostgresServer) -> Iterator[Database]:
    """A database with 200,000 runs, shared by the tests of this file."""
    made = server.installed_database()
    made.connect().execute("select perdure.put_workflow('order')")
    fill(made, 200_000)
    yield made
    made.drop()


def read_by_index(database: Database) -> None:
    watched = Watched(database)
    live(watched, database.connect(), database)
    assert len(watched.plans) >= 17, "the plans were not told"
    assert_none(
        (f"{name}: {each}" for name, plans in watched.plans.items() for each in slow_reads(plans)),
        "read otherwise than by index",
    )


def test_a_hot_function_reads_by_index_on_a_new_database(database: Database, conn: Connection) -> None:
    read_by_index(database)


@pytest.mark.slow
def test_a_hot_function_reads_by_index_behind_a_long_queue_never_analysed(crowded: Database) -> None:
    read_by_index(crowded)


@pytest.mark.slow
def test_a_hot_function_reads_by_index_behind_a_long_queue_analysed(crowded: Database) -> None:
    crowded.admin.execute("analyze")
    read_by_index(crowded)


def compared_in_vain(database: Database, size: int) -> list[str]:
    """Where a batch is worked on by comparing many rows for one that fits."""
    watched = Watched(database)
    worker = Worker(database, conn=watched.conn, queues=["batch"])
    call(watched.conn, "start_many", workflow="order", inputs=["{}"] * 2 * size, queue="batch")
    for end in ("complete_runs", "release_runs"):
        with watched.watch("claim_runs"):
            held = worker.claim(size)
        with watched.watch("save_steps"):
            worker.call("save_steps", saves=[each.named(**each.save("reserve")) for each in held])
        with watched.watch(end):
            batch = {"complete_runs": "ends", "release_runs": "releases"}[end]
            answers = worker.call(end, **{batch: [each.named() for each in held]})
        assert [row["answer"] for row in answers] == ["done"] * size
    return [
        f"{name}: {text(plan)}"
        for name, plans in watched.plans.items()
        for plan in plans
        for node in nodes(plan["Plan"])
        if node["Actual Loops"] * max(node.get(f"Rows Removed by {by}", 0) for by in ("Filter", "Join Filter")) > size
    ]


def test_a_batch_is_worked_on_run_by_run_on_a_new_database(database: Database, conn: Connection) -> None:
    assert_none(compared_in_vain(database, 50), "compares all with all")


def test_a_batch_is_worked_on_run_by_run_where_nothing_was_queued_when_analysed(
    database: Database, conn: Connection
) -> None:
    database.admin.execute("vacuum analyze perdure.dispatch")
    assert_none(compared_in_vain(database, 50), "compares all with all")


@pytest.mark.slow
def test_a_batch_is_worked_on_run_by_run_behind_a_long_queue(crowded: Database) -> None:
    assert_none(compared_in_vain(crowded, 50), "compares all with all")


def compiled(database: Database) -> list[str]:
    """What is compiled before it is executed: it takes a hundred times as long as the execution."""
    watched = Watched(database)
    live(watched, database.connect(), database)
    return [f"{name}: {text(plan)}" for name, plans in watched.plans.items() for plan in plans if "JIT" in plan]


def test_a_hot_function_is_not_compiled_on_a_new_database(database: Database, conn: Connection) -> None:
    assert_none(compiled(database), "compiled")


@pytest.mark.slow
def test_a_hot_function_is_not_compiled_behind_a_long_queue(crowded: Database) -> None:
    assert_none(compiled(crowded), "compiled")


def claim_pages(worker: Worker) -> int:
    return fewest_pages(worker.conn, "select * from perdure.claim_runs(%s)", worker.worker_id)


@pytest.mark.slow
def test_a_claim_touches_as_many_pages_behind_a_long_queue(
    database: Database, conn: Connection, crowded: Database
) -> None:
    fill(database, 1_000)
    few = claim_pages(Worker(database))
    many = claim_pages(Worker(crowded))
    assert many <= few + 24, f"{few} pages with 1,000 runs, {many} with 200,000"  # a level more in a few indexes


@pytest.mark.slow
def test_a_common_question_to_the_views_is_answered_by_index(crowded: Database) -> None:
    run_id = start(crowded.connect(), key="o-2", tags={"customer": "7"})
    crowded.admin.execute("analyze")
    questions = {
        "select * from perdure.runs where run_id = %(run_id)s": 60,
        "select * from perdure.runs where workflow = 'order' and key = 'o-2'": 60,
        "select * from perdure.runs where key = 'o-2'": 60,
        "select * from perdure.runs order by run_id desc limit 20": 400,
        "select * from perdure.runs where state = 'completed' and finished_at is not null order by run_id desc limit 20": 1200,
        "select * from perdure.steps where run_id = %(run_id)s order by ordinal": 40,
        "select * from perdure.signals where run_id = %(run_id)s": 40,
        "select * from perdure.waits where run_id = %(run_id)s": 40,
        "select * from perdure.history where run_id = %(run_id)s order by at": 100,
        "select * from perdure.workers": 40,
        "select * from perdure.explain(%(run_id)s)": 1500,
    }
    found = []
    for each, limit in questions.items():
        question = each.replace("%(run_id)s", f"'{run_id}'")
        crowded.admin.execute(question.encode())  # the first look reads the catalog
        if (touched := pages(plan_of(crowded.admin, question))) > limit:
            found.append(f"{touched} pages instead of {limit}: {each}")
    assert_none(found, "reads more pages than the question is worth")


def test_the_lists_of_this_file_name_tables_that_there_are(database: Database) -> None:
    tables = {
        row[0]
        for row in database.admin.execute(
            "select relname from pg_class where relnamespace = 'perdure'::regnamespace "
            "and relkind in ('r', 'p') and not relispartition"
        ).fetchall()
    }
    assert tables >= SMALL
    assert {of for of, _ in WHOLE} <= tables - SMALL
