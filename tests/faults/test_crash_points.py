"""Test that the next run repairs the output, whichever change of a file is the last one of a run that dies.

A history is a sequence of steps; each step changes a small source at random, and runs the job. First, the run of a step is
not disturbed, and its changes of files are counted: commits, creations, renames, deletions, new directories. Then runs start
from a copy of the earlier tables. Each dies at a random change, before or after the change takes effect. After up to five
dead runs, one more run must write what a clean run over the source would write.

ENTITYMILL_CRASH_POINTS is the number of runs that die (1,000 by default), ENTITYMILL_SEED the seed. The engine is a stub.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from bench import stub_engine
from entitymill import settings
from entitymill.run import extraction
from entitymill.settings import sections
from entitymill.spark.session import open_session
from entitymill.tables import lease, table_setup
from entitymill.tables.heartbeats import Heartbeat
from entitymill.tables.runs import Record
from entitymill.workers.engine_choice import Engine
from small_queries import SMALL_QUERIES

from .changing_source import DAYS, Source, expected, held
from .cluster import JARS, SPARK_HOME

POINTS = int(os.environ.get("ENTITYMILL_CRASH_POINTS", "1000"))
SEED = os.environ.get("ENTITYMILL_SEED", "1")
HISTORIES, STEPS, LOTS = 50, 3, 2
FEW = 20
"""Up to this number of points, all may by chance be before a change, or all after a change."""
IN_A_ROW = 5
"""Maximum number of runs that die before one run may finish."""
KINDS = ("append", "update", "delete", "rewrite", "mixed", "full", "model")
JAVA = Path(__file__).parent / "java"


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Open a session whose file system and Delta log store let a run die at a chosen change."""
    classes = tmp_path_factory.mktemp("classes")
    path = os.pathsep.join([f"{JARS}/*", f"{SPARK_HOME}/jars/*"])
    sources = sorted(str(source) for source in JAVA.glob("Mortal*.java"))
    subprocess.run(["javac", "-proc:none", "-cp", path, "-d", str(classes), *sources], check=True)
    subprocess.run(["jar", "--create", "--file", str(classes / "mortal.jar"), "-C", str(classes), "entitymill"], check=True)
    conf = {
        "spark.driver.memory": "3g",
        "spark.driver.extraClassPath": f"{classes}/mortal.jar:{JARS}/*",
        "spark.jars": "",
        # One process executes thousands of plans; Java's optimizing compiler halves their time.
        "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:ReservedCodeCacheSize=400m",
        "spark.delta.logStore.file.impl": "entitymill.faults.MortalLogStore",
        "spark.hadoop.fs.file.impl": "entitymill.faults.MortalFileSystem",
        "spark.ui.enabled": "false",
        **SMALL_QUERIES,
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "1",
    }
    session = open_session(sections.SparkSettings(master="local[2]", jars=str(JARS), conf=conf), "entitymill crash points")
    session.sparkContext.setLogLevel("OFF")  # the log would have a page for each run that dies
    yield session
    session.stop()


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no run wait for another one: the runs of this test never overlap, so every earlier run has ended."""
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(table_setup, "CREATION_SECONDS", 0.05)
    monkeypatch.setattr(table_setup, "CATALOG_CREATION_SECONDS", 0.05)
    monkeypatch.setattr(Heartbeat, "read_other_runs", lambda _: [])
    monkeypatch.setattr(Record, "lease_until", None)


@dataclass
class Step:
    """A run of a history, with the source at that time."""

    source: Source
    overrides: tuple[str, ...]
    full: bool
    model: str
    in_catalog: bool = False

    def prepare(self, spark: SparkSession, output: Path) -> None:
        """Create the catalog schema of the output, if it is in a catalog: not a change by the run, so no run dies there."""
        if self.in_catalog:
            open_schema(spark, output)

    def run(self, spark: SparkSession, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = Engine("stub", self.model, lambda: stub_engine.stub_tagger)
        monkeypatch.setattr(extraction, "open_engine", lambda *_: engine)
        fixed = ["limits.max_removed_ratio=1", "limits.wait_seconds=0", "spark.partitions=1"]
        place = (
            ["output.path=null", f"output.schema={open_schema(spark, output)}"]
            if self.in_catalog
            else [f"output.path={output}"]
        )
        options = [*self.source.options(), *place, *fixed, *self.overrides]
        extraction.extract(spark, settings.load(None, options, {}), full=self.full)


SCHEMAS: dict[Path, str] = {}
"""Output directory -> catalog schema of its tables."""


def open_schema(spark: SparkSession, output: Path) -> str:
    """Return the catalog schema of an output. The first call creates the schema, and registers the tables of the output."""
    if output not in SCHEMAS:
        name = SCHEMAS[output] = f"lake_{len(SCHEMAS)}"
        spark.sql(f"CREATE SCHEMA {name} LOCATION '{output}'")
        for table in sorted(output.glob("*/_delta_log")):
            if any(table.glob("*.json")):
                spark.sql(f"CREATE TABLE {name}.{table.parent.name} USING delta LOCATION '{table.parent}'")
    return SCHEMAS[output]


def steps(chance: random.Random, directory: Path) -> Iterator[Step]:
    """Yield the steps of one history. Request a step only after the run of the step before: a request changes the source."""
    source = Source(directory / "source", chance, chance.choice(("feed", "delta", "parquet")))
    format_ = chance.choice(("delta", "delta", "parquet"))
    in_catalog = format_ == "delta" and chance.random() < 0.5
    slices = format_ == "delta" and chance.random() < 0.2
    source.add(chance.randint(3, 8))
    source.write("append")
    model = "one"
    for number in range(STEPS):
        kind = "append" if number == 0 else chance.choice(KINDS)
        if number:
            source.change(kind)
        model = f"model {number}" if kind == "model" and not slices else model
        overrides = (f"output.format={format_}", f"limits.unit_rows={chance.choice((3, 100))}")
        if slices:
            for day in DAYS:
                chosen = (*overrides, "output.replace_slice=true", f"source.where=day = '{day}'")
                yield Step(source, chosen, full=False, model=model, in_catalog=in_catalog)
        else:
            yield Step(source, overrides, full=kind == "full", model=model, in_catalog=in_catalog)


def visible(step: Step, before: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Return the rows whose documents must be in the output after a step: id -> (day, text)."""
    condition = next((o for o in step.overrides if o.startswith("source.where")), "")
    if not condition:
        return dict(step.source.rows)
    day = condition.split("'")[1]
    others = {key: row for key, row in before.items() if row[0] != day}
    return others | {key: row for key, row in step.source.rows.items() if row[0] == day}


@dataclass
class Trial:
    """Lets runs die, and collects the outcomes.

    done: number of points so far.
    died: number of runs that died before the change or after it, or that did not die.
    wrong: descriptions of the cases in which the last run left wrong tables.
    """

    spark: SparkSession
    monkeypatch: pytest.MonkeyPatch
    done: int = 0
    died: dict[str, int] = field(default_factory=lambda: {"before": 0, "after": 0, "not": 0})
    wrong: list[tuple[object, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        system: Any = self.spark.sparkContext._jvm
        self.mortality = system.entitymill.faults.Mortality
        self.forget = system.org.apache.spark.sql.delta.DeltaLog.clearCache

    def undisturbed(self, step: Step, state: Path, place: Path, rows: dict[str, tuple[str, str]]) -> int:
        """Run a step without a disturbance, check the tables, and return the number of changes of files."""
        copy(state, place)
        step.prepare(self.spark, place)
        self.mortality.arm(str(place), 0, False)
        step.run(self.spark, place, self.monkeypatch)
        self.mortality.disarm()
        assert held(place) == expected(rows)
        return int(self.mortality.count())

    def die(
        self, step: Step, state: Path, points: list[tuple[int, bool]], again: Step, rows: dict[str, tuple[str, str]]
    ) -> None:
        """Let one run die at each of the points, and record whether the run of `again` repairs the tables."""
        # Each call needs its own path, because Delta caches tables by path.
        place, where = copy(state, state.parent / f"out-{self.done}"), []
        step.prepare(self.spark, place)
        for point, late in points:
            self.done += 1
            self.mortality.arm(str(place), point, late)
            try:
                step.run(self.spark, place, self.monkeypatch)
            except Exception:
                if not self.mortality.died():
                    raise
            where.append(str(self.mortality.fatalChange()).replace(str(place), "OUT"))
            self.died[where[-1].split(" ")[0] if self.mortality.died() else "not"] += 1
            self.mortality.disarm()
        try:
            again.run(self.spark, place, self.monkeypatch)
            fine = held(place) == expected(rows)
        except Exception as error:
            fine = False
            where.append(f"{type(error).__name__} {str(error)[:500]}")
        if fine:
            shutil.rmtree(place)
        else:
            self.wrong.append((str(place), step.overrides, step.full, again.full, *where))
            print("WRONG", json.dumps(self.wrong[-1]), file=sys.stderr)


@pytest.mark.parametrize("lot", range(LOTS))  # two processes can share the work
def test_wherever_a_run_dies_the_next_one_leaves_what_a_clean_run_would(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lot: int
) -> None:
    trial = Trial(spark, monkeypatch)
    share = -(-POINTS // (HISTORIES * STEPS))
    for number in range(lot, min(HISTORIES, POINTS), LOTS):
        chance = random.Random(f"{SEED} {number}")
        directory = tmp_path / str(number)
        directory.mkdir()
        state = directory / "state-0"
        before: dict[str, Any] = {}
        for at, step in enumerate(steps(chance, directory), 1):
            after, clean = visible(step, before), directory / f"state-{at}"
            changes = trial.undisturbed(step, state, clean, after)
            points = [(point, late) for point in range(1, changes + 1) for late in (False, True)]
            for deaths in batched(chance.sample(points, min(share, len(points)))):
                # If the dead runs had --full, the last run has it in half of the cases.
                again = replace(step, full=step.full and chance.random() < 0.5)
                trial.die(step, state, deaths, again, after)
            trial.forget()
            shutil.rmtree(state, ignore_errors=True)
            state, before = clean, after
        print(f"history {number}: {trial.done} points: {trial.died}, {len(trial.wrong)} wrong", file=sys.stderr)
    assert not trial.wrong
    assert trial.done >= POINTS // LOTS
    if trial.done > FEW:
        # Runs must have died both before and after changes. Some may not die, because a run after dead runs may make fewer
        # changes than the undisturbed run; but most must.
        assert trial.died["before"] and trial.died["after"]
        assert trial.died["not"] < trial.done / 4


def batched(points: list[tuple[int, bool]]) -> Iterator[list[tuple[int, bool]]]:
    """Yield the points in groups of at most IN_A_ROW."""
    for at in range(0, len(points), IN_A_ROW):
        yield points[at : at + IN_A_ROW]


def copy(state: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    if state.exists():
        shutil.copytree(state, place)
    return place
