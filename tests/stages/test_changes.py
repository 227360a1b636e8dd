"""Test how a run compares the source with the output, and which documents it then recognizes, removes, rejects or adopts."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from entitymill.errors import OutputError
from entitymill.settings.sections import SourceSettings
from entitymill.source import change_feed, changes, reader
from entitymill.source.change_feed import CHANGE, COMMIT, Feed
from entitymill.source.changes import Changes, Mode, Policy
from entitymill.source.reader import Source, open_source
from entitymill.spark.private_session import override_conf

from .conftest import frame_of

HELD = [("a", "Anna"), ("b", "Bob"), ("c", "Cairo")]
ALL = Policy("f1", "reprocess", None)
MINE = Policy("f1", "reprocess", "mine")
Known = Callable[..., DataFrame]
KNOWN = ", ".join(f"{name} string" for name in changes.COMPARED_COLUMNS)


@pytest.fixture(autouse=True, scope="module")
def without_unasked_broadcasts(spark: SparkSession, small: None) -> Iterator[None]:
    """Let Spark broadcast only the frames that the code marks, as in joins of large frames."""
    with override_conf(spark, {"spark.sql.autoBroadcastJoinThreshold": "-1"}):
        yield


@pytest.fixture
def known(spark: SparkSession) -> Known:
    """Return a function that makes rows of `documents` for (id, text) pairs."""

    def make(
        rows: Iterable[tuple[str, str]] = HELD,
        fingerprint: str = "f1",
        slice_: str | None = None,
        status: str = "done",
        run_id: str = "r1",
    ) -> DataFrame:
        held = [(key, status, sha256(text), None, fingerprint, slice_, run_id) for key, text in rows]
        return frame_of(spark, held, KNOWN)

    return make


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def todo(found: Changes) -> tuple[dict[str, bool], list[str], dict[str, int]]:
    """Check the counts of the changes, and return what a run must do.

    Returns:
        doc_id -> whether the output has the document, for each document to recognize; doc_ids to remove; number of rejected
        rows by code.
    """
    others = {"removed": found.removed, "rejected": found.rejected, "adopted": found.adopted}
    union = found.documents.select(F.lit("documents").alias("part"), "doc_id", "in_output")
    for part, frame in others.items():
        union = union.union(frame.select(F.lit(part), "doc_id", F.lit(None).cast("boolean")))
    rows = union.collect()  # in one job
    numbers = Counter(row["part"] for row in rows)
    done = {row["doc_id"]: row["in_output"] for row in rows if row["part"] == "documents"}
    gone = sorted(row["doc_id"] for row in rows if row["part"] == "removed")
    assert numbers["documents"] == len(done), "each once"
    assert (found.to_recognize, found.to_remove, found.to_replace) == (len(done), len(gone), sum(done.values()))
    assert sum(found.reject_counts.values()) == numbers["rejected"]
    assert found.to_adopt == numbers["adopted"]
    found.close()
    return done, gone, found.reject_counts


def adopted(found: Changes) -> list[str]:
    return sorted(row["doc_id"] for row in found.adopted.collect())


def test_nothing_is_held(source_of: Callable[..., Source]) -> None:
    found = changes.select_all_documents(source_of(*HELD, ("d", None)), Mode.FIRST)
    assert todo(found) == ({"a": False, "b": False, "c": False}, [], {"null_text": 1})
    assert (found.mode, found.rows, found.chars, found.compared_ids is None) == (Mode.FIRST, 4, len("AnnaBobCairo"), True)


def test_new_changed_and_removed_are_told_apart(source_of: Callable[..., Source], known: Known) -> None:
    found = changes.compare_all(source_of(("a", "Anna"), ("b", "Berlin"), ("d", "Delhi")), known(), ALL)
    assert todo(found) == ({"b": True, "d": False}, ["c"], {})
    assert (found.mode, found.rows, found.chars) == ("compare", 3, len("BerlinDelhi"))


def test_a_known_document_that_is_refused_now_goes(source_of: Callable[..., Source], known: Known) -> None:
    source = source_of(("a", None), ("b", "Bob"), ("b", "Bob"), ("c", "Cairo"))
    assert todo(changes.compare_all(source, known(), ALL)) == ({}, ["a", "b"], {"null_text": 1, "duplicate_id": 2})


def test_why_documents_are_done_again(source_of: Callable[..., Source], known: Known) -> None:
    held = known([("a", "Anna"), ("b", "Bob")]).unionByName(known([("c", "Cairo"), ("d", "D")], fingerprint="f0"))
    held = held.unionByName(known([("e", "Essen")], status="pending"))
    source = source_of(("a", "Anna"), ("b", "Berlin"), ("c", "Cairo"), ("d", "Delhi"), ("e", "Essen"), ("n", "New"))
    by_text_and_model = {"text": 2, "settings or model": 1, "left incomplete by a failed run": 1}
    for policy, more in (ALL, {}), (Policy("f1", "reprocess", None, full=True), {"--full": 1}):
        found = changes.compare_all(source, held, policy)
        assert found.causes == by_text_and_model | more
        assert sum(found.causes.values()) == found.to_replace
        found.close()
    carried = source.rows.where("doc_id = 'a'").withColumn("passthrough", F.struct(F.lit(1).alias("n")))
    found = changes.compare_all(replace(source, rows=carried), held.where("doc_id = 'a'"), ALL)
    assert found.causes == {"passthrough columns": 1}
    found.close()


@pytest.mark.parametrize(("how", "done"), [("reprocess", ["a", "b", "c"]), ("ignore", ["b"])])
def test_another_fingerprint(source_of: Callable[..., Source], known: Known, how: str, done: list[str]) -> None:
    source = source_of(("a", "Anna"), ("b", "Berlin"), ("c", "Cairo"))
    assert sorted(todo(changes.compare_all(source, known(fingerprint="f0"), Policy("f1", how, None)))[0]) == done


def test_another_fingerprint_is_refused_where_that_is_asked(known: Known) -> None:
    with pytest.raises(OutputError, match="documents with fingerprint f0, but this run has f1"):
        changes.check_fingerprints(known(fingerprint="f0"), Policy("f1", "refuse", None))
    changes.check_fingerprints(known(), Policy("f1", "refuse", None))


def test_a_slice_removes_its_own_alone(source_of: Callable[..., Source], known: Known) -> None:
    held = known([("a", "Anna")], slice_="mine").unionByName(known([("b", "Bob")], slice_="other"))
    found = changes.compare_all(source_of(("d", "Delhi")), held, Policy("f1", "reprocess", "mine"))
    assert todo(found) == ({"d": False}, ["a"], {})


def test_what_is_of_no_slice_stays_unless_it_is_refused(source_of: Callable[..., Source], known: Known) -> None:
    held = known([("a", "Anna"), ("b", "Bob")])
    found = changes.compare_all(source_of(("b", None)), held, Policy("f1", "reprocess", "mine"))
    assert todo(found) == ({}, ["b"], {"null_text": 1})


def test_a_slice_only_adopts_what_it_would_write_itself(source_of: Callable[..., Source], known: Known) -> None:
    """A slice adopts documents of a run without slices, or of another slice, only if their text and model have not changed.

    It recognizes the others. A run without slices adopts nothing.
    """
    held = known([("a", "Anna")]).unionByName(known([("b", "Bob"), ("c", "Cairo")], slice_="other"))
    held = held.unionByName(known([("d", "Delhi")], fingerprint="f0")).unionByName(known([("e", "Essen")], slice_="mine"))
    source = source_of(("a", "Anna"), ("b", "Bob"), ("c", "Calais"), ("d", "Delhi"), ("e", "Essen"))
    for how in "reprocess", "ignore":
        found = changes.compare_all(source, held, Policy("f1", how, "mine"))
        assert adopted(found) == ["a", "b"]
        assert todo(found) == ({"c": True, "d": True}, [], {})
    without = changes.compare_all(source, held.where("fingerprint = 'f1'"), ALL)
    assert adopted(without) == []
    assert todo(without)[0] == {"c": True, "d": False}


@pytest.mark.parametrize(
    ("slice_", "fingerprint", "refused"),
    [(None, "f0", True), ("other", "f0", True), ("mine", "f0", True), ("other", "f1", False)],
)
def test_a_slice_refuses_another_fingerprint_in_what_it_takes_over(
    source_of: Callable[..., Source], known: Known, slice_: str | None, fingerprint: str, refused: bool
) -> None:
    """Only documents that the slice takes over count: x belongs to another slice, and stays there."""
    held = known([("a", "Anna")], fingerprint, slice_).unionByName(known([("x", "Xanten")], "f0", "other"))
    policy = Policy("f1", "refuse", "mine")
    source, events = source_of(("a", "Aachen")), [("a", "Aachen", "insert", 7)]
    if not refused:
        assert todo(changes.compare_all(source, held, policy)) == ({"a": True}, [], {})
        assert todo(found_in(compare(source, held, events, policy=policy))) == ({"a": True}, [], {})
        return
    with pytest.raises(OutputError, match="documents with fingerprint f0, but this run has f1"):
        changes.compare_all(source, held, policy)
    with pytest.raises(OutputError, match="documents with fingerprint f0, but this run has f1"):
        compare(source, held, events, policy=policy)


def test_a_rejected_row_that_removes_nothing_refuses_no_fingerprint(source_of: Callable[..., Source], known: Known) -> None:
    """The document belongs to another slice, and stays there."""
    held = known([("a", "Anna")], "f0", "other")
    policy = Policy("f1", "refuse", "mine")
    assert todo(changes.compare_all(source_of(("a", None)), held, policy)) == ({}, [], {"null_text": 1})
    with pytest.raises(OutputError, match="documents with fingerprint f0, but this run has f1"):
        changes.compare_all(source_of(("a", None)), known([("a", "Anna")], "f0", "mine"), policy)


def test_documents_of_other_slices_are_not_shuffled(source_of: Callable[..., Source], known: Known) -> None:
    held = known([("a", "Anna")], slice_="mine").unionByName(known([("b", "Bob"), ("x", "Xanten")], slice_="other"))
    with ExitStack() as cached:
        rows, _, related = changes._restrict_to_slice(source_of(("b", "Bob"), ("c", None)), held, MINE, cached)
        assert (rows, {row["doc_id"] for row in related.collect()}) == (2, {"a", "b"})
        java: Any = related._jdf
        plan = str(java.queryExecution().executedPlan().toString())
    joined = plan[: plan.index("InMemoryTableScan")]
    assert "BroadcastHashJoin" in joined
    assert "Exchange hashpartitioning" not in joined
    assert ">= b)" in joined and "<= c)" in joined


def test_a_document_that_moves_into_the_slice_during_the_comparison_is_left_to_the_next_run(
    spark: SparkSession, source_of: Callable[..., Source], known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a source without versions, a row may come from another slice after the ids of the slice have been read."""
    texts = tmp_path / "texts.json"

    def write_in_place(*rows: tuple[str | None, str]) -> None:
        """Overwrite the rows; Spark reads as many bytes as the file had at first, and skips blank lines."""
        lines = (json.dumps({"doc_id": key, "text": text}) for key, text in rows)
        texts.write_text("\n".join(lines).ljust(1000, "\n"))

    write_in_place(("a", "Aachen"), (None, "Nobody"))
    source = replace(source_of(), rows=spark.read.schema("doc_id string, text string").json(str(texts)))
    held = known([("a", "Anna")], slice_="mine").unionByName(known([("x", "Xanten")], slice_="other"))
    restrict = changes._restrict_to_slice

    def and_then_move(*arguments: Any) -> Any:
        found = restrict(*arguments)
        write_in_place(("a", "Aachen"), (None, "Nobody"), ("x", "Xanten"))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(changes, "_restrict_to_slice", and_then_move)
        assert todo(changes.compare_all(source, held, MINE)) == ({"a": True}, [], {"null_id": 1})
    for remote in (False, True):  # a remote session may not cache ids, so all documents are compared
        monkeypatch.setattr(changes, "is_remote", lambda _, remote=remote: remote)
        found = changes.compare_all(source, held.unionByName(known([("y", "York")], slice_="other")), MINE)
        assert adopted(found) == ["x"]
        assert todo(found) == ({"a": True}, [], {"null_id": 1})


def test_a_full_run_goes_on_where_an_earlier_one_ended(source_of: Callable[..., Source], known: Known) -> None:
    """A document that an interrupted full run recomputed is recomputed again only if it is pending, or has changed."""
    held = known([("a", "Anna")]).unionByName(known([("b", "Bob"), ("c", "Cairo")], run_id="r2"))
    held = held.unionByName(known([("d", "Delhi")], fingerprint="f0", run_id="r2"))
    held = held.unionByName(known([("e", "Essen")], run_id="r2", status="pending"))
    source = source_of(("a", "Anna"), ("b", "Bob"), ("c", "Calais"), ("d", "Delhi"), ("e", "Essen"))
    for how in "ignore", "refuse":
        found = changes.compare_all(
            source, held, Policy("f1", how, None, full=True, interrupted_runs=frozenset({"r2", "r3"}))
        )
        assert found.mode == Mode.FULL
        assert sorted(todo(found)[0]) == ["a", "c", "d", "e"]
    found = changes.compare_all(source, held, Policy("f1", "ignore", None, full=True))
    assert sorted(todo(found)[0]) == ["a", "b", "c", "d", "e"]


def test_pending_documents_are_recognized_or_removed(source_of: Callable[..., Source], known: Known) -> None:
    held = known([("a", "Anna"), ("x", "Xanten")], status="pending").unionByName(known([("b", "Bob")]))
    source = source_of(("a", "Anna"), ("b", "Bob"))
    assert todo(changes.compare_all(source, held, ALL)) == ({"a": True}, ["x"], {})
    assert todo(found_in(compare(source, held, []))) == ({"a": True}, ["x"], {})
    others = known([("y", "Ypern")], status="pending", slice_="other")
    sliced = known([("a", "Anna"), ("x", "Xanten")], status="pending", slice_="mine").unionByName(others)
    for found in changes.compare_all(source, sliced, MINE), found_in(compare(source, sliced, [], policy=MINE)):
        done, gone, _ = todo(found)
        assert done.pop("a") and gone == ["x"]


def compare(
    source: Source,
    known: DataFrame,
    events: list[tuple[Any, ...]],
    rejected: list[str | None] | None = None,
    retry: list[str] | None = None,
    policy: Policy = ALL,
) -> Changes | None:
    """Compare a change feed of (id, text, kind, commit) with the output; return None if the feed cannot be read."""
    spark = source.rows.sparkSession

    def ids(keys: list[Any] | None) -> DataFrame | None:
        return None if keys is None else frame_of(spark, [(key,) for key in keys], "doc_id string")

    feed = Feed(Mode.FEED, frame_of(spark, events, f"doc_id string, text string, {CHANGE} string, {COMMIT} long"))
    return changes.compare_feed(source, feed, known, ids(rejected), policy, ids(retry))


def found_in(found: Changes | None) -> Changes:
    assert found is not None
    return found


EVENTS = [
    ("a", "Anna", "update_preimage", 5), ("a", "Aachen", "update_postimage", 5),
    ("b", "Bob", "delete", 6),
    ("d", "Delhi", "insert", 7), ("e", "Essen", "insert", 7), ("e", "Essen", "delete", 8),
    ("c", "Cairo", "delete", 8), ("c", "Cairo", "insert", 9),
    ("f", None, "insert", 9),
]  # fmt: skip


def test_events_that_settle_all_ids_need_no_look_at_the_source(source_of: Callable[..., Source], known: Known) -> None:
    source = source_of(("a", "Aachen"), ("c", "Cairo"), ("d", "Delhi"), ("f", None))
    expected = {"a": True, "d": False}, ["b"], {"null_text": 1}
    assert todo(changes.compare_all(source, known(), ALL)) == expected
    found = found_in(compare(source_of(), known(), EVENTS))
    assert (found.mode, found.compared_ids is None, found.rows) == (Mode.FEED, False, 4), "3 documents and a refused row"
    assert found.compared_ids is not None
    assert sorted(row["doc_id"] for row in found.compared_ids.collect()) == ["a", "b", "c", "d", "e", "f"]
    assert todo(found) == expected


def test_a_settled_feed_costs_no_more_jobs(spark: SparkSession, source_of: Callable[..., Source], known: Known) -> None:
    """If the events show the current rows of all ids, one job must do all counting, because more jobs would slow every run.

    Broadcasts of small frames have job groups of their own.
    """
    source, held = source_of(), known()
    spark.sparkContext.setJobGroup("settled", "")
    try:
        found = found_in(compare(source, held, EVENTS[:-1], rejected=["x"]))
        assert len(spark.sparkContext.statusTracker().getJobIdsForGroup("settled")) == 1
        assert (found.rows, found.stale_rejects) == (0, 0)
        found.close()
    finally:
        spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)  # type: ignore[arg-type]


def test_ids_that_events_do_not_settle_are_looked_up(
    source_of: Callable[..., Source], known: Known, caplog: pytest.LogCaptureFixture
) -> None:
    events = [
        # d is in two rows of one commit.
        ("d", "Delhi", "insert", 7), ("d", "Dakar", "insert", 7),
        # a is in the output, and no event deletes its row.
        ("a", "Aachen", "insert", 7),
        # e and f were rejected before. One row of each was deleted; the row that is left is in no event.
        ("e", "Emden", "delete", 7), ("f", "Fulda", "delete", 7),
        # g was rejected, too, and the event has the current text.
        ("g", None, "update_preimage", 7), ("g", "Genf", "update_postimage", 7),
        # One of three rows without an id was deleted.
        (None, "Nowhere", "delete", 7),
        # x is not in the output.
        ("x", "Xanten", "delete", 7),
    ]  # fmt: skip
    rows = [
        ("a", "Anna"), ("a", "Aachen"), ("b", "Bob"), ("c", "Cairo"), ("d", "Delhi"), ("d", "Dakar"), ("e", "Essen"),
        ("f", "x" * 101), ("g", "Genf"), (None, "y"), (None, "z"),
    ]  # fmt: skip
    expected = {"e": False, "g": False}, ["a"], {"duplicate_id": 4, "text_too_long": 1, "null_id": 2}
    with caplog.at_level(logging.INFO, "entitymill"):
        found = found_in(compare(source_of(*rows), known(), events, ["e", "f", "g", None]))
    reasons = (
        "in rejects (3), in several rows of a commit (1), null (1), with rows that the change feed does not explain (2)"
    )
    assert [record.message for record in caplog.records] == [f"looking up ids in the source, by reason: {reasons}"]
    assert (found.rows, found.stale_rejects) == (3 + 7, 4)
    assert todo(found) == expected
    assert todo(changes.compare_all(source_of(*rows), known(), ALL)) == expected


def test_the_last_row_without_an_id_is_gone(
    source_of: Callable[..., Source], known: Known, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "entitymill"):
        found = found_in(compare(source_of(*HELD), known(), [(None, "Nowhere", "delete", 7)], [None]))
    assert [record.message for record in caplog.records] == ["looking up ids in the source, by reason: null (1)"]
    assert (found.rows, found.stale_rejects) == (0, 1)
    assert todo(found) == ({}, [], {})


def test_documents_that_failed_are_looked_at_again(source_of: Callable[..., Source], known: Known) -> None:
    source = source_of(*HELD, ("d", "Delhi"), ("f", "Fes"), ("g", "Genf"))
    retry = ["d", "e", "f", "g", "d"]
    found = found_in(compare(source, known(), [("f", "Fes", "insert", 3)], rejected=["d", "e"], retry=retry))
    assert found.compared_ids is not None
    assert sorted(row["doc_id"] for row in found.compared_ids.collect()) == ["d", "e", "f", "g"]
    assert todo(found) == ({"d": False, "f": False, "g": False}, [], {})


class History:
    """Rows of a source that random commits change, and the events of its change feed.

    first: the rows before the first commit.
    """

    def __init__(self, seed: int) -> None:
        self.chance, self.seed, self.commit = random.Random(seed), seed, 0  # noqa: S311  # seeded, not secret
        self.rows: list[tuple[str | None, str | None]] = []
        self.events: list[tuple[str | None, str | None, str, int]] = []
        for _ in range(8):
            self.rows.append((self.any_id(), self.any_text()))
        self.first = list(self.rows)
        for _ in range(self.chance.randint(1, 5)):
            self.commit += 1
            self.change()

    def any_id(self) -> str | None:
        # There are few ids, so that most of them are inserted, deleted and inserted again.
        return self.chance.choice([None, *(f"{self.seed:02}-{key}" for key in "abcdefgh")])

    def any_text(self) -> str | None:
        return self.chance.choice([None, "x" * 101, "Anna", "Bob", "Cairo", "Delhi", "Essen"])

    def change(self) -> None:
        cut = [row for row in self.rows if self.chance.random() < 0.25]
        for row in cut:
            self.rows.remove(row)
            text = self.chance.choice([row[1], self.any_text()])
            if self.chance.random() < 0.5:
                self.events += [(*row, "update_preimage", self.commit), (row[0], text, "update_postimage", self.commit)]
                self.rows.append((row[0], text))
            else:
                self.events.append((*row, "delete", self.commit))
        for _ in range(self.chance.randint(0, 2)):
            row = self.any_id(), self.any_text()
            self.rows.append(row)
            self.events.append((*row, "insert", self.commit))

    def held(self) -> dict[str, str]:
        """Return the documents (id -> text) that a clean run over the first rows writes."""
        copies = Counter(key for key, _ in self.first)
        return {key: text for key, text in self.first if key and copies[key] == 1 and text is not None and len(text) <= 100}


@pytest.mark.parametrize("slice_", [None, "mine"])
def test_random_histories_by_feed_end_as_by_a_look_at_all(
    spark: SparkSession, source_of: Callable[..., Source], slice_: str | None
) -> None:
    """Thirty histories with different ids are in one source; only rows without an id belong to several histories."""
    histories = [History(seed) for seed in range(30)]
    chance = random.Random(slice_)  # noqa: S311  # seeded, not secret
    held = {key: text for history in histories for key, text in history.held().items()}
    slices = {key: chance.choice([None, "other", "mine", "mine"]) if slice_ else None for key in held}
    status = {key: chance.choice(["pending", *["done"] * 19]) for key in held}
    documents = [(key, status[key], sha256(text), None, "f1", slices[key], "r1") for key, text in held.items()]
    known = frame_of(spark, documents, KNOWN)
    rejected = [key for history in histories for key, _ in history.first if key not in held]
    source = source_of(*(row for history in histories for row in history.rows))
    events = [event for history in histories for event in history.events]
    policy = Policy("f1", "reprocess", slice_)
    by_feed = found_in(compare(source, known, events, rejected, policy=policy))
    by_all = changes.compare_all(source, known, policy)
    assert by_feed.compared_ids is not None
    compared_ids = {row["doc_id"] for row in by_feed.compared_ids.collect()}
    assert None in compared_ids
    assert by_feed.compared_ids.count() == len(compared_ids)

    def outcome(found: Changes, *, of_compared: bool = False) -> dict[str, Counter[Any]]:
        frames = {
            "documents": found.documents.select("doc_id", "text", "text_hash", "chars", "in_output"),
            "removed": found.removed,
            "refused": found.rejected,
            "adopted": found.adopted,
        }
        return {
            name: Counter(tuple(row) for row in frame.collect() if not of_compared or row["doc_id"] in compared_ids)
            for name, frame in frames.items()
        }

    expected, found = outcome(by_all, of_compared=True), outcome(by_feed)
    assert found == expected
    assert all(found[name] for name in ("documents", "removed", "refused"))
    assert bool(found["adopted"]) == bool(slice_)
    assert by_feed.reject_counts == Counter(code for _, _, code, _ in found["refused"].elements())
    assert by_feed.chars == sum(chars for _, _, _, chars, _ in found["documents"])
    # Documents that no event names are unchanged, so the comparison of all rows finds no other differences.
    if slice_ is None:
        assert todo(by_all)[:2] == todo(by_feed)[:2]


def write_source(spark: SparkSession, path: Path, **properties: str) -> None:
    """Write a Delta table of HELD."""
    frame_of(spark, HELD, "id string, text string").write.format("delta").options(**properties).save(str(path))


@pytest.fixture(scope="module")
def templates(spark: SparkSession, small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write sources for tests to copy: `fed` has a change feed, `plain` has none, and `longer` is `plain` with one more row.

    A copy takes less time than a new table.
    """
    root = tmp_path_factory.mktemp("templates")
    write_source(spark, root / "fed", **{"delta.enableChangeDataFeed": "true"})
    write_source(spark, root / "plain")
    table = copy_source(root / "plain", root / "longer")
    spark.sql(f"INSERT INTO {table} VALUES ('c2', 'Calais')")
    return root


def copy_source(template: Path, path: Path) -> str:
    """Copy a Delta table, and return the copy's name in SQL."""
    shutil.copytree(template, path)
    return f"delta.`{path}`"


def opened(spark: SparkSession, path: Path) -> Source:
    return open_source(spark, SourceSettings(path=str(path)))


def read_since(spark: SparkSession, path: Path, before: Source) -> Feed | None:
    return change_feed.read_changes_since(spark, opened(spark, path), before.version, before.committed_ms)


@pytest.mark.parametrize("how", ["off for a while", "vacuumed"])
def test_where_the_feed_has_a_gap_it_is_not_sure(
    spark: SparkSession, templates: Path, tmp_path: Path, known: Known, how: str
) -> None:
    """Delta notices a gap in the feed only when the feed is read. Then all rows must be compared."""
    path = tmp_path / "source"
    table = copy_source(templates / "fed", path)
    before = opened(spark, path)
    if how == "vacuumed":
        spark.sql(f"UPDATE {table} SET text = 'Berlin' WHERE id = 'b'")
        shutil.rmtree(path / "_change_data")
    else:
        alter = f"ALTER TABLE {table} SET TBLPROPERTIES ('delta.enableChangeDataFeed' = "
        spark.sql(f"{alter}'false')")
        spark.sql(f"UPDATE {table} SET text = 'Berlin' WHERE id = 'b'")
        spark.sql(f"{alter}'true')")
    source = opened(spark, path)
    feed = change_feed.read_changes_since(spark, source, before.version, before.committed_ms)
    assert feed is not None
    assert changes.compare_feed(source, feed, known(), None, ALL) is None
    assert todo(changes.compare_all(source, known(), ALL))[0] == {"b": True}


def test_the_time_of_a_commit_is_that_of_its_file_in_any_zone(spark: SparkSession, templates: Path) -> None:
    path = templates / "plain"
    modified = (path / "_delta_log" / f"{0:020}.json").stat().st_mtime_ns // 1_000_000
    for zone in "UTC", "Asia/Tokyo":
        with override_conf(spark, {"spark.sql.session.timeZone": zone}):
            assert opened(spark, path).committed_ms == modified


def test_a_source_put_back_from_a_backup_is_not_trusted(
    spark: SparkSession,
    templates: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The restored source again has the version that the last run read, but with other rows."""
    path = tmp_path / "source"
    table = copy_source(templates / "fed", path)
    spark.sql(f"UPDATE {table} SET text = 'Berlin' WHERE id = 'b'")
    before = opened(spark, path)
    assert read_since(spark, path, before) is not None
    shutil.rmtree(path)
    shutil.copytree(templates / "fed", path)
    forget_log(spark)
    spark.sql(f"UPDATE {table} SET text = 'Aachen' WHERE id = 'a'")
    spark.sql(f"UPDATE {table} SET text = 'Calais' WHERE id = 'c'")
    assert read_since(spark, path, before) is None
    said = "the commit time of source version 1 is not the one that the last run recorded: comparing all rows instead"
    assert [(record.levelname, record.message) for record in caplog.records] == [("WARNING", said)]
    caplog.clear()
    source = opened(spark, path)
    history = reader.read_history(spark, source.settings, 9)
    with caplog.at_level(logging.INFO, "entitymill"):
        for version, committed_ms, listed in ("1", None, 9), ("9", 1, 9), ("1", reader.commit_time_ms(history[1]), 1):
            monkeypatch.setattr(reader, "read_history", lambda *_, listed=listed: history[:listed])
            assert change_feed.read_changes_since(spark, source, version, committed_ms) is None
    assert [record.message.replace("change feed unavailable ", "") for record in caplog.records] == [
        "(the last run did not record when version 1 of the source was committed); comparing all rows instead",
        "the source is at version 2, which is older than version 9, which the last run read: comparing all rows instead",
        "(version 1 is no longer in the history of the source); comparing all rows instead",
    ]


def forget_log(spark: SparkSession) -> None:
    java: Any = spark.sparkContext._jvm
    java.org.apache.spark.sql.delta.DeltaLog.clearCache()


def test_commits_of_one_second_keep_their_time(spark: SparkSession, templates: Path, tmp_path: Path) -> None:
    """Storage such as S3 has times in whole seconds. If Delta lists two commits of one second, it gives one a later time."""
    path = tmp_path / "source"
    table = copy_source(templates / "fed", path)
    for text in "Berlin", "Bonn":
        spark.sql(f"UPDATE {table} SET text = '{text}' WHERE id = 'b'")
    second = int(time.time()) - 60
    for file in (path / "_delta_log").glob("*.json"):
        os.utime(file, (second, second))
    forget_log(spark)
    before = opened(spark, path)
    assert before.committed_ms == second * 1000
    spark.sql(f"UPDATE {table} SET text = 'Bern' WHERE id = 'b'")
    source = opened(spark, path)
    spark.sql(f"UPDATE {table} SET text = 'Basel' WHERE id = 'b'")  # a commit while the run begins
    feed = change_feed.read_changes_since(spark, source, before.version, before.committed_ms)
    assert feed is not None
    assert {row["text"] for row in feed.events.collect()} == {"Bonn", "Bern"}


@pytest.mark.deep
def test_a_thousand_commits_since_the_last_run_are_followed(
    spark: SparkSession,
    templates: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "source"
    table = copy_source(templates / "fed", path)
    before = opened(spark, path)
    for version in range(1, 1002):
        info = {"timestamp": 0, "operation": "WRITE", "operationParameters": {"mode": "Append"}, "operationMetrics": {}}
        (path / "_delta_log" / f"{version:020}.json").write_text(json.dumps({"commitInfo": info}) + "\n")
    forget_log(spark)
    spark.sql(f"INSERT INTO {table} VALUES ('d', 'Delhi')")
    feed = read_since(spark, path, before)
    assert feed is not None and feed.mode == Mode.FEED
    assert [row["doc_id"] for row in feed.events.collect()] == ["d"]
    monkeypatch.setattr(change_feed, "MAX_COMMITS", 1001)
    with caplog.at_level(logging.INFO, "entitymill"):
        assert read_since(spark, path, before) is None
    assert "(the source has 1,002 commits since the last run, and a run reads at most 1,001)" in caplog.text


@pytest.mark.parametrize(
    ("changes_made", "mode"),
    [
        (["INSERT INTO {} VALUES ('d', 'Delhi')"], "arrivals"),
        # A MERGE that only appends, and an OPTIMIZE.
        (
            [
                "MERGE INTO {} t USING (SELECT 'd' AS id, 'Delhi' AS text) s ON t.id = s.id WHEN NOT MATCHED THEN INSERT *",
                "OPTIMIZE {}",
            ],
            "arrivals",
        ),
        (["OPTIMIZE {}"], "feed"),
        (["VACUUM {}"], "feed"),
        (["DELETE FROM {} WHERE id = 'b'"], None),
        (["INSERT OVERWRITE {} VALUES ('d', 'Delhi')"], None),
        (["INSERT INTO {} VALUES ('d', 'Delhi')", "ALTER TABLE {} SET TBLPROPERTIES ('a' = 'b')"], None),
        (["ALTER TABLE {} ADD COLUMN lang STRING", "INSERT INTO {} VALUES ('d', 'Delhi', 'en')"], None),
    ],
)
def test_what_delta_says_of_a_source_without_a_feed(
    spark: SparkSession, templates: Path, tmp_path: Path, changes_made: list[str], mode: str | None
) -> None:
    """Without a change feed, Delta's history must show appended rows, no new rows, or that all rows must be compared."""
    path = tmp_path / "source"
    table = copy_source(templates / "longer", path)
    before = opened(spark, path)
    with override_conf(
        spark, {"spark.sql.sources.parallelPartitionDiscovery.parallelism": "2"}
    ):  # VACUUM uses 10,000 tasks by default
        for change in changes_made:
            spark.sql(change.format(table))
    found = read_since(spark, path, before)
    assert (None if found is None else found.mode) == mode
    if found is not None:
        rows = [(row["doc_id"], row["text"], row[CHANGE]) for row in found.events.collect()]
        assert rows == ([("d", "Delhi", "insert")] if mode == "arrivals" else [])


def test_only_files_of_the_asked_versions_are_read(spark: SparkSession, tmp_path: Path) -> None:
    """Files in directories with special characters must be read; files that are added while the run begins must not."""
    path = tmp_path / "a source % with ä"
    settings = SourceSettings(path=str(path), passthrough=["day", "kind"], where="kind != 'no'")

    def append(*rows: tuple[str, str, int, str | None]) -> None:
        frame = frame_of(spark, rows, "id string, text string, day int, kind string")
        frame.write.format("delta").mode("append").partitionBy("kind", "day").save(str(path))

    append(("a", "Anna", 1, "x"))
    before = open_source(spark, settings)
    append(("b", "Bob", 7, "01"), ("c", "Cairo", 7, "a/b: c=%20"), ("n", "Nice", 7, "no"), ("m", "Metz", 7, None))
    append(("d", "Delhi", 8, "ä+ö"))
    source = open_source(spark, settings)
    append(("e", "Essen", 9, "x"))
    with override_conf(spark, {"spark.sql.files.ignoreMissingFiles": "true"}):
        feed = change_feed.read_changes_since(spark, source, before.version, before.committed_ms)
        assert feed is not None
        rows = sorted((row["doc_id"], row["text"], *row["passthrough"]) for row in feed.events.collect())
        assert rows == [("b", "Bob", 7, "01"), ("c", "Cairo", 7, "a/b: c=%20"), ("d", "Delhi", 8, "ä+ö")]
        assert feed.events.schema["passthrough"].dataType == source.rows.schema["passthrough"].dataType
        # A missing file must be noticed at once, or when Spark reads the file.
        [lost] = [file for file in path.rglob("*.parquet") if "day=8" in str(file)]
        lost.unlink()
        known = frame_of(spark, [], KNOWN)
        assert changes.compare_feed(source, feed, known, None, ALL) is None
        assert change_feed.read_changes_since(spark, source, before.version, before.committed_ms) is None


@pytest.mark.parametrize("why", ["column mapping", "deletion vector", "commit", "partition of times"])
def test_appended_files_that_are_not_clear_are_not_read(
    spark: SparkSession, templates: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    path = tmp_path / "source"
    if why == "column mapping":
        write_source(spark, path, **{"delta.columnMapping.mode": "name"})
    elif why == "partition of times":
        timed = frame_of(spark, HELD, "id string, text string").selectExpr("*", "timestamp '2026-11-27 10:00:00' AS at")
        timed.write.format("delta").partitionBy("at").save(str(path))
    else:
        copy_source(templates / "plain", path)
    before = opened(spark, path)
    added = "'d', 'Delhi'" + (", timestamp '2026-11-27 11:00:00'" if why == "partition of times" else "")
    spark.sql(f"INSERT INTO delta.`{path}` VALUES ({added})")
    commit = path / "_delta_log" / f"{1:020}.json"
    source = opened(spark, path)
    if why == "deletion vector":
        text = commit.read_text()
        commit.write_text(text.replace('"dataChange":true', '"dataChange":true,"deletionVector":{"storageType":"u"}'))
        os.utime(commit, ns=(0, int(time.time()) * 10**9))
        commit.with_name(f".{commit.name}.crc").unlink()
    if why == "commit":
        rows = reader.read_history(spark, source.settings, 2)
        commit.rename(commit.with_suffix(".away"))
        with pytest.MonkeyPatch.context() as patched, caplog.at_level(logging.INFO, "entitymill"):
            patched.setattr(reader, "read_history", lambda *_: rows)
            found = change_feed.read_changes_since(spark, source, before.version, before.committed_ms)
    else:
        with caplog.at_level(logging.INFO, "entitymill"):
            found = change_feed.read_changes_since(spark, source, before.version, before.committed_ms)
    assert found is None
    reason = {
        "column mapping": "column mapping is on",
        "deletion vector": "rows were deleted or rewritten",
        "commit": "AnalysisException while reading it",
        "partition of times": "is not a string, an integer or a date",
    }[why]
    assert reason in caplog.text and "comparing all rows instead" in caplog.text


@pytest.mark.parametrize(
    ("root", "path", "partitions"),
    [
        ("file:/a[1]/b", "part-0.parquet", []),
        ("file:/a", "k=*/part-0.parquet", ["k"]),
        ("file:/a", "s3://b/part-0.parquet", []),
        ("file:/a", "/b/part-0.parquet", []),
        ("file:/a", "_part-0.parquet", []),
        ("file:/a", ".part-0.parquet", []),
        ("file:/a", "k=1/part-0.parquet", []),
        ("file:/a", "aB/part-0.parquet", ["k"]),
        ("file:/a", "j=1/k=1/part-0.parquet", ["k", "j"]),
    ],
)
def test_paths_that_spark_would_take_for_others(root: str, path: str, partitions: list[str]) -> None:
    with pytest.raises(change_feed.FeedUnavailableError):
        change_feed._check_paths([root, path], partitions)


def test_paths_that_spark_takes_as_they_are() -> None:
    change_feed._check_paths(["file:/a b", "aB/part-0.parquet"], [])
    change_feed._check_paths(["s3a://a", "j%3A=1/_k=%3A/part-0.parquet"], ["j:", "_k"])
