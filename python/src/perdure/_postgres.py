"""Run private Postgres servers.

A `Server` is a cluster of its own in a directory of its own: nobody else's server is ever touched. It listens on a unix
socket that only its owner can reach (trust), and on a loopback port when asked for one (with a password, because any
account of the machine can open a port). Postgres refuses to run as root, so root's servers run as another account.

    with Server(Path("/tmp/scratch")) as server:
        psycopg.connect(server.dsn())
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from perdure._binaries import (
    Account,
    Binaries,
    PostgresNotFound,
    ServerError,
    data_directory,
    find_binaries,
    readable,
    run,
    works,
)

__all__ = ["Binaries", "PostgresNotFound", "Server", "ServerError", "data_directory", "find_binaries"]

_LONGEST_SOCKET = 103  # sun_path holds 107 bytes on Linux and 103 on macOS


class Server:
    """A private Postgres cluster in a directory of its own.

    directory: made if it is not there; a cluster found in it is used again, and a server found running is adopted.
    binaries: found by `find_binaries` when not given (a cluster keeps its major version).
    settings: what goes into its configuration, in Postgres' own words: {"fsync": "off"}.
    port: a loopback port, with a password; 0 takes a free one. Without it there is the unix socket alone.

    Raises PostgresNotFound or ServerError.
    """

    superuser = "postgres"

    def __init__(
        self,
        directory: Path,
        *,
        binaries: Binaries | None = None,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        self.settings = dict(settings or {})
        self.port = port
        self._account = _account(self.data)
        if binaries is None:
            binaries = find_binaries(self._kept_major())
        self.binaries = readable(binaries, self._account)
        self.socket_directory = _socket_directory(self.directory)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The process id of the running server, or None."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if _is_alive(pid) else None

    @property
    def is_running(self) -> bool:
        """Whether the server process is alive."""
        return self.pid is not None

    def dsn(self, dbname: str = "postgres", *, user: str | None = None) -> str:
        """The connection URL of one of its databases, by port when there is one, else by the unix socket."""
        name, database = quote(user or self.superuser, safe=""), quote(dbname, safe="")
        if self.port is None:
            return f"postgresql://{name}@/{database}?host={quote(str(self.socket_directory), safe='')}"
        return f"postgresql://{name}:{self._password()}@127.0.0.1:{self.port}/{database}"

    def create(self) -> None:
        """Make the cluster with initdb; nothing happens if it is there."""
        if self._kept_major() is not None:
            return
        self._own(self.directory)
        password = self.directory / "password"
        if not password.exists():
            password.touch(mode=0o600)
            password.write_text(secrets.token_urlsafe(24))
        self._give(password)
        self._pg(
            "initdb", "--pgdata", self.data, "--username", self.superuser, "--pwfile", password,
            "--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8",
            f"--locale={'C.UTF-8' if os.uname().sysname == 'Linux' else 'C'}", "--no-sync",
        )  # fmt: skip
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude_if_exists 'perdure.conf'\n")

    def start(self) -> None:
        """Make the cluster if need be, start the server, and return when it takes connections."""
        self.create()
        if self.is_running:
            self._adopt_port()
            return
        if (kept := self._kept_major()) != self.binaries.major:
            raise ServerError(
                f"{self.data} was made by PostgreSQL {kept} and cannot be run by {self.binaries.version} from "
                f"{self.binaries.bin}: install PostgreSQL {kept}, or remove the directory to begin anew"
            )
        self._own(self.socket_directory)
        if self.port == 0:
            self.port = _free_port()
        self._configure()
        deadline = time.monotonic() + 60
        while True:
            try:
                self._pg("pg_ctl", "start", "--pgdata", self.data, "--log", self.log, "--wait", "--silent")
            except ServerError as error:
                said = self._log_tail()
                # After a kill the old backends may hold on to the shared memory for a moment.
                if "pre-existing shared memory block" in said and time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                raise ServerError(f"the server in {self.directory} did not start: {error}\n{said}") from None
            return

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server; nothing happens if it does not run. `immediate` is a crash of Postgres, told to it."""
        if self.is_running:
            self._pg("pg_ctl", "stop", "--pgdata", self.data, "--mode", mode, "--wait", "--silent")

    def restart(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server and start it again, with the settings as they are now."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """Kill the server process with SIGKILL, as a machine that runs out of memory would; `start` brings it back."""
        pid = self.pid
        if pid is None:
            return
        os.kill(pid, signal.SIGKILL)
        while _is_alive(pid):
            time.sleep(0.01)
        if _exists(pid):  # a zombie that nobody reaps (a container without init): the next server would think it alive
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            (self.socket_directory / f".s.PGSQL.{self.port or 5432}.lock").unlink(missing_ok=True)

    def destroy(self) -> None:
        """Stop the server at once and remove all it has, data included."""
        self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self.socket_directory, ignore_errors=True)

    def _configure(self) -> None:
        settings = {
            "listen_addresses": "" if self.port is None else "127.0.0.1",
            "port": str(self.port or 5432),
            "unix_socket_directories": str(self.socket_directory),
            **self.settings,
        }
        lines = [f"{name} = '{_quoted(value)}'\n" for name, value in settings.items()]
        conf = self.data / "perdure.conf"
        conf.write_text("".join(lines))
        self._give(conf)

    def _adopt_port(self) -> None:
        # The lines of postmaster.pid: process id, data directory, start time, port, socket directory, address.
        lines = (self.data / "postmaster.pid").read_text().split("\n")
        self.port = int(lines[3]) if lines[5].strip() else None

    def _kept_major(self) -> int | None:
        try:
            return int((self.data / "PG_VERSION").read_text())
        except FileNotFoundError:
            return None

    def _password(self) -> str:
        return (self.directory / "password").read_text().strip()

    def _log_tail(self) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])
        except FileNotFoundError:
            return ""

    def _pg(self, program: str, *arguments: str | Path) -> None:
        run([self.binaries.bin / program, *arguments], self._account)

    def _give(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)

    def _own(self, directory: Path) -> None:
        """Make a directory that only the server's account can enter, and make sure that it can."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._account is not None and directory.stat().st_uid == 0:
            self._give(directory)
        owner = self._account.uid if self._account else os.geteuid()
        if directory.is_symlink() or directory.stat().st_uid != owner:
            raise ServerError(f"{directory} belongs to somebody else: remove it, or choose another directory")
        if self._account is not None and not _can_enter(directory, self._account):
            raise ServerError(
                f"the account {self._account.name}, which runs the server because Postgres refuses root, cannot "
                f"reach {directory}: choose a directory whose parents it may enter, such as one below {data_directory()}"
            )


def _account(data: Path) -> Account | None:
    """Whom the server runs as: None for ourselves; for root the owner of the data, else postgres or nobody."""
    if os.geteuid() != 0:
        return None
    import pwd

    if data.is_dir() and (owner := data.stat().st_uid) != 0:
        entry = pwd.getpwuid(owner)
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise ServerError(
        "Postgres refuses to run as root, and there is no account postgres or nobody: run as a plain user"
    )


def _socket_directory(directory: Path) -> Path:
    inside = directory / "socket"
    if len(os.fsencode(inside / ".s.PGSQL.65535")) <= _LONGEST_SOCKET:
        return inside
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"perdure-{digest}"


def _can_enter(directory: Path, account: Account) -> bool:
    return works(["/bin/sh", "-c", 'cd "$0"', directory], account)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and waits for its parent does not."""
    if not _exists(pid):
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return not Path("/proc/self").exists()  # no /proc on macOS; gone by now on Linux
    return state != "Z"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
