"""The tables of the protocol's model, and the atomic steps that change them: a minimal model of Delta."""

from __future__ import annotations

from typing import Any, NamedTuple


class RunRow(NamedTuple):
    """A row of `runs`."""

    run_id: str
    epoch: int
    status: str
    settled: bool
    source_version: int | None


class Mention(NamedTuple):
    """A row of `entities` or, once per document, of `annotations`."""

    doc_id: str
    run_id: str
    text: str


class Document(NamedTuple):
    """A row of `documents`."""

    doc_id: str
    run_id: str
    text: str
    mentions: int
    annotated: bool
    status: str


class Table(NamedTuple):
    """A Delta table: its rows, the last transaction version (`txnVersion`), and how many commits it has."""

    rows: tuple[Any, ...] = ()
    last_number: int = 0
    commits: int = 0


class World(NamedTuple):
    """The state that all runs share; `source_version` is the newest that any run has read, since versions only increase."""

    source_version: int = 0
    runs: Table | None = None
    documents: Table | None = None
    entities: Table | None = None
    annotations: Table | None = None
    private: tuple[tuple[int, Any], ...] = ()

    def with_table(self, name: str, table: Table) -> World:
        changed: dict[str, Any] = {name: table}
        return self._replace(**changed)


class Look(NamedTuple):
    """Read a table's rows; no rows if there is no such table."""

    table: str

    def apply(self, world: World) -> tuple[World, Any]:
        table: Table | None = getattr(world, self.table)
        return world, () if table is None else table.rows


class Create(NamedTuple):
    """CREATE TABLE IF NOT EXISTS, without a transaction version; the run learns whether the table is new."""

    table: str

    def apply(self, world: World) -> tuple[World, Any]:
        if getattr(world, self.table) is not None:
            return world, False
        return world.with_table(self.table, Table()), True


class Change(NamedTuple):
    """Delete and insert rows in one commit; consists of `Snapshot` and `Commit`, repeated until it succeeds.

    removed: first columns of the rows to delete.
    """

    table: str
    number: int
    removed: frozenset[str]
    added: tuple[Any, ...]


class Snapshot(NamedTuple):
    """Start a commit: read the table's number of commits, or None if Delta will silently skip this one."""

    table: str
    number: int

    def apply(self, world: World) -> tuple[World, Any]:
        table: Table | None = getattr(world, self.table)
        return world, None if table is None or self.number <= table.last_number else table.commits


class Commit(NamedTuple):
    """Finish a commit; Delta refuses it (False) if there was another one after the snapshot."""

    change: Change
    snapshot: int

    def apply(self, world: World) -> tuple[World, Any]:
        change = self.change
        before: Table = getattr(world, change.table)
        if before.commits != self.snapshot:
            return world, False
        rows = [row for row in before.rows if row[0] not in change.removed]
        after = Table(tuple(sorted((*rows, *change.added))), change.number, before.commits + 1)
        return world.with_table(change.table, after), True


class ReadSource(NamedTuple):
    """Read the source: this version, or a newer one that another run has read; None for any."""

    version: int | None

    def apply(self, world: World) -> tuple[World, Any]:
        version = max(self.version or 0, world.source_version)
        return world._replace(source_version=version), version


class ReadPrivate(NamedTuple):
    """Read the private table of an epoch, or None if it was dropped."""

    epoch: int

    def apply(self, world: World) -> tuple[World, Any]:
        return world, dict(world.private).get(self.epoch)


class WritePrivate(NamedTuple):
    """Write the private table of an epoch."""

    epoch: int
    rows: tuple[tuple[str, str], ...]

    def apply(self, world: World) -> tuple[World, Any]:
        tables = {**dict(world.private), self.epoch: self.rows}
        return world._replace(private=tuple(sorted(tables.items()))), None


class DropPrivate(NamedTuple):
    """Drop the private tables of some epochs."""

    epochs: range

    def apply(self, world: World) -> tuple[World, Any]:
        return world._replace(private=tuple(table for table in world.private if table[0] not in self.epochs)), None


Step = Look | Create | Snapshot | Commit | ReadSource | ReadPrivate | WritePrivate | DropPrivate
