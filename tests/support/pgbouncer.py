"""PgBouncer, of two Debian releases, each with the libraries that it was built for; nothing is installed.

The packages are fetched by apt with directories of its own and unpacked into `.cache/`, so no service is started, no
package of this machine is touched, and no root is needed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from perdure._binaries import Account
from perdure._postgres import Server
from support.database import Database, PostgresServer, eventually
from support.provision import ROOT, say

CACHE = ROOT / ".cache" / "pgbouncer"
USUAL_MIRROR = "http://deb.debian.org/debian"

# The package's own dependencies would bring perl along; these are what its program is linked with.
LIBRARIES = ("libc6", "libpam0g", "libsystemd0", "libaudit1", "libcap-ng0", "libcap2", "libzstd1", "zlib1g")
RELEASES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "1.18": (
        "bookworm",
        ("libevent-2.1-7", "libc-ares2", "libssl3", "libgcrypt20", "libgpg-error0", "liblz4-1", "liblzma5"),
    ),
    "1.24": ("trixie", ("libevent-2.1-7t64", "libcares2", "libssl3t64")),
}
VERSIONS = tuple(RELEASES)

_CLIENTS_OWN_PORT = 6432  # no TCP port: it is part of the socket's name


class Unavailable(RuntimeError):
    """There is no way to have PgBouncer on this machine; the message says why."""


def program(version: str) -> list[str]:
    """Return the words that begin the command line of one version, fetched where it is not there yet."""
    root = CACHE / version
    if not (root / "usr/sbin/pgbouncer").is_file():
        _fetch(version, root)
    loaders = [path for path in root.glob("**/ld-linux-*.so.*") if path.is_file() and not path.is_symlink()]
    libraries = sorted({str(path.parent) for path in root.glob("**/lib*.so.*")})
    return [str(loaders[0]), "--library-path", ":".join(libraries), str(root / "usr/sbin/pgbouncer")]


def _fetch(version: str, root: Path) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Unavailable(f"PgBouncer {version} is taken from Debian's packages, and there is no {tool} here")
    release, libraries = RELEASES[version]
    say(f"fetching PgBouncer {version} from Debian {release}")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock, tempfile.TemporaryDirectory(prefix=".fetch-", dir=CACHE) as name:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.exists():  # another process was faster
            return
        home = Path(name)
        for needed in ("state/lists/partial", "cache/archives/partial", "packages", "root"):
            (home / needed).mkdir(parents=True)
        (home / "status").touch()
        (home / "sources.list").write_text(f"deb {_mirror()} {release} main\n")
        options = {
            "Dir::State": home / "state",
            "Dir::State::status": home / "status",
            "Dir::Cache": home / "cache",
            "Dir::Etc::SourceList": home / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "",
        }
        apt = ["apt-get", "-qq", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]
        _run([*apt, "update"], home)
        _run([*apt, "download", "pgbouncer", *LIBRARIES, *libraries], home / "packages")
        for package in (home / "packages").glob("*.deb"):
            _run(["dpkg-deb", "--extract", str(package), str(home / "root")], home)
        (home / "root").chmod(0o755)
        (home / "root").rename(root)


def _run(command: list[str], directory: Path) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command[:1] + command[-2:])} failed:\n{done.stdout[-800:]}{done.stderr[-800:]}")


def _mirror() -> str:
    """Return where this machine's own Debian packages come from."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    found = [uri for uri in done.stdout.split() if uri.rstrip("/").endswith("/debian")]
    return found[0] if found else USUAL_MIRROR


class PgBouncer:
    """A pooler in front of a private server, on a unix socket in a directory of its own."""

    def __init__(self, version: str, server: PostgresServer, **settings: object) -> None:
        self.version = version
        self._postgres = server
        local: Server = server.server
        self._account: Account | None = local._account
        self.directory = Path(tempfile.mkdtemp(prefix="pgbouncer-", dir=local.directory.parent))
        self._command = self._readable(program(version))
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        self._configure()
        with (self.directory / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [*self._command, str(self.directory / "pgbouncer.ini")],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **self._as_account(),
            )

        def look() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError(f"PgBouncer {self.version} ended:\n{self.log}")
            try:
                self.admin().close()
            except psycopg.OperationalError:
                return False
            return True

        eventually(look, seconds=30, what="PgBouncer takes connections")

    def kill(self) -> None:
        """End it as a crash does: every client and server connection breaks at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        for left in self.directory.glob(".s.PGSQL.*"):
            left.unlink()

    def restart(self) -> None:
        """Kill it and start it anew."""
        self.kill()
        self.start()

    def admin(self) -> psycopg.Connection[Any]:
        """Connect to its console, which knows the simple protocol only."""
        return psycopg.connect(self.dsn("pgbouncer", self._postgres.superuser), autocommit=True)

    def tell(self, command: str) -> list[dict[str, Any]]:
        """Give the console a command and return its rows."""
        with self.admin() as console, psycopg.ClientCursor(console, row_factory=psycopg.rows.dict_row) as cursor:
            cursor.execute(command.encode())
            return cursor.fetchall() if cursor.description else []

    def dsn(self, database: Database | str, role: str | None = None) -> str:
        """Return the connection string of a database through the pooler, as its owner when no role is given."""
        name = database if isinstance(database, str) else database.name
        user = role or (None if isinstance(database, str) else database.owner)
        return make_conninfo("", host=str(self.directory), port=_CLIENTS_OWN_PORT, dbname=name, user=user)

    @property
    def log(self) -> str:
        """What it has written."""
        return (self.directory / "output").read_text(errors="replace")

    def close(self) -> None:
        """End it and remove what it had."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _configure(self) -> None:
        with self._postgres.admin() as conn:
            users = [row[0] for row in conn.execute("select rolname from pg_roles where rolcanlogin")]
        (self.directory / "users").write_text("".join(f'"{user}" "perdure"\n' for user in users))
        settings: dict[str, object] = {
            "listen_addr": "",
            "listen_port": _CLIENTS_OWN_PORT,
            "unix_socket_dir": self.directory,
            "auth_type": "trust",
            "auth_file": self.directory / "users",
            "admin_users": self._postgres.superuser,
            "pool_mode": "transaction",
            **self._settings,
        }
        local = self._postgres.server
        (self.directory / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={local.socket_directory} port={local.port or 5432}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in settings.items())
        )
        self.directory.chmod(0o755)
        if self._account is not None:
            for path in (self.directory, *self.directory.iterdir()):
                os.chown(path, self._account.uid, self._account.gid)

    def _as_account(self) -> dict[str, Any]:
        if self._account is None:
            return {}
        return {"user": self._account.uid, "group": self._account.gid, "extra_groups": []}

    def _readable(self, command: list[str]) -> list[str]:
        """Copy the program to where the server's account may read it, should it lie in a private place."""
        root = CACHE / self.version
        done = subprocess.run([*command, "--version"], capture_output=True, check=False, cwd="/", **self._as_account())
        if done.returncode == 0:
            return command
        copy = self.directory / "program"
        shutil.copytree(root, copy, symlinks=True)
        return [word.replace(str(root), str(copy)) for word in command]
