"""Print on stderr what a command is doing while it prints nothing else."""

from __future__ import annotations

import threading
import time

from entitymill.terminal.console_text import open_console

FIRST_SECONDS, LINE_SECONDS = 3.0, 30.0
"""Seconds from the start of a step to the first line about it, and seconds between two further lines."""
_steps: list[tuple[threading.Event, threading.Thread]] = []
"""The current step: the event that ends it, and the thread that prints it; empty if there is none."""


def begin(step: str) -> None:
    """Begin a step, such as "starting Spark", and end the step before it.

    A thread prints the step, but only if it takes longer than FIRST_SECONDS.
    """
    end()
    ended = threading.Event()
    thread = threading.Thread(target=_print_step, args=(step, ended), daemon=True)
    _steps.append((ended, thread))
    thread.start()


def end() -> None:
    """End the current step, if there is one, and wait for its thread."""
    while _steps:
        ended, thread = _steps.pop()
        ended.set()
        thread.join()


def _print_step(step: str, ended: threading.Event) -> None:
    """Print lines about a step until `ended` is set; print nothing if that happens within FIRST_SECONDS."""
    console = open_console(stderr=True, highlight=False, soft_wrap=True)
    began = time.monotonic()
    if ended.wait(FIRST_SECONDS):
        return
    console.print(f"{step} …", style="dim", markup=False)
    while not ended.wait(LINE_SECONDS):
        console.print(f"{step}, {time.monotonic() - began:.0f} s so far …", style="dim", markup=False)
