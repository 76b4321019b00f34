"""Names, keys and ids are bytes: neither a caller's collation nor the system's own decides which of them are the same."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from support import provision
from support.database import FORGETFUL, Database, PostgresServer, in_background, private_server, remove
from support.engine import Worker, a_run, call, scalar, signal, start
from support.scenario import AWKWARD, play

LOOSE = "loose"  # in which case, accents and blanks make no difference


@pytest.fixture
def loose(database: Database) -> psycopg.Connection[object]:
    """A client whose own columns have the loosest of collations."""
    if not database.server.has_icu:
        pytest.skip("this build of Postgres knows no ICU, so no such collations")
    conn = database.connect()
    conn.execute(
        "create collation loose (provider = icu, locale = 'und-u-ks-level1-ka-shifted', deterministic = false)"
    )
    for name in ("order", "Order"):
        conn.execute("select perdure.put_workflow(%s)", [name])
    return conn


@pytest.mark.slow
def test_the_answers_are_the_same_whatever_collation_a_callers_texts_have(
    database: Database, loose: psycopg.Connection[object]
) -> None:
    loose.execute("create collation german (provider = icu, locale = 'de-u-kn')")
    usual = play(loose, "usual")
    for collation in (LOOSE, "german", "C"):
        assert play(loose, f"play{collation}", AWKWARD, collation) == usual, collation


def test_a_key_of_another_case_names_another_run_whatever_column_it_comes_from(
    database: Database, loose: psycopg.Connection[object]
) -> None:
    loose.execute("create table purchase (number text collate loose, primary key (number))")
    loose.execute("insert into purchase values ('abc')")
    run_id = start(loose, key="abc")
    assert loose.execute("select perdure.start('order', key => p.number) from purchase as p").fetchone() == (run_id,)
    loose.execute("update purchase set number = 'ABC'")
    of_purchase = (
        "select perdure.find_run('order', p.number) from purchase as p",
        "select s.run_id from purchase as p, perdure.start_run('order', key => p.number) as s where s.is_new",
        "select s.run_id from purchase as p, perdure.start_many('order', array[jsonb '{}'], array[p.number]) as s",
        "select perdure.find_run('order', p.number) from purchase as p",
    )
    nothing, *others = [loose.execute(query.encode()).fetchone() for query in of_purchase]
    assert nothing == (None,)
    assert {other for other in others if other} == {(scalar(loose, "find_run", workflow="order", key="ABC"),)}
    assert others[0] != (run_id,)
    assert database.value("select count(*) from perdure.run") == 2


def test_a_signal_with_an_id_of_another_case_is_another_message(
    database: Database, loose: psycopg.Connection[object]
) -> None:
    run_id = start(loose)
    signal(loose, run_id, id="m1")
    send = "select perdure.signal(%s, 'paid' collate loose, id => 'M1' collate loose)"
    assert [loose.execute(send, [run_id]).fetchone() for _ in range(2)] == [("accepted",), ("duplicate",)]
    assert database.value("select count(*) from perdure.signal") == 2


def test_names_and_words_of_another_case_are_unknown(database: Database, loose: psycopg.Connection[object]) -> None:
    for statement in (
        "select perdure.start('ORDER' collate loose)",
        "select perdure.start('order', queue => 'DEFAULT' collate loose)",
        "select perdure.start('order', key => 'k', on_duplicate => 'ATTACH' collate loose)",
        "select perdure.start_many('ORDER' collate loose, array[jsonb '{}'])",
        "select perdure.start_many('order', array[jsonb '{}'], array['k'], 'Replace' collate loose)",
        "select perdure.put_setting('Payload_soft_limit' collate loose, '77')",
        "select perdure.grant_role(current_user, 'Client' collate loose)",
        "select perdure.revoke_role(current_user, 'Client' collate loose)",
    ):
        with pytest.raises(errors.InvalidParameterValue, match=r"known|kind of role"):
            loose.execute(statement.encode())
    worker, held = a_run(database)
    worker.save(held, "charge")
    worker.save(held, "v", kind="value", name="n", result=1)
    worker.fail(held)
    with pytest.raises(errors.InvalidParameterValue, match='step "Charge" is not known'):
        loose.execute("select perdure.retry(%s, 'Charge' collate loose)", [held.run_id])
    value = "select perdure.get_value(%s, 'N' collate loose)"
    assert loose.execute(value, [held.run_id]).fetchone() == (None,)


def test_a_worker_of_other_names_makes_them_known(database: Database, loose: psycopg.Connection[object]) -> None:
    loose.execute("select perdure.register_worker(array['DEFAULT'] collate loose, array['ORDER'] collate loose)")
    loose.execute("select perdure.put_workflow('late', queue => 'Default' collate loose)")
    assert database.value("select array_agg(w.name order by w.name) from perdure.workflow as w") == [
        "ORDER", "Order", "late", "order",
    ]  # fmt: skip
    assert database.value("select array_agg(q.name order by q.name) from perdure.queue as q") == [
        "DEFAULT", "Default", "default",
    ]  # fmt: skip


def test_callers_of_different_collations_take_their_keys_in_one_order(
    database: Database, loose: psycopg.Connection[object]
) -> None:
    """Else two of start_many would wait for each other's keys."""
    loose.execute("create collation upper_first (provider = icu, locale = 'und-u-kf-upper')")
    loose.execute("create collation lower_first (provider = icu, locale = 'und-u-kf-lower')")
    first, second = (database.connect(autocommit=False) for _ in range(2))
    inputs = [Jsonb({})] * 2
    call(first, "start_many", workflow="order", inputs=inputs[:1], keys=["K"])
    taken = in_background(
        second.execute,
        "select * from perdure.start_many('order', %s, array['k', 'K'] collate lower_first)",
        [inputs],
    )
    database.wait_blocked(second, by=first.info.backend_pid)
    first.execute("set lock_timeout = '10s'")
    # had the second taken k before K, this one would wait for it
    first.execute("select * from perdure.start_many('order', %s, array['K', 'k'] collate upper_first)", [inputs])
    first.commit()
    assert taken.result(timeout=10).rowcount == 2


def locales(directory: Path, source: str) -> None:
    """Compile what the system's locale xx_XX is from now on."""
    made = subprocess.run(
        ["localedef", "--no-archive", "-i", source, "-f", "UTF-8", str(directory / "xx_XX.UTF-8")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not (directory / "xx_XX.UTF-8" / "LC_COLLATE").is_file():
        message = f"localedef cannot make {source}: {made.stderr}"
        pytest.skip(message)


@pytest.fixture
def old_system(prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[PostgresServer, Path]]:
    """A server on a system whose locale xx_XX is about to change."""
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/locales").is_dir():
        pytest.skip("no sources of locales here")
    binaries = provision.own_binaries()
    if binaries is None:
        pytest.skip("needs Postgres binaries on this machine")
    with tempfile.TemporaryDirectory(prefix="perdure-locales-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # the server's account reads it
        locales(directory, "de_DE")
        monkeypatch.setenv("LOCPATH", name)
        made = private_server(binaries, prefix, FORGETFUL)
        yield made, directory
        remove(made)


@pytest.mark.slow
def test_keys_outlive_a_change_of_the_systems_collation(old_system: tuple[PostgresServer, Path]) -> None:
    """A new system, or a standby on another one, orders words differently, and indexes by its collation are wrong."""
    server, directory = old_system
    database = server.create_database(options="locale 'xx_XX.UTF-8' encoding 'UTF8'")
    database.install()
    with database.connect() as conn:
        conn.execute("create table own (word text primary key)")
        conn.execute("select perdure.put_workflow('order')")
        words = [f"{a}{b}{n}" for a in ("ö", "o", "z", "Z", "å") for b in ("a", "Ä", "-") for n in range(40)]
        conn.execute("insert into own select unnest(%s::text[])", [words])
        runs = {word: start(conn, key=word) for word in words}
        worker = Worker(database)
        held = worker.claim_one()
        worker.call("save_steps", saves=[held.named(**held.save(word)) for word in words])
    worker.conn.close()
    database.close()
    locales(directory, "sv_SE")  # where ö comes after z
    server.server.restart()
    with database.connect() as conn:
        with conn.transaction(force_rollback=True):
            again = conn.execute("insert into own select unnest(%s::text[]) on conflict do nothing", [words])
            assert again.rowcount > 0, "an index by the system's collation is wrong by now: the change is a change"
        assert {word: start(conn, key=word) for word in words} == runs
        answers = Worker.on(worker, conn).call("save_steps", saves=[held.named(**held.save(word)) for word in words])
        assert {row["answer"] for row in answers} == {"on_record"}
    assert database.value("select count(*) from perdure.run") == len(words)
