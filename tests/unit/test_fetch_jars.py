"""Test `entitymill fetch-jars` with real clients, and with altered or missing jars."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from entitymill.commands import fetch_jars

ROOT = Path(__file__).parents[2]
OURS = fetch_jars.JARS["3.5"]


def files(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("client", ["mvn", "spark"])
def test_a_client_fetches_the_very_files(tmp_path: Path, client: str, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "a" / "jars"
    assert fetch_jars.main(["--to", str(to), "--client", client, "--spark", "3.5"]) == 0
    assert files(to) == {jar.name: jar.sha256 for jar in OURS}
    assert "every SHA-256 is correct" in capsys.readouterr().out
    assert fetch_jars.main(["--to", str(to), "--client", client, "--spark", "3.5"]) == 0
    assert "already has delta-spark" in capsys.readouterr().out


@pytest.mark.slow
def test_an_altered_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = fetch_jars.Jar(OURS[1].coordinates, "0" * 64)
    monkeypatch.setitem(fetch_jars.JARS, "3.5", (OURS[0], wrong))
    assert fetch_jars.main(["--to", str(tmp_path / "jars"), "--spark", "3.5", "--client", "mvn"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "delta-storage-3.3.3.jar has SHA-256 45ad193053fd…, but entitymill expects 000000000000…" in said
    assert not (tmp_path / "jars").exists()


@pytest.mark.slow
@pytest.mark.parametrize("client", ["mvn", "spark"])
def test_what_no_repository_has_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], client: str
) -> None:
    monkeypatch.setitem(fetch_jars.JARS, "3.5", (fetch_jars.Jar("io.delta:delta-nothing_2.12:9.9.9", "0" * 64),))
    place = f"file://{tmp_path}/repository"
    assert (
        fetch_jars.main(["--to", str(tmp_path / "jars"), "--spark", "3.5", "--client", client, "--repository", place]) == 1
    )
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(rf"error: {client} could not fetch the jars: .*delta-nothing_2.12", said)
    assert not (tmp_path / "jars").exists()


def test_without_a_client_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert fetch_jars.main(["--to", str(tmp_path / "jars"), "--spark", "3.5"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Neither Maven nor PySpark with Java is installed: install Maven (mvn), or PySpark (`make " in said


def test_two_deltas_never_lie_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "delta-spark_2.12-3.2.0.jar").touch()
    assert fetch_jars.main(["--to", str(tmp_path), "--spark", "3.5"]) == 2
    assert "contains delta-spark_2.12-3.2.0.jar, another version of Delta" in " ".join(capsys.readouterr().err.split())
