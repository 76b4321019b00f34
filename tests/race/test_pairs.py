"""Every pair of calls on one run, in both orders, in every state: nobody waits but whom the table names, the outcome is
that of one call after the other, and the run goes on to its end.

PERDURE_PAIRS is the share of the pairs that is played: 1 for all. Of those that wait it is four times as much.
PERDURE_SEED chooses which: always the same unless it is given.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import product
from typing import Any

import psycopg
import pytest

from support.database import Database
from support.engine import Connection, with_no_grace
from support.pairs import CALLS, OF_NO_RUN, STATES, UNDRAINED, Cell, waits

SHARE = float(os.environ.get("PERDURE_PAIRS", "0.02"))
CHUNK = 40

# What stands after a pair, told so that two orders of the same events look alike.
PICTURE = """
create table public.cell (n int primary key, run_id uuid, w uuid, w2 uuid, claim uuid);
create function public.picture(n int) returns jsonb language sql volatile as $$
  select jsonb_build_object(
    'holder lives', exists (select from perdure.worker as w where w.worker_id = c.w),
    'runs', (
      select jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
        'ended', o.status, 'why', o.error ->> 'type', 'cancel', d.cancel, 'paused', d.is_paused,
        'holder', case d.worker_id when c.w then 'w' when c.w2 then 'w2' end,
        'begun', coalesce(d.begun_at, o.begun_at) is not null,
        'waits', d.waits,
        'ready', case
          when d.worker_id is not null then null
          when d.ready_at = 'infinity' then 'never'
          when d.ready_at < clock_timestamp() + interval '1 minute' then 'soon'
          else 'later'
        end,
        'recoveries', d.recoveries, 'waits for another', d.predecessor_id is not null, 'must end', d.ends_at is not null,
        'key', (select k.key from perdure.run_key as k where k.run_id = r.run_id),
        'steps', (
          select jsonb_agg(concat_ws(' ', s.key, s.kind, s.result, s.error ->> 'type') order by s.key)
          from perdure.step as s where s.run_id = r.run_id),
        'tries', (
          select jsonb_agg(concat_ws(' ', t.key, t.attempt) order by t.key, t.attempt)
          from perdure.step_attempt as t where t.run_id = r.run_id),
        'messages', (
          select jsonb_agg(concat_ws(' ', g.name, exists (
            select from perdure.step as s where s.run_id = g.run_id and s.signal_id = g.id)) order by g.sent_at)
          from perdure.signal as g where g.run_id = r.run_id)
      )) order by r.run_id)
      from perdure.run as r
      left join perdure.dispatch as d on d.run_id = r.run_id
      left join perdure.outcome as o on o.run_id = r.run_id
      where r.queue = 'q' || c.n or r.key = 'f' || c.n))
  from public.cell as c where c.n = picture.n
$$;
"""

# How a fresh run, claimed by `w`, is brought into a state; in the order of the statements.
CLAIM = """
update public.cell as c set claim = r.claim
from (select n, (perdure.claim_runs(w)).claim as claim from public.cell) as r where r.n = c.n"""
DRAIN = "select perdure.drain(100000)"
SUSPEND = """
select (perdure.suspend_runs(w, jsonb_build_array(jsonb_build_object('run_id', run_id, 'claim', claim, 'waits',
  '[{"key": "s", "kind": "signal", "name": "paid"}]'::jsonb)))).answer from public.cell"""
END = """
select (perdure.{}(w, jsonb_build_array(jsonb_build_object('run_id', run_id, 'claim', claim, 'result', 1,
  'error', '{{"type": "E"}}'::jsonb)))).answer from public.cell"""
WAY = {
    "ready": [],
    "claimed": [CLAIM],
    "told": [CLAIM],
    "cancelling": [CLAIM, "select perdure.cancel(run_id) from public.cell", DRAIN],
    "dead": [CLAIM],
    "waiting": [CLAIM, SUSPEND],
    "heard": [CLAIM, SUSPEND],
    "paused": [CLAIM, SUSPEND, "select perdure.pause(run_id) from public.cell", DRAIN],
    "failed": [CLAIM, END.format("fail_runs")],
    "completed": [CLAIM, END.format("complete_runs")],
}


# Whoever passes what is locked by asks again: a worker when it claims next, the engine in its next round.
SKIP = ("claim_runs", "drain", "tick", "recover")


@dataclass(frozen=True)
class Pair:
    """Two calls on a run in a state."""

    state: str
    first: str
    second: str

    @property
    def waits(self) -> bool:
        """Whether the second has to wait for the first."""
        return waits(self.state, CALLS[self.first], CALLS[self.second])


class Stage:
    """Two sessions whose transactions stay open, and somebody who looks on."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.admin = database.admin
        with_no_grace(database)
        self.admin.execute("select perdure.put_workflow('order')")
        self.admin.execute(PICTURE)
        self.one, self.two = (database.connect(database.superuser, autocommit=False) for _ in range(2))
        self.worker = database.connect(database.superuser)
        self.pool = ThreadPoolExecutor(1)
        self.cells = 0
        self.answers: Counter[str] = Counter()
        self.surprises: list[tuple[Pair, str]] = []
        self.state = ""

    def prepare(self, state: str, count: int) -> list[Cell]:
        """Make so many runs in this state, and nothing else."""
        self.admin.execute(
            "truncate public.cell, perdure.run, perdure.dispatch, perdure.outcome, perdure.step, perdure.step_attempt, "
            "perdure.signal, perdure.act, perdure.wake, perdure.run_key, perdure.audit, perdure.worker, "
            "perdure.worker_beat, perdure.queue"
        )
        begin = self.cells
        self.cells += count
        register = "perdure.register_worker(array['q' || n], array['order'], lease => '1 day')"
        self.worker.execute(
            f"insert into public.cell (n, w, w2) select n, {register}, {register} from generate_series(%s::int, %s::int) as n".encode(),
            [begin + 1, self.cells],
        )
        self.worker.execute(
            "update public.cell as c set run_id = perdure.start('order', key => 'k' || c.n, queue => 'q' || c.n)"
        )
        for statement in WAY[state]:
            self.worker.execute(statement.encode())
        rows = self.admin.execute("select n, run_id, w, w2, claim from public.cell order by n").fetchall()
        self.state = state
        return [Cell(*row) for row in rows]

    def say(self, conn: Connection, name: str, cell: Cell) -> str:
        """Make a call; return its answer, or the code that it was refused with."""
        try:
            rows = conn.execute(CALLS[name].statement.encode(), cell.values()).fetchall()
        except psycopg.Error as error:
            if not (error.sqlstate or "").startswith("PD"):
                raise
            return str(error.sqlstate)
        return "busy" if any("busy" in map(str, row) for row in rows) else "answered"

    def settle(self, cell: Cell) -> str:
        """Let the engine look at what it was told; return what stands then."""
        self.worker.execute("select perdure.tick()")
        row = self.admin.execute("select public.picture(%s)", [cell.n]).fetchone()
        assert row is not None
        return json.dumps(row[0], sort_keys=True)

    def serial(self, cell: Cell, *names: str) -> str:
        """Make calls one after the other, each a transaction; return what stands then."""
        self.before(cell)
        return self.alone(cell, *names)

    def alone(self, cell: Cell, *names: str) -> str:
        """The same on a run as it stands."""
        for name in names:
            self.say(self.worker, name, cell)
        return self.settle(cell)

    def before(self, cell: Cell) -> None:
        """Only now is it told, or does its worker look dead: the rounds for those before it would have dealt with it."""
        if self.state == "dead":
            self.admin.execute("update perdure.worker_beat set beat_at = '2000-01-01' where worker_id = %s", [cell.w])
        elif self.state in UNDRAINED:
            self.admin.execute("select perdure.signal(%s, 'paid')", [cell.run_id])

    def meet(self, pair: Pair, cell: Cell, *, ends: str, late: bool) -> str:
        """Let the second come while the first is open; return what stands when both are over."""
        self.before(cell)
        first = self.say(self.one, pair.first, cell)
        assert first != "busy", pair
        coming = self.pool.submit(self.say, self.two, pair.second, cell)
        has_waited = self.has_to_wait(coming)
        if has_waited != pair.waits and not first.startswith("PD"):
            self.surprises.append((pair, "waited" if has_waited else "did not wait"))
        if not has_waited and not late:
            self.two.commit()
        getattr(self.one, ends)()
        answer = coming.result(timeout=60)
        if answer.startswith("PD"):
            self.two.rollback()
        self.two.commit()
        while answer == "busy":  # as a worker does: again, in a later transaction
            answer = self.say(self.worker, pair.second, cell)
        self.answers[answer] += 1
        return self.settle(cell)

    def has_to_wait(self, coming: Future[str]) -> bool:
        """Wait until the answer is there, or its session is seen waiting."""
        give_up = time.monotonic() + 60
        while not wait([coming], timeout=0.02).done:
            row = self.admin.execute(
                "select pg_blocking_pids(pid) = array[%s::int] or wait_event = 'PgSleep' "
                "from pg_stat_activity where pid = %s",
                [self.one.info.backend_pid, self.two.info.backend_pid],
            ).fetchone()
            if row and row[0]:
                return True
            assert time.monotonic() < give_up, "neither answered nor waiting"
        return False

    def finish(self) -> None:
        """Drive every run to its end: nothing is stuck, and no invariant is broken."""
        self.worker.execute(
            "update perdure.dispatch set ready_at = clock_timestamp() where ready_at between clock_timestamp() and '9999-01-01' and waits is null"
        )
        for statement in (
            "select perdure.stop_worker(w) from public.cell",
            "select perdure.stop_worker(w2) from public.cell",
            "select count(*) from perdure.resume_many(array(select run_id from perdure.dispatch))",
            "select perdure.signal(run_id, 'paid') from perdure.dispatch",
            "select perdure.tick()",
        ):
            self.worker.execute(statement.encode())
        row = self.worker.execute(
            "select perdure.register_worker(array(select 'q' || n from public.cell) || array['default'], array['order'], "
            "lease => '1 day')"
        ).fetchone()
        assert row is not None
        give_up = time.monotonic() + 60
        while self.admin.execute("select exists (select from perdure.dispatch)").fetchone() == (True,):
            assert time.monotonic() < give_up, self.admin.execute(
                "select to_jsonb(d) from perdure.dispatch as d"
            ).fetchall()
            self.worker.execute("select perdure.tick()")
            self.worker.execute(
                "with got as materialized (select * from perdure.claim_runs(%s, 1000)), ends as materialized ("
                "select jsonb_agg(jsonb_build_object('run_id', run_id, 'claim', claim)) as ends from got) "
                "select c.* from ends as e cross join lateral perdure.complete_runs(%s, e.ends) as c where e.ends is not null",
                [row[0], row[0]],
            )
        broken = self.admin.execute("select invariant, run_id, detail from perdure.violations").fetchall()
        assert broken == []
        assert self.admin.execute("select count(*) from perdure.wake").fetchone() == (0,)
        self.worker.execute("select perdure.stop_worker(%s)", row)


def pairs(state: str) -> list[Pair]:
    """All pairs that have a place in a state."""
    names = [name for name, call in CALLS.items() if state in call.states]
    return [Pair(state, first, second) for first, second in product(names, repeat=2)]


def chosen(state: str, seed: int) -> list[Pair]:
    """A share of them, and a greater one of those that wait; all of them for a share of 1."""
    every = pairs(state)
    if SHARE >= 1:
        return every
    chance = random.Random(f"{state} {seed}")
    return [pair for pair in every if chance.random() < SHARE * (4 if pair.waits else 1)]


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_two_calls_on_one_run_are_as_one_after_the_other(database: Database, state: str) -> None:
    seed = int(os.environ.get("PERDURE_SEED", "1"))
    sys.stderr.write(f"PERDURE_SEED={seed}\n")
    stage = Stage(database)
    played = chosen(state, seed)
    random.Random(seed).shuffle(played)
    odd: list[tuple[Pair, str, str, str]] = []
    # what stands after one call alone, after both in each order
    serial: dict[tuple[str, ...], str] = {}
    ways = sorted(
        {(p.first, p.second) for p in played} | {(p.second, p.first) for p in played} | {(p.second,) for p in played}
    )
    for chunk in chunks(ways):
        for names, cell in zip(chunk, stage.prepare(state, len(chunk)), strict=True):
            serial[names] = neutral(stage.serial(cell, *names), cell)
        stage.finish()
    for ends in ("commit", "rollback"):
        for some in chunks(played):
            for pair, cell in zip(some, stage.prepare(state, len(some)), strict=True):
                got = neutral(stage.meet(pair, cell, ends=ends, late=cell.n % 2 == 0), cell)
                allowed = {serial[pair.first, pair.second], serial[pair.second, pair.first]}
                if ends == "rollback":
                    allowed = {serial[pair.second,]}
                if got not in allowed and pair.second in SKIP:
                    got = neutral(stage.alone(cell, pair.second), cell)
                if got not in allowed:
                    odd.append((pair, ends, got, " or ".join(sorted(allowed))))
            stage.finish()
    # a tick may come between the two as well
    wrong = []
    for pair, ends, got, allowed_text in odd:
        between = set()
        orders = [(pair.first, "tick", pair.second), (pair.second, "tick", pair.first)]
        if ends == "rollback":
            orders = [("tick", pair.second)]
        for names, cell in zip(orders, stage.prepare(state, len(orders)), strict=True):
            between.add(neutral(stage.serial(cell, *names), cell))
        if got not in between:
            wrong.append(f"{pair}, {ends}:\n{got}\nis none of\n{allowed_text}\nnor of\n{' or '.join(between)}")
    assert not wrong, "\n\n".join(wrong)
    assert not stage.surprises, "support/pairs.py says otherwise:\n" + "\n".join(map(str, stage.surprises))
    assert "answered" in stage.answers


def neutral(picture: str, cell: Cell) -> str:
    """The picture without the cell's number."""
    return picture.replace(f'k{cell.n}"', 'k"').replace(f'f{cell.n}"', 'f"')


def chunks(things: list[Any]) -> Iterator[list[Any]]:
    """Not too many at once: the engine looks at every worker in each round."""
    for begin in range(0, len(things), CHUNK):
        yield things[begin : begin + CHUNK]


def test_every_function_has_its_place_among_the_pairs(database: Database) -> None:
    names = {
        name
        for (name,) in database.admin.execute(
            "select proname from pg_proc where pronamespace = 'perdure'::regnamespace and proname !~ '^_'"
        )
    }
    placed = {function for call in CALLS.values() for function in call.functions}
    assert names - placed - OF_NO_RUN == set(), "say in support/pairs.py what they lock, or that they concern no run"
    assert (placed | OF_NO_RUN) - names == set()
    for name, call in CALLS.items():
        assert all(f"perdure.{function}(" in call.statement for function in call.functions), name
    assert not placed & OF_NO_RUN
