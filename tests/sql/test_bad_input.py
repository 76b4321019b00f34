"""Whatever a caller passes: an error that says what to do, and nothing changed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database
from support.engine import Connection, call, scalar, start, unknown_run


def refusal(conn: Connection, function: str, **arguments: Any) -> psycopg.errors.Diagnostic:
    """The error of a call that has to be refused, with a hint that says what to do."""
    with pytest.raises(psycopg.Error) as refused:
        call(conn, function, **arguments)
    diagnostic = refused.value.diag
    assert diagnostic.message_hint, (function, arguments)
    assert diagnostic.message_primary and not diagnostic.message_primary.endswith(".")
    return diagnostic


def test_an_unknown_workflow_is_refused_with_the_nearest_known_name(conn: Connection) -> None:
    conn.execute("select perdure.put_workflow(n) from unnest(array['refund', 'shipment']) as n")
    for asked, nearest in (("ordr", "order"), ("ORDER", "order"), ("refnd", "refund"), ("shipments", "shipment")):
        for function, more in (("start", {}), ("start_many", {"inputs": [Jsonb({})]})):
            told = refusal(conn, function, workflow=asked, **more)
            assert (told.sqlstate, told.message_detail) == ("22023", f'The nearest known name is "{nearest}".')


def test_an_unknown_queue_is_refused_with_the_nearest_known_name(conn: Connection) -> None:
    conn.execute("select perdure.put_queue('express')")
    for function, more in (("start", {}), ("start_many", {"inputs": [Jsonb({})]})):
        told = refusal(conn, function, workflow="order", queue="expres", **more)
        assert (told.sqlstate, told.message_detail) == ("22023", 'The nearest known name is "express".')


def test_without_any_known_name_none_is_offered(database: Database) -> None:
    told = refusal(database.connect(), "start", workflow="order")
    assert (told.sqlstate, told.message_detail) == ("22023", "No workflow is known yet.")


def test_an_unknown_run_is_refused_or_answered(conn: Connection) -> None:
    for function in ("cancel", "terminate", "pause", "resume", "retry", "result"):
        assert refusal(conn, function, run_id=unknown_run()).sqlstate == "PD001"
    assert scalar(conn, "signal", run_id=unknown_run(), name="paid") == "unknown"
    assert scalar(conn, "signal_key", workflow="order", key="nobody", name="paid") == "unknown"
    for function in ("find_run", "get_value"):
        arguments = (
            {"workflow": "order", "key": "k"} if function == "find_run" else {"run_id": unknown_run(), "name": "n"}
        )
        assert scalar(conn, function, **arguments) is None
    assert call(conn, "run_results", run_ids=[unknown_run()]) == []


def test_names_and_keys_are_neither_empty_nor_blank_nor_too_long(conn: Connection) -> None:
    run_id = start(conn)
    calls: list[tuple[str, dict[str, Any], str]] = [
        ("start", {}, "workflow"),
        ("start", {"workflow": "order"}, "queue"),
        ("start", {"workflow": "order"}, "key"),
        ("signal", {"run_id": run_id}, "name"),
        ("signal", {"run_id": run_id, "name": "paid"}, "id"),
        ("signal_key", {"workflow": "order", "name": "paid"}, "key"),
        ("put_queue", {}, "name"),
        ("put_workflow", {}, "name"),
        ("put_workflow", {"name": "w"}, "queue"),
    ]
    for function, arguments, parameter in calls:
        for bad in ("", " ", "\t\n", "x" * 201):
            told = refusal(conn, function, **arguments, **{parameter: bad})
            assert told.sqlstate == "22023", (function, parameter, bad)
    told = refusal(conn, "start_many", workflow="order", inputs=[Jsonb({})] * 2, keys=["ok", " "])
    assert told.sqlstate == "22023"


def test_a_name_may_be_anything_else(database: Database, conn: Connection) -> None:
    for name in ("x" * 200, "ship it! 🚀", "'; drop table perdure.run; --", "%s %I {0}", "Größe", "a/b#2", '"quoted"'):
        conn.execute("select perdure.put_workflow(%s, %s)", [name, name])
        run_id = start(conn, workflow=name, queue=name, key=name)
        assert scalar(conn, "signal", run_id=run_id, name=name, id=name) == "accepted"
        assert scalar(conn, "find_run", workflow=name, key=name) == run_id
    assert database.value("select count(*) from perdure.run") == 7


def test_times_that_make_no_sense_are_refused(conn: Connection) -> None:
    for options in (
        {"delay": "-1 second"},
        {"delay": "101 years"},
        {"timeout": "-1 second"},
        {"timeout": "0"},
        {"timeout": "1000000 years"},
        {"start_at": "2030-01-01", "delay": "1 second"},
        {"deadline": "2030-01-01", "timeout": "1 second"},
    ):
        assert refusal(conn, "start", workflow="order", **options).sqlstate == "22023", options
    for timeout in ("-1 second", "0", "1000000 years"):
        assert refusal(conn, "put_workflow", name="w", timeout=timeout).sqlstate == "22023"
    assert refusal(conn, "put_queue", name="q", retention="-1 day").sqlstate == "22023"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("-1 second", "-1 second"),
        (timedelta(seconds=-1), "-1 second"),
        (timedelta(milliseconds=-1500), "-1.5 seconds"),
        ("-90 minutes", "-90 minutes"),
        ("-2 days", "-2 days"),
        ("200 years", "200 years"),
        ("101 years -1 second", "101 years -00:00:01"),
    ],
)
def test_a_span_that_is_refused_is_told_by_its_name_and_as_it_was_typed(
    conn: Connection, given: Any, said: str
) -> None:
    refused = refusal(conn, "start", workflow="order", timeout=given)
    assert refused.message_primary == "timeout must be between 0 and 100 years"
    assert refused.message_detail == f"It is {said}."


def test_what_a_queue_had_and_is_not_named_again_is_warned_of_and_audited(database: Database, conn: Connection) -> None:
    warned: list[tuple[str | None, str | None]] = []
    conn.add_notice_handler(lambda told: warned.append((told.message_primary, told.message_detail)))
    call(conn, "put_queue", name="ledger", retention="1 year")
    call(conn, "put_queue", name="ledger", retention="2 days")
    assert warned == []
    call(conn, "put_queue", name="ledger", failed_retention="5 years")
    assert warned == [
        (
            'queue "ledger" had a retention of its own that is not named now, so the settings rule it again',
            "Before: retention 2 days, failed_retention as set. Now: as set and 5 years.",
        )
    ]
    call(conn, "put_queue", name="ledger", failed_retention="5 years")
    assert len(warned) == 1
    audited = database.admin.execute("select detail -> 'old' from perdure.audit order by audit_id").fetchall()
    assert [old and (old["retention"], old["failed_retention"]) for (old,) in audited] == [
        None, ("1 year", None), ("2 days", None), (None, "5 years"),
    ]  # fmt: skip


def test_options_that_do_not_exist_are_refused(conn: Connection) -> None:
    for options in (
        {"on_duplicate": "whatever"},
        {"on_duplicate": None},
        {"priority": 0},
        {"priority": 6},
        {"priority": None},
        {"max_recoveries": -1},
        {"tags": Jsonb([1])},
        {"tags": Jsonb(None)},
        {"tags": None},
        {"headers": Jsonb("x")},
        {"input": None},
    ):
        assert refusal(conn, "start", workflow="order", **options).sqlstate == "22023", options
    assert refusal(conn, "put_workflow", name="w", max_recoveries=-1).sqlstate == "22023"
    assert refusal(conn, "put_workflow", name="w", max_recoveries=None).sqlstate == "22023"


def test_start_many_wants_one_key_per_input_and_does_not_replace(conn: Connection) -> None:
    many: dict[str, Any] = {"workflow": "order", "inputs": [Jsonb({})] * 2}
    assert refusal(conn, "start_many", **many, keys=["a"]).sqlstate == "22023"
    assert refusal(conn, "start_many", **many, on_duplicate="replace").sqlstate == "22023"
    assert refusal(conn, "start_many", workflow="order", inputs=[Jsonb({}), None]).sqlstate == "22023"


def test_json_that_postgres_cannot_hold_is_an_error_of_its_own_that_changes_nothing(
    database: Database, conn: Connection
) -> None:
    for text in ('{"a": "\\u0000"}', '{"a": "\\ud800"}', "{not json}", "", '{"a": NaN}'):
        with pytest.raises(psycopg.DataError):
            conn.execute("select perdure.start('order', %s)", [text])
    assert database.value("select count(*) from perdure.run") == 0


def test_a_payload_past_the_soft_limit_is_warned_of_and_past_the_hard_limit_refused(conn: Connection) -> None:
    notices: list[tuple[str | None, bool]] = []
    conn.add_notice_handler(lambda told: notices.append((told.severity, bool(told.message_hint))))
    conn.execute(
        "select perdure.put_setting('payload_soft_limit', '1000'), perdure.put_setting('payload_hard_limit', '2000')"
    )
    run_id = start(conn, input=Jsonb("x" * 500))
    assert notices == []
    for function, arguments, parameter in (
        ("start", {"workflow": "order"}, "input"),
        ("signal", {"run_id": run_id, "name": "paid"}, "payload"),
    ):
        call(conn, function, **arguments, **{parameter: Jsonb("x" * 1500)})
        assert notices == [("WARNING", True)], function
        notices.clear()
        told = refusal(conn, function, **arguments, **{parameter: Jsonb("x" * 2500)})
        assert told.sqlstate == "PD010", function
    many = refusal(conn, "start_many", workflow="order", inputs=[Jsonb({}), Jsonb("x" * 2500)])
    assert many.sqlstate == "PD010"


def test_the_limits_are_one_and_sixteen_megabytes_as_installed(conn: Connection) -> None:
    notices: list[tuple[str | None, bool]] = []
    conn.add_notice_handler(lambda told: notices.append((told.severity, bool(told.message_hint))))
    start(conn, input=Jsonb("x" * 1_000_000))
    assert notices == []
    start(conn, input=Jsonb("x" * 1_100_000))
    assert len(notices) == 1
    assert refusal(conn, "start", workflow="order", input=Jsonb("x" * 17_000_000)).sqlstate == "PD010"


def test_a_setting_takes_only_its_own_type_and_name(conn: Connection) -> None:
    assert refusal(conn, "put_setting", name="payload_soft_limit", value=Jsonb("1 MB")).sqlstate == "22023"
    told = refusal(conn, "put_setting", name="payload_soft_limt", value=Jsonb(1))
    assert "payload_soft_limit" in str(told.message_detail)


@pytest.mark.parametrize("name", ["payload_soft_limit", "payload_hard_limit"])
def test_a_payload_limit_is_a_number_of_bytes_that_leaves_everybody_at_work(conn: Connection, name: str) -> None:
    for bad in ("-1", "0", "1", "999", "1e40", "67108865", "1000.5", "-1e40", "0.5"):
        told = refusal(conn, "put_setting", name=name, value=Jsonb(None, dumps=lambda _, bad=bad: bad))
        assert told.sqlstate == "22023", bad
    for good in ("1000", "1000.0", "1e3", "67108864"):
        conn.execute("select perdure.put_setting(%s, %s)", [name, good])
        start(conn, input=Jsonb(1))


def test_no_payload_past_the_limit_slips_through_for_being_stored_small(conn: Connection) -> None:
    """What comes from a table is compressed a hundredfold; where it enters makes no difference."""
    conn.execute("select perdure.put_setting('payload_hard_limit', '20000')")
    conn.execute("create temp table kept (doc jsonb)")
    conn.execute("insert into kept select to_jsonb(repeat('x', 50000))")
    assert conn.execute("select pg_column_size(doc) from kept").fetchone()[0] < 1_000  # type: ignore[index]
    for options in ("input => doc", "tags => jsonb_build_object('a', doc)", "headers => jsonb_build_object('a', doc)"):
        with pytest.raises(psycopg.Error) as told:
            conn.execute(f"select perdure.start('order', {options}) from kept".encode())
        assert told.value.sqlstate == "PD010", options


def test_a_worker_without_queue_or_workflow_or_lease_is_refused(conn: Connection) -> None:
    good: dict[str, Any] = {"queues": ["default"], "workflows": ["order"]}
    for options in (
        {"queues": []},
        {"queues": None},
        {"workflows": []},
        {"queues": [""]},
        {"workflows": ["x" * 201]},
        {"lease": "0.5 seconds"},
        {"lease": "2 days"},
        {"lease": None},
    ):
        assert refusal(conn, "register_worker", **(good | options)).sqlstate == "22023", options


def test_deep_json_goes_in_and_comes_back(conn: Connection) -> None:
    deep = "[" * 1000 + "]" * 1000
    row = conn.execute("select perdure.start('order', %s::jsonb)", [deep]).fetchone()
    assert row is not None
    text = conn.execute("select input::text from perdure.run").fetchone()
    assert text == (deep,)
