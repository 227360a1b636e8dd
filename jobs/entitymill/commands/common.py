"""What all commands share: the options that select settings, checks before Spark starts, the log, and exit codes."""

from __future__ import annotations

import argparse
import logging
import os
import re
import select
import shutil
import signal
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from entitymill import settings as settings_module
from entitymill.errors import EntityMillError, ModelError, OutputError, SettingsError, WorkerError
from entitymill.run import exit_codes
from entitymill.spark.files_on_this_machine import is_certainly_local
from entitymill.terminal import progress
from entitymill.terminal.console_text import SafeFormatter, open_console, visible

if TYPE_CHECKING:
    from entitymill.workers.child_process import ChildLostError

log = logging.getLogger("entitymill")
_TEMPORARY_PREFIX = "entitymill-log-"
"""Beginning of the names of temporary directories for logs. If a process is killed, the next process of this program deletes
its other temporary files (see `files_on_this_machine`), but not these: the log may say why the process ended."""
MAX_NUMBER = 1_000_000
"""Largest number that `positive_number` accepts by default."""
_PIPE_CLOSED = 128 + signal.SIGPIPE
"""Exit code if the reader of stdout, such as `head`, ends first. Shells report it for a program that SIGPIPE kills, too."""
STDERR = "stderr"
"""The value of the `log` setting that sends the log to stderr."""


class _HelpFormatter(argparse.HelpFormatter):
    """Keeps the line breaks of an epilog, and does not wrap lines that begin with a space, such as examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Keep the line breaks of a text, and wrap each of its lines to `width`, except lines that begin with a space."""
        lines = text.split("\n")
        return "\n".join(
            line if line.startswith(" ") else textwrap.fill(line, width, initial_indent=indent) for line in lines
        )


class _SafeParser(argparse.ArgumentParser):
    """Shows control characters as escapes in error messages, since an argument may be a file name that contains them."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and `message` on stderr, and end the program with exit code 2."""
        super().error(visible(message))


def build_parser(command: str, description: str, epilog: str, script: str | None = None) -> argparse.ArgumentParser:
    """Return a parser without options, whose usage line names the program that the user started.

    `script` is the name of a file in jobs/ that runs the same command. If the user started this file, the usage line shows
    its name, and otherwise `entitymill COMMAND`.
    """
    started = Path(sys.argv[0]).name
    prog = started if started == script else f"entitymill {command}"
    return _SafeParser(prog=prog, description=description, epilog=epilog, formatter_class=_HelpFormatter)


def build_lost_child_error(lost: ChildLostError, model: Path) -> EntityMillError:
    """Return the exception to raise after a child process of `tag` or `benchmark` crashed on texts, or took too long.

    It is a WorkerError if a lack of memory seems to be the reason, and otherwise a ModelError. `model` is for the message.
    """
    if lost.suggests_lack_of_memory:
        return WorkerError(
            f"There is not enough memory to tag these texts with the model {model} ({lost.detail}): tag shorter texts, or "
            "give this container more memory."
        )
    if lost.timed_out:
        return ModelError(f"The model {model} takes too long for these texts ({lost.detail}): tag fewer or shorter texts.")
    return ModelError(
        f"The model {model} crashes on these texts, or needs far more memory than texts of this size should need "
        f"({lost.detail}): copy the model again from a source that you trust."
    )


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    """Add the options --config and --set, which select a job's settings; they are parsed to `config` and `overrides`."""
    parser.add_argument("--config", type=Path, help="YAML file of the job's settings; base.yaml next to it is read first")
    parser.add_argument(
        "--set", dest="overrides", metavar="KEY.PATH=VALUE", action="append", default=[], help="one setting; repeatable"
    )


def positive_number(
    kind: type[int | float], largest: float = MAX_NUMBER, *, or_zero: bool = False
) -> Callable[[str], float]:
    """Return a parsing function for argparse's `type`: it accepts numbers of type `kind` above 0 and up to `largest`.

    With `or_zero`, it also accepts 0.
    """

    def number(text: str) -> float:
        """Return the number in `text`; raise argparse's error if it is out of range."""
        value = kind(text)
        if not (0 < value <= largest or (or_zero and value == 0)):
            least = "at least" if or_zero else "above"
            raise argparse.ArgumentTypeError(f"{text} is out of range: the number must be {least} 0 and at most {largest:,}")
        return value

    number.__name__ = kind.__name__  # argparse shows this name in its own error messages
    return number


def parse_labels(words: Iterable[str]) -> list[str]:
    """Return the labels in `words`, values of the option --labels, in each of which commas separate labels.

    Raise SettingsError if there are values, but no label in them.
    """
    given = list(words)
    labels = [label.strip() for word in given for label in word.split(",") if label.strip()]
    if given and not labels:
        raise SettingsError("--labels: name at least one label, or leave the option out for all labels.")
    return labels


def run_with_settings(
    options: argparse.Namespace, work: Callable[[settings_module.Settings], object], stop_message: str
) -> int:
    """Load the settings that the options select, start the log, call `work` with the settings, and return the exit code.

    An error is printed on stderr. After Ctrl-C or SIGTERM, `stop_message` is printed (see `run_and_report`).
    """

    def load_and_work(start_log: Callable[[str | None], str]) -> None:
        """Load the settings, start the log, and call `work`."""
        settings = settings_module.load(options.config, options.overrides)
        start_log(settings.log)
        work(settings)

    return run_and_report(load_and_work, stop_message)


def check_output_exists(settings: settings_module.Settings) -> None:
    """Raise OutputError, before Spark starts, if the path `output.path` does not exist or cannot be accessed.

    Nothing is checked if the output is a catalog schema, or if the path may be on another machine's disk.
    """
    path = settings.output.path
    fault = describe_missing_path(path, settings.spark.conf, "no entity tables") if path is not None else None
    if fault is not None:
        raise OutputError(f"output: {fault}; check output.path or output.schema.")


def describe_missing_path(path: str, conf: Mapping[str, str], nothing: str = "there is nothing") -> str | None:
    """Return a phrase for an error message if a path does not exist, or if this machine denies access; otherwise None.

    Args:
        path: path, URI or name of a table. If it might be elsewhere than on this machine's disk, the result is None.
        conf: the setting `spark.conf`, which may select a file system on other machines.
        nothing: beginning of the phrase if the path does not exist: "there is nothing" gives "there is nothing at PATH".
    """
    try:
        fault = None if Path(path).exists() else f"{nothing} at {path}"
    except OSError as error:  # a parent directory is not accessible, or a name is too long
        fault = f"{path} cannot be looked up ({error.strerror})"
    return fault if fault is not None and is_certainly_local(path, conf) else None


def run_and_report(
    work: Callable[[Callable[[str | None], str]], None], stop_message: str, results: dict[str, Any] | None = None
) -> int:
    """Call `work` and return the exit code; print an error as one sentence on stderr, and write its stack trace to the log.

    A temporary log is kept only after an error. After Ctrl-C or SIGTERM, no stack trace is written, the exit code is 128
    plus the signal's number, and a temporary log is kept only if `stop_message` is empty. If `work` fails because the reader
    of stdout has ended, no error is printed, and the exit code is _PIPE_CLOSED. At the end, the command's current step is no
    longer shown, and the logger gets its earlier handlers and level back.

    Args:
        work: function that does the command's work. Its argument is a function that starts the log: this function takes the
            log file's path, STDERR, or None for a temporary file, and returns the log's absolute path, or STDERR.
        stop_message: message to print after Ctrl-C or SIGTERM; empty for the message of `exit_codes.describe_error`.
        results: dict to which the caught exception is added, under the key `error`; None if the caller does not need it.
    """
    errors = open_console(stderr=True, highlight=False, soft_wrap=True)
    logs: list[str] = []
    temporary: list[str] = []
    level, propagate = log.level, log.propagate
    handlers: list[logging.Handler] = []

    def start(path: str | None) -> str:
        """Start the log, remember its handler and path for the cleanup, and return its path."""
        handler, where = _start_log(path)
        handlers.append(handler)
        logs.append(where)
        if path is None:
            temporary.append(where)
        return where

    try:
        with exit_codes.stop_on_signals():
            work(start)
            sys.stdout.flush()
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, BrokenPipeError) and _discard_output_if_unread():
            _delete_temporary_logs(temporary)
            return _PIPE_CLOSED
        message, code = exit_codes.describe_error(error)
        if results is not None:
            results["error"] = error
        errors.print("[bold red]error:[/bold red]", end=" ")
        stopped = isinstance(error, KeyboardInterrupt)
        errors.print(stop_message if stopped and stop_message else message, markup=False)
        if stopped and stop_message:
            _delete_temporary_logs(temporary)
        if logs and not stopped:
            log.exception("the command failed")
            errors.print(f"       stack trace: {logs[0]}", markup=False)
        return code
    else:
        _delete_temporary_logs(temporary)
        return 0
    finally:
        progress.end_step()
        # Restore the logger, because the program that called this function may use the logger, too.
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
        log.setLevel(level)
        log.propagate = propagate


def _discard_output_if_unread() -> bool:
    """Return whether the reader of stdout, such as `head`, has ended; if so, send all later output to /dev/null."""
    try:
        stdout = sys.stdout.fileno()
    except (OSError, ValueError):  # a test or a notebook has replaced stdout
        return False
    poll = select.poll()
    poll.register(stdout, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)  # Python flushes stdout once more when it ends
    return True


def _delete_temporary_logs(logs: Iterable[str]) -> None:
    """Delete temporary log files and the directories that `_start_log` created for them."""
    for path in logs:
        shutil.rmtree(Path(path).parent, ignore_errors=True)


def _start_log(path: str | None) -> tuple[logging.Handler, str]:
    """Send this program's log only to a file or to stderr; return (log handler, the file's absolute path or STDERR).

    `path` is a file, STDERR, or None for a new temporary file. Missing directories are created. Raise SettingsError if
    `path` is a URI or cannot be written.
    """
    handler: logging.Handler
    if path and re.match(r"[A-Za-z][\w+.-]*:/", path):
        raise SettingsError(f"log: {path} is a URI; name a local file by its path, such as /var/log/entitymill.log.")
    if path == STDERR:
        handler = logging.StreamHandler(sys.stderr)
    else:
        file = Path(path) if path else Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX)) / "entitymill.log"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handler, path = logging.FileHandler(file, encoding="utf8"), str(file.absolute())
        except OSError as error:
            raise SettingsError(f"log: {file} cannot be written: {error.strerror}; name another file.") from error
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return handler, path


def exit_with(code: int) -> None:
    """End the program with an exit code; for 0, only return, because a wheel task of Databricks fails on any SystemExit."""
    if code:
        sys.exit(code)
