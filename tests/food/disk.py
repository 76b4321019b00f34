"""A server of which one directory lies on a disk that is small."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perdure._postgres import Binaries, Server
from support.database import COMMON, PostgresServer

MEGABYTE = 1024 * 1024


class Disk:
    """A mounted file system of a fixed size, that can be filled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def free(self) -> int:
        """How many bytes may still be written."""
        told = os.statvfs(self.path)
        return told.f_bavail * told.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Write a file of what is free, but for so many bytes."""
        with self._filler.open("ab", buffering=0) as file:
            while (rest := self.free() - leave) > 0:
                try:
                    file.write(bytes(min(rest, MEGABYTE)))
                except OSError as error:  # noqa: PERF203  somebody else was faster
                    if error.errno != errno.ENOSPC:
                        raise

    def relieve(self) -> None:
        """Remove the file."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def server_on_a_small_disk(
    binaries: Binaries, prefix: str, directory: str, megabytes: int, **settings: str
) -> Iterator[tuple[PostgresServer, Disk]]:
    """Start a server whose directory of this name ("base", "pg_wal") has a disk of its own; it keeps what it acknowledged.

    Raises OSError where nothing may be mounted.
    """
    home = Path(tempfile.mkdtemp(prefix=f"perdure-test-{os.getpid()}-"))
    home.chmod(0o755)
    mounted = home / "disk"
    mounted.mkdir()
    local = Server(home / "server", binaries=binaries, settings={**COMMON, **settings})
    is_mounted = False
    try:
        told = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", mounted],
            capture_output=True,
            text=True,
        )
        if told.returncode != 0:
            raise PermissionError(f"a small disk cannot be mounted: {told.stderr.strip()}")
        is_mounted = True
        local.create()
        moved = mounted / directory
        subprocess.run(["cp", "-a", local.data / directory, moved], check=True)
        shutil.rmtree(local.data / directory)
        (local.data / directory).symlink_to(moved)
        local.start()
        yield PostgresServer(local.dsn(), local, prefix), Disk(mounted)
    finally:
        local.destroy()
        if is_mounted:
            subprocess.run(["umount", mounted], check=True)
        shutil.rmtree(home, ignore_errors=True)
