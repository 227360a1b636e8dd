"""Say on stderr what a command is doing, while it shows nothing else."""

from __future__ import annotations

import threading
import time

from entitymill.terminal.console_text import open_console

FIRST_SECONDS, LINE_SECONDS = 3.0, 30.0
"""Seconds after which a step is first mentioned, and seconds between two more lines about it."""
_steps: list[tuple[threading.Event, threading.Thread]] = []
"""The current step, if there is one."""


def begin(step: str) -> None:
    """Begin a step, such as "starting Spark"; the step before it ends. A short step is not mentioned."""
    end()
    ended = threading.Event()
    thread = threading.Thread(target=_mention, args=(step, ended), daemon=True)
    _steps.append((ended, thread))
    thread.start()


def end() -> None:
    """End the current step."""
    while _steps:
        ended, thread = _steps.pop()
        ended.set()
        thread.join()


def _mention(step: str, ended: threading.Event) -> None:
    console = open_console(stderr=True, highlight=False, soft_wrap=True)
    began = time.monotonic()
    if ended.wait(FIRST_SECONDS):
        return
    console.print(f"{step} …", style="dim", markup=False)
    while not ended.wait(LINE_SECONDS):
        console.print(f"{step}, {time.monotonic() - began:.0f} s so far …", style="dim", markup=False)
