"""Test that erasures, rejected rows and commits to the source during a run do not make later runs compare all rows."""

from __future__ import annotations

import pytest

from entitymill.run import extraction, recognition_ahead
from entitymill.run.erasure import erase
from entitymill.source import change_feed
from entitymill.tables import publisher
from integration.stub_world import World, hook, make_texts, world

__all__ = ["world"]


@pytest.mark.deep
def test_an_erased_document_and_one_refused_row_a_night_leave_a_feed_a_feed(world: World) -> None:
    world.create(make_texts(5)).run()
    world.delete("d00")
    assert erase(world.spark, world.settings(), ["d00"])["documents"] == 1
    world.put({"d01": "Another Change text"})
    planned = extraction.extract(world.spark, world.settings(), dry_run=True)
    assert planned.plan is not None
    assert (planned.mode, planned.plan.changed, planned.plan.unchanged) == ("feed", 1, 3)
    assert world.run().mode == "feed"
    world.check()
    for night in range(2):
        world.append({f"bad{night}": None, f"good{night}": "Good Row text"})
        summary = world.run()
        assert (summary.mode, summary.documents, summary.rejects) == ("feed", 1, {"null_text": 1})
        world.check()
    world.put({"bad0": "Now Good text"})
    assert world.run().mode == "feed"
    world.check()


@pytest.mark.deep
def test_a_live_source_without_a_feed_is_never_compared(world: World) -> None:
    """If the source gets a commit during each run, the next run must still read only the appended rows."""
    world.create(make_texts(4), feed=False).run()
    live: list[str] = []

    def append_another(*_: object) -> None:
        live.append("Live")
        world.append({f"live{len(live)}": "Live Row text"})

    with pytest.MonkeyPatch.context() as patch:
        hook(patch, change_feed, "read_appended_rows", append_another)
        for night in range(2):
            world.append({f"night{night}": "Night Row text"})
            assert world.run().mode == "arrivals"
    assert len(live) == 2
    summary = world.run()
    assert (summary.mode, summary.documents) == ("arrivals", 1)
    world.check()


@pytest.mark.deep
def test_a_removed_document_is_published_with_the_unit_of_its_range(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first unit must not remove a document from the last unit's id range, or its MERGE would search all files."""
    for module in (publisher, recognition_ahead):
        monkeypatch.setattr(module, "MAX_LISTED_IDS", 1)
    world.create(make_texts(12)).run("limits.unit_rows=4")
    before = world.history("documents")[0]["version"]
    world.put({key: f"Newer {text}" for key, text in world.rows.items()})
    world.delete("d11")
    world.run("limits.unit_rows=4")
    world.check()
    merges = [row for row in world.history("documents") if row["version"] > before and row["operation"] == "MERGE"]
    assert len(merges) == 3
    for merge in merges:
        metrics = merge["operationMetrics"]
        assert int(metrics["numTargetRowsDeleted"]) == 4
        assert int(metrics["numTargetFilesRemoved"]) + int(metrics["numTargetDeletionVectorsUpdated"]) <= 1, metrics
