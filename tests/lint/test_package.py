"""The package, the database and the changelog agree, and what is built can be installed without the sources."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from support.build import install_sql
from support.database import Database
from support.provision import ROOT

PYPROJECT = (ROOT / "python" / "pyproject.toml").read_text()


def declared_version() -> str:
    found = re.search(r'^version = "(.+)"$', PYPROJECT, re.MULTILINE)
    assert found is not None
    return found[1]


def test_versions_agree(installed: Database) -> None:
    changelog = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert installed.value("select perdure.version()") == declared_version()
    assert changelog[0] == declared_version()


def test_the_licence_goes_with_the_package() -> None:
    assert (ROOT / "python" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


@pytest.mark.slow
def test_a_wheel_built_from_the_sdist_carries_the_sql(tmp_path: Path) -> None:
    built = tmp_path / "dist"
    subprocess.run([sys.executable, "-m", "build", "--outdir", built, ROOT / "python"], check=True, capture_output=True)
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    with tarfile.open(sdist) as archive:
        assert f"perdure-{declared_version()}/src/perdure/sql/install.sql" in archive.getnames()
    # `python -m build` makes the wheel from the unpacked sdist, away from sql/.
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("perdure/sql/install.sql").decode() == install_sql()
        assert "perdure/sql/uninstall.sql" in archive.namelist()
        assert "perdure/py.typed" in archive.namelist()
