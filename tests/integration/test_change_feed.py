"""`output.change_feed`: a job downstream that applies each night's changes has the table."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import pytest
from pyspark.sql import Row

from entitymill import settings
from entitymill.run.erasure import erase

from .conftest import Job

NIGHTS = 10
KEYS = ("doc_id", "begin", "end", "label")
NAMES = ("Angela Merkel", "Barack Obama", "Paris", "Berlin", "Nelson Mandela")


def texts_of(night: int) -> list[tuple[str | None, str | None]]:
    """Some documents stay, some change, some come and some go."""
    rng = random.Random(night)  # noqa: S311  # the same each time
    kept = [number for number in range(12) if number < 5 or rng.random() < 0.7]
    return [
        (f"d{number}", f"{rng.choice(NAMES)} met {rng.choice(NAMES)}." if number % 3 else "In Paris.") for number in kept
    ]


def key(row: Row, names: Iterable[str]) -> tuple[object, ...]:
    return tuple(row[name] for name in names)


@pytest.mark.parametrize(("vectors", "nights"), [("auto", NIGHTS), ("true", 3)])
def test_replaying_every_nights_changes_gives_the_tables(job: Job, vectors: str, nights: int) -> None:
    options = ("output.change_feed=true", f"output.deletion_vectors={vectors}")
    for night in range(nights):
        job.texts(texts_of(night)).run(*options)
    for name, names in (("entities", KEYS), ("documents", ("doc_id", "text_hash"))):
        held: Counter[tuple[object, ...]] = Counter()
        reader = job.spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 0)
        changes = reader.load(str(job.output / name)).orderBy("_commit_version").collect()
        for row in changes:
            if row["_change_type"] in ("insert", "update_postimage"):
                held[key(row, names)] += 1
            else:
                held[key(row, names)] -= 1
        assert +held == Counter(key(row, names) for row in job.read(name).collect())
        assert {row["_change_type"] for row in changes} > {"insert"}


def test_an_erased_document_is_in_no_file_of_changes(job: Job) -> None:
    feed = ("output.change_feed=true",)
    job.texts([("a", "Barack Obama met Angela Merkel."), ("b", "In Paris.")]).run(*feed)
    job.texts([("a", "Barack Obama met Nelson Mandela."), ("b", "In Berlin.")]).run(*feed)
    changes = job.output / "entities" / "_change_data"

    def holding(name: str) -> list[str]:
        return [path.name for path in job.output.rglob("*") if path.is_file() and name.encode() in path.read_bytes()]

    assert any(changes.rglob("*.parquet")) and holding("Merkel")
    job.texts([("b", "In Berlin.")])
    assert erase(job.spark, settings.load(None, job.options(*feed), {}), ["a"])["documents"] == 1
    assert not holding("Merkel") and not holding("Mandela")
