"""Simulate how nightly runs change a table's files, without Spark: `python tests/bench/layout.py [--documents 1000000000]`.

The simulation changes a list of files as a run would; each file has a range of ids and a number of rows. Units are ranges of
changed ids. A unit marks the old rows in each file that contains some of them (deletion vectors), and adds new files. A run
that ends with many small files compacts them, smallest first, as Delta does. Ids are growing, random, or begin with a day.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from entitymill.tables import maintenance, output_tables

Floats = NDArray[np.float64]
TARGET = 128 * 2**20
FULL_UNIT = 100_000
"""Documents of a unit of the first run, without `limits.unit_rows` and with few cores."""
BYTES = {"entities": 310.0, "documents": 175.0}
"""Bytes of a document's rows in Parquet, as in the tables of growth.py; for other texts, use --bytes-of-entities."""
SHARES = {"entities": (0.5, 0.25, 0.15, 0.10), "documents": (1.0,)}
"""Share of each partition (one per label) in the rows of a table."""
ACTION_BYTES = {"add": 900, "remove": 450}
"""Bytes of an action in a commit's JSON, including statistics and the reference to a deletion vector."""
DEAD = float(output_tables.WRITE_CONFS["spark.databricks.delta.optimize.maxDeletedRowsRatio"])
VECTOR_BYTES_PER_ROW = 3.0
HOT_DAYS = 0.03
"""If ids begin with a day: share of the newest documents, in which nine of ten changes occur."""


@dataclass
class Files:
    """The files of one partition.

    first, last: [files] smallest and greatest position in the order of ids.
    rows, live: [files] number of rows, and number of rows that are not marked as removed.
    """

    first: Floats = field(default_factory=lambda: np.empty(0))
    last: Floats = field(default_factory=lambda: np.empty(0))
    rows: Floats = field(default_factory=lambda: np.empty(0))
    live: Floats = field(default_factory=lambda: np.empty(0))

    def add(self, first: Floats, last: Floats, rows: Floats) -> None:
        """Add new files."""
        self.first, self.last = np.append(self.first, first), np.append(self.last, last)
        self.rows, self.live = np.append(self.rows, rows), np.append(self.live, rows)

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Keep only the chosen files."""
        for name in ("first", "last", "rows", "live"):
            setattr(self, name, getattr(self, name)[chosen])

    def mark(self, first: float, last: float, rows: float) -> int:
        """Mark rows as removed, evenly between two ids, and return how many files contain such rows."""
        shared = np.clip(np.minimum(self.last, last) - np.maximum(self.first, first), 0, None)
        inside = self.live * shared / np.maximum(self.last - self.first, 1e-15)
        total = inside.sum()
        if total <= 0:
            return 0
        taken = np.minimum(inside, rows * inside / total)
        self.live = self.live - taken
        return int((taken >= 0.5).sum())  # a file that loses less than half a row probably loses none


@dataclass
class Night:
    """The cost of one run: bytes of new files, deletion vectors, compacted files and the log.

    touched: number of files in which each unit marked rows.
    """

    added: float = 0.0
    vectors: float = 0.0
    joined: float = 0.0
    log: float = 0.0
    touched: list[int] = field(default_factory=list)

    @property
    def written(self) -> float:
        return self.added + self.vectors + self.joined


class Table:
    """A partitioned table of documents, whose positions in the order of ids are 0 to `end`."""

    def __init__(self, name: str, documents: int, unit_rows: int) -> None:
        self.name, self.bytes = name, BYTES[name]
        self.parts = [Files() for _ in SHARES[name]]
        self.end = float(documents)
        edges = np.linspace(0, documents, -(-documents // unit_rows) + 1)
        for part, share in zip(self.parts, SHARES[name], strict=True):
            self._append(part, edges[:-1], edges[1:], np.diff(edges) * share)

    def _append(self, part: Files, first: Floats, last: Floats, rows: Floats) -> int:
        for a, b, count in zip(first, last, rows, strict=True):
            pieces = max(1, round(count * self.bytes / TARGET))
            edges = np.linspace(a, b, pieces + 1)
            part.add(edges[:-1], edges[1:], np.full(pieces, count / pieces))
        return len(first)

    def exchange(self, night: Night, first: float, last: float, rows: float, *, new: bool) -> None:
        """Apply the commit of a unit."""
        touched = 0
        for part, share in zip(self.parts, SHARES[self.name], strict=True):
            hit = 0 if new else part.mark(first, last, rows * share)
            touched += hit
            self._append(part, np.array([first]), np.array([last]), np.array([rows * share]))
            night.log += (hit + 1) * ACTION_BYTES["add"] + hit * ACTION_BYTES["remove"]
        night.added += rows * self.bytes
        night.vectors += 0 if new else rows * VECTOR_BYTES_PER_ROW
        night.touched.append(touched)

    def files(self) -> int:
        return sum(len(part.rows) for part in self.parts)

    def size(self) -> float:
        return sum(float(part.rows.sum()) for part in self.parts) * self.bytes

    def compact(self, night: Night) -> None:
        """Compact small files, as maintenance.compact_small_files and Delta's OPTIMIZE do."""
        small = min(TARGET / maintenance.SMALL_SHARE, self.size() / len(self.parts) / maintenance.SMALL_PART)
        if self.files() <= maintenance.MAX_FILES or self.size() > self.files() * small:
            return
        for part in self.parts:
            sizes = part.rows * self.bytes
            chosen = (sizes < small) | (part.live < (1 - DEAD) * part.rows)
            if chosen.sum() < 2:
                continue
            order = np.flatnonzero(chosen)[np.argsort(sizes[chosen])]
            bins = np.floor(np.cumsum(sizes[order]) / TARGET)
            joined = [order[bins == number] for number in np.unique(bins)]
            new = [(part.first[one].min(), part.last[one].max(), part.live[one].sum()) for one in joined]
            night.joined += sum(rows for *_, rows in new) * self.bytes
            night.log += len(order) * ACTION_BYTES["remove"] + len(new) * ACTION_BYTES["add"]
            part.keep(~chosen)
            part.add(*(np.array(column) for column in zip(*new, strict=True)))


def ranges(kind: str, end: float, changed: float, units: int) -> list[tuple[float, float, float, bool]]:
    """Return each unit of a run: smallest and greatest id, number of documents, and whether the documents are new."""
    if kind == "growing":
        edges = np.linspace(end, end + changed, units + 1)
        return [(a, b, b - a, True) for a, b in itertools.pairwise(edges)]
    if kind == "random":
        edges = np.linspace(0, end, units + 1)
        return [(a, b, changed / units, False) for a, b in itertools.pairwise(edges)]
    # By day: half of the documents are new, at the end. Of the changed ones, nine of ten are in the newest days.
    hot = max(1, units // 2)
    old = end * (1 - HOT_DAYS)
    edges = np.linspace(old, end, hot + 1)
    found = [(0.0, old, changed * 0.05, False)]
    found += [(a, b, changed * 0.45 / hot, False) for a, b in itertools.pairwise(edges)]
    edges = np.linspace(end, end + changed / 2, hot + 1)
    return found + [(a, b, b - a, True) for a, b in itertools.pairwise(edges)]


def simulate(kind: str, documents: int, nights: int, share: float, unit_rows: int) -> None:
    """Simulate nightly runs, and print a line for the first, for two in the middle, and for the last."""
    tables = [Table(name, documents, FULL_UNIT) for name in BYTES]
    print(f"{documents:,} documents, ids {kind}: {sum(t.files() for t in tables):,} files, {size(tables):,.1f} GB")
    whole, due = 0.0, 0.0
    for number in range(1, nights + 1):
        night = Night()
        changed = tables[0].end * share
        units = max(1, -(-round(changed) // unit_rows))
        planned = ranges(kind, tables[0].end, changed, units)
        for table in tables:
            for first, last, rows, new in planned:
                table.exchange(night, first, last, rows, new=new)
            table.end = max(table.end, *(last for _, last, *_ in planned))
            table.compact(night)
        whole, due = whole + night.written, due + changed * sum(BYTES.values())
        if number in (1, nights // 3, 2 * nights // 3, nights):
            print(
                f"  night {number:3}: {sum(t.files() for t in tables):8,} files  {size(tables):9,.1f} GB  written/changed "
                f"{night.written / changed / sum(BYTES.values()):5.2f}  files marked in a unit, median "
                f"{np.median(night.touched):5,.0f} most {max(night.touched):6,}  log {night.log / 1e6:8,.2f} MB"
            )
    print(f"  all nights: written/changed {whole / due:.2f}", flush=True)


def size(tables: Sequence[Table]) -> float:
    """Return the size of all files in GB."""
    return sum(table.size() for table in tables) / 1e9


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a block for each kind of ids."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, nargs="+", default=[100_000, 10_000_000, 1_000_000_000])
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--share", type=float, default=0.01, help="share of the documents that are changed or new in a run")
    parser.add_argument(
        "--unit-rows", type=int, help="limits.unit_rows; default: 100,000, or less for at least five units a run"
    )
    parser.add_argument("--bytes-of-entities", type=float, help="bytes of a document's rows in entities")
    parser.add_argument("--smoke", action="store_true", help="run for seconds, only to see that it works")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.documents, options.nights = [100_000], 10
    if options.bytes_of_entities:
        BYTES["entities"] = options.bytes_of_entities
    for documents in options.documents:
        for kind in ("growing", "random", "by day"):
            unit_rows = options.unit_rows or min(100_000, max(1, round(documents * options.share / 5)))
            simulate(kind, documents, options.nights, options.share, unit_rows)


if __name__ == "__main__":
    main()
