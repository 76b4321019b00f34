"""The compose file, as docker/README.md tells people to use it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator

import pytest

from support.containers import IMAGE, PATIENCE, compose_reason
from support.database import eventually
from support.provision import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.slow]

Compose = Callable[..., str]

README = (ROOT / "docker" / "README.md").read_text()
TYPED = re.findall(r"^    docker compose -f docker/compose\.yaml (.*?)(?: +#.*)?$", README, flags=re.MULTILINE)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run docker compose in the top folder, as a shell would with these words."""
    if reason := compose_reason():
        pytest.skip(reason)
    return subprocess.run(
        ["sh", "-c", f"docker compose -f docker/compose.yaml {' '.join(arguments)}"],
        cwd=ROOT,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("POSTGRES_")}, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def compose(image: str) -> Iterator[Compose]:
    """Run docker compose in a project of the test's own, and return what it prints."""
    environment = {
        "COMPOSE_PROJECT_NAME": f"perdure-test-{uuid.uuid4().hex[:12]}",
        "PERDURE_IMAGE": IMAGE,
        "PERDURE_PORT": "0",
        "POSTGRES_PASSWORD": "p'w\\$ {1}:/@",
    }

    def do(*arguments: str) -> str:
        done = run(*arguments, **environment)
        assert done.returncode == 0, done.stdout + done.stderr + run("logs", **environment).stdout
        return done.stdout.strip()

    yield do
    run("down --volumes --timeout 5", **environment)


def test_the_compose_file_is_valid_and_opens_loopback_ports_alone(docker_engine: None) -> None:
    done = run("--profile demo config --format json", POSTGRES_PASSWORD="x")
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert set(services) == {"database", "worker", "demo"}
    assert services["demo"]["profiles"] == ["demo"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert [port["host_ip"] for port in ports] == ["127.0.0.1"]


def test_without_a_password_it_says_how_to_choose_one(docker_engine: None) -> None:
    done = run("config --quiet")
    assert done.returncode != 0
    assert "export POSTGRES_PASSWORD" in done.stderr


def test_what_the_readme_says_works(compose: Compose) -> None:
    up, start, runs, demo, down = TYPED
    assert (
        up.startswith("up ") and "start('greet'" in start and runs.endswith("perdure runs") and demo == "run --rm demo"
    )
    compose(up)
    compose(start.replace("exec ", "exec -T "))
    listed = eventually(
        lambda: "waiting" in (found := compose(runs.replace("exec ", "exec -T "))) and found,
        seconds=PATIENCE,
        what="the run waits for its answer",
    )
    assert "greet" in str(listed)
    run_id = compose("""exec -T database psql -XAtc "select r.run_id from perdure.runs as r" """)
    compose(f"""exec -T database psql -XAtc "select perdure.signal('{run_id}', 'answer', '\\"Hello back\\"')" """)
    result = f"""exec -T database psql -XAtc "select perdure.result('{run_id}')" """
    eventually(lambda: "Hello back" in compose(result), seconds=PATIENCE, what="the run's result")
    assert compose(result) == '["Hello Ada", "Hello back"]'
    compose(down)


def test_the_demo_runs_in_a_container(compose: Compose) -> None:
    printed = compose("run --rm -T demo python -m orders --orders 40 --kills 1 --seed 7")
    assert "The books agree" in printed
