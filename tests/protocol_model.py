"""A model of the table protocol in docs/decisions.md: tables are immutable values, a run is a generator of its atomic steps.

The checker applies each step to the world, and sends the result to the generator. So a run can be frozen or killed between
any two steps. `defect` breaks the protocol in one place, to show that the checker notices. Step numbers are those of
docs/decisions.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import Any, NamedTuple

from protocol_tables import (
    Change,
    Create,
    Document,
    DropPrivate,
    Look,
    Mention,
    ReadPrivate,
    ReadSource,
    RunRow,
    Step,
    WritePrivate,
)

COMMITS_PER_EPOCH = 1_000_000
MENTIONS = {"one": 1, "other": 1, "two": 2, "none": 0, "nothing": 0}
"""Text -> the number of mentions in it. Two have none: they leave no rows in `entities`."""
Source = Mapping[str, str]
"""doc_id -> text."""


class Defect(Enum):
    """A mistake in the protocol, which the checker must notice."""

    NO_FENCE = "commits no fence"
    ENTITIES_FENCED_FIRST = "fences entities before documents"
    FENCE_AT_ONCE = "fences each table that it creates before it creates the next one"
    FENCE_BEFORE_CREATE = "fences the tables that exist, then creates the missing ones"
    OWN_TABLES_ONLY = "creates no table that it does not write itself"
    PENDING_UNCHECKED = "believes that its commit of pending documents took effect"
    NO_CHECK = "looks for no half-published documents"
    COUNT_ONLY = "compares the number of mentions, not their run"
    RUN_ID_ONLY = "compares the run of the mentions, not their number"
    ANNOTATIONS_UNCHECKED = "looks for half-published documents in entities only"
    SHARED_PRIVATE_TABLE = "gives every run's private table the same name"
    UNCHECKED_END = "believes that its last commit took effect"
    UNCHECKED_BEGIN = "believes that its first commit took effect"
    NUMBER_PER_TRY = "takes a new number for each try of a commit"
    UNCERTAIN_LOOK = "trusts an earlier look though its epoch is not the next one"
    APPEND_PENDING = "appends pending documents"
    FEED_AFTER_UNSETTLED = "asks for the source's changes after a run that did not end settled"
    SETTLED_THOUGH_CHANGING = "ends settled in the middle of a unit"
    SETTLED_BEFORE_STEP_4 = "ends settled, though it failed before it had settled what the run before left"
    DOCUMENTS_FIRST = "writes documents before entities"


class RunFailedError(Exception):
    """Makes a run fail in the ordinary way: the run still records its status in `runs`."""


class Progress(NamedTuple):
    """What a run remembers from one step of the protocol to the next.

    step: number of the next step.
    number: transaction version of the run's next commit.
    previous: row of the run before this one.
    done: row of the newest run before this one that ended as done.
    ready: whether steps 3 and 4 are over.
    changing: whether a unit is half published.
    outdated: whether `annotations` has rows of earlier runs.
    known: ids of the documents in `documents`.
    units: id of the document of each unit that is left; None for a unit that only removes documents.
    removed: ids of the documents that the next unit removes.
    """

    step: int = 2
    epoch: int = 0
    number: int = 0
    previous: RunRow | None = None
    done: RunRow | None = None
    ready: bool = False
    changing: bool = False
    outdated: bool = False
    source_version: int | None = None
    known: frozenset[str] = frozenset()
    pending: frozenset[str] = frozenset()
    units: tuple[str | None, ...] = ()
    removed: tuple[str, ...] = ()
    status: str = "done"


Steps = Generator[Step | Change, Any, Any]


@dataclass(frozen=True)
class Run:
    """The parameters of a run.

    reads: version of the source that the run reads, or a newer one if another run has read that; None: any version.
    clock: time of the run's machine, which is the minimum of the run's epoch.
    optional: whether this version of the program has an `annotations` table.
    annotations: whether this run writes `annotations`.
    """

    run_id: str
    sources: tuple[Source, ...]
    reads: int | None = None
    clock: int = 1
    optional: bool = False
    annotations: bool = False
    defect: Defect | None = None

    def steps(self, progress: Progress) -> Steps:
        """Take one step of the protocol. Return the next progress or, at the end, the status that the process reports."""
        return _STEPS[progress.step](_Execution(self, progress))


class _Execution:
    """One step of the protocol in a run; each of the steps returns the progress for the next one."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self.run, self.before = run, progress
        self.epoch, self.numbers = progress.epoch, count(progress.number)
        self.tables = ["documents", "entities"]  # in the order in which they are fenced
        if run.optional:
            self.tables.append("annotations")
        if run.defect is Defect.ENTITIES_FENCED_FIRST:
            self.tables.reverse()

    def next(self, step: int, **changed: Any) -> Progress:
        return self.before._replace(step=step, number=next(self.numbers), **changed)

    def change(self, table: str, removed: Iterable[str], added: Iterable[Any]) -> Change:
        return Change(table, next(self.numbers), frozenset(removed), tuple(added))

    def begin(self) -> Steps:
        """Step 2."""
        yield Create("runs")
        while True:
            earlier = yield Look("runs")
            last = max((row.epoch for row in earlier), default=0)
            self.epoch = max([self.run.clock, *(row.epoch + 1 for row in earlier)])
            self.numbers = count(self.epoch * COMMITS_PER_EPOCH)
            yield self.change("runs", [], [RunRow(self.run.run_id, self.epoch, "running", False, None)])
            rows = yield Look("runs")
            if self.run.defect is Defect.UNCHECKED_BEGIN or any(row.run_id == self.run.run_id for row in rows):
                break
        older = sorted(earlier, key=lambda row: row.epoch)
        done = [row for row in older if row.status == "done"]
        previous = older[-1] if older else None
        if self.epoch != last + 1 and self.run.defect is not Defect.UNCERTAIN_LOOK:
            # Another run may have begun since this run read `runs`.
            previous = (previous or RunRow("", 0, "failed", False, None))._replace(settled=False)
        return self.next(3, epoch=self.epoch, previous=previous, done=done[-1] if done else None)

    def create(self) -> Steps:
        """Step 3."""
        previous = self.before.previous
        unsettled = previous is not None and not previous.settled
        if unsettled and self.run.defect is Defect.FENCE_BEFORE_CREATE:
            yield from self.fence(self.tables)
        made = []
        for table in self.tables:
            if table == "annotations" and not self.run.annotations and self.run.defect is Defect.OWN_TABLES_ONLY:
                continue
            if (yield Create(table)):
                made.append(table)
                if previous is not None and self.run.defect is Defect.FENCE_AT_ONCE:
                    yield from self.fence([table])
        if previous is not None and not unsettled:
            yield from self.fence(made)
        return self.next(4) if unsettled else self.next(5, ready=True)

    def settle(self) -> Steps:
        """Step 4."""
        if self.run.defect is not Defect.FENCE_BEFORE_CREATE:
            yield from self.fence(self.tables)
        documents, entities, annotations = yield from self.read_tables()
        rows = {row.doc_id: row for row in documents}
        ids = {row.doc_id for row in (*documents, *entities, *annotations)}
        unsound = sorted(one for one in ids if not self.is_sound(one, rows.get(one), entities, annotations))
        if unsound and self.run.defect is not Defect.NO_CHECK:
            unknown = Document("", "", "", 0, False, "pending")
            pending = [rows.get(one, unknown)._replace(doc_id=one, status="pending") for one in unsound]
            yield self.change("documents", unsound, pending)
        yield DropPrivate(range(self.epoch))
        return self.next(5, ready=True, pending=frozenset(unsound))

    def fence(self, tables: Iterable[str]) -> Steps:
        for table in tables:
            if self.run.defect is not Defect.NO_FENCE:
                yield self.change(table, [], [])

    def read_tables(self) -> Steps:
        documents = yield Look("documents")
        entities = yield Look("entities")
        annotations = (yield Look("annotations")) if "annotations" in self.tables else ()
        return documents, entities, annotations

    def is_sound(self, doc_id: str, row: Document | None, entities: Iterable[Any], annotations: Iterable[Any]) -> bool:
        wanted = [] if row is None else [row.run_id] * row.mentions
        present = [mention.run_id for mention in entities if mention.doc_id == doc_id]
        if self.run.defect is Defect.COUNT_ONLY:
            return len(wanted) == len(present)
        if self.run.defect is Defect.RUN_ID_ONLY:
            return all(row is not None and one == row.run_id for one in present)
        if self.run.defect is not Defect.ANNOTATIONS_UNCHECKED:
            wanted += [] if row is None else ["annotated", row.run_id] * row.annotated
            present += [part for one in annotations if one.doc_id == doc_id for part in ("annotated", one.run_id)]
        return Counter(wanted) == Counter(present)

    def read(self) -> Steps:
        """Step 5. Each unit has one document; units of known documents come first. The first unit also removes documents."""
        documents, _, annotations = yield from self.read_tables()
        pending = frozenset(row.doc_id for row in documents if row.status == "pending")
        if not self.before.pending <= pending and self.run.defect not in (Defect.PENDING_UNCHECKED, Defect.NO_CHECK):
            raise RunFailedError  # a newer run has fenced `documents`, though perhaps not yet `entities`
        version = yield ReadSource(self.run.reads)
        source, known = self.run.sources[version], {row.doc_id: row for row in documents}
        changed = [one for one in source if one in known and (known[one].status, known[one].text) != ("done", source[one])]
        units = sorted(changed) + sorted(source.keys() - known)
        removed = sorted(known.keys() - source)
        previous, done = self.before.previous, self.before.done
        continues = previous is not None and previous.settled and previous.status == "done"
        if done is not None and (continues or self.run.defect is Defect.FEED_AFTER_UNSETTLED):
            before = self.run.sources[done.source_version or 0]
            fed = {one for one in {*before, *source} if before.get(one) != source.get(one)}
            units, removed = ([one for one in ids if one in fed] for ids in (units, removed))
        yield WritePrivate(self.private, tuple(sorted(source.items())))
        return self.next(
            6,
            outdated=bool(annotations),
            source_version=version,
            known=frozenset(known),
            pending=pending,
            units=tuple(units) or ((None,) if removed else ()),
            removed=tuple(removed),
        )

    @property
    def private(self) -> int:
        return 0 if self.run.defect is Defect.SHARED_PRIVATE_TABLE else self.epoch

    def publish(self) -> Steps:
        """Step 6, for one unit."""
        if not self.before.units:
            yield DropPrivate(range(self.private, self.private + 1))
            return self.next(7)
        texts = yield ReadPrivate(self.private)
        if texts is None:
            raise RunFailedError
        unit = {one: text for one, text in texts if one == self.before.units[0]}
        try:
            yield from self.publish_unit(unit)
        except RunFailedError:
            return self.next(7, changing=True, status="failed")
        return self.next(6, units=self.before.units[1:], removed=())

    def publish_unit(self, unit: Source) -> Steps:
        exchanged = {*unit, *self.before.removed} if self.before.removed or unit.keys() & self.before.known else set()
        out = exchanged - self.before.pending if self.run.defect is Defect.APPEND_PENDING else exchanged
        run_id, annotated = self.run.run_id, self.run.annotations
        rows = [Document(one, run_id, text, MENTIONS[text], annotated, "done") for one, text in unit.items()]
        if self.run.defect is Defect.DOCUMENTS_FIRST:
            yield self.change("documents", exchanged, rows)
        if annotated or (self.before.outdated and exchanged):
            yield self.change("annotations", out, [Mention(row.doc_id, run_id, row.text) for row in rows if annotated])
        yield self.change(
            "entities", out, [Mention(row.doc_id, run_id, row.text) for row in rows for _ in range(row.mentions)]
        )
        if self.run.defect is not Defect.DOCUMENTS_FIRST:
            yield self.change("documents", exchanged, rows)

    def end(self) -> Steps:
        """Step 7."""
        ready = self.before.ready or self.run.defect is Defect.SETTLED_BEFORE_STEP_4
        settled = ready and (not self.before.changing or self.run.defect is Defect.SETTLED_THOUGH_CHANGING)
        own = RunRow(self.run.run_id, self.epoch, self.before.status, settled, self.before.source_version)
        yield self.change("runs", [own.run_id], [own])
        if self.run.defect is Defect.UNCHECKED_END or own in (yield Look("runs")):
            return own.status
        return "failed"


_STEPS = {
    2: _Execution.begin,
    3: _Execution.create,
    4: _Execution.settle,
    5: _Execution.read,
    6: _Execution.publish,
    7: _Execution.end,
}
