"""Test that the wheel contains only modules and data, and the source archive everything that a wheel is built from."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = {
    "entitymill/conf/log4j2.properties",
    "entitymill/conf/spark-defaults.conf",
    "entitymill/py.typed",
    "entitymill_reports/page.css",
    "entitymill_reports/page.html",
    "entitymill_reports/page.js",
}
METADATA = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt"}
SOURCE = {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and the source archive from the files that git tracks; return their directory."""
    clone, made = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("made")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0"):
        if name.startswith(("jobs/", "conf/", "licences/")) or (name and "/" not in name):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name, follow_symlinks=False)
    for kind in ("build_sdist", "build_wheel"):
        subprocess.run([sys.executable, "-c", BUILD, kind, str(made)], cwd=clone, check=True, capture_output=True)
    return made


def modules() -> set[str]:
    return {str(path.relative_to(ROOT / "jobs")) for path in (ROOT / "jobs").glob("entitymill*/**/*.py")}


def test_the_wheel_has_modules_and_data_alone(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    described = {name for name in names if ".dist-info/" in name}
    assert names - described == modules() | DATA
    assert {name.rpartition("/")[2] for name in described} - METADATA <= {"LICENSE", "THIRD_PARTY_NOTICES.md"}


def test_the_source_archive_has_what_the_wheel_is_built_from(built: Path) -> None:
    [archive] = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    inside = {name.removeprefix("jobs/") for name in names if name.startswith("jobs/entitymill") and "." in name}
    assert {name for name in inside if ".egg-info" not in name} == modules() | DATA
    top = {name for name in names if "/" not in name and "." in name} | ({"LICENSE"} & names)
    assert top - {"jobs"} <= SOURCE | {"THIRD_PARTY_NOTICES.md"}
