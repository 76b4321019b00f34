"""Nothing of Perdure runs, reads or casts by an object that somebody else made.

One walk calls every function with arguments that are valid, in a session whose search_path finds traps before all else:
functions, aggregates, operators, types, tables and collations under every name that the bodies use, in a schema of
mallory's, in public and in the session's temporary schema. The caller is not mallory, so what runs with the caller's
rights (procedures, views) counts as well as what runs with the owner's.
"""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from support.calls import CALLS, Stage
from support.clock import Clock
from support.database import Database
from support.engine import Connection
from support.heads import always_keep
from support.hostile import KINDS, Callable, Traps, callables, something

VICTIM = "perdure_test_victim"


@pytest.fixture
def victim(database: Database, traps: Traps) -> Connection:
    """A session of a role with every kind, among all traps, its functions counted."""
    database.server.create_role(VICTIM)
    owner = database.connect()
    for kind in KINDS:
        owner.execute("select perdure.grant_role(%s, %s)", [VICTIM, kind])
    database.admin.execute(f"alter database {database.name} set track_functions = 'all'")  # type: ignore[arg-type]
    traps.set_all()
    conn = database.connect(VICTIM)
    traps.set_in_session(conn)
    assert traps.count > 1500
    return conn


@pytest.mark.slow
def test_no_function_procedure_or_view_runs_into_a_trap(database: Database, traps: Traps, victim: Connection) -> None:
    always_keep(database)
    for n, each in enumerate(CALLS):
        arguments = each.prepare(Stage(database, victim, f"w{n}"))
        each.make(victim, arguments)
        if each.afterwards:
            victim.execute(each.afterwards)
        assert traps.caught == 0, each.name
    for (name,) in database.admin.execute(
        "select relname from pg_class where relnamespace = 'perdure'::regnamespace and relkind = 'v' and relname !~ '^_'"
    ).fetchall():
        victim.execute(f"select * from perdure.{name}")  # type: ignore[arg-type]
    for (run_id,) in database.admin.execute("select run_id from perdure.run").fetchall():
        victim.execute("select perdure.explain(%s)", [run_id])
    for statement, refusal in (
        ("select perdure.start('w')", "is not known"),
        ("select perdure.put_queue('q', '-1 day')", "must be between"),
        ("select perdure.beat('00000000-0000-7000-8000-000000000000')", "not registered"),
    ):
        with pytest.raises(psycopg.Error, match=refusal):
            victim.execute(statement)  # type: ignore[arg-type]
    beside = Stage(database, database.connect(), "beside")
    beside.conn.execute("select perdure.listen(%s)", [beside.worker().worker_id])
    victim.execute("select perdure.start('beside')")
    turn_periods(database, victim)
    assert traps.caught == 0
    unpinned_spring_them(database, traps, victim)
    victim.close()
    database.wait_until("select count(*) = 0 from pg_stat_activity where usename = %s", VICTIM)
    assert " ".join(sorted(never_entered(database) | {"_now"})) == NOT_ENTERED  # which the test's clock replaced


def turn_periods(database: Database, victim: Connection) -> None:
    """Let a partition be made ahead and a period be dropped, by that session."""
    victim.execute("select perdure.put_setting('retention', '\"7 days\"')")
    victim.execute("select perdure.signal('00000000-0000-7000-8000-000000000000', 'nobody')")
    owner = database.connect()
    owner.execute("set search_path = pg_catalog")
    clock = Clock(owner)
    done = []
    for days in (0, 4, 12):
        clock.advance(days=days)
        for _ in range(6):
            [did] = victim.execute("select perdure.rotate()").fetchone() or [{}]
            done.append(did.get("period"))
    assert {"made ahead", "dropped"} <= set(done)
    database.admin.execute(  # a thousand that will be over, and one with too many steps to be moved at once
        "with made as (select n, perdure._uuid7(perdure._now() + n * interval '1 ms') as id from generate_series(1, 1001) as n), "
        "runs as (insert into perdure.run (run_id, workflow, queue, priority, input, tags, headers, max_recoveries, created_at, "
        "created_by) select id, 'order', 'default', 3, '{}', '{}', '{}', 10, perdure._now(), 'me' from made), "
        "steps as (insert into perdure.step (run_id, key, kind, ordinal, result, saved_at) select m.id, 's' || g, 'step', g, '1', "
        "perdure._now() from made as m, generate_series(1, 10001) as g where m.n = 1) "
        "insert into perdure.outcome (run_id, status, result, error, finished_at) select id, case when n = 1 then 'failed' else "
        "'completed' end, case when n > 1 then '1'::jsonb end, case when n = 1 then '{}'::jsonb end, perdure._now() from made"
    )
    for days in (8, 12):
        clock.advance(days=days)
        for _ in range(12):
            [did] = victim.execute("select perdure.rotate()").fetchone() or [{}]
            done.append(did.get("period"))
    assert "rewritten" in done, done


def unpinned_spring_them(database: Database, traps: Traps, victim: Connection) -> None:
    """The same functions without their pinned path run into them at once, and with the owner's rights."""
    for signature, statement in (
        ("explain(uuid)", "select perdure.explain('00000000-0000-7000-8000-000000000000')"),
        ("put_queue", "select perdure.put_queue('q')"),
        ("tick", "select perdure.tick()"),
    ):
        name = database.value(
            "select oid::regprocedure::text from pg_proc"
            " where pronamespace = 'perdure'::regnamespace and proname = split_part(%s, '(', 1)",
            signature,
        )
        before = traps.caught
        database.admin.execute(f"alter function {name} reset all")
        with pytest.raises(psycopg.Error, match=f"caught: .* by {database.owner}"):
            victim.execute(statement)  # type: ignore[arg-type]
        assert traps.caught > before, name


def never_entered(database: Database) -> set[str]:
    return {
        name
        for (name,) in database.admin.execute(
            "select p.proname from pg_proc as p left join pg_stat_user_functions as s on s.funcid = p.oid"
            " where p.pronamespace = 'perdure'::regnamespace and coalesce(s.calls, 0) = 0"
        )
    }


# What runs in an install or an upgrade, where pg_cron is, for a run that cannot be drained or is named twice, and to say
# what is wrong; Postgres does not count the calls that raise, and those that are inlined.
NOT_ENTERED = (
    "_apply_matrix _bytes _caller _check_object _cron_schedule _ended _guard_name _has_key_list _is_above"
    " _is_awaited _limit_for _now _outcome _part _permissions _queue_key _raise_unknown _raise_unregistered"
    " _random_uuid _run_state _set_aside _suffix_of _unmixed _uuid7"
)


@pytest.mark.slow
def test_what_a_session_entered_first_by_itself_is_no_trap_for_the_owner(
    database: Database, traps: Traps, victim: Connection
) -> None:
    """Each session reads a function once. A dump restored without privileges leaves everybody to enter all of them."""
    database.connect().execute("grant execute on all functions in schema perdure to public")
    entered = 0
    for each in callables(database):
        if each.kind == "f" and not each.is_definer:
            try:
                victim.execute(without_casts(each))
            except psycopg.Error:
                entered += 1
    assert entered > 50 and traps.caught > 20  # with the rights of whoever walked into them
    caught = traps.caught
    for n, call in enumerate(CALLS):
        arguments = call.prepare(Stage(database, victim, f"w{n}"))
        call.make(victim, arguments)
        if call.afterwards:
            victim.execute(call.afterwards)
        assert traps.caught == caught, call.name
    turn_periods(database, victim)
    assert traps.caught == caught, "rotate"


def without_casts(function: Callable) -> sql.Composed:
    """A statement that enters a function and no trap before that."""
    values = sql.SQL(", ").join(something(kind) for kind in function.types)
    return sql.SQL("select * from perdure.{}({})").format(sql.Identifier(function.name), values)


@pytest.mark.slow
def test_each_kind_of_trap_catches_a_careless_function(database: Database, traps: Traps, victim: Connection) -> None:
    owner = database.connect()
    owner.execute("grant usage on schema perdure to public")
    for n, body in enumerate(
        (
            "select * from pg_class",
            "select * from dispatch",
            "select pg_catalog.length('x'::text)",
            "select '2000-01-01'::timestamptz",
            "select left('x'::pg_catalog.text, 1)",
            "select jsonb_build_object('a'::pg_catalog.text, 'b'::pg_catalog.text)",
            "select 'x'::pg_catalog.text || 'y'::pg_catalog.text",
            "select 'x'::pg_catalog.text = 'y'::pg_catalog.name",
            "select count(*) from pg_catalog.pg_class",
            "select max(r.rolname::pg_catalog.text) from pg_catalog.pg_roles as r",
        )
    ):
        before = traps.caught
        owner.execute(
            f"create function perdure.careless_{n}() returns void language plpgsql security definer as"  # type: ignore[arg-type]
            f" $$ begin execute $q${body}$q$; end $$; grant execute on function perdure.careless_{n}() to public"
        )
        with pytest.raises(psycopg.Error, match=f"caught: .* by {database.owner}"):
            victim.execute(f"select perdure.careless_{n}()")  # type: ignore[arg-type]
        assert traps.caught > before, body
