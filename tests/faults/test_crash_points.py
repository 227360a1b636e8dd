"""A run dies at each of the changes it makes to the output's files, before it or after it took effect; then another runs.

Random histories of a small source, each step of which is a run. A step's run is made once undisturbed, to count its changes
of files: commits, creations, renames, deletions, new directories. Then, from a copy of the tables as they were before it,
runs die at chosen ones, one after the other, and the last has to leave what a clean run over the source would have written.

ENTITYMILL_CRASH_POINTS says at how many points (1,000), ENTITYMILL_SEED with which seed. The engine is a stand-in.
"""

from __future__ import annotations

import hashlib
import itertools
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

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from bench import stub
from delta_reader import read_delta
from entitymill import settings
from entitymill.engines.engine import Engine
from entitymill.platform.session import open_session
from entitymill.run import extraction
from entitymill.settings import sections
from entitymill.tables import lease, table_setup
from small_queries import SMALL_QUERIES

from .cluster import JARS, SPARK_HOME

POINTS = int(os.environ.get("ENTITYMILL_CRASH_POINTS", "1000"))
SEED = os.environ.get("ENTITYMILL_SEED", "1")
HISTORIES, STEPS, LOTS = 50, 3, 2
FEW = 20
"""Points that may all lie on one side."""
IN_A_ROW = 5
"""Runs that die before one may come to its end."""
KINDS = ("append", "update", "delete", "rewrite", "mixed", "full", "model")
WORDS = [
    "Anna",
    "Bob",
    "Cairo",
    "Delhi",
    "Essen",
    "Fritz",
    "Gaza",
    "Hanoi",
    "Ida",
    "Jena",
    "Kiew",
    "Lima",
    "Mona",
    "Nora",
    "Oslo",
    "Paul",
    "Rom",
    "Sofia",
    "Tom",
    "Ulm",
    "Wien",
]
DAYS = ("mon", "tue")
FEED = {"delta.enableChangeDataFeed": "true"}
JAVA = Path(__file__).parent / "java"
Rows = list[tuple[object, ...]]


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """With files and commits that may be a run's last."""
    classes = tmp_path_factory.mktemp("classes")
    path = os.pathsep.join([f"{JARS}/*", f"{SPARK_HOME}/jars/*"])
    sources = sorted(str(source) for source in JAVA.glob("Mortal*.java"))
    subprocess.run(["javac", "-proc:none", "-cp", path, "-d", str(classes), *sources], check=True)
    subprocess.run(["jar", "--create", "--file", str(classes / "mortal.jar"), "-C", str(classes), "entitymill"], check=True)
    conf = {
        "spark.driver.memory": "3g",
        "spark.driver.extraClassPath": f"{classes}/mortal.jar:{JARS}/*",
        "spark.jars": "",
        # Thousands of plans in one process: compiled well, they take half the time.
        "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:ReservedCodeCacheSize=400m",
        "spark.delta.logStore.file.impl": "entitymill.faults.MortalLogStore",
        "spark.hadoop.fs.file.impl": "entitymill.faults.MortalFileSystem",
        "spark.ui.enabled": "false",
        **SMALL_QUERIES,
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "1",
    }
    session = open_session(sections.SparkSettings(master="local[2]", jars=str(JARS), conf=conf), "entitymill crash points")
    session.sparkContext.setLogLevel("OFF")  # every death would fill a page
    yield session
    session.stop()


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its own, by then gone, for each run; and the dead do not wait."""
    number = itertools.count(4_200_000)
    own = lease.this_process()
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(table_setup, "MAKING_SECONDS", 0.05)
    monkeypatch.setattr(lease, "this_process", lambda: {**own, "pid": str(next(number)), "started": "1"})


@dataclass
class Source:
    """A table of texts on disk, and what is in it."""

    path: Path
    chance: random.Random
    kind: str
    rows: dict[str, tuple[str, str]] = field(default_factory=dict)
    fresh: int = 0

    def text(self) -> str:
        return " ".join(self.chance.choices(WORDS, k=4))

    def add(self, number: int) -> None:
        for _ in range(number):
            self.rows[f"d{self.fresh:03}"] = (self.chance.choice(DAYS), self.text())
            self.fresh += 1

    def change(self, kind: str) -> None:
        """One step of a history."""
        keys = sorted(self.rows)
        some = self.chance.sample(keys, min(2, len(keys)))
        if kind in ("append", "mixed") or not keys:
            self.add(2)
        if kind in ("update", "mixed", "full", "model"):
            for key in some[:1]:
                self.rows[key] = (self.rows[key][0], self.text())
        if kind in ("delete", "mixed") and len(keys) > 2:
            del self.rows[some[-1]]
        if kind == "rewrite":
            self.rows = {key: (day, self.text() if key in some else text) for key, (day, text) in self.rows.items()}
        self.write(kind)

    def write(self, kind: str) -> None:
        table = pa.table(
            {
                "id": list(self.rows),
                "day": [day for day, _ in self.rows.values()],
                "text": [text for _, text in self.rows.values()],
            }
        )
        if self.kind == "parquet":
            pq.write_table(table, f"{self.path}.parquet")
        elif not DeltaTable.is_deltatable(str(self.path)):
            write_deltalake(self.path, table, configuration=FEED if self.kind == "feed" else None)
        elif kind == "rewrite":
            write_deltalake(self.path, table, mode="overwrite")
        else:
            merge = DeltaTable(str(self.path)).merge(table, "t.id = s.id", source_alias="s", target_alias="t")
            merge = merge.when_matched_update_all("t.text <> s.text").when_not_matched_insert_all()
            merge.when_not_matched_by_source_delete().execute()

    def options(self) -> list[str]:
        if self.kind == "parquet":
            return ["source.format=parquet", f"source.path={self.path}.parquet"]
        return ["source.format=delta", f"source.path={self.path}"]


def expected(rows: dict[str, tuple[str, str]]) -> tuple[Rows, Rows]:
    """What the stand-in finds in texts: `entities`, and `documents`."""
    mentions, documents = [], []
    for key, (_, text) in rows.items():
        first, second, _ = text.split(" ", 2)
        for begin, entity, label in ((0, first, "PER"), (len(first) + 1, second, "LOC")):
            mentions.append((key, f"{key}:{begin}-{begin + len(entity)}", begin, begin + len(entity), entity, label))
        documents.append((key, hashlib.sha256(text.encode()).hexdigest(), "done", 2))
    return sorted(mentions), sorted(documents)


def held(output: Path) -> tuple[Rows, Rows]:
    """What the tables hold, read by another program."""
    entities = output / "entities"
    delta = (entities / "_delta_log").exists()
    table = read_delta(entities) if delta else pq.read_table(entities, partitioning="hive")
    mention = ("doc_id", "mention_id", "begin", "end", "entity", "label")
    mentions = sorted(tuple(row[name] for name in mention) for row in table.to_pylist())
    document = ("doc_id", "text_hash", "status", "entities")
    documents = sorted(tuple(row[name] for name in document) for row in read_delta(output / "documents").to_pylist())
    return mentions, documents


@dataclass
class Step:
    """A run of a history, with what the source is by then."""

    source: Source
    overrides: tuple[str, ...]
    full: bool
    model: str

    def run(self, spark: SparkSession, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = Engine("stub", self.model, lambda: stub.stub_tagger)
        monkeypatch.setattr(extraction, "open_engine", lambda *_: engine)
        fixed = ["limits.max_removed_ratio=1", "limits.wait_seconds=0", "spark.partitions=1"]
        options = [*self.source.options(), f"output.path={output}", *fixed, *self.overrides]
        extraction.extract(spark, settings.load(None, options, {}), full=self.full)


def steps(chance: random.Random, directory: Path) -> Iterator[Step]:
    """Of one history; each is asked for when the one before is done."""
    source = Source(directory / "source", chance, chance.choice(("feed", "delta", "parquet")))
    format_ = chance.choice(("delta", "delta", "parquet"))
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
                yield Step(source, chosen, full=False, model=model)
        else:
            yield Step(source, overrides, full=kind == "full", model=model)


def visible(step: Step, before: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """The documents that the output holds after a step."""
    condition = next((o for o in step.overrides if o.startswith("source.where")), "")
    if not condition:
        return dict(step.source.rows)
    day = condition.split("'")[1]
    others = {key: row for key, row in before.items() if row[0] != day}
    return others | {key: row for key, row in step.source.rows.items() if row[0] == day}


@dataclass
class Trial:
    """What came of the deaths so far."""

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
        """Make a step's run as it should be; returns how many changes of files that takes."""
        copy(state, place)
        self.mortality.arm(str(place), 0, False)
        step.run(self.spark, place, self.monkeypatch)
        self.mortality.disarm()
        assert held(place) == expected(rows)
        return int(self.mortality.count())

    def die(
        self, step: Step, state: Path, points: list[tuple[int, bool]], again: Step, rows: dict[str, tuple[str, str]]
    ) -> None:
        """Make it die at one point after the other, each time in another run, and the last run do its work."""
        # Of a name of its own: Delta remembers tables by their paths.
        place, where = copy(state, state.parent / f"out-{self.done}"), []
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


@pytest.mark.parametrize("lot", range(LOTS))  # for two processes
def test_wherever_a_run_dies_the_next_one_leaves_what_a_clean_run_would(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lot: int
) -> None:
    trial = Trial(spark, monkeypatch)
    share = -(-POINTS // (HISTORIES * STEPS))
    for number in range(lot, min(HISTORIES, POINTS), LOTS):
        chance = random.Random(f"{SEED} {number}")
        directory = tmp_path / str(number)
        directory.mkdir()
        state, before = directory / "state-0", {}
        for at, step in enumerate(steps(chance, directory), 1):
            after, clean = visible(step, before), directory / f"state-{at}"
            changes = trial.undisturbed(step, state, clean, after)
            points = [(point, late) for point in range(1, changes + 1) for late in (False, True)]
            for deaths in batched(chance.sample(points, min(share, len(points)))):
                # A night later, perhaps without --full.
                again = replace(step, full=step.full and chance.random() < 0.5)
                trial.die(step, state, deaths, again, after)
            trial.forget()
            shutil.rmtree(state, ignore_errors=True)
            state, before = clean, after
        print(f"history {number}: {trial.done} points: {trial.died}, {len(trial.wrong)} wrong", file=sys.stderr)
    assert not trial.wrong
    assert trial.done >= POINTS // LOTS
    if trial.done > FEW:
        # Before changes and after them; and most runs did come to the point: a try may make fewer changes than the first.
        assert trial.died["before"] and trial.died["after"]
        assert trial.died["not"] < trial.done / 4


def batched(points: list[tuple[int, bool]]) -> Iterator[list[tuple[int, bool]]]:
    """In lots of IN_A_ROW."""
    for at in range(0, len(points), IN_A_ROW):
        yield points[at : at + IN_A_ROW]


def copy(state: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    if state.exists():
        shutil.copytree(state, place)
    return place
