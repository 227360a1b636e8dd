"""What all commands have in common: how they are told of settings, where their log is, how they fail and leave."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from entitymill import settings as settings_module
from entitymill.errors import SettingsError
from entitymill.run import outcome
from entitymill.terminal.console_text import SafeFormatter, open_console

log = logging.getLogger("entitymill")
_TEMPORARY = "entitymill-log-"
MOST = 1_000_000
STDERR = "stderr"
"""In the place of a log's path."""


def add_settings(built: argparse.ArgumentParser) -> None:
    """The options by which a command is told of a job's settings: `config` and `overrides`."""
    built.add_argument("--config", type=Path, help="YAML file of the job's settings; base.yaml beside it is read first")
    built.add_argument(
        "--set", dest="overrides", metavar="KEY.PATH=VALUE", action="append", default=[], help="one setting; repeatable"
    )


def positive(kind: type[int | float]) -> Callable[[str], float]:
    """What argparse makes an option's number with."""

    def number(text: str) -> float:
        if not 0 < (found := kind(text)) <= MOST:
            raise argparse.ArgumentTypeError(f"{text} is not above 0, or above {MOST:,}")
        return found

    number.__name__ = kind.__name__  # which argparse names
    return number


def with_settings(options: argparse.Namespace, work: Callable[[settings_module.Settings], object], interrupted: str) -> int:
    """Load the settings that `add_settings` tells of, start the log, and do something with them; as `reporting`."""

    def do(start_log: Callable[[str | None], str]) -> None:
        settings = settings_module.load(options.config, options.overrides)
        start_log(settings.log)
        work(settings)

    return reporting(do, interrupted)


def reporting(
    work: Callable[[Callable[[str | None], str]], None], interrupted: str, ended: dict[str, Any] | None = None
) -> int:
    """Do something; returns the exit code. Errors are one sentence on stderr, their stack traces go to the log.

    A log in the temporary directory is taken away where nothing went wrong.

    Args:
        work: is given a function that starts the log, at a path or in a temporary file, and returns where it is.
        interrupted: what to say after Ctrl-C or SIGTERM; empty: what `outcome` says of a run.
        ended: gets the error under `error`.
    """
    errors = open_console(stderr=True, highlight=False, soft_wrap=True)
    logs: list[str] = []
    level, propagate = log.level, log.propagate
    handlers: list[logging.Handler] = []

    def start(path: str | None) -> str:
        handler, where = _log_to(path)
        handlers.append(handler)
        logs.append(where)
        return where

    try:
        with outcome.stop_on_signals():
            work(start)
    except (KeyboardInterrupt, Exception) as error:
        said, code = outcome.describe_error(error)
        if ended is not None:
            ended["error"] = error
        errors.print("[bold red]error:[/bold red]", end=" ")
        stopped = isinstance(error, KeyboardInterrupt)
        errors.print(interrupted if stopped and interrupted else said, markup=False)
        if logs and not stopped:
            log.exception("the run failed")
            errors.print(f"       stack trace: {logs[0]}", markup=False)
        return code
    else:
        for path in logs:
            if Path(path).parent.name.startswith(_TEMPORARY):
                shutil.rmtree(Path(path).parent, ignore_errors=True)
        return 0
    finally:  # the program that called this one may log by itself
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
        log.setLevel(level)
        log.propagate = propagate


def _log_to(path: str | None) -> tuple[logging.Handler, str]:
    """Send this program's log to a file, or to stderr; returns where it is.

    Raises:
        SettingsError: the file cannot be written.
    """
    handler: logging.Handler
    if path == STDERR:
        handler = logging.StreamHandler(sys.stderr)
    else:
        file = Path(path) if path else Path(tempfile.mkdtemp(prefix=_TEMPORARY)) / "entitymill.log"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handler, path = logging.FileHandler(file, encoding="utf8"), str(file)
        except OSError as error:
            raise SettingsError(f"log: {file} cannot be written: {error.strerror}.") from error
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return handler, path


def leave(code: int) -> None:
    """End the program with a code; for Databricks' wheel tasks, which take any SystemExit for a failure, not with 0."""
    if code:
        sys.exit(code)
