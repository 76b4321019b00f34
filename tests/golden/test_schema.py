"""What the database looks like after an install: each change of it shows as a diff of `schema.sql`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.database import OWNER, Database
from support.provision import OLDEST_MAJOR

GOLDEN = Path(__file__).with_name("schema.sql")

HEAD = f"""\
-- What an install makes, as pg_dump {OLDEST_MAJOR} sees it: written by `make golden`, never by hand.
-- Left out: the bodies of functions (sql/functions), comments (sql/REFERENCE.md). Periods and their bounds are called <period>.

"""


def normalised(dump: str) -> str:
    """The dump without what differs from day to day and from release to release."""
    text = re.sub(r"^(--.*|\\(un)?restrict .*|SET .*|SELECT pg_catalog\.set_config.*)\n", "", dump, flags=re.MULTILINE)
    text = re.sub(r"AS (\$\w*\$).*?\1", "AS $$…$$", text, flags=re.DOTALL)
    text = re.sub(r"_\d{8}\b", "_<period>", text)
    text = re.sub(r"_\d{8}_", "_<period>_", text)
    text = re.sub(r"'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'", "'<period>'", text)
    text = text.replace(OWNER, "owner")
    return HEAD + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def test_the_schema_is_the_golden_one(database: Database, same_as_golden: Callable[[Path, str, str], None]) -> None:
    local = database.server.local
    if local is None or database.server.major != OLDEST_MAJOR:
        pytest.skip(f"compared as pg_dump {OLDEST_MAJOR} writes it")
    command = [
        local.binaries.bin / "pg_dump",
        "--schema-only",
        "--schema=perdure",
        "--no-comments",
        "--no-owner",
        database.dsn(database.superuser),
    ]
    dump = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    same_as_golden(GOLDEN, normalised(dump), "make golden")
