"""Check, after each step of any run, what docs/decisions.md promises about the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from protocol_model import MENTIONS, Run
from protocol_tables import Commit, Document, Mention, Step, World


class ViolationError(AssertionError):
    """The tables break a promise of the protocol; the message lists the steps that led there."""


def check_documents(step: Step, before: World, after: World) -> None:
    """Raise if a commit to `documents` marks a document as done whose mentions are not in `entities` at that moment."""
    if (
        not isinstance(step, Commit)
        or step.change.table != "documents"
        or after.documents is None
        or after.documents == before.documents
    ):
        return
    claimed = [row for row in step.change.added if row.status == "done"]
    for row in claimed:
        if wrong := describe_difference(after, [row], row.doc_id):
            raise ViolationError(f"documents says of {row} what is not there: {wrong}")


def describe_difference(world: World, documents: Iterable[Document], only: str | None = None) -> str:
    """Describe which rows `entities` and `annotations` lack, or have too many of, for these rows of `documents`."""
    wanted = Counter(Mention(row.doc_id, row.run_id, row.text) for row in documents for _ in range(row.mentions))
    annotated = Counter(Mention(row.doc_id, row.run_id, row.text) for row in documents if row.annotated)
    for name, rows in (("entities", wanted), ("annotations", annotated)):
        table = getattr(world, name)
        found = Counter(row for row in (table.rows if table else ()) if only in (None, row.doc_id))
        if found != rows:
            return f"{name}: {found}, not {rows}"
    return ""


def check_world(world: World, run: Run) -> None:
    """Raise if a row occurs twice or if, after a run that ended as done, the tables do not match its source."""
    entities, annotations = (table.rows if table else () for table in (world.entities, world.annotations))
    documents = world.documents.rows if world.documents else ()
    for mention, times in Counter(entities).items():
        if times != MENTIONS[mention.text]:
            raise ViolationError(f"{times} times in entities: {mention}")
    for rows in (set(entities), annotations, documents):
        for doc_id, times in Counter(row.doc_id for row in rows).items():
            if times > 1:
                raise ViolationError(f"{times} times {doc_id} in {rows}")
    newest = max(world.runs.rows, key=lambda row: row.epoch, default=None) if world.runs else None
    if newest is None or newest.status != "done":
        return
    source = run.sources[newest.source_version]
    if {row.doc_id: (row.text, row.status) for row in documents} != {one: (text, "done") for one, text in source.items()}:
        raise ViolationError(f"{newest} is done; its source is {source}, documents are {documents}")
    if wrong := describe_difference(world, documents):
        raise ViolationError(f"{newest} is done; {wrong}")
