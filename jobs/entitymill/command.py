"""The command line: settings in, a run, a summary, an exit code."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from rich.console import Console

from entitymill import errors as errors_module
from entitymill import missing
from entitymill import settings as settings_module
from entitymill.errors import EntityMillError, SessionError, SourceError
from entitymill.reporting import metrics

log = logging.getLogger("entitymill")
_FROM_WORKER = re.compile(r"entitymill\.errors\.(\w+): (.+)")
STDERR = "stderr"
"""In the place of a log's path."""
_UNREADABLE = re.compile(r"(?:reading file|footer for file:) (\S+?)\.(?:\s|$)")


def parser() -> argparse.ArgumentParser:
    """The options of jobs/extract_entities.py."""
    built = argparse.ArgumentParser(
        prog="extract_entities.py",
        description="Read a text table, recognise entities, write entity tables.",
        epilog="Examples: --config conf/demo.yaml --show-entities   --config conf/articles.yaml --set output.path=/data/out "
        "--dry-run. Exit codes: 0 done, 2 bad settings, 3 bad input, 4 too many rejects, 5 model refused, "
        "6 done but far from the runs before (report.fail_on_drift), 1 anything else.",
    )
    built.add_argument("--config", type=Path, help="YAML file of settings; base.yaml beside it is read first")
    built.add_argument(
        "--set", dest="overrides", metavar="KEY.PATH=VALUE", action="append", default=[], help="one setting; repeatable"
    )
    built.add_argument(
        "--dry-run", action="store_true", help="check settings, source and model, count the rows, write nothing"
    )
    built.add_argument(
        "--full", action="store_true", help="process everything anew, and swap it in as a whole when it is done"
    )
    built.add_argument(
        "--allow-removals",
        action="store_true",
        help="take out more documents than limits.max_removed_ratio allows, this once",
    )
    built.add_argument("--print-config", action="store_true", help="print the settings in force, secrets masked, and stop")
    built.add_argument(
        "--show-entities", action="store_true", help="at the end print frequent entities and sentences: this shows text"
    )
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    options = parser().parse_args(arguments)

    def work(start_log: Callable[[str | None], None]) -> None:
        settings = settings_module.load(options.config, options.overrides)
        if options.print_config:
            print(yaml.safe_dump(settings.masked(), sort_keys=False, allow_unicode=True), end="")
            return
        start_log(settings.log)
        with metrics.kept(settings, lambda error: _known(error).exit_code, wanted=not options.dry_run) as known:
            _run(settings, options, known)

    return reporting(work, "interrupted; nothing more was published.")


def reporting(work: Callable[[Callable[[str | None], None]], None], interrupted: str) -> int:
    """Do something; returns the exit code. Errors are one sentence on stderr, their stack traces go to the log.

    Args:
        work: is given a function that starts the log, at a path or in a temporary file.
        interrupted: what to say after Ctrl-C.
    """
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    traces: list[str] = []
    try:
        work(lambda path: traces.append(_log_to(path)))
    except KeyboardInterrupt:
        errors.print(f"[bold]error:[/bold] {interrupted}")
        return 130
    except Exception as error:
        known = _known(error)
        errors.print("[bold red]error:[/bold red]", end=" ")
        errors.print(str(known), markup=False)
        if traces:
            log.exception("the run failed")
            errors.print(f"       stack trace: {traces[0]}", markup=False)
        return known.exit_code
    return 0


def _run(settings: settings_module.Settings, options: argparse.Namespace, known: metrics.Known) -> None:
    # Spark and Spark NLP take a second to import; --help and a bad setting need neither.
    from entitymill import report
    from entitymill.extraction import extract
    from entitymill.reporting import ending
    from entitymill.session import open_session
    from entitymill.tables import Tables

    ending.check_extra(settings)
    spark = open_session(settings.spark, "entitymill", sparknlp=settings.recognition.engine == "sparknlp")
    known.tables = tables = Tables(spark, settings.output)
    summary = extract(spark, settings, full=options.full, dry_run=options.dry_run, allow_removals=options.allow_removals)
    console = Console()
    if options.dry_run:
        console.print(
            f"dry run: {summary.documents:,} documents, {sum(summary.rejects.values()):,} rows would be rejected "
            f"{summary.rejects or ''}; nothing was written.",
            highlight=False,
        )
        return
    known.summary = summary
    if options.show_entities:
        report.print_entities(console, spark, settings, tables)
    report.print_summary(console, summary, settings, tables)
    known.drift = ending.finish(spark, settings, tables, summary, console)
    ending.judge(settings, known.drift)


def _known(error: Exception) -> EntityMillError:
    """The error as this program's own kind."""
    if isinstance(error, EntityMillError):
        return error
    if isinstance(error, ModuleNotFoundError):
        said = missing.package(error)
        return SessionError(said) if said else EntityMillError(f"{error}; install this program anew.")
    text = str(error)
    raised = _FROM_WORKER.search(text)
    if raised:
        kind: type[EntityMillError] = getattr(errors_module, raised[1], EntityMillError)
        return kind(raised[2])
    from entitymill.faults import storage_fault  # brings PySpark, which a command without Spark does without

    fault = storage_fault(text)
    if fault:
        return fault
    damaged = _UNREADABLE.search(text)
    if damaged:
        return SourceError(f"source.path: {damaged[1]} is damaged, or not of the format that source.format names.")
    return EntityMillError(f"{type(error).__name__}; the log has the details.")


def _log_to(path: str | None) -> str:
    """Send this program's log to a file, or to stderr; returns where it is."""
    handler: logging.Handler
    if path == STDERR:
        handler = logging.StreamHandler(sys.stderr)
    else:
        file = Path(path) if path else Path(tempfile.mkdtemp(prefix="entitymill-log-")) / "entitymill.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        handler, path = logging.FileHandler(file, encoding="utf8"), str(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return path


def entry() -> None:
    """For a wheel's console script."""
    leave(main())


def leave(code: int) -> None:
    """End the program with a code; for Databricks' wheel tasks, which take any SystemExit for a failure, not with 0."""
    if code:
        sys.exit(code)
