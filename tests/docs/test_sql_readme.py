"""The worked example of sql/README.md does what it says, block by block, in psql."""

from __future__ import annotations

import re
import subprocess

import pytest

from support.database import Database
from support.provision import ROOT

README = ROOT / "sql" / "README.md"


def test_a_run_is_driven_from_psql_alone(database: Database) -> None:
    local = database.server.local
    if local is None:
        pytest.skip("needs psql beside the server's binaries")
    blocks = re.findall(r"^```sql\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    psql = [local.binaries.bin / "psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database.dsn()]
    done = subprocess.run(psql, input="\n".join(blocks), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "accepted" in said
    assert "compose|saved" in said
    assert 'answered|{"by": "Bob"}' in said
    assert any(re.search(r'with key "ada" is running since \d', line) for line in said), "explain"
    assert 'Worker "psql" holds it.' in said
    assert 'compose|step|completed|"Hello, Ada"' in said
    assert 'approval|signal|completed|{"by": "Bob"}' in said
    assert '"Hello, Ada"' in said
    assert [line.split("|")[1] for line in said if "|run " in line or "|step " in line or "|signal " in line] == [
        "run started", "signal sent", "step saved", "signal consumed", "run completed",
    ]  # fmt: skip


def test_each_file_that_is_named_is_there() -> None:
    text = README.read_text()
    named = set(re.findall(r"`((?:\w+/)?\w+\.(?:sql|md))`", text))
    missing = {
        name
        for name in named
        if not any((README.parent / folder / name).is_file() for folder in ("", "functions", "../tests/golden"))
    }
    assert missing == set()
