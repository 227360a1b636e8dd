"""Test that the leftovers of a run that died while it created a table do not count as a table.

The next run creates the table in the same place.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from entitymill import schemas
from entitymill.errors import OutputError
from entitymill.tables import Tables, table_setup


def place_of(tables: Tables, name: str) -> Path:
    return Path(tables.address(name).removeprefix("file:"))


@pytest.mark.parametrize("inside", ["", "_delta_log", "_delta_log/_commits", "_delta_log/_staged_commits"])
def test_a_directory_without_files_is_no_table(tables: Tables, inside: str) -> None:
    """The empty directory is what a run leaves that dies after it has removed the leftovers of another dead run."""
    (place_of(tables, "rejects") / inside).mkdir(parents=True)
    assert not tables.exists("rejects")
    table_setup.check_tables(tables)
    assert table_setup.create_table(tables, "rejects", schemas.REJECTS)
    assert tables.is_current("rejects")


def test_a_directory_that_delta_takes_for_a_table_is_named(tables: Tables) -> None:
    """Another release of Delta may leave a directory that this program does not know."""
    (place_of(tables, "rejects") / "_delta_log" / "_of_another_delta").mkdir(parents=True)
    with pytest.raises(OutputError, match="rejects is not empty, but is not a Delta table; move it away, then run again"):
        table_setup.create_table(tables, "rejects", schemas.REJECTS)


@pytest.mark.parametrize("inside", ["data.csv", "_delta_log/00000000000000000007.json", "day=1/part-0.parquet"])
def test_a_directory_with_files_is_somebody_elses(tables: Tables, inside: str) -> None:
    file = place_of(tables, "rejects") / inside
    file.parent.mkdir(parents=True)
    file.write_text("{}", encoding="utf8")
    assert tables.exists("rejects")
    wrong = "cannot be read: " if file.suffix == ".json" else "exists and was not written by this program"
    with pytest.raises(OutputError, match=f"rejects {wrong}"):
        table_setup.check_tables(tables)
    assert file.exists()


def test_a_table_that_delta_cannot_read_is_not_taken_for_somebody_elses(tables: Tables) -> None:
    """Else the message would say to move the published tables away."""
    table_setup.create_table(tables, "rejects", schemas.REJECTS)
    features = ["entitymill-of-the-future"]
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}
    newer = place_of(tables, "rejects") / "_delta_log" / f"{1:020}.json"
    newer.write_text(json.dumps({"protocol": protocol}) + "\n", encoding="utf8")
    tables.forget()
    with pytest.raises(OutputError, match=r"rejects cannot be read: .*entitymill-of-the-future"):
        table_setup.check_tables(tables)


def test_a_file_in_the_place_of_a_table_is_somebody_elses(tables: Tables) -> None:
    file = place_of(tables, "rejects")
    file.parent.mkdir(parents=True)
    file.write_text("notes", encoding="utf8")
    with pytest.raises(OutputError, match="rejects exists and was not written by this program"):
        table_setup.check_tables(tables)
    assert file.read_text(encoding="utf8") == "notes"
