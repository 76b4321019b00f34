"""Put the SQL into the package: wheel and sdist carry the built files as `perdure/sql/*.sql`.

In a checkout they are built from `../sql` into a temporary directory, so that no built copy lies about in the source
tree and goes stale; an editable install gets none and builds from `../sql` at each use. An sdist carries the built files
as sources, and a wheel made from it needs no `../sql`.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = ("install.sql", "uninstall.sql")
PLACE = "perdure/sql"


class BuiltSql(BuildHookInterface):
    """Build the SQL files and force them into what is being built."""

    PLUGIN_NAME = "custom"
    _scratch: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        target = f"src/{PLACE}" if self.target_name == "sdist" else PLACE
        for built in self._built():
            build_data["force_include"][str(built)] = f"{target}/{built.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _built(self) -> list[Path]:
        sources = Path(self.root).parent / "sql"
        carried = Path(self.root) / "src" / PLACE
        if not (sources / FILES[0]).is_file():
            if not (carried / FILES[0]).is_file():
                raise FileNotFoundError(
                    f"neither {sources} nor {carried} is there: build from a checkout or from an sdist"
                )
            return [carried / name for name in FILES]
        self._scratch = Path(tempfile.mkdtemp(prefix="perdure-build-"))
        # Loaded by path: the package itself cannot be imported while it is being built.
        path = Path(self.root) / "src" / "perdure" / "_build.py"
        spec = importlib.util.spec_from_file_location("_perdure_build", path)
        assert spec is not None and spec.loader is not None
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        for name in FILES:
            (self._scratch / name).write_text(build.bundle(sources / name), encoding="utf-8")
        return [self._scratch / name for name in FILES]
