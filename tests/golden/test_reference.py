"""sql/REFERENCE.md is what the comments in the catalog say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.database import Database
from support.provision import ROOT
from support.reference import reference


def test_the_reference_is_what_the_catalog_says(
    database: Database, same_as_golden: Callable[[Path, str, str], None]
) -> None:
    same_as_golden(ROOT / "sql" / "REFERENCE.md", reference(database), "make reference")
