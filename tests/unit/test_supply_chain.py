"""Check that everything that is downloaded to build and run this program has its version and hash in the repository."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf8")
LOCKS = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.lock") if ".venv" not in str(path))
POM = {"m": "http://maven.apache.org/POM/4.0.0"}


def locked(lock: str) -> dict[str, str]:
    """Return the entry of each package in a lock file, including its hashes, by the name of the package."""
    entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text(encoding="utf8").strip())
    return {entry.partition("==")[0]: entry for entry in entries}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_one_version_and_hashes(lock: str) -> None:
    assert [name for name, entry in locked(lock).items() if not re.search(r"==\S+.*--hash=sha256:", entry, re.DOTALL)] == []


def test_what_builds_the_package_is_locked() -> None:
    [required] = PROJECT["build-system"]["requires"]
    assert re.fullmatch(r"setuptools==[\d.]+", required)
    assert PROJECT["dependency-groups"]["build"] == [required]
    assert locked("requirements-build.lock")["setuptools"].startswith(f"{required} ")


def test_uv_is_locked() -> None:
    [uv] = PROJECT["dependency-groups"]["lock"]
    assert locked("requirements-dev.lock")["uv"].startswith(f"{uv} ")


@pytest.mark.parametrize(
    "file", ["Makefile", "utils/install_locked", "package/build.sh", "databricks.yml", ".ci/run", "docs/airflow.md"]
)
def test_pip_fetches_nothing_unchecked(file: str) -> None:
    """Commands of pip and uv must check hashes if they install from a lock file, and build only with installed packages."""
    text = re.sub(r"^[A-Z_]+ = ", "", (ROOT / file).read_text(encoding="utf8"), flags=re.MULTILINE)
    if file == "utils/install_locked":
        for name, words in re.findall(r"^ *(\w+)=\((.*)\)$", text, re.MULTILINE):
            text = text.replace(f"{name}=({words})", "").replace(f'"${{{name}[@]}}"', words)
    text = text.replace('"${pip[@]}"', "-m pip").replace("\\\n", " ")
    text = re.sub(r"\n\s+(?=-r |&&)", " ", text)
    for command in re.findall(r"(?:-m|/uv) pip ?[^\n&]*?(?:install|wheel) [^\n&]*", text):
        assert "--require-hashes" in command or "--no-deps" in command, command
        assert "--no-build-isolation" in command or "--only-binary :all:" in command or ".whl" in command, command
        assert "--require-hashes" in command or "--editable ." in command or ".whl" in command or "wheel" in command, command


@pytest.mark.parametrize("kind", ["s3", "sparknlp"])
def test_every_jar_of_a_pom_has_its_hash(kind: str) -> None:
    listed = dict(line.split("  ")[::-1] for line in (ROOT / "jars" / kind / "SHA256SUMS").read_text().splitlines())
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in listed.values())
    for dependency in ET.parse(ROOT / "jars" / kind / "pom.xml").findall("m:dependencies/m:dependency", POM):  # noqa: S314  # our own
        parts = [dependency.findtext(f"m:{name}", "", POM) for name in ("artifactId", "version", "classifier")]
        assert "-".join(filter(None, parts)) + ".jar" in listed
    rule = MAKEFILE.partition(f"build/jars-{kind}\n\tmvn ")[2].partition("@touch")[0]
    assert f"jars/check jars/{kind}/SHA256SUMS build/jars-{kind}" in rule


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (None, ""),
        ("altered", r"a\.jar: FAILED"),
        ("missing", r"a\.jar: .*No such file"),
        ("added", r"c\.jar is not in "),
        ("empty", "no properly formatted"),
    ],
)
def test_jars_that_are_others_are_refused(tmp_path: Path, change: str | None, says: str) -> None:
    directory, listed = tmp_path / "jars", tmp_path / "SHA256SUMS"
    directory.mkdir()
    for name in ("a.jar", "b.jar", "own.jar"):
        (directory / name).write_text(name)
    lines = [f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in ("a.jar", "b.jar")]
    listed.write_text("" if change == "empty" else "".join(lines))
    if change == "altered":
        (directory / "a.jar").write_text("other")
    elif change == "missing":
        (directory / "a.jar").unlink()
    elif change == "added":
        shutil.copy(directory / "a.jar", directory / "c.jar")
    done = subprocess.run(
        [ROOT / "jars" / "check", listed, directory, "own.jar"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, directory.exists()) == ((0, True) if change is None else (1, False))
    assert re.search(says, done.stderr)
