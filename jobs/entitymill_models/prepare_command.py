"""`entitymill prepare`: convert a trained token classifier to a bundle or a saved Spark NLP model, and check the result."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from entitymill.commands import common
from entitymill.errors import ModelError, SettingsError, WorkerError
from entitymill.recognition import model_loading_limits
from entitymill.recognition.tagger import Execution, bundle, list_precisions, network
from entitymill.recognition.tagger.inference import Tagger
from entitymill.recognition.tagger.tokens_to_model_input import SPECIAL_PIECES
from entitymill.spark import installation
from entitymill.spark.files_on_this_machine import open_private_directory
from entitymill.terminal.console_text import open_console
from entitymill.workers import child_process
from entitymill_models import (
    atomic_directories,
    confidence_fit,
    lower_precision,
    model_formats,
    precision_loss,
    tagging_schemes,
)
from entitymill_models import imported_classifier as parts_module
from entitymill_models.imported_classifier import Parts

DEFAULT_SAMPLE = Path(__file__).parents[2] / "data" / "state_union.parquet"
"""A table of speeches, included in this project, on which accuracy is checked if no option names a table."""
CHECKED_SENTENCES, CALIBRATION_SENTENCES = 1000, 300
"""Maximum numbers of sentences on which accuracy is checked, and on which activations are measured."""
FACTORY = "entitymill_models.prepare_command:make_model"
"""The function that the child process calls, as `module:function` (see `child_process.Work`)."""
TIMEOUT_SECONDS = 7 * 86_400.0  # of the child process
_DIRECTORIES = {"bundle": "bundle", "sparknlp": "saved"}
"""For each value of --to, the name of the directory, inside the scratch directory, in which the result is created."""


def parser() -> argparse.ArgumentParser:
    """Return the parser for the command line of `entitymill prepare`."""
    built = common.build_parser(
        "prepare",
        script="prepare_model.py",
        description="Convert a trained token classifier to a model bundle, or a bundle to a saved Spark NLP model.",
        epilog="Exit codes: 0 done, 2 bad options, 5 model refused, 1 any other error.",
    )
    built.add_argument("source", metavar="SOURCE", type=Path, help=model_formats.FORMATS)
    built.add_argument("dest", metavar="DEST", type=Path, help="directory to write; if it exists, pass --overwrite")
    built.add_argument("--to", choices=("bundle", "sparknlp"), default="bundle", help="what to write (default: bundle)")
    built.add_argument(
        "--precision",
        choices=("f32", "bf16", "int8"),
        help="number format of the stored weights (default: as in SOURCE; half precision from Hugging Face becomes f32)",
    )
    built.add_argument(
        "--calibrate", metavar="TABLE", type=Path, help="with int8: also quantize activations, as measured on this table"
    )
    built.add_argument(
        "--calibrate-confidence", metavar="GOLD", type=Path, help="scale confidences to fit this table of tagged sentences"
    )
    built.add_argument(
        "--sample",
        metavar="TABLE",
        type=Path,
        help="table to check the accuracy on (default: the table of --calibrate, otherwise data/state_union.parquet)",
    )
    built.add_argument(
        "--max-loss", metavar="SHARE", type=_parse_share, default=0.01, help="largest accepted loss of F1 (default: 0.01)"
    )
    built.add_argument("--name", help="the model's name (default: the name of SOURCE)")
    built.add_argument("--licence", help="the model's licence, for the manifest")
    built.add_argument(
        "--max-length", metavar="N", type=int, help="maximum number of pieces in one input row, including special pieces"
    )
    built.add_argument("--casing", choices=("cased", "uncased"), help="the casing, if SOURCE does not state it")
    built.add_argument(
        "--labels",
        choices=tagging_schemes.LABEL_SCHEMES,
        help="scheme of the tags, if they do not show it: iob1 (as in CoNLL-2003), iob2, or plain (no B- and I-)",
    )
    built.add_argument("--overwrite", action="store_true", help="replace DEST if it is a model")
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `entitymill prepare` and return its exit code."""
    options = parser().parse_args(arguments)

    def check_options_and_prepare(start_log: Callable[[str | None], str]) -> None:
        _check_options(options)
        start_log(None)
        prepare(options, open_console())

    return common.run_and_report(check_options_and_prepare, "interrupted; nothing was written.")


def prepare(options: argparse.Namespace, console: Console) -> None:
    """Convert and check a model in a child process, and write the result to DEST completely or not at all.

    Raises:
        ModelError: the source cannot be read or run, or its conversion loses more accuracy than allowed.
        SettingsError: an option is missing, or contradicts the source.
        OutputError: DEST cannot be written.
        WorkerError: the child process cannot be started.
    """
    with (
        atomic_directories.open_scratch_directory(options.dest) as scratch,
        tempfile.TemporaryDirectory(prefix="entitymill-prepare-", dir=open_private_directory()) as unpacked,
    ):
        try:
            work = child_process.Work(FACTORY, (options, scratch, Path(unpacked)), quiet=True, prints=True)
            child_process.Child(work, TIMEOUT_SECONDS).close()
        except WorkerError as error:
            if not isinstance(error.__cause__, child_process.ChildLostError):
                raise
            raise ModelError(
                f"{options.source} cannot be prepared: the child process that reads and converts it failed "
                f"({error.__cause__.detail});"
                " copy the model again from a source that you trust, or prepare it on a machine with more memory."
            ) from error
        atomic_directories.move_into_place(scratch / _DIRECTORIES[options.to], options.dest, scratch)
    console.print(f"wrote {options.dest}", highlight=False, markup=False)


def make_model(options: argparse.Namespace, scratch: Path, unpacked: Path) -> None:
    """Read, convert and check a model, and write the result to `scratch`.

    A child process calls this function, because a damaged model may crash the process that reads it. The function limits
    the memory of its process while it runs. It raises ModelError and SettingsError in the same cases as `prepare`.

    Args:
        scratch: the directory in which the directories `bundle` and, with --to sparknlp, `saved` are created.
        unpacked: an empty directory for temporary files, such as the files in the source's archives.
    """
    limit = model_loading_limits.compute_loading_limit(model_loading_limits.list_model_files(options.source))
    with model_loading_limits.limited_memory(limit), model_loading_limits.report_loading(str(options.source)):
        found, origin = model_formats.read_model(options.source, unpacked, options.casing)
        if origin is not None and options.labels is not None:
            raise SettingsError(f"--labels: the bundle {options.source} already states its scheme: leave the option out.")
        found, scheme = (
            (found, origin.scheme) if origin else tagging_schemes.convert_labels(found, str(options.source), options.labels)
        )
        manifest = {**_build_manifest(options, found, origin), "scheme": scheme}
        made = scratch / _DIRECTORIES["bundle"]
        made.mkdir()
        _reduce_and_check(options, found, manifest, made, unpacked, open_console())
        _try_longest_sentence(made, options.source)
        if options.calibrate_confidence is not None:
            confidence_fit.calibrate_bundle(made, options.calibrate_confidence, open_console())
        if options.to == "sparknlp":
            export = installation.import_extension(f"{installation.SPARKNLP}.saved_model_writer", "--to sparknlp")
            written = scratch / _DIRECTORIES["sparknlp"]
            written.mkdir()
            export.write_saved_model(made, written)


def _reduce_and_check(
    options: argparse.Namespace, found: Parts, manifest: dict[str, object], made: Path, scratch: Path, console: Console
) -> None:
    """Write the model `found` as a bundle to `made`, in the requested precision; add precision and F1 to `manifest`.

    If weights change, also write the original model to `scratch`, and compare the mentions of both models. Otherwise, check
    accuracy only with --sample. Without --calibrate, --precision int8 removes the quantization of a calibrated model's
    activations. Raise ModelError if 8-bit weights would change, and the errors of `_read_samples` and `_check_accuracy`.
    """
    stored = lower_precision.detect_stored_precision(found.network, str(options.source))
    current = "int8" if stored == "calibrated" else stored
    target = options.precision or current
    if stored == "calibrated" and options.precision == "int8" and options.calibrate is None:
        network.remove_activation_quantization(found.network)
        stored = "int8"
    if options.calibrate is None and target == current:
        parts_module.write_parts(found, made)
        manifest |= {"precision": current, "calibrated": stored == "calibrated"}
        bundle.write_manifest(made, manifest)
        if options.sample is not None:
            sentences = precision_loss.read_sample(options.sample, "--sample").select_evenly(CHECKED_SENTENCES)
            _check_accuracy(precision_loss.compare_bundles(None, made, sentences), options, manifest, made, console)
        return
    if current == "int8":
        raise ModelError(
            f"{options.source} already has 8-bit weights, which cannot be converted: prepare a model with float weights."
        )
    original = scratch / "original"
    original.mkdir()
    parts_module.write_parts(found, original)
    bundle.write_manifest(original, {**manifest, "precision": "f32" if stored == "f32" else "bf16"})
    _try_longest_sentence(original, options.source)
    checked, feeds = _read_samples(options, original)
    reduced = lower_precision.convert_precision(found.network, target, feeds)
    parts_module.write_parts(replace(found, network=reduced), made)
    manifest |= {"precision": target, "calibrated": bool(feeds)}
    bundle.write_manifest(made, manifest)
    if checked is not None:
        _check_accuracy(precision_loss.compare_bundles(original, made, checked), options, manifest, made, console)


def _read_samples(
    options: argparse.Namespace, original: Path
) -> tuple[precision_loss.Sample | None, list[dict[str, NDArray[np.int64]]]]:
    """Return the sentences on which to check accuracy (None to skip the check), and the network inputs for calibration.

    The check uses the table of --sample, or else of --calibrate, or else DEFAULT_SAMPLE if it exists. Without a table, skip
    the check for --precision f32, and raise SettingsError for other precisions. Network inputs come only from --calibrate,
    encoded with the tokenizer of the bundle `original`. Their sentences are checked only if the table has no others.
    """
    table = options.sample or options.calibrate or (DEFAULT_SAMPLE if DEFAULT_SAMPLE.exists() else None)
    if table is None and options.precision != "f32":
        raise SettingsError("--sample is missing: specify a table of texts or tagged tokens to check the accuracy on.")
    if table is None:
        return None, []
    everything = precision_loss.read_sample(table, "--sample" if options.sample else "--calibrate")
    if options.calibrate is None:
        return everything.select_evenly(CHECKED_SENTENCES), []
    measured = everything if table == options.calibrate else precision_loss.read_sample(options.calibrate, "--calibrate")
    calibration = measured.select_evenly(CALIBRATION_SENTENCES)
    feeds = lower_precision.encode_sentences(original, calibration.sentences)
    rest = everything.exclude(calibration)
    return (rest if rest.sentences else everything).select_evenly(CHECKED_SENTENCES), feeds


def _check_accuracy(
    scores: precision_loss.Scores, options: argparse.Namespace, manifest: dict[str, object], made: Path, console: Console
) -> None:
    """Print scores and check the loss of F1; with gold tags, also write each precision's F1 to `manifest` and bundle `made`.

    Raise ModelError if the loss (see `Scores.compute_loss`) exceeds --max-loss. Raise SettingsError if the original, in f32,
    finds no mention in a table without gold tags, or no correct mention in a table with gold tags.
    """
    precision_loss.print_scores(console, scores)
    if not scores.mentions and not scores.reduced:
        raise SettingsError(
            "--sample: the model finds no entity in this table, so the loss of accuracy cannot be measured: use another "
            "table."
        )
    if scores.original.get("f32") == 0:
        raise SettingsError(
            "--sample: the model finds none of the mentions in this table, so the loss of accuracy cannot be measured: the "
            "table's labels have other names than the model's, or its texts are of a different kind. Use another table, or "
            "a table without tags."
        )
    loss = scores.compute_loss()
    if loss > options.max_loss:
        raise ModelError(
            f"The model loses {loss:.4f} span F1, more than --max-loss {options.max_loss:g}: nothing was written. Choose "
            "another --precision, or allow a larger loss."
        )
    if scores.reduced:
        name = (options.sample or options.calibrate or DEFAULT_SAMPLE).stem
        manifest["f1"] = {name: {precision: round(score, 4) for precision, score in scores.reduced.items()}}
        bundle.write_manifest(made, manifest)


def _build_manifest(options: argparse.Namespace, found: Parts, origin: bundle.Manifest | None) -> dict[str, object]:
    """Return a manifest without scheme, precision and files; raise SettingsError if the maximum length is not possible."""
    length = found.max_length if options.max_length is None else options.max_length
    if found.limit is not None and length > found.limit:
        raise SettingsError(f"--max-length is {length}, but {options.source} takes at most {found.limit} pieces: lower it.")
    if not length >= 8:
        origin_of_length = "--max-length" if options.max_length is not None else f"the maximum length of {options.source}"
        raise SettingsError(f"{origin_of_length} is {length} pieces, but must be at least 8.")
    name = options.source.resolve().name
    return {
        "name": options.name or (origin.name if origin else name.removesuffix(".zip")),
        "source": origin.source if origin else f"{found.source}: {name}",
        "licence": options.licence or (origin.licence if origin else "not stated when the model was prepared"),
        "casing": found.casing,
        "max_length": length,
        "sparknlp_max_length": min(found.sparknlp_max_length, found.limit or length),
        # The source's scores apply only if the network does not change.
        "f1": origin.f1 if origin and options.precision in {None, origin.precision} - {"int8"} else {},
        "confidence": origin.model_dump()["confidence"] if origin else {},
    }


def _try_longest_sentence(directory: Path, source: Path) -> None:
    """Raise ModelError if the bundle cannot be loaded, or cannot tag a sentence with the maximum number of pieces."""
    manifest, files = bundle.read_directory(directory)
    where = f"{source} (as a bundle)"
    tagger = Tagger.load(files, manifest, Execution(list_precisions(manifest.precision)[0]), where)
    with model_loading_limits.convert_loading_errors(f"{where}/{bundle.NETWORK}"):
        try:
            tagger.tag(["."] * (manifest.max_length - SPECIAL_PIECES), np.array([manifest.max_length - SPECIAL_PIECES]))
        except (RuntimeError, IndexError, ValueError) as error:  # IndexError, ValueError: logits of wrong shape
            raise ModelError(
                f"The network does not take {manifest.max_length} pieces at once: pass a smaller --max-length."
            ) from error


def _check_options(options: argparse.Namespace) -> None:
    """Raise SettingsError if options contradict each other, or DEST exists and must not be replaced."""
    if options.calibrate is not None and options.precision != "int8":
        raise SettingsError("--calibrate needs --precision int8: add it, or leave --calibrate out.")
    atomic_directories.check_destination(options.dest, overwrite=options.overwrite)


def _parse_share(text: str) -> float:
    """Return `text` as a number from 0 to 1; else raise ValueError or ArgumentTypeError, which argparse both reports."""
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")
    return share
