"""Documents against what the output holds -> what is to be done."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from entitymill.errors import OutputError
from entitymill.platform.session import configured
from entitymill.settings.sections import SourceSettings
from entitymill.source import change_feed, changes
from entitymill.source.change_feed import CHANGE, COMMIT, Feed
from entitymill.source.changes import Changes, Policy
from entitymill.source.reader import Source, open_source
from entitymill.tables import Tables
from entitymill.tables.temporary_tables import Kept

HELD = [("a", "Anna"), ("b", "Bob"), ("c", "Cairo")]
ALL = Policy("f1", "reprocess", None)
Known = Callable[..., DataFrame]


@pytest.fixture
def known(spark: SparkSession) -> Known:
    """What `documents` says of these (id, text)."""

    def make(rows: Iterable[tuple[str, str]] = HELD, fingerprint: str = "f1", slice_: str | None = None) -> DataFrame:
        schema = "doc_id string, status string, text_hash string, passthrough_hash string, fingerprint string, slice string"
        digests = ((key, hashlib.sha256(text.encode()).hexdigest()) for key, text in rows)
        return spark.createDataFrame([(key, "done", digest, None, fingerprint, slice_) for key, digest in digests], schema)

    return make


def todo(found: Changes) -> tuple[dict[str, bool], list[str], dict[str, int]]:
    """doc_id -> whether it is known, of those to be done; doc_id of those to be removed; refused rows by code."""
    done = {row["doc_id"]: row["known"] for row in found.documents.collect()}
    gone = sorted(row["doc_id"] for row in found.removed.collect())
    assert (found.to_recognise, found.to_remove, found.known) == (len(done), len(gone), sum(done.values()))
    assert sum(found.counts.values()) == found.refused.count()
    found.close()
    return done, gone, found.counts


def test_nothing_is_held(source_of: Callable[..., Source]) -> None:
    found = changes.everything(source_of(*HELD, ("d", None)), "first")
    assert todo(found) == ({"a": False, "b": False, "c": False}, [], {"null_text": 1})
    assert (found.rows, found.chars) == (4, len("AnnaBobCairo"))


def test_new_changed_and_removed_are_told_apart(source_of: Callable[..., Source], known: Known) -> None:
    found = changes.compared(source_of(("a", "Anna"), ("b", "Berlin"), ("d", "Delhi")), known(), ALL)
    assert todo(found) == ({"b": True, "d": False}, ["c"], {})
    assert (found.mode, found.rows, found.chars) == ("compare", 3, len("BerlinDelhi"))


def test_a_known_document_that_is_refused_now_goes(source_of: Callable[..., Source], known: Known) -> None:
    source = source_of(("a", None), ("b", "Bob"), ("b", "Bob"), ("c", "Cairo"))
    assert todo(changes.compared(source, known(), ALL)) == ({}, ["a", "b"], {"null_text": 1, "duplicate_id": 2})


@pytest.mark.parametrize(("how", "done"), [("reprocess", ["a", "b", "c"]), ("ignore", ["b"])])
def test_another_fingerprint(source_of: Callable[..., Source], known: Known, how: str, done: list[str]) -> None:
    source = source_of(("a", "Anna"), ("b", "Berlin"), ("c", "Cairo"))
    assert sorted(todo(changes.compared(source, known(fingerprint="f0"), Policy("f1", how, None)))[0]) == done


def test_another_fingerprint_is_refused_where_that_is_asked(known: Known) -> None:
    with pytest.raises(OutputError, match="documents of fingerprint f0, this run's is f1"):
        changes.check_fingerprints(known(fingerprint="f0"), Policy("f1", "refuse", None))
    changes.check_fingerprints(known(), Policy("f1", "refuse", None))


def test_a_slice_removes_its_own_alone(source_of: Callable[..., Source], known: Known) -> None:
    held = known([("a", "Anna")], slice_="mine").unionByName(known([("b", "Bob")], slice_="other"))
    found = changes.compared(source_of(("d", "Delhi")), held, Policy("f1", "reprocess", "mine"))
    assert todo(found) == ({"d": False}, ["a"], {})


def test_what_is_of_no_slice_stays_unless_it_is_refused(source_of: Callable[..., Source], known: Known) -> None:
    held = known([("a", "Anna"), ("b", "Bob")])
    found = changes.compared(source_of(("b", None)), held, Policy("f1", "reprocess", "mine"))
    assert todo(found) == ({}, ["b"], {"null_text": 1})


def told(
    spark: SparkSession, source: Source, known: DataFrame, events: list[tuple[Any, ...]], refused: list[str] | None = None
) -> Changes | None:
    """What a feed of (id, text, kind, commit) leads to."""
    feed = Feed("feed", spark.createDataFrame(events, f"doc_id string, text string, {CHANGE} string, {COMMIT} long"))
    rejected = None if refused is None else spark.createDataFrame([(key,) for key in refused], "doc_id string")
    return changes.told(source, feed, known, rejected, ALL)


EVENTS = [
    ("a", "Anna", "update_preimage", 5), ("a", "Aachen", "update_postimage", 5),
    ("b", "Bob", "delete", 6),
    ("d", "Delhi", "insert", 7), ("e", "Essen", "insert", 7), ("e", "Essen", "delete", 8),
    ("c", "Cairo", "delete", 8), ("c", "Cairo", "insert", 9),
]  # fmt: skip


def test_a_feed_tells_the_same_as_a_look_at_all(spark: SparkSession, source_of: Callable[..., Source], known: Known) -> None:
    source = source_of(("a", "Aachen"), ("c", "Cairo"), ("d", "Delhi"))
    found = told(spark, source, known(), EVENTS)
    assert found is not None
    assert todo(found) == todo(changes.compared(source, known(), ALL)) == ({"a": True, "d": False}, ["b"], {})


@pytest.mark.parametrize(
    ("events", "refused"),
    [
        ([("d", "Delhi", "insert", 7), ("d", "Dakar", "insert", 7)], None),  # twice in one commit
        ([("a", "Aachen", "insert", 7)], None),  # there already, and not cut
        ([("d", None, "insert", 7)], None),  # refused now
        ([("d", "Delhi", "insert", 7)], ["d"]),  # was refused before
        ([(None, "x", "insert", 7)], None),
        ([("x", "Xanten", "delete", 7)], None),  # of a document that the output does not hold
    ],
)
def test_a_feed_that_is_not_sure_says_so(
    spark: SparkSession, source_of: Callable[..., Source], known: Known, events: list[tuple[Any, ...]], refused: list[str]
) -> None:
    assert told(spark, source_of(), known(), events, refused) is None


@pytest.mark.parametrize("how", ["off for a while", "vacuumed"])
def test_where_the_feed_has_a_gap_it_is_not_sure(spark: SparkSession, tmp_path: Path, known: Known, how: str) -> None:
    """Delta finds that out when it reads."""
    path = tmp_path / "source"
    rows = spark.createDataFrame(HELD, "id string, text string")
    rows.write.format("delta").option("delta.enableChangeDataFeed", "true").save(str(path))
    if how == "vacuumed":
        spark.sql(f"UPDATE delta.`{path}` SET text = 'Berlin' WHERE id = 'b'")
        shutil.rmtree(path / "_change_data")
    else:
        alter = f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('delta.enableChangeDataFeed' = "
        spark.sql(f"{alter}'false')")
        spark.sql(f"UPDATE delta.`{path}` SET text = 'Berlin' WHERE id = 'b'")
        spark.sql(f"{alter}'true')")
    source = open_source(spark, SourceSettings(path=str(path)))
    feed = change_feed.since(spark, source, "0", lambda stream: stream)
    assert feed is not None
    assert changes.told(source, feed, known(), None, ALL) is None
    assert todo(changes.compared(source, known(), ALL))[0] == {"b": True}


@pytest.mark.parametrize(
    ("change", "mode"),
    [
        ("INSERT INTO {} VALUES ('d', 'Delhi')", "arrivals"),
        ("OPTIMIZE {}", "feed"),
        ("VACUUM {}", "feed"),
        ("DELETE FROM {} WHERE id = 'b'", None),
        ("INSERT OVERWRITE {} VALUES ('d', 'Delhi')", None),
    ],
)
def test_what_delta_says_of_a_source_without_a_feed(
    spark: SparkSession, tmp_path: Path, change: str, mode: str | None
) -> None:
    """Rows that came, nothing new, or that all have to be looked at."""
    table = f"delta.`{tmp_path}/source`"
    settings = SourceSettings(path=f"{tmp_path}/source")
    for text in HELD[:2], HELD[2:]:
        spark.createDataFrame(text, "id string, text string").write.format("delta").mode("append").save(settings.path)
    before = open_source(spark, settings)
    with configured(spark, {"spark.sql.sources.parallelPartitionDiscovery.parallelism": "2"}):  # VACUUM's own: 10,000 tasks
        spark.sql(change.format(table))
    found = change_feed.since(
        spark, open_source(spark, settings), before.version, lambda stream: spark.createDataFrame([], stream.schema)
    )
    assert (None if found is None else found.mode) == mode


def test_rows_that_arrive_are_written_down_each_time_anew(spark: SparkSession, tables: Tables, tmp_path: Path) -> None:
    """Delta's log is kept in memory by its path, which the table of the run before had, too."""
    settings = SourceSettings(path=f"{tmp_path}/source")
    spark.createDataFrame(HELD, "id string, text string").write.format("delta").save(settings.path)
    for new in ("d", "e"):
        before = open_source(spark, settings).version
        spark.sql(f"INSERT INTO delta.`{settings.path}` VALUES ('{new}', 'Delhi')")
        kept = Kept(tables)
        found = change_feed.since(spark, open_source(spark, settings), before, kept.arrived)
        assert found is not None
        assert [row["doc_id"] for row in found.events.collect()] == [new]
        kept.close()
