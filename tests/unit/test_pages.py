"""Test the settings on the documentation pages with which no other test starts a job."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from entitymill import settings
from entitymill.commands import maintain
from page_code import ROOT, read_code_block


def test_databricks_maintenance_has_all_that_its_settings_need() -> None:
    page = (ROOT / "docs" / "databricks.md").read_text(encoding="utf8")
    [paragraph] = [part for part in page.split("\n\n") if "`entitymill-maintain`" in part]
    words = re.findall(r"`([^`]+)`", "`--config`" + paragraph.partition("`--config`")[2])
    ours = [str(ROOT / "conf" / Path(word).name) if word.endswith(".yaml") else word for word in words]
    tasks = ours[-3:]
    assert tasks == ["optimize", "vacuum", "purge"]
    options = maintain.parser().parse_args(ours[:-2])
    loaded = settings.load(options.config, options.overrides)
    assert (loaded.output.schema_, loaded.log) == ("main.article_entities", "stderr")


def test_the_settings_of_a_submitted_databricks_run(tmp_path: Path) -> None:
    shutil.copy(ROOT / "conf" / "base.yaml", tmp_path)
    (tmp_path / "tickets.yaml").write_text(read_code_block("docs/databricks.md", "main.raw.tickets"), encoding="utf8")
    loaded = settings.load(tmp_path / "tickets.yaml", ["output.schema=main.ticket_entities"])
    assert (loaded.source.format, loaded.source.path, loaded.log) == ("table", "main.raw.tickets", "stderr")
    assert loaded.model.path.startswith("/Volumes/")
