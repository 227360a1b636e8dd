"""Test `output.change_feed`: a downstream job that applies all changes must get the rows of the tables."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from deltalake import DeltaTable

from entitymill.run import extraction
from entitymill.run.erasure import erase
from integration.stub_world import World, world
from page_code import read_code_block

__all__ = ["world"]
NIGHTS = 10
FEED = "output.change_feed=true"
NAMES = ("Angela Merkel", "Barack Obama", "Greta Thunberg", "Helmut Kohl", "Nelson Mandela")


def texts_of(night: int) -> dict[str, str]:
    """Return the source's documents in one night; from night to night, some stay, change, appear or disappear."""
    rng = random.Random(night)  # noqa: S311  # the same each time
    kept = [number for number in range(12) if number < 5 or rng.random() < 0.7]
    return {f"d{number}": f"{rng.choice(NAMES)} spoke." if number % 3 else "In Paris, again." for number in kept}


def change_source(world: World, texts: dict[str, str]) -> None:
    gone = [key for key in world.rows if key not in texts]
    if gone:
        world.delete_all(gone)
    world.put({key: text for key, text in texts.items() if world.rows.get(key) != text})


@pytest.mark.parametrize(
    ("vectors", "nights"),
    [("auto", 3), pytest.param("auto", NIGHTS, marks=pytest.mark.deep), pytest.param("true", 3, marks=pytest.mark.deep)],
)
def test_replaying_every_nights_changes_gives_the_tables(world: World, vectors: str, nights: int) -> None:
    """Each row of the tables must be in the feed, and the job in docs/queries.md must keep an equal copy of `entities`."""
    options = (FEED, f"output.deletion_vectors={vectors}", "limits.max_removed_ratio=1")
    world.create(texts_of(0)).run(*options)
    names: dict[str, Any] = {"spark": world.spark, "output": str(world.output), "copy": str(world.output.parent / "copy")}
    world.read("entities").write.format("delta").save(names["copy"])
    last = DeltaTable(world.output / "entities").version()
    for night in range(1, nights):
        change_source(world, texts_of(night))
        planned = extraction.extract(world.spark, world.settings(*options), dry_run=True)
        done = world.run(*options)
        assert (done.mode, done.documents, done.removed) == ("feed", planned.documents, planned.removed)
        assert planned.mode == "feed"
        exec(read_code_block("docs/queries.md", "readChangeFeed"), {**names, "last": last})  # noqa: S102
        last = DeltaTable(world.output / "entities").version()
    world.check()
    copied = world.spark.read.format("delta").load(names["copy"])
    assert Counter(map(tuple, copied.collect())) == Counter(map(tuple, world.read("entities").collect()))
    for name in ("entities", "documents"):
        columns = world.read(name).columns
        reader = world.spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 0)
        changes = reader.load(str(world.output / name)).collect()
        held: Counter[tuple[object, ...]] = Counter()
        for row in changes:
            came = row["_change_type"] in ("insert", "update_postimage")
            held[tuple(row[column] for column in columns)] += 1 if came else -1
        # A negative count would be a deleted row that was never inserted.
        assert {row: number for row, number in held.items() if number} == Counter(map(tuple, world.read(name).collect()))
        assert {row["_change_type"] for row in changes} > {"insert"}


@pytest.mark.deep
def test_an_erased_document_is_in_no_file_of_changes(world: World) -> None:
    world.create({"a": "Angela Merkel spoke.", "b": "In Paris, again."}).run(FEED)
    world.put({"a": "Nelson Mandela spoke.", "b": "In Berlin, again."})
    world.run(FEED)

    def holding(name: str) -> list[str]:
        return [path.name for path in world.output.rglob("*") if path.is_file() and name.encode() in path.read_bytes()]

    assert any((world.output / "entities" / "_change_data").rglob("*.parquet")) and holding("Merkel")
    world.delete("a")
    assert erase(world.spark, world.settings(FEED), ["a"])["documents"] == 1
    assert not holding("Merkel") and not holding("Mandela")
