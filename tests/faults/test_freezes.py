"""Test that a run does no harm if it is frozen (SIGSTOP) for longer than its lease, while other runs work.

A seed determines each scenario: the output, its earlier tables, the changes of the source, and when a run freezes and wakes
up. The run wakes up before, during or after the run that takes over. A third run may work at the same time. When all runs
have ended, the tables must be what a clean run over the current source would write. One more run must leave them so.

ENTITYMILL_FREEZES is the number of scenarios (100 by default), ENTITYMILL_SEED the first seed. The engine is a stub.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from .changing_source import DAYS, Source, expected, held
from .cluster import PATIENCE, environment

SCENARIOS = int(os.environ.get("ENTITYMILL_FREEZES", "100"))
SEED = int(os.environ.get("ENTITYMILL_SEED", "1"))
LEASE_SECONDS = 2
KINDS = ("append", "update", "delete", "rewrite", "mixed")
WAKES = ("before", "during", "after")


class Runner:
    """A process that runs the job repeatedly in one Spark session, and that can be frozen."""

    def __init__(self, directory: Path, name: str) -> None:
        self.log = (directory / f"{name}.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("stub_runner.py"))],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.answer()

    def start(self, overrides: list[str], *, full: bool = False, model: str = "one") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"overrides": overrides, "full": full, "model": model}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait until the run has ended or, at first, until the process is ready; return the answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the runner died; see {self.log.name}"
        return dict(json.loads(line))

    def signal(self, number: int) -> None:
        """Send a signal to all descendants of the process, such as Java, and then to the process."""
        whole = psutil.Process(self.process.pid)
        for process in [*whole.children(recursive=True), whole]:
            with suppress(psutil.NoSuchProcess):  # a Python worker of Spark may have ended since
                process.send_signal(number)

    def close(self) -> None:
        self.signal(signal.SIGCONT)
        for process in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
            process.kill()
        self.process.wait(PATIENCE)
        self.log.close()


@pytest.fixture(scope="module")
def runners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Runner]]:
    directory = tmp_path_factory.mktemp("runners")
    started = [Runner(directory, name) for name in ("first", "second", "third")]
    yield started
    for runner in started:
        runner.close()


@dataclass
class Scenario:
    """A random sequence of events, and its outcome."""

    seed: int
    directory: Path
    runners: list[Runner]
    events: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # seeded, not secret
        kind = self.chance.choice(("feed", "delta", "parquet"))
        self.source = Source(self.directory / "source", self.chance, kind)
        self.output = self.directory / "out"
        self.format = self.chance.choice(("delta", "delta", "parquet"))
        self.slices = self.format == "delta" and self.chance.random() < 0.2
        self.full = not self.slices and self.chance.random() < 0.25
        self.first = self.chance.random() < 0.3
        self.seconds = 4.0
        self.day: str | None = None
        self.before: dict[str, tuple[str, str]] = {}
        """Rows of the source at the last run over the whole source."""
        self.lost = False
        """Whether the frozen run noticed that another run took over."""

    def options(self, day: str | None) -> list[str]:
        fixed = [
            "limits.max_removed_ratio=1",
            f"limits.lease_seconds={LEASE_SECONDS}",
            "limits.wait_seconds=120",
            "spark.partitions=1",
            f"limits.unit_rows={self.chance.choice((3, 3, 100))}",
            f"output.format={self.format}",
            f"output.path={self.output}",
        ]
        of_slice = [] if day is None else ["output.replace_slice=true", f"source.where=day = '{day}'"]
        return [*self.source.options(), *fixed, *of_slice]

    def run_undisturbed(self) -> None:
        """Run the job once, or once for each slice, and check that it succeeds."""
        for day in DAYS if self.slices else (None,):
            began = time.monotonic()
            self.runners[0].start(self.options(day))
            answer = self.runners[0].answer()
            self.seconds = time.monotonic() - began
            assert answer["status"] == "done", answer
        self.day, self.before = None, dict(self.source.rows)

    def play(self) -> None:
        """Freeze a run, let one or two others work, and wake the frozen run up."""
        self.source.add(self.chance.randint(3, 8))
        self.source.write("append")
        if not self.first:
            self.run_undisturbed()
            self.change_source()
        day = self.day = self.chance.choice(DAYS) if self.slices else None
        frozen, successor, third = self.runners
        frozen.start(self.options(day), full=self.full)
        time.sleep(self.chance.uniform(0.2, 1.2) * self.seconds)
        frozen.signal(signal.SIGSTOP)
        self.events.append("frozen")
        wake = self.chance.choice(WAKES)
        time.sleep(LEASE_SECONDS * (self.chance.uniform(0.5, 1.5) if wake == "before" else 1.2))
        if self.chance.random() < 0.7:
            self.change_source()
        if wake == "before":
            self.wake(frozen)
        successor.start(self.options(day), full=self.full and self.chance.random() < 0.3)
        together = self.chance.random() < 0.3
        if together:
            third.start(self.options(day))
        if wake == "during":
            time.sleep(self.chance.uniform(0.1, 1.2) * (self.seconds + LEASE_SECONDS))
            self.wake(frozen)
        answers = [successor.answer()] + ([third.answer()] if together else [])
        if wake == "after":
            self.wake(frozen)
        answers.append(frozen.answer())
        self.lost = "took over" in answers[-1].get("error", "") or "later run" in answers[-1].get("error", "")
        self.events += [f"{answer['status']} {answer.get('mode')} {answer.get('error', '')[:160]}" for answer in answers]

    def change_source(self) -> None:
        kind = self.chance.choice(KINDS)
        self.source.change(kind)
        self.events.append(kind)

    def wake(self, runner: Runner) -> None:
        runner.signal(signal.SIGCONT)
        self.events.append("awake")

    def differences(self) -> str:
        """Return a description of what is wrong with the tables; an empty string if they are right."""
        try:
            found = held(self.output)
        except Exception as error:  # a table is gone, or cannot be read
            return f"{type(error).__name__}: {error}"
        rows = self.source.rows
        if self.day is not None:  # no run has updated the other slice since the source changed
            rows = {key: row for key, row in self.before.items() if row[0] != self.day}
            rows |= {key: row for key, row in self.source.rows.items() if row[0] == self.day}
        wanted = expected(rows)
        return "" if found == wanted else f"found {found} instead of {wanted}"


def test_a_run_that_was_frozen_does_no_harm_when_it_wakes_up(runners: list[Runner], tmp_path: Path) -> None:
    wrong, lost = [], 0
    for seed in range(SEED, SEED + SCENARIOS):
        directory = tmp_path / str(seed)
        directory.mkdir()
        scenario = Scenario(seed, directory, runners)
        scenario.play()
        lost += scenario.lost
        now = scenario.differences()
        scenario.run_undisturbed()
        later = scenario.differences()
        flags = f"slices={scenario.slices} full={scenario.full} first={scenario.first}"
        kind = f"{scenario.source.kind} {scenario.format} {flags}"
        print(f"seed {seed}: {kind}: {'; '.join(scenario.events)}", file=sys.stderr)
        if now or later:
            wrong.append((seed, scenario.events, now, later))
            print(f"WRONG seed {seed}: now: {now}\n later: {later}", file=sys.stderr)
    print(f"{SCENARIOS} scenarios, {len(wrong)} wrong; {lost} frozen runs lost their lease", file=sys.stderr)
    assert not wrong
    # A run that ends before the freeze, or wakes up within its lease, tests nothing. Enough runs must have lost their lease.
    assert SCENARIOS < 20 or lost >= SCENARIOS / 5
