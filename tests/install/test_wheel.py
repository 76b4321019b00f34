"""The wheel, in an empty environment outside the checkout: its SQL, a private Postgres, a worker."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from perdure import _install
from perdure._binaries import SYSTEM
from support.database import eventually
from support.provision import ROOT

pytestmark = pytest.mark.slow

# Nothing of this checkout's, and of nobody's database, reaches the new environment.
OURS = re.compile(r"PYTHON|PERDURE|PG|VIRTUAL_ENV|MAKE")


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A directory that Postgres' account can reach, which pytest's are not for root."""
    made = Path(tempfile.mkdtemp(prefix="perdure-test-wheel-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def sources() -> str:
    """The SQL of this checkout, read when the wheel is built."""
    return _install.built_sql("install", "shop")


@pytest.fixture(scope="module")
def wheel(scratch: Path, sources: str) -> Path:
    """The wheel as `make build` makes it: from the sdist."""
    run(sys.executable, "-m", "build", "--outdir", scratch / "dist", ROOT / "python")
    (made,) = (scratch / "dist").glob("*.whl")
    assert len(list((scratch / "dist").glob("*.tar.gz"))) == 1
    return made


@pytest.fixture(scope="module", params=["", "[embedded]"], ids=["plain", "embedded"])
def perdure(request: pytest.FixtureRequest, scratch: Path, wheel: Path) -> Path:
    """The command perdure of an environment in which nothing but the wheel was installed."""
    extra: str = request.param
    environment = scratch / f"venv{extra.strip('[]')}"
    run(sys.executable, "-m", "venv", environment)
    run(environment / "bin/python", "-m", "pip", "install", "--quiet", f"{wheel}{extra}")
    return environment / "bin/perdure"


def run(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a program away from the checkout; return what it prints."""
    clean = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    done = subprocess.run(
        command, cwd=cwd or "/", env={**clean, **(env or {})}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def started(
    *command: str | Path, until: str, cwd: Path, stop: signal.Signals, env: Mapping[str, str] | None = None
) -> Iterator[Callable[[], str]]:
    """Have a program run until the block ends; begin when it has printed these words."""
    clean = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    with tempfile.TemporaryFile("w+") as output:
        program = subprocess.Popen(
            command, cwd=cwd, env={**clean, **(env or {})}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )

        def printed() -> str:
            output.seek(0)
            return output.read()

        def look() -> bool:
            assert program.poll() is None, printed()
            return until in printed()

        try:
            eventually(look, seconds=90, what=f"{command} prints {until!r}")
            yield printed
        finally:
            program.send_signal(stop)  # killed, it would leave its Postgres behind
            try:
                code = program.wait(timeout=60)
            finally:
                program.kill()
        assert code == 0, printed()


def test_the_wheel_prints_the_sql_of_this_checkout(perdure: Path, sources: str) -> None:
    assert run(perdure, "sql", "install", "--schema", "shop") == sources
    where = run(perdure.with_name("python"), "-c", "import perdure; print(perdure.__file__)")
    assert Path(where).is_relative_to(perdure.parents[1])


def test_dev_and_a_worker_need_nothing_but_the_wheel(
    perdure: Path, scratch: Path, request: pytest.FixtureRequest
) -> None:
    is_embedded = "embedded" in request.node.callspec.id
    if not is_embedded and not (SYSTEM.is_dir() or shutil.which("postgres")):
        pytest.skip("this machine has no Postgres of its own")
    home = scratch / request.node.callspec.id
    home.mkdir(mode=0o755)
    shutil.copy(ROOT / "docker" / "app" / "greeting.py", home)

    with started(
        perdure, "dev", "--directory", home / "dev", until="Ctrl-C stops it", cwd=home, stop=signal.SIGINT
    ) as printed:
        (line,) = re.findall(r"export (PERDURE_DSN=.*)", printed())
        name, _, dsn = shlex.split(line)[0].partition("=")
        there = {name: dsn}

        def rows() -> list[dict[str, str]]:
            found: list[dict[str, str]] = json.loads(run(perdure, "runs", "--json", env=there))
            return found

        with started(perdure, "worker", "greeting:app", until="is ready", cwd=home, stop=signal.SIGTERM, env=there):
            run_id = run(perdure, "start", "greet", '{"name": "Ada"}', "--key", "ada", env=there).strip()
            eventually(lambda: rows()[0]["state"] == "waiting", seconds=60, what="the run waits for its answer")
            assert "accepted" in run(perdure, "signal", run_id, "answer", '"Hello back"', env=there)
            eventually(lambda: rows()[0]["state"] == "completed", seconds=60, what="the run is completed")
            assert "Hello Ada" in run(perdure, "show", run_id, env=there)
            run(perdure, "doctor", env=there)
    assert not (home / "dev" / "data" / "postmaster.pid").exists()
