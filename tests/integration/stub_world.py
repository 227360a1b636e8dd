"""Run the job with a stub engine on a small Delta source, and freeze a run while other runs continue.

delta-rs writes the source, because it is much faster than Spark, which writes the sources of delta_source.py.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.table import TableMerger
from pyspark.sql import DataFrame, SparkSession

from bench.stub_engine import open_stub
from delta_reader import read_delta
from entitymill import settings
from entitymill.run import extraction
from entitymill.run.summary import Summary
from entitymill.tables import Tables, lease
from entitymill.tables.heartbeats import Heartbeat
from entitymill.tables.numbered_commits import Commits
from entitymill.tables.output_tables import NAMES

ROOT = Path(__file__).parents[2]
HOUR = 3600
UNITS_OF_3 = "limits.unit_rows=3"
PATIENCE = 600
"""Maximum time in seconds that a test waits until a run has reached a certain call or has ended."""
Rows = list[tuple[object, ...]]


def make_texts(number: int, salt: str = "") -> dict[str, str]:
    return {f"d{i:02}": f"Name{salt}{i} Town{salt}{i} and more" for i in range(number)}


@dataclass
class World:
    """A Delta source, and the output of the runs that read it.

    rows: doc_id -> text of all rows that are now in the source; a text may be null.
    """

    spark: SparkSession
    directory: Path
    rows: dict[str, str | None] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        return self.directory / "source"

    @property
    def output(self) -> Path:
        return self.directory / "out"

    def create(self, rows: dict[str, str], *, feed: bool = True) -> World:
        write_deltalake(self.source, table_of(rows), configuration={"delta.enableChangeDataFeed": str(feed).lower()})
        self.rows = dict(rows)
        return self

    def append(self, rows: dict[str, str | None]) -> None:
        write_deltalake(self.source, table_of(rows), mode="append")
        self.rows |= rows

    def put(self, rows: dict[str, str]) -> None:
        """Insert or update rows, in one commit."""
        self._merge(rows).when_matched_update_all().when_not_matched_insert_all().execute()
        self.rows |= rows

    def delete(self, key: str) -> None:
        DeltaTable(self.source).delete(f"id = '{key}'")
        del self.rows[key]

    def delete_all(self, keys: list[str]) -> None:
        self._merge(dict.fromkeys(keys)).when_matched_delete().execute()
        for key in keys:
            del self.rows[key]

    def settings(self, *overrides: str) -> settings.Settings:
        # In a source of few documents, one removed or rejected document would exceed the default ratios.
        few = ["spark.partitions=1", "limits.max_removed_ratio=0.3", "limits.max_reject_ratio=0.5"]
        places = ["source.format=delta", f"source.path={self.source}", f"output.path={self.output}"]
        return settings.load(None, [*places, *few, *overrides], {})

    def run(self, *overrides: str, spark: SparkSession | None = None, full: bool = False) -> Summary:
        return extraction.extract(spark or self.spark, self.settings(*overrides), full=full)

    def tables(self) -> Tables:
        return Tables(self.spark, self.settings().output)

    def read(self, name: str) -> DataFrame:
        return self.spark.read.format("delta").load(str(self.output / name))

    def history(self, name: str) -> list[Any]:
        """Return the rows of DESCRIBE HISTORY for an output table, newest commit first."""
        return self.spark.sql(f"DESCRIBE HISTORY delta.`{self.output}/{name}`").collect()

    def check(self) -> None:
        """Check that the tables, read with delta-rs, equal those that a clean run over the current source would write."""
        texts = {key: text for key, text in self.rows.items() if text is not None}
        mentions, documents = [], []
        for key, text in texts.items():
            first, second, _ = text.split(" ", 2)
            mentions += [(key, 0, first), (key, len(first) + 1, second)]
            documents.append((key, hashlib.sha256(text.encode()).hexdigest(), "done", 2))
        assert sorted_rows(self.output / "entities", "doc_id", "begin", "entity") == sorted(mentions)
        assert sorted_rows(self.output / "documents", "doc_id", "text_hash", "status", "entities") == sorted(documents)
        refused = sorted(key for key, text in self.rows.items() if text is None)
        assert [key for (key,) in sorted_rows(self.output / "rejects", "doc_id")] == refused

    def age_logs(self, seconds: float, *tables: Path) -> None:
        """Make the Delta log files of tables (default: all output tables) `seconds` old, without changing their order."""
        for table in tables or tuple(self.output / name for name in NAMES):
            for at, file in enumerate(sorted((table / "_delta_log").glob("[0-9]*"))):
                old = time.time() - seconds + at / 1000
                os.utime(file, (old, old))
        self.forget_logs()

    def forget_logs(self) -> None:
        """Clear Delta's cache, so that Delta reads all logs again, as in a new process."""
        gateway: Any = self.spark.sparkContext._jvm
        gateway.org.apache.spark.sql.delta.DeltaLog.clearCache()

    def _merge(self, rows: Mapping[str, str | None]) -> TableMerger:
        return DeltaTable(self.source).merge(table_of(rows), "t.id = s.id", source_alias="s", target_alias="t")


def table_of(rows: Mapping[str, str | None]) -> pa.Table:
    return pa.table({"id": pa.array(list(rows), pa.string()), "text": pa.array(list(rows.values()), pa.string())})


def sorted_rows(table: Path, *columns: str) -> Rows:
    return sorted(tuple(row[name] for name in columns) for row in read_delta(table).select(list(columns)).to_pylist())


def use_stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "open_engine", open_stub)


@pytest.fixture
def world(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    use_stub(monkeypatch)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.2)
    made = World(spark, tmp_path)
    yield made
    made.forget_logs()


class FrozenRun:
    """A run, in its own thread and session, that stops at a certain call, and then writes no heartbeats until `wake`.

    Other runs see only that the heartbeats are missing, as if the driver had received SIGSTOP. But the clock does not show
    this run that time has passed, so the run attempts more commits than a driver that was really frozen.
    """

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int = 1) -> None:
        """Choose the call at which the run stops; `start` starts the run.

        Args:
            owner: module or class of the function.
            name: name of the function.
            at: number of this run's call, counted from 1, before which the run stops.
        """
        self.world = world
        self.result: Summary | BaseException | None = None
        self._stopped, self._woken = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._calls, self._at = 0, at
        self._heartbeats: list[Heartbeat] = []
        hook(monkeypatch, owner, name, self._stop_here)
        hook(monkeypatch, Heartbeat, "beat", self._hold_heartbeat)

    def start(
        self,
        *overrides: str,
        asleep: bool = True,
        full: bool = False,
        action: Callable[[SparkSession], Any] | None = None,
    ) -> FrozenRun:
        """Start the run, and return when the run has stopped.

        Args:
            overrides: settings of the run.
            asleep: whether to make the stopped run's heartbeat so old that other runs take over.
            full: whether the run recomputes all documents.
            action: function that is called with a new session, instead of a run.
        """

        def work() -> None:
            try:
                own = self.world.spark.newSession()
                self.result = action(own) if action else self.world.run(*overrides, spark=own, full=full)
            except BaseException as error:  # noqa: BLE001  # `wake` returns the error
                self.result = error
            finally:
                self._stopped.set()

        self._thread = threading.Thread(target=work)
        self._thread.start()
        assert self._stopped.wait(PATIENCE)
        assert self.result is None, self.result
        if asleep:
            self.fall_asleep()
        return self

    def fall_asleep(self) -> None:
        """Make the heartbeat file of the run one hour old, so that the lease has expired."""
        for file in self.world.output.glob("_heartbeats/*"):
            if any(heartbeat._own.endswith(file.name) for heartbeat in self._heartbeats):
                os.utime(file, (time.time() - HOUR, time.time() - HOUR))

    def wake(self) -> Summary | BaseException | None:
        """Let the run continue until its end; return its result, or the error that it raised."""
        self._woken.set()
        assert self._thread is not None
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.result

    def is_current(self) -> bool:
        """Return whether the calling thread is the main thread of this run."""
        return threading.current_thread() is self._thread

    def _stop_here(self, *_: object) -> None:
        if self.is_current():
            self._calls += 1
            if self._calls == self._at:
                self._stopped.set()
                assert self._woken.wait(PATIENCE)

    def _hold_heartbeat(self, heartbeat: Heartbeat, *_: object) -> None:
        if self.is_current():
            self._heartbeats.append(heartbeat)
        elif heartbeat in self._heartbeats and self._stopped.is_set():
            self._woken.wait(PATIENCE)


def hook(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, before: Callable[..., object]) -> None:
    """Replace a function by one that first calls `before` with the same positional arguments."""
    original = getattr(owner, name)

    def hooked(*arguments: Any, **named: Any) -> Any:
        before(*arguments)
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, hooked)


class DiesHereError(Exception):
    """Raised to end a run between two commits."""


def run_until_death(world: World, table: str, *overrides: str, full: bool = False) -> None:
    """Start a run that dies before its first commit to a table, and does not record its end in `runs`."""

    begun: list[str] = []

    def die(_: Commits, name: str, *__: object) -> None:
        if name == table or (name == "runs" and begun):
            raise DiesHereError(name)
        begun.append(name)  # the first commit of a run adds its row to `runs`

    with pytest.MonkeyPatch.context() as patch:
        hook(patch, Commits, "_commit", die)
        with pytest.raises(DiesHereError):
            world.run(*overrides, full=full)
