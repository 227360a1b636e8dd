"""`entitymill benchmark`: measure how fast a model is in each precision on this machine, and recommend one."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from entitymill import python_api
from entitymill.commands import common
from entitymill.errors import SettingsError, SourceError
from entitymill.recognition.hardware import read_processor
from entitymill.recognition.tagger import Precision, bundle, list_precisions
from entitymill.terminal.console_text import open_console

if TYPE_CHECKING:  # pyarrow takes a while to import, and --help does not need it
    import pyarrow as pa

ROOT = Path(__file__).parents[3]
MODEL, TEXTS = ROOT / "models" / "demo", ROOT / "data" / "state_union.parquet"
FACTORY = "entitymill.commands.tagging_in_child:open_measured_tagger"
"""The function that each child process calls to load its model, as `module:function` (see `child_process.Work`)."""
CHARACTERS = 60_000
"""Maximum total length of the measured texts, in characters; the bundled model needs about two seconds for these texts."""
MILLION, DOCUMENT_CHARACTERS, HOUR = 1_000_000, 1_500, 3_600
"""Number of documents for which core-hours and prices are computed; their assumed length in characters; seconds per hour."""
F1_TOLERANCE = 0.005
"""A precision is recommended only if its F1 is at most this much below the best F1."""
TIMEOUT_SECONDS = 600.0
"""Time limit, in seconds, within which a child process must have recognized all texts once."""


@dataclass(frozen=True)
class BenchmarkResult:
    """How fast and how accurate the model is in one precision. In each round, the model recognizes all texts once.

    sentences_per_cpu_second: number of sentences recognized per CPU second, in the fastest round.
    median_sentences_per_cpu_second: median, over all rounds, of the sentences recognized per CPU second.
    core_hours: core-hours to recognize a million documents of DOCUMENT_CHARACTERS characters, at the speed of the fastest
        round; reading and writing are not included.
    price: price of these core-hours; None if the user gave no price per core-hour.
    f1: mean F1 of mentions in this precision, over the data sets in the bundle's manifest; None if the manifest has none.
    """

    precision: Precision
    sentences_per_cpu_second: float
    median_sentences_per_cpu_second: float
    core_hours: float
    price: float | None
    f1: float | None


def recommend(results: Sequence[BenchmarkResult]) -> BenchmarkResult:
    """Return the fastest of the results whose F1 is at most F1_TOLERANCE below the best F1 of all results.

    The fastest result has the most sentences per CPU second. A result without F1 is treated as accurate enough.
    """
    best = max((result.f1 for result in results if result.f1 is not None), default=0.0)
    accurate = [result for result in results if result.f1 is None or result.f1 >= best - F1_TOLERANCE]
    return max(accurate, key=lambda result: result.sentences_per_cpu_second)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `entitymill benchmark`."""
    built = common.build_parser(
        "benchmark",
        description="Measure how many sentences per CPU-second a model recognizes on this machine, in each precision, and "
        "recommend a precision.",
        epilog="The precisions take turns, so that other programs disturb all of them equally. Only recognition is "
        "measured: a run also reads, compares and writes tables.",
    )
    built.add_argument("--model", type=Path, default=MODEL, help="a model bundle (default: the bundled one)")
    built.add_argument(
        "--texts", type=Path, default=TEXTS, help="a Parquet file with a column text, or a UTF-8 file (default: speeches)"
    )
    built.add_argument(
        "--seconds", type=common.positive_number(float), default=60.0, help="total time to measure, in seconds (default: 60)"
    )
    built.add_argument(
        "--price-per-core-hour",
        metavar="P",
        type=common.positive_number(float),
        help="price of one core for one hour; adds the price of a million documents to the results",
    )
    built.add_argument("--json", action="store_true", help="print JSON")
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the speed of a model in each precision, print the results and a recommendation, and return the exit code."""
    options = parser().parse_args(arguments)

    def work(start_log: Callable[[str | None], str]) -> None:
        """Start the log, measure the model, and print the results and the recommended precision."""
        start_log(None)
        manifest, _ = python_api.read_bundle(options.model)
        results = measure(options.model, manifest, _read_texts(options.texts), options.seconds, options.price_per_core_hour)
        chosen = recommend(results)
        if options.json:
            rows = {result.precision: asdict(result) for result in results}
            print(
                json.dumps({"processor": read_processor().describe(), "recommended": chosen.precision, "precisions": rows})
            )
            return
        console = open_console(highlight=False, soft_wrap=True)
        console.print(f"{read_processor().describe()}; model {manifest.name}", markup=False)
        console.print(_build_table(results))
        console.print(f"recommended: recognition.precision: {chosen.precision}", markup=False)

    return common.run_and_report(work, "interrupted.")


def measure(
    model: Path, manifest: bundle.Manifest, texts: Sequence[str], seconds: float, price: float | None
) -> list[BenchmarkResult]:
    """Measure how fast a model recognizes texts in each precision that its bundle allows; return one result per precision.

    Each precision has its own child process. In each round, every child recognizes all texts once, one child after the
    other. The first round is not counted. Speed is in sentences per CPU second; core-hours and price are those of a million
    documents at the speed of the fastest round. F1 is not measured, but is the mean of the scores in the manifest.

    Args:
        model, manifest: directory of the model bundle, and its manifest.
        texts: the texts that every child recognizes.
        seconds: time after which no new round begins; at least two rounds are counted, even if they take longer.
        price: price of one core for one hour; None for results without a price.

    Raises:
        ModelError: the model cannot be loaded, crashes on the texts, or takes longer than TIMEOUT_SECONDS for one round.
        WorkerError: a child process cannot be started, or there is not enough memory to tag the texts.
        SourceError: the texts contain no sentence.
    """
    import pyarrow as pa

    from entitymill.workers import child_process

    characters = sum(map(len, texts))
    batch = pa.RecordBatch.from_arrays([pa.array(texts, pa.large_string())], ["text"])
    precisions = list_precisions(manifest.precision)
    children: dict[Precision, child_process.Child] = {}
    rates: dict[Precision, list[float]] = {precision: [] for precision in precisions}
    try:
        for precision in precisions:
            work = child_process.Work(FACTORY, (model, precision, characters, len(precisions)), quiet=True)
            children[precision] = child_process.Child(work)
        began = time.monotonic()
        first = _run_round(children, batch)  # the first round is slower, and is not counted
        if not all(sentences for sentences, _ in first.values()):
            raise SourceError("--texts: no sentence was found in the texts: name a file with other texts.")
        while len(rates[precisions[0]]) < 2 or time.monotonic() - began < seconds:
            for precision, (sentences, cpu) in _run_round(children, batch).items():
                rates[precision].append(sentences / cpu)
    except child_process.ChildLostError as lost:
        raise common.build_lost_child_error(lost, model) from lost
    finally:
        for child in children.values():
            child.close()
    results = []
    for precision in precisions:
        hours = sentences / max(rates[precision]) / characters * MILLION * DOCUMENT_CHARACTERS / HOUR
        measured = [scores[precision] for scores in manifest.f1.values() if precision in scores]
        results.append(
            BenchmarkResult(
                precision=precision,
                sentences_per_cpu_second=max(rates[precision]),
                median_sentences_per_cpu_second=statistics.median(rates[precision]),
                core_hours=hours,
                price=None if price is None else price * hours,
                f1=sum(measured) / len(measured) if measured else None,
            )
        )
    return results


def _run_round(
    children: Mapping[Precision, Callable[[pa.RecordBatch, float], pa.RecordBatch]], batch: pa.RecordBatch
) -> dict[Precision, tuple[int, float]]:
    """Let each child process recognize the texts in `batch` once, one child after the other.

    Return a dict from each child's precision to (number of sentences in all texts, CPU seconds for all texts). Raise
    ChildLostError if a child crashes, or takes longer than TIMEOUT_SECONDS.
    """
    found = {precision: child(batch, TIMEOUT_SECONDS).to_pylist()[0] for precision, child in children.items()}
    return {precision: (row["sentences"], row["cpu_seconds"]) for precision, row in found.items()}


def _read_texts(path: Path) -> list[str]:
    """Return the first texts of a file, with at most CHARACTERS characters in total; the last text may be cut.

    If the path ends in .parquet, the texts are the column `text` of this Parquet file or directory. Otherwise they are the
    lines of the file. Blank texts, and values that are not strings, are skipped. Raise SourceError if the file cannot be
    read or has no text, and SettingsError if `path` is the default file and this installation lacks it.
    """
    import pyarrow as pa

    if path == TEXTS and not path.is_file():
        raise SettingsError(
            "--texts: name a file with texts; its default, a file of speeches, exists only in a clone of this program's "
            "repository."
        )
    sample: list[str] = []
    size = 0
    try:
        for text in _read_parquet(path) if path.suffix == ".parquet" else _read_lines(path):
            if isinstance(text, str) and text.strip():
                sample.append(text[: CHARACTERS - size])
                size += len(sample[-1])
            if size >= CHARACTERS:
                break
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise SourceError(
            f"--texts: {path} cannot be read: name a Parquet file with a column `text`, or a UTF-8 text file."
        ) from error
    if not sample:
        raise SourceError(
            f"--texts: {path} contains no text: name a Parquet file with texts in the column `text`, or a text file."
        )
    return sample


def _read_parquet(path: Path) -> Iterator[object]:
    """Yield the values of the column `text` of a Parquet file or directory.

    Raise pyarrow.ArrowException if a file is not a Parquet file, or lacks this column.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    for name in ds.dataset(path, format="parquet").files:
        file = pq.ParquetFile(name)
        if "text" not in file.schema_arrow.names:
            raise pa.ArrowKeyError("text")
        for batch in file.iter_batches(batch_size=64, columns=["text"]):
            yield from batch.column("text").to_pylist()


def _read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, and a line of more than CHARACTERS characters in parts."""
    with path.open(encoding="utf8") as file:
        while line := file.readline(CHARACTERS):
            yield line.rstrip("\n")


def _build_table(results: Sequence[BenchmarkResult]) -> Table:
    """Return the table of results that is printed; it has a column of prices only if the results have prices."""
    caption = (
        f"core-hours, price: recognition of a million documents of {DOCUMENT_CHARACTERS:,} characters; F1: mean over the "
        "data sets in the model's manifest"
    )
    priced = any(result.price is not None for result in results)
    table = Table(
        "precision",
        "sentences per CPU-second",
        "median",
        "core-hours",
        *(["price"] if priced else []),
        "F1",
        caption=caption,
    )
    for result in results:
        table.add_row(
            result.precision,
            f"{result.sentences_per_cpu_second:,.0f}",
            f"{result.median_sentences_per_cpu_second:,.0f}",
            f"{result.core_hours:,.2f}",
            *([f"{result.price:,.2f}"] if result.price is not None else []),
            "not measured" if result.f1 is None else f"{result.f1:.4f}",
        )
    return table
