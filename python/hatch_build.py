"""Put the SQL into the package: wheel and sdist carry it as `perdure/sql/install.sql` and `uninstall.sql`.

In a checkout the files are built from `../sql` into a temporary directory, so that no built copy lies about in the
source tree and goes stale; an editable install gets none and reads `../sql` itself. An sdist carries the built files
as sources, and a wheel made from it needs no `../sql`.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGED = "perdure/sql"
FILES = ("install.sql", "uninstall.sql")


class InstallSql(BuildHookInterface):  # type: ignore[type-arg]
    """Build the SQL files and force them into what is being built."""

    PLUGIN_NAME = "custom"
    _scratch: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        for name in FILES:
            target = f"src/{PACKAGED}/{name}" if self.target_name == "sdist" else f"{PACKAGED}/{name}"
            manifest = Path(self.root).parent / "sql" / name
            carried = Path(self.root) / "src" / PACKAGED / name
            if manifest.is_file():
                self._scratch = self._scratch or Path(tempfile.mkdtemp(prefix="perdure-build-"))
                built = self._scratch / name
                built.write_text(self._bundle(manifest), encoding="utf-8")
            elif carried.is_file():
                built = carried
            else:
                raise FileNotFoundError(
                    f"neither {manifest} nor {carried} is there: build from a checkout or from an sdist"
                )
            build_data["force_include"][str(built)] = target

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _bundle(self, manifest: Path) -> str:
        # Loaded by path: the package itself cannot be imported while it is being built.
        path = Path(self.root) / "src" / "perdure" / "_build.py"
        spec = importlib.util.spec_from_file_location("_perdure_build", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        text: str = module.bundle(manifest)
        return text
