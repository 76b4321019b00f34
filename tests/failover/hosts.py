"""Two hosts on one machine: network namespaces on a bridge, with Postgres servers and workers inside.

They are 10.77.0.1 and 10.77.0.2; this process sits outside at 10.77.0.254. A host's link can be cut while all on it
lives on, and a server is reached through its unix socket even then. Names and addresses are fixed, so one test run at a
time has them; what a killed run left behind is stopped and removed by the next one. Run as a program it says whether
hosts can be made here.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from perdure._binaries import Binaries, ServerError, run
from perdure._postgres import Server

BRIDGE = "pdbr0"
NETWORK = "10.77.0.0/24"
OUTSIDE = "10.77.0.254"
HOME = "perdure-failover-"


class Host:
    """One of the two."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"pdh{number}"
        self.link = f"pdv{number}"
        self.address = f"10.77.0.{number}"

    def command(self, *words: str | Path) -> list[str | Path]:
        """The command that runs these words on the host."""
        return ["ip", "netns", "exec", self.name, *words]

    def cut(self) -> None:
        """Take the host off the network; what runs on it goes on."""
        ip("link", "set", self.link, "down")

    def join(self) -> None:
        """Put the host back on the network."""
        ip("link", "set", self.link, "up")

    def processes(self) -> list[int]:
        """The processes on the host."""
        return [int(pid) for pid in ip("netns", "pids", self.name).split()]


class Hosts:
    """Both hosts, from `make` to `remove`."""

    def __init__(self) -> None:
        self.first, self.second = self.all = Host(1), Host(2)
        self._lock: IO[str] | None = None

    def make(self) -> None:
        """Make them anew, once no other test run has them."""
        self._lock = (Path(tempfile.gettempdir()) / "perdure-failover.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._remove()
        _remove_homes()
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", f"{OUTSIDE}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for host in self.all:
            ip("netns", "add", host.name)
            ip("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            ip("link", "set", host.link, "master", BRIDGE, "up")
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            ip("-n", host.name, "link", "set", "eth0", "up")
            ip("-n", host.name, "link", "set", "lo", "up")

    def remove(self) -> None:
        """Stop what runs on them, and remove them."""
        self._remove()
        if self._lock is not None:
            self._lock.close()

    def _remove(self) -> None:
        there = _namespaces()
        for host in self.all:
            if host.name in there:
                _kill(host)
            with suppress(HostError):
                ip("link", "del", host.link)  # a namespace's own devices go some time after it
            if host.name in there:
                ip("netns", "del", host.name)
        with suppress(HostError):
            ip("link", "del", BRIDGE)


class HostServer(Server):
    """A server on a host: heard on its address, and by this process through the unix socket."""

    def __init__(self, host: Host, directory: Path, binaries: Binaries, settings: Mapping[str, str]) -> None:
        everywhere = {"listen_addresses": f"{host.address},127.0.0.1"}
        super().__init__(directory, binaries=binaries, settings={**everywhere, **settings})
        self.host = host

    def pg(self, program: str, *arguments: str | Path, log: Path | None = None) -> str:
        """Run a program of Postgres' on the host, as the server's account."""
        account = self._account
        assert account is not None, "only root can make hosts"
        become = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
        return run(self.host.command(*become, self.binaries.bin / program, *arguments), None)

    def _pg(self, program: str, *arguments: str | Path) -> None:
        self.pg(program, *arguments)

    def copy_data(self, data: Path) -> None:
        """Take over the data of a server that was stopped cleanly."""
        self._own(self.directory)
        subprocess.run(["cp", "-a", "--reflink=auto", data, self.data], check=True)

    def follow(self, conninfo: str) -> None:
        """Be a standby of that server from the next start on."""
        self.settings["primary_conninfo"] = conninfo
        signal_file = self.data / "standby.signal"
        signal_file.touch()
        self._give(signal_file)

    def reload(self, **settings: str) -> None:
        """Change settings that need no restart."""
        self.settings |= settings
        self._configure()
        self._pg("pg_ctl", "reload", "--pgdata", self.data, "--silent")

    def promote(self) -> None:
        """Make the standby a primary, and wait until it takes writes."""
        self._pg("pg_ctl", "promote", "--pgdata", self.data, "--wait", "--silent")

    @property
    def said(self) -> str:
        """The server's log."""
        return self.log.read_text(errors="replace")


class HostError(RuntimeError):
    """`ip` refused; the message carries what it said."""


def ip(*words: str) -> str:
    """Call `ip`."""
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        raise HostError(f"ip cannot be run: {error}") from None
    if done.returncode != 0:
        raise HostError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def new_home() -> Path:
    """Make a directory for the servers of a test; it is named after this process."""
    home = Path(tempfile.mkdtemp(prefix=f"{HOME}{os.getpid()}-"))
    home.chmod(0o755)  # the account that runs the servers passes through; what is inside is closed
    return home


def reason_against() -> str | None:
    """Why hosts cannot be made here, in a sentence; None where they can."""
    if os.geteuid() != 0:
        return "the failover tests make network namespaces, which only root may: run them as root"
    for program, package in (("ip", "iproute2"), ("setpriv", "util-linux")):
        if shutil.which(program) is None:
            return f"the failover tests need the program {program}: install Debian's package {package}"
    try:
        ip("netns", "add", "pdh0")
        ip("link", "add", "pdv0", "type", "veth", "peer", "name", "eth0", "netns", "pdh0")
    except HostError as error:
        return f"the failover tests make network namespaces, and this machine refuses (no CAP_NET_ADMIN?): {error}"
    finally:
        for words in (("link", "del", "pdv0"), ("netns", "del", "pdh0")):
            with suppress(HostError):
                ip(*words)
    return None


def _namespaces() -> set[str]:
    return {line.split()[0] for line in ip("netns", "list").splitlines() if line}


def _kill(host: Host) -> None:
    deadline = time.monotonic() + 20
    while pids := host.processes():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise HostError(f"processes {pids} on {host.name} do not end")
        time.sleep(0.01)


def _remove_homes() -> None:
    for home in Path(tempfile.gettempdir()).glob(f"{HOME}*-*"):
        match = re.match(rf"{HOME}(\d+)-", home.name)
        if match is not None and home.stat().st_uid == 0 and not Path(f"/proc/{match[1]}").exists():
            with suppress(ServerError):
                Server(home / "template").destroy()
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    if reason := reason_against():
        sys.exit(f"{reason}.")
