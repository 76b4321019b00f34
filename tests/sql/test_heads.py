"""A claim and a drain read from where the first live entry was: what that may cost is time, and at most one read's worth."""

from __future__ import annotations

import random
from collections.abc import Callable
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from support.database import Database, PostgresServer, eventually
from support.engine import Connection, Held, Worker, act, call, drain, scalar, signal, start, wait
from support.heads import always_keep
from support.plans import fewest_pages, pages, plan_of

LANES, WAKES, HELD = "perdure.lane_heads", "perdure.wake_head", "perdure.held_head"
QUEUES = ("default", "other")
COMPLETE = """
select count(*) from perdure.complete_runs(%(worker)s, (
  select jsonb_agg(jsonb_build_object('run_id', c.run_id, 'claim', c.claim, 'result', 1))
  from perdure.claim_runs(%(worker)s, 10000) as c
))
"""


def forget(conn: Connection) -> None:
    """Make the next read one from the bottom."""
    conn.execute("select set_config(s.name, '', false) from unnest(%s::text[]) as s (name)", [[LANES, WAKES, HELD]])


def kept(conn: Connection, setting: str) -> bool:
    row = conn.execute("select coalesce(current_setting(%s, true), '') <> ''", [setting]).fetchone()
    assert row is not None
    return bool(row[0])


class Story:
    """Runs in every kind of movement, seen by one worker whose session keeps heads, and a second one that does not."""

    def __init__(self, database: Database, seed: int) -> None:
        self.database, self.lot, self.clock = database, random.Random(seed), database.clock
        self.clock.stop()
        self.conn, self.late = database.connect(), database.connect(autocommit=False)
        for queue in QUEUES:
            self.conn.execute("select perdure.put_queue(%s)", [queue])
        self.conn.execute("select perdure.put_workflow('order')")
        self.worker = Worker(database, queues=QUEUES, lease="1 day")
        self.neighbour = Worker(database, queues=QUEUES, lease="1 day", conn=self.late)
        self.late.commit()
        self.held: list[Held] = []
        self.waiting: list[UUID] = []
        self.may_lie_below = False  # since the last read from the bottom

    def starts(self, conn: Connection) -> None:
        delay = self.lot.choice([None, None, "3 seconds", "1 minute"])
        start(conn, queue=self.lot.choice(QUEUES), priority=self.lot.randint(1, 5), delay=delay)

    def start(self) -> None:
        self.starts(self.conn)

    def start_in_time(self) -> None:
        self.starts(self.late)
        self.clock.advance(milliseconds=self.lot.randint(1, 100))
        self.claim_some()
        self.late.commit()

    def start_late(self) -> None:
        self.starts(self.late)
        self.clock.advance(seconds=self.lot.randint(1, 100))
        self.claim_some()
        self.late.commit()
        self.may_lie_below = True

    def claim_some(self) -> None:
        self.held += self.worker.claim(self.lot.randint(1, 3))

    def neighbour_rolls_back(self) -> None:
        self.neighbour.claim(self.lot.randint(1, 5))
        self.claim_some()
        self.clock.advance(seconds=self.lot.randint(0, 3))
        self.claim_some()
        self.late.rollback()

    def own_claim_rolled_back(self) -> None:
        with self.conn.transaction(force_rollback=True):
            self.worker.on(self.conn).claim(3)

    def let_go(self) -> None:
        if self.held:
            held = self.held.pop(self.lot.randrange(len(self.held)))
            match self.lot.randrange(5):
                case 0:
                    self.worker.complete(held)
                case 1:
                    self.worker.release(held)
                case 2:
                    self.worker.suspend(held, wait(f"paid{held.ordinal}{self.lot.random()}", name="paid"))
                    self.waiting.append(held.run_id)
                case 3:
                    until = self.database.value(
                        "select perdure._now() + %s * interval '1 second'", self.lot.randint(1, 9)
                    )
                    self.worker.suspend(held, wait(f"nap{self.lot.random()}", "sleep", until=until))
                case 4:
                    until = self.database.value("select perdure._now() + interval '4 seconds'")
                    self.worker.suspend(held, wait(f"paid{self.lot.random()}", name="never", until=until))

    def tell(self) -> None:
        if self.waiting:
            signal(self.conn, self.waiting.pop())

    def tell_late(self) -> None:
        if self.waiting:
            signal(self.late, self.waiting.pop())
            self.clock.advance(seconds=self.lot.randint(1, 100))
            drain(self.worker.conn)
            self.late.commit()
            self.may_lie_below = True

    def time_goes_on(self) -> None:
        self.clock.advance(seconds=self.lot.choice([0.001, 0.05, 1, 5, 70]))

    def time_goes_back(self) -> None:
        self.clock.advance(seconds=-self.lot.choice([0.001, 1, 20]))
        self.may_lie_below = True

    def sweep(self) -> None:
        forget(self.worker.conn)
        self.may_lie_below = False

    def found(self) -> set[UUID]:
        """All that the worker would be given now."""
        with self.worker.conn.transaction(force_rollback=True):
            return {held.run_id for held in self.worker.claim(10000)}

    def due(self) -> set[UUID]:
        """What anybody would be given who reads everything."""
        with self.conn.transaction(force_rollback=True):
            forget(self.conn)
            return {held.run_id for held in self.worker.on(self.conn).claim(10000)}


MOVES: list[Callable[[Story], None]] = [
    *[Story.start, Story.claim_some, Story.let_go, Story.time_goes_on] * 3,
    *[Story.start_in_time, Story.start_late, Story.neighbour_rolls_back, Story.own_claim_rolled_back],
    *[Story.tell, Story.tell_late, Story.time_goes_back, Story.sweep],
]


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_stranded_longer_than_until_the_next_read_from_the_bottom(database: Database, seed: int) -> None:
    always_keep(database)
    story = Story(database, seed)
    lay_below = 0
    for _ in range(120):
        story.lot.choice(MOVES)(story)
        found, due = story.found(), story.due()
        assert found <= due
        if found != due:
            assert story.may_lie_below, "only what came late may be passed over"
            lay_below += 1
            story.sweep()
            assert story.found() == due
    assert kept(story.worker.conn, LANES) or lay_below, "heads were in use"


def test_a_session_that_other_workers_use_too_does_not_lend_its_heads(database: Database) -> None:
    always_keep(database)
    conn = database.connect()
    for workflow in ("order", "refund"):
        conn.execute("select perdure.put_workflow(%s)", [workflow])
    database.clock.stop()
    refund = start(conn, workflow="refund")
    database.clock.advance(minutes=1)
    start(conn)
    orders, refunds = Worker(database, conn=conn), Worker(database, conn=conn, workflows=["refund"])
    orders.claim_one()
    assert kept(conn, LANES)
    assert orders.claim() == []
    assert refunds.claim_one().run_id == refund


def test_heads_that_were_kept_are_taken_back_with_the_transaction(database: Database) -> None:
    always_keep(database)
    conn = database.connect(autocommit=False)
    conn.execute("select perdure.put_workflow('order')")
    worker = Worker(database, conn=conn)
    start(conn)
    conn.commit()
    assert len(worker.claim()) == 1 and kept(conn, LANES)
    conn.rollback()
    assert not kept(conn, LANES)
    assert len(worker.claim()) == 1


def test_a_beat_that_keeps_a_head_counts_and_tells_what_it_did_before(database: Database) -> None:
    always_keep(database)
    database.clock.stop()
    conn, late = database.connect(), database.connect(autocommit=False)
    conn.execute("select perdure.put_workflow('order')")
    worker = Worker(database, conn=conn, lease="1 day")
    call(conn, "start_many", workflow="order", inputs=["{}"] * 3)
    database.clock.advance(seconds=1)
    first = worker.claim_one()
    assert worker.beat(1)["runs"] == [] and kept(conn, HELD)
    second = worker.on(late).claim_one()  # not to be seen yet
    database.clock.advance(seconds=5)
    third = worker.claim_one()
    cancel(conn, first, third)
    assert told(worker, 2) == {first.run_id, third.run_id}
    worker.complete(first)
    assert told(worker, 1) == {third.run_id}
    database.clock.advance(seconds=5)
    assert told(worker, 1) == {third.run_id}
    late.commit()
    cancel(conn, second)
    assert told(worker, 2) == {third.run_id}, "the second lies below the head"
    forget(conn)
    assert told(worker, 2) == {second.run_id, third.run_id}


def cancel(conn: Connection, *held: Held) -> None:
    for each in held:
        act(conn, "cancel", each.run_id)
    drain(conn)


def told(worker: Worker, runs_held: int) -> set[UUID]:
    """Whom a beat tells of."""
    return {UUID(run["run_id"]) for run in worker.beat(runs_held)["runs"]}


def under_old_snapshot(database: Database, holder: str) -> None:
    """Do much while somebody keeps an old snapshot, and look at what the engine touches then."""
    conn = database.connect()
    conn.execute("select perdure.put_workflow('order')")
    conn.execute("create table public.mine (n integer)")
    worker = Worker(database, conn=conn, lease="1 hour")
    held_open = database.connect(autocommit=False)
    if holder == "reads":
        held_open.execute("set transaction isolation level repeatable read")
        held_open.execute("select from perdure.run")
    else:
        held_open.execute("insert into public.mine values (1)")
    late = start(held_open)
    touched: dict[str, list[int]] = {"save": [], "end": []}
    for _ in range(2):
        conn.execute("select count(*) from perdure.start_many('order', array_fill('{}'::jsonb, array[3000]))")
        assert conn.execute(COMPLETE, {"worker": worker.worker_id}).fetchone() == (3000,)
    call(conn, "start_many", workflow="order", inputs=["{}"] * 10)
    for held in worker.claim(6)[:5]:
        saves, ends = held.named(**held.save("reserve")), held.named(result=1)
        for what, function, batch in (("save", "save_steps", saves), ("end", "complete_runs", ends)):
            query = f"select * from perdure.{function}(%s, %s)"
            touched[what].append(pages(plan_of(conn, query, worker.worker_id, Jsonb([batch]))))
    assert min(touched["save"]) <= 60 and min(touched["end"]) <= 60, touched
    told = start(conn)
    call(conn, "start_many", workflow="order", inputs=["{}"] * 10)
    for _ in range(4):
        conn.execute("select perdure.signal(%s, 'paid') from generate_series(1, 100)", [told])
        drain(conn)
    assert fewest_pages(conn, "select * from perdure.claim_runs(%s)", worker.worker_id) <= 60
    assert fewest_pages(conn, "select * from perdure.drain()") <= 10
    assert fewest_pages(conn, "select perdure.tick()") <= 80
    assert fewest_pages(conn, "select perdure.beat(%s)", worker.worker_id) <= 40
    assert kept(conn, LANES) and kept(conn, WAKES) and kept(conn, HELD)

    held_open.commit()
    while worker.claim(100):
        pass
    assert late in worker.runs() or eventually(worker.claim, seconds=60)[0].run_id == late
    assert scalar(conn, "tick") is not None
    assert database.value("select count(*) from perdure.violations") == 0


@pytest.mark.slow
def test_the_engine_touches_few_pages_however_much_was_done_under_an_old_snapshot(own_server: PostgresServer) -> None:
    for holder in ("reads", "writes"):
        under_old_snapshot(own_server.installed_database(), holder)
