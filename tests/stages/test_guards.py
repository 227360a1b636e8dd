"""What a run refuses to take out of an output, and which tables it refuses to do a slice alone in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from entitymill.errors import OutputError, RejectedError
from entitymill.run import guards
from entitymill.source import changes
from entitymill.source.changes import Policy
from entitymill.source.reader import Source
from entitymill.tables import Tables

from .conftest import Writing, chosen, tables_at

TEN = [(f"d{i}", f"Anna Berlin {i}") for i in range(10)]
ALL = Policy("f1", "reprocess", None)


@pytest.fixture(scope="module")
def ten(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """An output of ten documents; nobody changes it."""
    writing = Writing(tables_at(spark, tmp_path_factory.mktemp("ten")))
    writing.publish(*TEN, known=False)
    return writing.tables


@pytest.fixture(scope="module")
def sliced(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Eight documents of monday, two of tuesday; nobody changes it."""
    writing = Writing(tables_at(spark, tmp_path_factory.mktemp("sliced")), "mon")
    writing.publish(*TEN[:8], known=False)
    writing.slice = "tue"
    writing.publish(*TEN[8:], known=False)
    return writing.tables


def stopped(gone: int, of: int) -> AbstractContextManager[Any]:
    said = rf"{gone} of the {of} documents of .*/out are not in x any more, .*max_removed_ratio 0\.2 allows"
    return pytest.raises(RejectedError, match=said)


def check(tables: Tables, found: changes.Changes, slice_: str | None = None, **how: Any) -> None:
    guards.check_removals(chosen(Path("/"), "limits.max_removed_ratio=0.2"), tables, found, slice_, **how)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("left", "stops"), [(7, True), (8, False)])
def test_more_gone_than_allowed(ten: Tables, source_of: Callable[..., Source], whole: bool, left: int, stops: bool) -> None:
    source = source_of(*TEN[:left], ("new", "Bob Cairo x"))
    found = changes.everything(source, "full") if whole else changes.compared(source, ten.read("documents"), ALL)
    with stopped(3, 10) if stops else nullcontext():
        check(ten, found, whole=whole)
    found.close()


def test_a_first_run_takes_nothing_out(tables: Tables, source_of: Callable[..., Source]) -> None:
    check(tables, changes.everything(source_of(), "first"), whole=True)


@pytest.mark.parametrize(("left", "stops"), [(8, False), (7, True)])
def test_what_a_dead_full_run_collected_is_not_gone(
    ten: Tables, source_of: Callable[..., Source], left: int, stops: bool
) -> None:
    """The run that goes on finds the rest alone; but of what was collected, too, some may be gone from the source by now."""
    collected = ten.read("documents").where("doc_id >= 'd4'")
    found = changes.compared(source_of(*TEN[:left]), collected, ALL)
    assert found.to_recognise == 4
    with stopped(3, 10) if stops else nullcontext():
        check(ten, found, whole=True, collected=collected)
    found.close()


@pytest.mark.parametrize("whole", [False, True])
def test_a_slice_counts_its_own_documents_alone(sliced: Tables, source_of: Callable[..., Source], whole: bool) -> None:
    def check_one(slice_: str, rows: list[tuple[str, str]]) -> None:
        source, policy = source_of(*rows), Policy("f1", "reprocess", slice_)
        found = changes.everything(source, "first") if whole else changes.compared(source, sliced.read("documents"), policy)
        check(sliced, found, slice_, whole=whole)
        found.close()

    with stopped(1, 2):
        check_one("tue", TEN[8:9])
    check_one("mon", TEN[:7])


@pytest.mark.parametrize(
    ("lost", "trusted", "refused"),
    [
        ((), True, False),
        ((), False, True),
        (("entities",), True, True),
        (("documents",), True, True),
        (("entities", "documents"), True, False),  # nothing to lose any more
    ],
)
def test_no_slice_is_done_alone_where_all_has_to_be_done_anew(
    sliced: Tables, tmp_path: Path, lost: tuple[str, ...], trusted: bool, refused: bool
) -> None:
    output = shutil.copytree(Path(sliced.address("x")).parent.as_posix().removeprefix("file:"), tmp_path / "out")
    for name in lost:
        shutil.rmtree(output / name)
    tables = tables_at(sliced.spark, tmp_path)
    said = r"a table of .*/out is gone, or cannot be taken back .* run once without output\.replace_slice, over all slices"
    with pytest.raises(OutputError, match=said) if refused else nullcontext():
        guards.check_other_slices(tables, "tue", trusted=trusted)
    guards.check_other_slices(tables, None, trusted=trusted)


def test_what_is_of_no_slice_stays_unless_it_is_refused(ten: Tables, source_of: Callable[..., Source]) -> None:
    """As a run over the whole source leaves it: a slice's next run takes over what it finds, and no more."""
    source = source_of(("d1", None), ("d2", TEN[2][1]))
    found = changes.compared(source, ten.read("documents"), Policy("f1", "reprocess", "mine"))
    removed = [row["doc_id"] for row in found.removed.collect()]
    done = [row["doc_id"] for row in found.documents.collect()]
    assert (done, removed, found.to_remove, found.counts) == (["d2"], ["d1"], 1, {"null_text": 1})
    found.close()
