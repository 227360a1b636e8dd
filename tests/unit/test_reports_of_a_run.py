import importlib.util
from pathlib import Path

import pytest

from entitymill.commands.extract import main

ROOT = Path(__file__).parents[2]


def test_a_missing_library_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "matplotlib" else found(name, *more)
    )
    page, output = tmp_path / "page.html", tmp_path / "out"
    overrides = [f"report.path={page}", f"output.path={output}", "log=stderr", "spark.jars=/nowhere"]
    code = main(["--config", str(ROOT / "conf" / "demo.yaml"), *(item for one in overrides for item in ("--set", one))])
    said = capsys.readouterr().err
    assert code == 2
    assert "error: report.path needs matplotlib, which is not installed: run `make " in said
    assert "entitymill[" not in said
    assert not output.exists()
