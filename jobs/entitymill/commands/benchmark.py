"""`entitymill benchmark`: measure how fast a model is in each precision on this machine, and recommend one."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from entitymill import python_api
from entitymill.commands import common
from entitymill.errors import ModelError, SettingsError, SourceError
from entitymill.recognition.processor import read_processor
from entitymill.recognition.tagger import Precision, bundle, list_precisions
from entitymill.terminal.console_text import open_console

if TYPE_CHECKING:  # pyarrow takes a while to import, and --help does not need it
    import pyarrow as pa

ROOT = Path(__file__).parents[3]
MODEL, TEXTS = ROOT / "models" / "demo", ROOT / "data" / "state_union.parquet"
FACTORY = "entitymill.commands.benchmark_child:open_measured_tagger"
"""The function that each child process calls, as `module:function` (see `isolation.Work`)."""
CHARACTERS = 60_000
"""Size of the sample that is recognized again and again; it takes the bundled model about two seconds."""
MILLION, DOCUMENT_CHARACTERS, HOUR = 1_000_000, 1_500, 3_600
ENOUGH_F1 = 0.005
"""A precision is recommended if its F1 is at most this much below the best."""
LONGEST_SECONDS = 600.0


@dataclass(frozen=True)
class Figure:
    """What was measured of one precision.

    sentences_per_cpu_second: sentences recognized per second of one core, from the fastest round.
    median_sentences_per_cpu_second: the same from the median round.
    core_hours: for a million documents of DOCUMENT_CHARACTERS, recognition only.
    price: core_hours at the price that was given, or None.
    f1: mean, over the sets in the bundle's manifest, of span F1 in this precision, or None if not measured.
    """

    precision: Precision
    sentences_per_cpu_second: float
    median_sentences_per_cpu_second: float
    core_hours: float
    price: float | None
    f1: float | None


def recommend(figures: Sequence[Figure]) -> Figure:
    """Return the fastest of the figures whose F1 is at most ENOUGH_F1 below the best; one without F1 counts as exact."""
    best = max((figure.f1 for figure in figures if figure.f1 is not None), default=0.0)
    exact = [figure for figure in figures if figure.f1 is None or figure.f1 >= best - ENOUGH_F1]
    return max(exact, key=lambda figure: figure.sentences_per_cpu_second)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `entitymill benchmark`."""
    built = common.build_parser(
        "benchmark",
        description="Measure how many sentences a second of one core a model recognizes on this machine, in each precision, "
        "and recommend a precision.",
        epilog="The precisions take turns, so that other programs disturb all of them alike. Only recognition is measured: "
        "a run also reads, compares and writes tables.",
    )
    built.add_argument("--model", type=Path, default=MODEL, help="a model bundle (default: the bundled one)")
    built.add_argument(
        "--texts", type=Path, default=TEXTS, help="a Parquet file with a column text, or a UTF-8 file (default: speeches)"
    )
    built.add_argument(
        "--seconds", type=common.positive_number(float), default=60.0, help="how long to measure in all (default: 60)"
    )
    built.add_argument(
        "--price-per-core-hour",
        metavar="P",
        type=common.positive_number(float),
        help="to show the price of a million documents",
    )
    built.add_argument("--json", action="store_true", help="print JSON")
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a model and return the exit code."""
    options = parser().parse_args(arguments)

    def work(start_log: Callable[[str | None], str]) -> None:
        start_log(None)
        manifest, _ = python_api.read_bundle(options.model)
        figures = measure(options.model, manifest, _read_texts(options.texts), options.seconds, options.price_per_core_hour)
        chosen = recommend(figures)
        if options.json:
            rows = {figure.precision: asdict(figure) for figure in figures}
            print(
                json.dumps({"processor": read_processor().describe(), "recommended": chosen.precision, "precisions": rows})
            )
            return
        console = open_console(highlight=False, soft_wrap=True)
        console.print(f"{read_processor().describe()}; model {manifest.name}", markup=False)
        console.print(_build_table(figures))
        console.print(f"recommended: recognition.precision: {chosen.precision}", markup=False)

    return common.run_and_report(work, "interrupted.")


def measure(
    model: Path, manifest: bundle.Manifest, texts: Sequence[str], seconds: float, price: float | None
) -> list[Figure]:
    """Recognize texts in each precision that a bundle allows, in turns, and return one figure per precision.

    Args:
        model: directory of the bundle.
        manifest: the bundle's manifest.
        texts: the texts.
        seconds: how long to measure; each precision runs at least twice.
        price: price of a core for an hour, or None.

    Raises:
        ModelError: the model cannot be loaded, or crashes on the texts.
    """
    import pyarrow as pa

    from entitymill.workers import isolation

    characters = sum(map(len, texts))
    batch = pa.RecordBatch.from_arrays([pa.array(texts, pa.large_string())], ["text"])
    precisions = list_precisions(manifest.precision)
    children = {}
    for precision in precisions:
        children[precision] = isolation.Child(isolation.Work(FACTORY, (model, precision, characters), quiet=True))
    rates: dict[Precision, list[float]] = {precision: [] for precision in precisions}
    began = time.monotonic()
    try:
        _run(children, batch)  # the first run is slower, and is not counted
        while len(rates[precisions[0]]) < 2 or time.monotonic() - began < seconds:
            for precision, (sentences, cpu) in _run(children, batch).items():
                rates[precision].append(sentences / cpu)
    except isolation.LostError as lost:
        raise ModelError(f"The model {model} crashes on these texts ({lost.detail}): copy it again.") from lost
    finally:
        for child in children.values():
            child.close()
    figures = []
    for precision in precisions:
        hours = sentences / max(rates[precision]) / characters * MILLION * DOCUMENT_CHARACTERS / HOUR
        measured = [scores[precision] for scores in manifest.f1.values() if precision in scores]
        figures.append(
            Figure(
                precision=precision,
                sentences_per_cpu_second=max(rates[precision]),
                median_sentences_per_cpu_second=statistics.median(rates[precision]),
                core_hours=hours,
                price=None if price is None else price * hours,
                f1=sum(measured) / len(measured) if measured else None,
            )
        )
    return figures


def _run(
    children: Mapping[Precision, Callable[[pa.RecordBatch, float], pa.RecordBatch]], batch: pa.RecordBatch
) -> dict[Precision, tuple[int, float]]:
    """Return the number of sentences and the CPU seconds of each child for one run over the batch."""
    found = {precision: child(batch, LONGEST_SECONDS).to_pylist()[0] for precision, child in children.items()}
    return {precision: (row["sentences"], row["cpu_seconds"]) for precision, row in found.items()}


def _read_texts(path: Path) -> list[str]:
    """Return texts of a file, of about CHARACTERS in all.

    Raises:
        SourceError: the file cannot be read, or has no text.
        SettingsError: the file with the default texts is not part of this installation.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path == TEXTS and not path.is_file():
        raise SettingsError("--texts is missing: the speeches are in a clone of the repository only; name a file of texts.")
    try:
        if path.suffix == ".parquet":
            texts = pq.read_table(path, columns=["text"]).column("text").drop_null().to_pylist()
        else:
            texts = path.read_text(encoding="utf8").splitlines()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise SourceError(f"--texts: {path} cannot be read as Parquet with a column text, or as UTF-8 text.") from error
    sample, size = [], 0
    for text in filter(None, texts):
        sample.append(text[: CHARACTERS - size])
        size += len(sample[-1])
        if size >= CHARACTERS:
            break
    if not sample:
        raise SourceError(f"--texts: {path} contains no text.")
    return sample


def _build_table(figures: Sequence[Figure]) -> Table:
    caption = (
        f"core-hours, price: recognition of a million documents of {DOCUMENT_CHARACTERS:,} characters; F1: mean over the "
        "sets in the model's manifest"
    )
    priced = any(figure.price is not None for figure in figures)
    table = Table(
        "precision",
        "sentences per CPU-second",
        "median",
        "core-hours",
        *(["price"] if priced else []),
        "F1",
        caption=caption,
    )
    for figure in figures:
        table.add_row(
            figure.precision,
            f"{figure.sentences_per_cpu_second:,.0f}",
            f"{figure.median_sentences_per_cpu_second:,.0f}",
            f"{figure.core_hours:,.2f}",
            *([f"{figure.price:,.2f}"] if figure.price is not None else []),
            "not measured" if figure.f1 is None else f"{figure.f1:.4f}",
        )
    return table
