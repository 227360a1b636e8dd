"""Check every interleaving of runs in a model of the protocol of docs/decisions.md, and in models with one mistake each.

A run that never continues stands for a killed run. After each step of each interleaving, one more run must bring the tables
to the state that a clean run writes.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest

from protocol_checker import Checker, Node
from protocol_model import Defect, Run, Source
from protocol_promises import ViolationError
from protocol_tables import Commit, World

REVERTED: tuple[Source, ...] = ({"a": "one", "b": "two"}, {"a": "other", "c": "one"}, {"a": "one", "b": "two"})
"""Versions of a source: the third reverts what the second changed, removed and added."""
NO_MENTIONS: tuple[Source, ...] = (
    {"a": "one", "b": "none"},
    {"a": "none", "b": "nothing", "c": "none"},
    {"a": "one", "c": "none"},
)
"""Versions of a source with documents without mentions, which have no rows in `entities`."""
BACK_AND_FORTH: tuple[Source, ...] = ({"a": "one"}, {"a": "other"}, {"a": "one"}, {"a": "one", "b": "none"})
"""Versions of a source: an earlier run reads the first, three runs read one of the others each."""


class Case(NamedTuple):
    """Runs that start one after another, and how the checker may interleave them.

    before: name of each earlier run, and the table after whose new rows it died; None if it completed.
    switches, failures: as in protocol_checker.State.
    last: the run after all others.
    """

    runs: Sequence[Run]
    before: Sequence[tuple[str, str | None]] = ()
    switches: int | None = None
    failures: int = 0
    last: Run | None = None

    def explore(self, defect: Defect | None = None) -> Checker:
        last = replace(self.last or replace(self.runs[0], run_id="D", clock=1, reads=None), defect=defect)
        world = World()
        for version, (run_id, dies_after) in enumerate(self.before):
            world = alone(world, replace(last, run_id=run_id, reads=version, annotations=False), dies_after)
        checker = Checker(len(last.sources), last)
        runs = [replace(run, defect=defect) for run in self.runs]
        checker.explore(world, runs, switches=self.switches, failures=self.failures)
        return checker


def alone(world: World, run: Run, dies_after: str | None) -> World:
    """Execute a run to its end, without other runs, or until a commit only adds rows to the table `dies_after`."""
    node = Node.of(run)
    while node.step is not None:
        step = node.step
        world, seen = step.apply(world)
        if isinstance(step, Commit) and step.change.table == dies_after and step.change.added and not step.change.removed:
            return world
        node = node.after(seen)
    assert dies_after is None
    return world


def two(sources: tuple[Source, ...]) -> list[Run]:
    return [Run("A", sources), Run("B", sources)]


def three(sources: tuple[Source, ...]) -> list[Run]:
    return [Run(name, sources, reads=reads) for name, reads in (("A", 1), ("B", 2), ("C", 3))]


def annotated(run: Run, *, annotations: bool = True) -> Run:
    return replace(run, optional=True, annotations=annotations)


NIGHTLY = [("R", None)]
A, B, C = three(BACK_AND_FORTH)
CASES = {
    "two first runs": Case(two(REVERTED)),
    "two first runs, no mentions": Case(two(NO_MENTIONS)),
    "two first runs, the older one's clock ahead": Case([Run("A", REVERTED[:2], clock=9), Run("B", REVERTED[:2])]),
    "two first runs, the newer one's clock ahead": Case([Run("A", REVERTED[:2]), Run("B", REVERTED[:2], clock=9)]),
    "a nightly run that fails": Case([Run("A", REVERTED)], NIGHTLY, failures=2),
    "a run that fails after one that died with half a unit": Case(
        [Run("A", REVERTED)], [*NIGHTLY, ("X", "entities")], failures=1
    ),
    "two nightly runs": Case(two(REVERTED), NIGHTLY),
    "two nightly runs, no mentions": Case(two(NO_MENTIONS), NIGHTLY),
    "two nightly runs, one failure": Case([Run("A", REVERTED), Run("B", REVERTED)], NIGHTLY, failures=1),
    "two runs after one that died with half a unit": Case(two(REVERTED), [*NIGHTLY, ("X", "entities")]),
    "three nightly runs": Case(three(BACK_AND_FORTH), NIGHTLY, switches=4),
    "annotations written by some": Case(
        [annotated(A), annotated(B, annotations=False), annotated(C)],
        NIGHTLY,
        switches=3,
        last=annotated(replace(C, run_id="D")),
    ),
    "annotations, two runs": Case([annotated(A), annotated(B)], NIGHTLY, last=annotated(replace(C, run_id="D"))),
}
CAUGHT_IN = {
    Defect.NO_FENCE: "two nightly runs",
    Defect.ENTITIES_FENCED_FIRST: "two nightly runs",
    Defect.FENCE_AT_ONCE: "two first runs",
    Defect.FENCE_BEFORE_CREATE: "two first runs",
    Defect.OWN_TABLES_ONLY: "annotations written by some",
    Defect.PENDING_UNCHECKED: "two runs after one that died with half a unit",
    Defect.NO_CHECK: "two nightly runs",
    Defect.COUNT_ONLY: "two nightly runs",
    Defect.RUN_ID_ONLY: "two nightly runs, no mentions",
    Defect.ANNOTATIONS_UNCHECKED: "annotations, two runs",
    Defect.SHARED_PRIVATE_TABLE: "two nightly runs",
    Defect.UNCHECKED_END: "two nightly runs",
    Defect.UNCHECKED_BEGIN: "two first runs",
    Defect.NUMBER_PER_TRY: "two first runs",
    Defect.UNCERTAIN_LOOK: "two first runs, the newer one's clock ahead",
    Defect.APPEND_PENDING: "two first runs",
    Defect.FEED_AFTER_UNSETTLED: "two nightly runs",
    Defect.SETTLED_THOUGH_CHANGING: "a nightly run that fails",
    Defect.SETTLED_BEFORE_STEP_4: "a run that fails after one that died with half a unit",
    Defect.DOCUMENTS_FIRST: "two first runs",
}


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection, which would take half of the time for half a million tuples."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_tables_are_right_after_every_interleaving(case: Case) -> None:
    checker = case.explore()
    print(checker.states, "states,", len(checker.worlds), "different sets of tables")  # noqa: T201
    assert len(checker.worlds) > 20


@pytest.mark.parametrize("defect", Defect, ids=lambda defect: defect.value)
def test_the_checker_notices_a_protocol_that(defect: Defect) -> None:
    with pytest.raises(ViolationError):
        CASES[CAUGHT_IN[defect]].explore(defect)
