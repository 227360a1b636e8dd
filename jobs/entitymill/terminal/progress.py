"""What a person sees while a run is at work: a bar on a terminal, elsewhere one line a minute, as JSON on request."""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from entitymill.terminal.console_text import open_console, visible

if TYPE_CHECKING:
    from entitymill.run.summary import Summary

KINDS = ("auto", "bar", "lines", "json", "none")
LINE_SECONDS = 60.0
BAR_SECONDS = 0.5
_BAR_WIDTH = 30
_RECOGNITION = "recognition"


class Progress:
    """Shows a summary while it fills, from a thread of its own, on stderr."""

    def __init__(self, kind: str = "auto", seconds: float | None = None) -> None:
        """Nothing is shown yet.

        Args:
            kind: of KINDS; `auto` is a bar on a terminal and lines elsewhere.
            seconds: between two lines, or two states of the bar.
        """
        self._console = open_console(stderr=True, highlight=False, soft_wrap=True)
        self._kind = ("bar" if self._console.is_terminal else "lines") if kind == "auto" else kind
        self._seconds = seconds or (BAR_SECONDS if self._kind == "bar" else LINE_SECONDS)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._began: float | None = None

    def watch(self, summary: Summary) -> None:
        """Begin to show a run."""
        if self._kind == "none":
            return
        show = self._bar if self._kind == "bar" else self._lines
        self._thread = threading.Thread(target=show, args=(summary,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take the bar away; nothing is shown from now on."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def facts(self, summary: Summary) -> dict[str, Any]:
        """What is known now: counts, speed, seconds left; documents of the unit at work by its finished tasks."""
        done = summary.documents
        if summary.stage == _RECOGNITION:
            unit = (summary.planned - done) / max(1, summary.units - summary.units_done)
            done += int(unit * _finished_share())
        rate, left = self._speed(summary, done)
        return {
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "run_id": summary.run_id,
            "stage": summary.stage,
            "waiting": summary.waiting if summary.stage == "waiting" else None,
            "unit": min(summary.units_done + 1, summary.units) if summary.units else 0,
            "units": summary.units,
            "documents": done,
            "planned": summary.planned,
            "sentences": summary.sentences,
            "sentences_per_second": rate,
            "seconds_left": left,
            "rejects": sum(summary.rejects.values()),
        }

    def _speed(self, summary: Summary, done: int) -> tuple[float | None, float | None]:
        """Sentences a second in recognition, and seconds left, as far as they can be told since it began."""
        if self._began is None:
            self._began = time.monotonic() if summary.stage == _RECOGNITION else None
            return None, None
        in_recognition = summary.seconds.get(_RECOGNITION)
        rate = round(summary.sentences / in_recognition, 1) if in_recognition else None
        left = round((time.monotonic() - self._began) * (summary.planned - done) / done) if done else None
        return rate, left

    def _lines(self, summary: Summary) -> None:
        stage = ""
        while not self._stopped.wait(self._seconds if stage else 0):
            known = self.facts(summary)
            # Who waits wants to know at once; else the first minute needs no line.
            if self._kind == "json":
                self._console.print(json.dumps(known), markup=False)
            elif stage or known["waiting"]:
                self._console.print(f"{known['at']} {sentence(known)}", markup=False)
            stage = known["stage"]

    def _bar(self, summary: Summary) -> None:
        with Live(console=self._console, transient=True, auto_refresh=False) as live:
            while not self._stopped.wait(self._seconds):
                known = self.facts(summary)
                grid = Table.grid(padding=(0, 1))
                grid.add_row(ProgressBar(max(1, known["planned"]), known["documents"], _BAR_WIDTH), sentence(known))
                live.update(grid, refresh=True)


def sentence(known: dict[str, Any]) -> str:
    """Progress.facts for people."""
    said = f"run {visible(known['run_id'])}: {known['stage']}"
    if known["waiting"]:
        return f"{said} for {visible(known['waiting'], lines=False)}"
    if not known["planned"]:
        return said
    said += f", unit {known['unit']} of {known['units']}, {known['documents']:,} of {known['planned']:,} documents"
    if known["sentences_per_second"]:
        said += f", {known['sentences']:,} sentences, {known['sentences_per_second']:,.0f} a second"
    if known["seconds_left"] is not None:
        said += f", about {duration(known['seconds_left'])} left"
    return said + (f", {known['rejects']:,} rows rejected" if known["rejects"] else "")


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would take."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _finished_share() -> float:
    """Of the tasks of the largest stage that Spark is at, by its own public tracker; 0 where there is none to ask."""
    from pyspark import SparkContext  # noqa: PLC0415  # a command without Spark does without

    context = SparkContext._active_spark_context
    if context is None:
        return 0.0
    try:
        tracker = context.statusTracker()
        stages = [info for stage in tracker.getActiveStageIds() if (info := tracker.getStageInfo(stage)) is not None]
    except Exception:  # noqa: BLE001  # the session may be ending
        return 0.0
    largest = max(stages, key=lambda info: info.numTasks, default=None)
    return largest.numCompletedTasks / max(1, largest.numTasks) if largest is not None else 0.0
