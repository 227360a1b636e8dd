"""`entitymill extract`: run the job once and print its summary."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from entitymill import __version__
from entitymill import settings as settings_module
from entitymill.commands import common, source_checks
from entitymill.run import exit_codes
from entitymill.spark import installation
from entitymill.terminal import progress
from entitymill.terminal.console_text import open_console, visible

if TYPE_CHECKING:
    from entitymill.run.summary import Summary


def parser() -> argparse.ArgumentParser:
    """Return the parser of `entitymill extract` and jobs/extract_entities.py."""
    built = common.build_parser(
        "extract",
        script="extract_entities.py",
        description="Read a text table, recognize entities, write entity tables.",
        epilog="Examples:\n"
        "  entitymill extract --config conf/demo.yaml --show-entities\n"
        "  entitymill extract --config conf/articles.yaml --set output.path=/data/out --dry-run\n"
        "Exit codes: 0 done, 2 bad settings, 3 bad input, 4 too many rejects or removals, 5 model refused, "
        "6 done, but the run differs too much from earlier runs (report.fail_on_drift), "
        "7 stopped at limits.max_core_hours, 1 anything else.",
    )
    common.add_settings_options(built)
    built.add_argument(
        "--dry-run",
        action="store_true",
        help="check the settings, the model's manifest and the source's rows; print what a run would do; write nothing",
    )
    built.add_argument("--full", action="store_true", help="recompute every document, and replace its rows unit by unit")
    built.add_argument(
        "--allow-removals",
        action="store_true",
        help="let this run remove more documents than limits.max_removed_ratio allows",
    )
    built.add_argument("--print-config", action="store_true", help="print the effective settings, secrets masked, and exit")
    built.add_argument(
        "--show-entities",
        action="store_true",
        help="at the end, print frequent entities and some sentences; this shows text of documents",
    )
    built.add_argument(
        "--progress",
        choices=progress.KINDS,
        default="auto",
        help="auto: a bar on a terminal, lines elsewhere; json: each line as a JSON object (default: auto)",
    )
    built.add_argument(
        "--progress-seconds", type=common.positive_number(float), metavar="N", help="seconds between two lines (default: 60)"
    )
    built.add_argument(
        "--result-json",
        metavar="FILE",
        help="write the outcome of the run as JSON; with -, it goes to stdout and the summary to stderr",
    )
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job, write its outcome to the file that --result-json names, if any, and return the exit code.

    If the outcome cannot be written, the exit code is 1 for a successful run; a failed run keeps its own exit code. With
    --print-config, only print the settings.
    """
    options = parser().parse_args(arguments)
    results: dict[str, Any] = {}

    def work(start_log: Callable[[str | None], str]) -> None:
        """Load the settings, and print them for --print-config; otherwise start the log and run the job."""
        settings = settings_module.load(options.config, options.overrides)
        if options.print_config:
            print(yaml.safe_dump(settings.dump_masked(), sort_keys=False, allow_unicode=True), end="")
            return
        results["log"] = start_log(settings.log)
        common.log.info("entitymill %s, settings %s", __version__, json.dumps(settings.dump_masked()))
        with _open_observer(settings, dry_run=options.dry_run) as observer:
            _run_job(settings, options, observer, results)

    code = common.run_and_report(work, "", results)
    if options.result_json and not options.print_config:
        try:
            log = results.get("log")
            kept = log if log and (log == common.STDERR or Path(log).exists()) else None
            exit_codes.write_result(options.result_json, results.get("summary"), results.get("error"), kept)
        except OSError as error:
            message = f"error: --result-json {options.result_json} cannot be written: {error.strerror}."
            print(visible(message), file=sys.stderr)
            return code or 1
    return code


def _open_observer(settings: settings_module.Settings, *, dry_run: bool) -> AbstractContextManager[Any]:
    """Return a context manager that yields an observer: an object that writes a run's report page, metrics and lineage.

    It yields None if no setting asks for a page, metrics, lineage or a check for drift. In a dry run, the observer writes no
    metrics and sends no lineage events. Raise SettingsError if a package that the observer needs is not installed.
    """
    report, metrics = settings.report, settings.metrics
    if not (report.path or report.fail_on_drift or metrics.textfile or metrics.pushgateway or settings.lineage.url):
        return contextlib.nullcontext()
    module = installation.import_extension(f"{installation.REPORTS}.reports_of_a_run", "report, metrics, lineage")
    observer: AbstractContextManager[Any] = module.observe(settings, dry_run=dry_run)
    return observer


def _is_small_local_source(path: str, size: int) -> bool:
    """Return whether a path names a local file or directory of at most `size` bytes in total.

    Return False if there is nothing at this path, or if it cannot be read.
    """
    source = Path(path)
    try:
        sizes = (file.stat().st_size for file in itertools.chain([source], source.rglob("*")))
        return source.exists() and all(total <= size for total in itertools.accumulate(sizes))
    except OSError:  # the run opens the source later, and reports what is wrong with it
        return False


def _run_job(
    settings: settings_module.Settings, options: argparse.Namespace, observer: Any, results: dict[str, Any]
) -> None:
    """Check the installation and the source, start Spark, run the job, show its progress, and print its summary.

    In a dry run, print no summary, but print what a run would do. `results` has the log's path under the key `log`. As soon
    as the run begins, this function adds its summary under the key `summary`; the run then updates this summary. `observer`
    writes the run's report page, metrics and lineage; it is None if the settings ask for none of them.
    """
    installation.check_installation(settings)
    source_checks.check_source(settings)
    # Imported only here: --help and errors in the settings must not wait a second for Spark and Spark NLP.
    from entitymill.run.extraction import SMALL_BYTES, extract
    from entitymill.spark.session import open_session
    from entitymill.tables import Tables
    from entitymill.terminal import summaries as terminal

    errors = open_console(stderr=True, highlight=False, soft_wrap=True)
    where = (
        results["log"]
        if settings.log
        else f"{results['log']} (deleted if the run succeeds; to keep the log, name a file in the setting `log`)"
    )
    errors.print(
        f"entitymill {__version__}, settings {options.config or 'from --set'}, log {where}", markup=False, style="dim"
    )
    sparknlp = settings.recognition.engine == "sparknlp"

    def needs_fast_compiler_only() -> bool:
        """Return whether Java should compile fast rather than optimize: the source is small, the engine not `sparknlp`."""
        return not sparknlp and _is_small_local_source(settings.source.path, SMALL_BYTES)

    spark = open_session(settings.spark, "entitymill", sparknlp=sparknlp, brief=needs_fast_compiler_only)
    tables = Tables(spark, settings.output)
    if observer is not None:
        observer.set_tables(tables)
    display = progress.Progress(options.progress, options.progress_seconds)

    def watch(summary: Summary) -> None:
        """Store the summary of the run that has begun, print its id, start to show its progress, and tell the observer."""
        results["summary"] = summary
        errors.print(f"run {summary.run_id} ({summary.application_id})", markup=False, style="dim")
        display.watch(summary)
        if observer is not None:
            observer.begin(summary)

    try:
        summary = extract(
            spark,
            settings,
            full=options.full,
            dry_run=options.dry_run,
            allow_removals=options.allow_removals,
            watch=watch,
            log_path=results["log"],
        )
    finally:
        display.close()
    console = open_console(stderr=options.result_json == exit_codes.STDOUT)
    if options.dry_run:
        if summary.plan is not None:
            terminal.print_plan(console, summary.plan, settings)
        return
    if options.show_entities:
        terminal.print_entities(console, spark, settings, tables)
    terminal.print_summary(console, summary, settings, tables)
    if observer is not None:
        observer.finish(spark, tables, summary, console)
