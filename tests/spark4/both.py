"""Run the job over one source in several ways, and compare the tables, which are read without Spark."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from delta_reader import read_delta
from expected_tables import read_paragraphs
from small_queries import SMALL_QUERIES

ROOT = Path(__file__).parents[2]
TEXTS = read_paragraphs(40)
ODD = [
    "",
    " \n\t",
    "Zoë 👩‍👩‍👧 met José Álvarez in São Paulo;\r\nthen flew to 東京, Japan.",
    "A\x00B Corp. of Paris. " + "Mr. Smith went to Washington, D.C. " * 60,
]
RUN = {
    "application_id",
    "epoch",
    "log",
    "process",
    "run_id",
    "processed_at",
    "at",
    "started_at",
    "cores",
    "core_hours",
    "cpu_seconds",
    "ended_at",
    "seconds",
    "sentences_per_second",
    "settings",
}
"""Columns that describe a run, not its results."""
KEYS = {
    "entities": ["doc_id", "begin"], "documents": ["doc_id"], "rejects": ["code", "doc_id"], "annotations": ["doc_id"],
    "runs": ["started_at"],
}  # fmt: skip
CONFIDENCE = 1e-5
MAIN = "from entitymill.cli import main; raise SystemExit(main())"
NOISE = ("WARN SQLConf", "WARN CaseInsensitiveStringMap", "WARN MapPartitionsRDD", "UserWarning")
"""Warnings of Spark 4 that no user can act on."""
PROBABILITY = re.compile(r"[01]\.\d+(E-\d+)?|\d\.\d+E-\d+")
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string()), ("day", pa.date32()), ("tags", pa.list_(pa.string()))])


def clean_environment() -> dict[str, str]:
    """Return this process's environment without the variables of Spark and Python."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("SPARK_", "PYSPARK_", "PYTHON"))}


@dataclass
class Spark:
    """A way to run the job. `settings` add to the usual settings or replace them; the value None removes a setting."""

    name: str
    python: Path
    jars: Path
    settings: dict[str, str | None] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def run(
        self, output: Path, source: Path, *flags: str, source_format: str = "delta", command: str = "extract"
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of `entitymill`, and return its exit code and what it printed."""
        started = self.start(output, source, *flags, source_format=source_format, command=command)
        try:
            printed, errors = started.communicate(timeout=600)
        finally:
            started.kill()
        return subprocess.CompletedProcess(started.args, started.returncode, printed, errors)

    def start(
        self, output: Path, source: Path, *flags: str, source_format: str = "delta", command: str = "extract"
    ) -> subprocess.Popen[str]:
        """Start a command of `entitymill` in a process without variables of another Spark."""
        settings = {
            "source.format": source_format, "source.path": source, "source.passthrough": "[day, tags]",
            "output.path": output, "output.annotations": "true", "model.path": ROOT / "models" / "demo",
            "segmentation.model": ROOT / "models" / "sentence_detector", "limits.max_reject_ratio": "0.2",
            "spark.master": "local[2]", "spark.jars": self.jars, "spark.conf.spark.driver.memory": "1g",
            **{f"spark.conf.{key}": value for key, value in SMALL_QUERIES.items()},
            "log": f"{output}.log",
        }  # fmt: skip
        chosen = {key: value for key, value in {**settings, **self.settings}.items() if value is not None}
        overrides = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
        words = [str(self.python), "-c", MAIN, command, *overrides, *flags]
        environment = clean_environment() | self.environment | {"PYTHONPATH": str(ROOT / "jobs")}
        return subprocess.Popen(
            words, cwd=output.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def bring_up(self, output: Path, source: Path, *flags: str, command: str = "extract") -> None:
        ended = self.run(output, source, *flags, command=command)
        assert ended.returncode == 0, (self.name, ended.stdout, ended.stderr[-3000:])
        noise = [line for line in ended.stderr.splitlines() if any(words in line for words in NOISE)]
        assert not noise, (self.name, noise)


OLD = Spark("3.5", Path(sys.executable), ROOT / "build" / "jars")
NEW = Spark("4.0", ROOT / ".venv-spark4" / "bin" / "python", ROOT / "build" / "jars-spark4")
NEW_ON_PYTHON_3_12 = Spark("4.0", ROOT / ".venv-python312" / "bin" / "python", NEW.jars)
NEWEST = Spark("4.1", ROOT / ".venv-python313" / "bin" / "python", ROOT / "build" / "jars-spark41")
RELEASES = (OLD, NEW_ON_PYTHON_3_12, NEWEST)


def rows(texts: Mapping[int | None, str | None]) -> pa.Table:
    days = [date(2026, 11, 1 + (key or 0) % 28) for key in texts]
    tags = [["a", "b"][: (key or 0) % 3] for key in texts]
    return pa.table([list(texts), list(texts.values()), days, tags], schema=SCHEMA)


def make(path: Path) -> Path:
    """Write a source with a change feed and with rows that a run must reject, and return its path."""
    texts: dict[int | None, str | None] = dict(enumerate([*TEXTS[:30], *ODD]))
    texts |= {100: None, None: "An id is missing."}
    write_deltalake(path, rows(texts), configuration={"delta.enableChangeDataFeed": "true"})
    write_deltalake(path, rows({101: "Twice in Rome.", 102: "x" * 20}), mode="append")
    write_deltalake(path, rows({101: "Twice in Oslo."}), mode="append")
    return path


def change(source: Path) -> None:
    """Update, delete and append rows of the source, in one commit each."""
    table = DeltaTable(source)
    table.update(predicate="id IN (3, 7, 11)", updates={"text": "concat('In Berlin, Angela Merkel said: ', text)"})
    table.delete("id IN (5, 31)")
    write_deltalake(source, rows(dict(enumerate(TEXTS[30:36], 200))), mode="append")


def held(output: Path, name: str) -> list[dict[str, object]]:
    found = read_delta(output / name).to_pylist()
    found.sort(key=lambda row: [f"{row[key]:09}" if isinstance(row[key], int) else str(row[key]) for key in KEYS[name]])
    return [{key: unordered(value) for key, value in row.items() if key not in RUN} for row in found]


def unordered(value: object) -> object:
    """Return a map, which is read as a list of pairs in any order, as a dict; return other values unchanged."""
    pairs = isinstance(value, list) and all(isinstance(pair, tuple) for pair in value)
    return dict(value) if pairs and value else value  # type: ignore[call-overload]


def assert_equal(here: Path, there: Path) -> None:
    for name in [name for name in KEYS if (here / name).exists() or (there / name).exists()]:
        mine, others = held(here, name), held(there, name)
        assert len(mine) == len(others), name
        for a, b in zip(mine, others, strict=True):
            assert close(a, b), (name, a, b)
        assert schema_of(here, name) == schema_of(there, name), name


def close(a: object, b: object) -> bool:
    """Return whether two values are equal, or differ only in probabilities by less than CONFIDENCE.

    Columns in Spark NLP's format have probabilities as text.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(close, a, b))
    if isinstance(a, str) and isinstance(b, str) and PROBABILITY.fullmatch(a) and PROBABILITY.fullmatch(b):
        return abs(float(a) - float(b)) < CONFIDENCE
    return abs(a - b) < CONFIDENCE if isinstance(a, float) and isinstance(b, float) else a == b


def schema_of(output: Path, name: str) -> list[tuple[str, str, bool, str]]:
    """Return the name, type, nullability and metadata of each column of a table."""
    fields = DeltaTable(output / name).schema().fields
    return [(field.name, str(field.type), field.nullable, str(field.metadata)) for field in fields]
