"""The image, built from this checkout, and containers of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from support.database import eventually
from support.provision import ROOT

IMAGE = "perdure-test"
DATA = "/var/lib/postgresql/data"
PATIENCE = 90  # seconds; the machine may have a lot to do, and the first start is no small thing


def build_image() -> None:
    """Build the image as people do; IMAGE_ARGS of the environment goes to `docker build`."""
    # A make that started the tests hands its own variables down, ARGS among them.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name and name != "ARGS"}
    done = subprocess.run(
        ["make", "image", f"IMAGE={IMAGE}"],
        cwd=ROOT,
        env={**environment, "DOCKER_BUILDKIT": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(
            "`make image` failed. Where Docker Hub or PyPI is reached in a way of its own, IMAGE_ARGS says how "
            f"(docker/README.md).\n{done.stdout[-6000:]}"
        )


def compose_reason() -> str | None:
    """Why compose files cannot be used here; None when they can."""
    if shutil.which("docker") is None:
        return "no command docker"
    done = subprocess.run(["docker", "compose", "version"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else "this Docker has no compose"


class Container:
    """A container of the image that is not one of testcontainers' own kinds."""

    def __init__(self, *command: str, environment: Mapping[str, str], network: Network | None = None) -> None:
        self._container = DockerContainer(IMAGE).with_command(list(command)).with_envs(**environment)
        if network is not None:
            self._container.with_network(network)

    def mount(self, what: Path | str, where: str, mode: str = "ro") -> Container:
        """Mount a directory of the host, or a named volume."""
        self._container.with_volume_mapping(str(what), where, mode)
        return self

    def __enter__(self) -> Container:
        self._container.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._container.stop()

    @property
    def wrapped(self) -> Any:
        """The container as Docker's own client knows it, looked at now."""
        wrapped: Any = self._container.get_wrapped_container()
        wrapped.reload()
        return wrapped

    @property
    def output(self) -> str:
        """What it has printed."""
        return "".join(part.decode() for part in self._container.get_logs())

    def wait_for(self, text: str) -> None:
        """Wait until it has printed this."""

        def look() -> bool:
            output = self.output
            if text not in output and self.wrapped.status == "exited":
                raise AssertionError(f"it ended without {text!r}:\n{output}")
            return text in output

        eventually(look, seconds=PATIENCE, what=f"the container prints {text!r}")

    def wait(self) -> int:
        """Wait for its end and return the exit code."""
        code: int = self.wrapped.wait(timeout=PATIENCE)["StatusCode"]
        return code


def psql(container: Any, user: str, database: str, query: str) -> str:
    """Ask within a container of a database, through its socket; return what psql prints."""
    options = ["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "/var/run/postgresql", "-U", user]
    code, output = container.exec_run(["psql", *options, database, "-c", query])
    if code != 0:
        raise AssertionError(output.decode())
    printed: str = output.decode().strip()
    return printed


def connect(url: Callable[[], str]) -> psycopg.Connection[Any]:
    """Connect as soon as the server takes connections; a restarted container may have another port."""

    def look() -> psycopg.Connection[Any] | None:
        try:
            return psycopg.connect(url(), autocommit=True, connect_timeout=5)
        except (psycopg.OperationalError, ConnectionError):
            return None

    made = eventually(look, seconds=PATIENCE, what="the server takes connections")
    assert made is not None
    return made
