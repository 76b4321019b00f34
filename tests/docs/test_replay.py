"""The small programs that people copy: killed after each checkpoint they do what they do when they are left alone.

The demo's own workflow has the same in `test_fulfil.py`, with both books compared.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.test_readme import block
from support.database import Database
from support.provision import ROOT
from support.replay import Program, compare

pytestmark = pytest.mark.slow


def test_the_program_of_the_readme(database: Database, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(block("python", "# shop.py"))
    conn = database.connect()
    conn.execute("select perdure.put_workflow('fulfil')")

    def begin(key: str) -> None:
        conn.execute("select perdure.start('fulfil', '{\"id\": 7, \"amount\": 5000}', key => %s)", [key])
        conn.execute("select perdure.signal_key('fulfil', %s, 'approval', '{\"by\": \"Ines\"}')", [key])

    assert compare(database, Program(database, tmp_path, "shop:app"), begin) == ["approval", "charge", "~sleep"]


def test_the_program_of_the_image(database: Database) -> None:
    conn = database.connect()
    conn.execute("select perdure.put_workflow('greet')")

    def begin(key: str) -> None:
        conn.execute("select perdure.start('greet', '{\"name\": \"Ada\"}', key => %s)", [key])
        conn.execute("select perdure.signal_key('greet', %s, 'answer', '\"Hello back\"')", [key])

    program = Program(database, ROOT / "docker" / "app", "greeting:app")
    assert compare(database, program, begin) == ["find_words", "answer"]
