"""The one file that installs Perdure, built from the sources as they are now."""

from __future__ import annotations

from functools import cache

from perdure._build import bundle, render
from support.provision import ROOT

MANIFEST = ROOT / "sql" / "install.sql"


@cache
def install_sql(schema: str = "perdure") -> str:
    """The built installation file for one schema name."""
    return render(bundle(MANIFEST), schema)
