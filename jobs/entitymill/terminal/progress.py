"""Show the progress of a run: as a bar on a terminal, as lines of text elsewhere, or as lines of JSON on request.

A command that does not run the job calls `begin_step` instead, which shows the command's current step, such as "starting
Spark". All output goes to stderr.
"""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from entitymill.terminal.console_text import open_console, visible

if TYPE_CHECKING:
    from entitymill.run.summary import Summary

KINDS = ("auto", "bar", "lines", "json", "none")
"""Ways to show progress: a bar, lines of text, lines of JSON, or nothing; `auto` is a bar on a terminal, lines elsewhere."""
LINE_SECONDS, BAR_SECONDS = 60.0, 0.5
"""Default numbers of seconds: LINE_SECONDS between two lines about the progress of a run, BAR_SECONDS between two updates of
the bar."""
_BAR_WIDTH = 30
_RECOGNITION, _RECOGNIZING = "recognition", "recognizing"
"""_RECOGNITION is the value of `Summary.stage` while the run waits until a unit is recognized. _RECOGNIZING is a key in
`Summary.seconds`: its value is the total time, in seconds, in which documents were being recognized."""
FIRST_NOTE_SECONDS, NOTE_SECONDS = 3.0, 30.0
"""FIRST_NOTE_SECONDS after a command's step begins, the first line about the step is printed. Then one line follows every
NOTE_SECONDS."""
_steps: list[tuple[threading.Event, threading.Thread]] = []
"""Empty if no step is shown. Otherwise it has one item: a tuple of an event, and of the thread that prints lines about the
step until the event is set."""


class Progress:
    """Shows the progress of a run on stderr, in a separate thread, while the run updates its summary."""

    def __init__(self, kind: str = "auto", seconds: float | None = None) -> None:
        """Choose how to show progress. Nothing is shown until `watch` is called.

        Args:
            kind: one of KINDS; `auto` is a bar on a terminal and lines elsewhere.
            seconds: seconds between two lines, or between two updates of the bar; None for 60 s (lines) or 0.5 s (bar).
        """
        self._console = open_console(stderr=True, highlight=False, soft_wrap=True)
        self._kind = ("bar" if self._console.is_terminal else "lines") if kind == "auto" else kind
        self._seconds = seconds or (BAR_SECONDS if self._kind == "bar" else LINE_SECONDS)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._began: float | None = None
        self._done = 0

    def watch(self, summary: Summary) -> None:
        """Start a thread that shows the progress of a run until `close` is called; with the kind `none`, do nothing."""
        if self._kind == "none":
            return
        show = self._show_bar if self._kind == "bar" else self._print_lines
        self._thread = threading.Thread(target=show, args=(summary,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop showing the progress, and remove the bar if there is one; do nothing if `watch` was not called."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def measure(self, summary: Summary) -> dict[str, Any]:
        """Return a dict with the stage, the counts, the speed and the estimated remaining seconds of a run.

        `unit` is the number, from 1, of the current unit of work (documents that are published together); `units` is the
        number of all units. `waiting` describes the run for which this run waits now, or is None. `at` is the current time.
        `documents` is the number of finished documents, `planned` the number of all documents to process.

        While a unit is recognized, the number of its finished documents is not known. So `documents` includes an estimate
        from the share of finished Spark tasks. This object remembers `documents`, so that a later estimate is not lower.
        """
        done = summary.documents
        if summary.stage == _RECOGNITION:
            unit_documents = (summary.planned - done) / max(1, summary.units - summary.units_done)
            # The share of finished tasks falls when tasks of the next unit start. But the shown number must not fall.
            done = self._done = max(self._done, done + int(unit_documents * _compute_finished_share()))
        rate, left = self._estimate_speed(summary, done)
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

    def _estimate_speed(self, summary: Summary, done: int) -> tuple[float | None, float | None]:
        """Return (sentences per second of recognition, estimated remaining seconds); each is None while it is unknown.

        `done` is the number of finished documents. The remaining time is estimated from the time since the first call in the
        stage `recognition`. That call and the calls before it return (None, None).
        """
        if self._began is None:
            self._began = time.monotonic() if summary.stage == _RECOGNITION else None
            return None, None
        recognizing = summary.seconds.get(_RECOGNIZING)
        rate = round(summary.sentences / recognizing, 1) if recognizing else None
        left = round((time.monotonic() - self._began) * (summary.planned - done) / done) if done else None
        return rate, left

    def _print_lines(self, summary: Summary) -> None:
        """Print the progress at regular intervals, as a line of text or of JSON, until `close` is called."""
        stage = ""
        while not self._stopped.wait(self._seconds if stage else 0):
            state = self.measure(summary)
            # The first line of JSON is printed immediately. The first line of text is printed after one interval, but
            # immediately if the run waits for another run.
            if self._kind == "json":
                self._console.print(json.dumps(state), markup=False)
            elif stage or state["waiting"]:
                self._console.print(f"{state['at']} {describe_progress(state)}", markup=False)
            stage = state["stage"]

    def _show_bar(self, summary: Summary) -> None:
        """Show a bar, and update it at regular intervals, until `close` is called."""
        with Live(console=self._console, transient=True, auto_refresh=False) as live:
            while not self._stopped.wait(self._seconds):
                state = self.measure(summary)
                grid = Table.grid(padding=(0, 1))
                bar = ProgressBar(max(1, state["planned"]), state["documents"], _BAR_WIDTH)
                grid.add_row(bar, Text(describe_progress(state)))
                live.update(grid, refresh=True)


def describe_progress(state: dict[str, Any]) -> str:
    """Return the progress of a run as one line of text; `state` is a result of `Progress.measure`."""
    text = f"run {visible(state['run_id'])}: {state['stage']}"
    if state["waiting"]:
        return f"{text} for {visible(state['waiting'], lines=False)}"
    if not state["planned"]:
        return text
    text += f", unit {state['unit']} of {state['units']}, {state['documents']:,} of {state['planned']:,} documents"
    if state["sentences_per_second"]:
        text += f", {state['sentences']:,} sentences, {state['sentences_per_second']:,.0f} a second"
    if state["seconds_left"] is not None:
        text += f", about {format_duration(state['seconds_left'])} left"
    return text + (f", {state['rejects']:,} rows rejected" if state["rejects"] else "")


def format_duration(seconds: float) -> str:
    """Return a duration as text, such as "90 s" or "5 min": in the largest of s, min, h and days that fits into it twice."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _compute_finished_share() -> float:
    """Return the share, from 0 to 1, of finished tasks in the active Spark stage that has the most tasks.

    Return 0 if no stage is active, or if the stages cannot be read.
    """
    from pyspark import SparkContext  # noqa: PLC0415  # not all commands need Spark

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


def begin_step(step: str) -> None:
    """Start to show on stderr that the command now does `step`, such as "starting Spark"; stop showing the previous step.

    If the step takes longer than FIRST_NOTE_SECONDS, a separate thread prints it. Then, every NOTE_SECONDS, the thread
    prints how long the step has taken. The thread prints nothing more after the next call of `begin_step` or `end_step`.
    """
    end_step()
    ended = threading.Event()
    thread = threading.Thread(target=_print_step, args=(step, ended), daemon=True)
    _steps.append((ended, thread))
    thread.start()


def end_step() -> None:
    """Stop showing the command's current step, if one is shown; this does not stop the work of the step."""
    while _steps:
        ended, thread = _steps.pop()
        ended.set()
        thread.join()


def _print_step(step: str, ended: threading.Event) -> None:
    """Print lines about a step until `ended` is set; print nothing if `ended` is set within FIRST_NOTE_SECONDS."""
    console = open_console(stderr=True, highlight=False, soft_wrap=True)
    began = time.monotonic()
    if ended.wait(FIRST_NOTE_SECONDS):
        return
    console.print(f"{step} …", style="dim", markup=False)
    while not ended.wait(NOTE_SECONDS):
        console.print(f"{step}, {time.monotonic() - began:.0f} s so far …", style="dim", markup=False)
