"""How a run ended, for those outside: one sentence, an exit code, and the same as JSON for programs."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entitymill import errors
from entitymill.errors import DriftError, EntityMillError, SessionError, SourceError
from entitymill.platform import not_installed

if TYPE_CHECKING:
    from entitymill.run.summary import Summary

_FROM_WORKER = re.compile(r"entitymill\.errors\.(\w+): (.+)")
_UNREADABLE = re.compile(r"(?:reading file|footer for file:) (\S+?)\.(?:\s|$)")
STDOUT = "-"
"""In the place of a file's path."""


class Stopped(KeyboardInterrupt):
    """The run was told to end: Ctrl-C, or SIGTERM as Kubernetes, YARN and Airflow send it."""

    def __init__(self, exit_code: int, signal_name: str) -> None:
        """Of which signal; its exit code is 128 and the signal's number."""
        super().__init__(signal_name)
        self.exit_code = exit_code
        self.signal_name = signal_name


def known(error: BaseException) -> EntityMillError:
    """An error as this program's own kind, whose message is one sentence without text of a document."""
    if isinstance(error, EntityMillError):
        return error
    if isinstance(error, ModuleNotFoundError):
        said = not_installed.package(error)
        return SessionError(said) if said else EntityMillError(f"{error}; install this program anew.")
    text = str(error)
    raised = _FROM_WORKER.search(text)
    if raised:
        kind: type[EntityMillError] = getattr(errors, raised[1], EntityMillError)
        return kind(raised[2])
    fault = _storage_fault(text)
    if fault:
        return fault
    damaged = _UNREADABLE.search(text)
    if damaged:
        return SourceError(f"source.path: {damaged[1]} is damaged, or not of the format that source.format names.")
    return EntityMillError(f"{type(error).__name__}; the log has the details.")


def _storage_fault(text: str) -> EntityMillError | None:
    try:
        from entitymill.platform.storage_faults import storage_fault  # noqa: PLC0415  # brings PySpark
    except ModuleNotFoundError:  # of a command that does without
        return None
    return storage_fault(text)


def told(error: BaseException) -> tuple[str, int]:
    """The sentence and the exit code of what ended a run."""
    if isinstance(error, KeyboardInterrupt):
        name = getattr(error, "signal_name", "Ctrl-C")
        code = int(getattr(error, "exit_code", 130))
        return f"stopped by {name}; the units that were finished stay, run again to go on.", code
    said = known(error)
    return str(said), said.exit_code


def write(path: str, summary: Summary | None, error: BaseException | None, log: str | None) -> None:
    """Write how a run ended, as one JSON object.

    Args:
        path: of the file, or STDOUT.
        summary: of the run; none where it did not come so far.
        error: that ended it; none: it came to its end.
        log: path of its log.
    """
    found: dict[str, Any] = {"status": "done" if error is None else "failed", "exit_code": 0, "error": None, "log": log}
    if error is not None:
        found["error"], found["exit_code"] = told(error)
        if isinstance(error, KeyboardInterrupt):
            found["status"] = "stopped"
        elif isinstance(error, DriftError):  # everything was published
            found["status"] = "done"
    if summary is not None:
        found |= {name: value for name, value in asdict(summary).items() if name not in found}
        found["sentences_per_second"] = summary.sentences_per_second
        found["started_at"] = summary.started_at.isoformat()
    content = json.dumps(found, default=str)
    if path == STDOUT:
        sys.stdout.write(content + "\n")
    else:
        Path(path).write_text(content + "\n", encoding="utf8")
