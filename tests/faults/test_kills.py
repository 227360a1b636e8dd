"""Test that SIGKILL at random moments of runs leaves, after a rerun, the tables of an undisturbed run, row for row.

The runs have several units; some recompute all documents (--full). ENTITYMILL_KILLS is the number of processes that are
killed (30 by default), ENTITYMILL_SEED the seed.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from deltalake import DeltaTable, write_deltalake

from expected_tables import ExpectedTables

from . import cluster
from .cluster import Driver
from .conftest import POOL, options, table_of, write

KILLS = int(os.environ.get("ENTITYMILL_KILLS", "30"))
SEED = os.environ.get("ENTITYMILL_SEED", "1")
KINDS = ("driver", "executor", "worker", "tagger")
UNITS = ("limits.unit_rows=30", "limits.max_reject_ratio=0.5", "limits.lease_seconds=5")
LONGEST_RUNS = 6
"""Maximum number of disturbed runs over one state of the source, before an undisturbed run."""
MAX_KILLS_IN_A_RUN = 3
FULL_RUNS = 0.15
FEED = {"delta.enableChangeDataFeed": "true"}


class History:
    """A source that grows, changes and shrinks from run to run, and the output of the runs over it."""

    def __init__(self, directory: Path, chance: random.Random, format_: str) -> None:
        self.directory, self.chance, self.format = directory, chance, format_
        self.rows: dict[str, str] = {}
        self.fresh = 0
        for _ in range(90):
            self.add()

    def add(self) -> None:
        self.rows[f"d{self.fresh:04}"] = self.chance.choice(POOL)
        self.fresh += 1

    def move(self) -> None:
        """Change, remove and add rows, and write the source with one more row, which a run must reject."""
        for key in self.chance.sample(sorted(self.rows), 40):
            self.rows[key] = self.chance.choice(POOL)
        for key in self.chance.sample(sorted(self.rows), 15):
            del self.rows[key]
        for _ in range(25):
            self.add()
        self.write({**self.rows, "refused": None})

    def write(self, rows: dict[str, str | None]) -> None:
        if self.format == "parquet":
            write(self.directory, rows)
            return
        path, table = f"{self.directory}/source", table_of(rows)
        if not DeltaTable.is_deltatable(path):
            write_deltalake(path, table, configuration=FEED)
            return
        merge = DeltaTable(path).merge(table, "t.id = s.id", source_alias="s", target_alias="t")
        merge = merge.when_matched_update_all("t.text <> s.text").when_not_matched_insert_all()
        merge.when_not_matched_by_source_delete().execute()

    def options(self) -> list[str]:
        source = [] if self.format == "parquet" else ["source.format=delta", f"source.path={self.directory}/source"]
        return [*options(self.directory), *source, *UNITS]

    def check(self, truth: ExpectedTables) -> None:
        truth.check(self.directory / "out", self.rows)
        rejects = DeltaTable(str(self.directory / "out" / "rejects")).to_pyarrow_table().to_pylist()
        assert [(row["doc_id"], row["stage"], row["code"]) for row in rejects] == [("refused", "source", "null_text")]
        runs = DeltaTable(str(self.directory / "out" / "runs")).to_pyarrow_table().to_pylist()
        runs.sort(key=lambda row: row["started_at"])
        assert runs[-1]["status"] == "done"
        assert {row["status"] for row in runs[:-1]} <= {"done", "died", "failed"}


@contextlib.contextmanager
def masters(kind: str, directory: Path) -> Iterator[tuple[str, list[int]]]:
    """Start a standalone cluster if needed; yield the master's URL, and the ids of worker processes that start executors."""
    if kind == "local-cluster":
        yield "local-cluster[2,1,2048]", []
        shutil.rmtree(cluster.SPARK_HOME / "work", ignore_errors=True)  # where the workers of local-cluster always write
        return
    with cluster.standalone(directory) as address:
        below = psutil.Process().children()
        yield address, [process.pid for process in below if any("worker.Worker" in part for part in process.cmdline())]


@pytest.mark.parametrize(
    ("where", "source", "format_"),
    [("local-cluster", "feed", "delta"), ("standalone", "parquet", "delta"), ("standalone", "parquet", "parquet")],
)
def test_whatever_dies_nothing_is_lost_doubled_or_stale(
    truth: ExpectedTables, tmp_path: Path, where: str, source: str, format_: str
) -> None:
    chance = random.Random(f"{SEED} {where} {format_}")
    kinds = [KINDS[i % len(KINDS)] for i in range(-(-KILLS // 3))]
    chance.shuffle(kinds)
    history = History(tmp_path, chance, source)
    told: list[str] = []
    with masters(where, tmp_path) as (master, workers):

        def start() -> Driver:
            flags = ["--full"] if told and chance.random() < FULL_RUNS else []
            return Driver.start(master, [*history.options(), f"output.format={format_}"], tmp_path, workers, flags)

        history.move()
        code, lasts = killed_at_random(start(), [], chance, 0, told)
        assert code == 0, (tmp_path / "said.txt").read_text()
        history.check(truth)
        while kinds:
            history.move()
            for _ in range(LONGEST_RUNS):
                code, lasts = killed_at_random(start(), kinds, chance, lasts, told)
                if code == 0:
                    break
            else:
                code = start().wait()
            assert code == 0, (tmp_path / "said.txt").read_text()
            history.check(truth)
            assert not list((tmp_path / "out").glob("_*")), "what dead runs kept for themselves is gone"
    (tmp_path / "told.txt").write_text("\n".join(told) + "\n")
    assert sum("killed" in line for line in told) == -(-KILLS // 3)


def killed_at_random(
    driver: Driver, kinds: list[str], chance: random.Random, lasts: float, told: list[str]
) -> tuple[int, float]:
    """Kill processes of the kinds that are left in `kinds`, at random moments. Only the driver's death ends the run.

    Returns:
        The driver's exit code, and the duration of the run in seconds; for a disturbed run `lasts`, the expected duration.
    """
    cluster.until("the run's start", driver.started)
    began, disturbed, taggers = time.monotonic(), False, 0
    moments = sorted(chance.uniform(0, lasts) for _ in range(chance.randint(1, MAX_KILLS_IN_A_RUN)))
    while driver.process.poll() is None and time.monotonic() - began < cluster.PATIENCE:
        now = time.monotonic() - began
        # At most one tagger is killed in a run: a document whose tagger dies twice is rejected.
        wanted = kinds and moments and now >= moments[0] and not (kinds[-1] == "tagger" and taggers)
        if wanted and driver.kill(kinds[-1], chance.randrange(8)):
            taggers += kinds[-1] == "tagger"
            told.append(f"{kinds.pop()} killed after {now:.1f} s of {lasts:.1f}")
            del moments[0]
            disturbed = True
        time.sleep(0.02)
    return driver.wait(), lasts if disturbed else time.monotonic() - began
