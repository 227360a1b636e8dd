"""Compare the packed tagger with batches by length, a Hugging Face pipeline and the machine's peak, on one thread each.

`python tests/bench/tagger.py [--model BUNDLE]` tags the same sentences in each way, in turn within one run. Without --model,
the model has DistilBERT-base's shape and random weights, in floats, with 8-bit weights, and calibrated. The pipeline runs
random weights of the model's shape. A bias favors the tag O, because the pipeline would otherwise spend its time on false
entities.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import first_sentence
import machine
import numpy as np
import peak
import random_models
import texts

from entitymill.recognition.tagger import Precision, bundle, list_precisions
from entitymill.recognition.tagger.inference import build_row_maker, read_tokenizer

PIPELINE = "Hugging Face pipeline"
FASTER_THAN_PIPELINE = {"f32": 1.8, "bf16": 3.5, "int8": 6.0}
FRESH_SENTENCES, MAX_FRESH = 256, 2
SHARE_OF_PEAK = {"f32": 0.85, "bf16": 0.80, "int8": 0.70}


@dataclass(frozen=True)
class Way:
    """One way of tagging.

    how: a key of first_sentence.WAYS.
    peak: the precision whose peak speed is the reference for this way.
    """

    name: str
    how: str
    directory: Path
    precision: Precision
    peak: peak.Kind


def ways(model: Path | None, shape: random_models.Shape, scratch: Path) -> list[Way]:
    """Return every way of running a model, slowest first."""
    saved = scratch / "saved"
    random_models.write_random_model(saved, shape)
    if model is None:
        f32, weights, calibrated = (
            random_models.make_bundle(saved, scratch / k, k) for k in ("f32", "weights", "calibrated")
        )
        runs: list[tuple[str, Path, Precision, peak.Kind]] = [
            ("f32", f32, "f32", "f32"),
            ("bf16", f32, "bf16", "bf16"),
            ("8-bit weights in bf16", weights, "bf16", "bf16"),
            ("8-bit weights in int8", weights, "int8", "int8"),
            ("int8, calibrated", calibrated, "int8", "int8"),
        ]
    else:
        manifest, _ = bundle.read_directory(model)
        stored = "calibrated" if manifest.calibrated else f"{manifest.precision} weights"
        runs = [(f"{p}, {stored}", model, p, p) for p in list_precisions(manifest.precision)]
    found = [Way(PIPELINE, "pipeline", saved, "f32", "f32")] if _has_torch() else []
    for name, directory, precision, reached in runs:
        found += [Way(f"{name}, {how}", how, directory, precision, reached) for how in ("by-length", "packed")]
    return found


def _has_torch() -> bool:
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def pieces(directory: Path, sentences: list[list[str]]) -> np.ndarray:
    """Return [sentences] the number of pieces of each sentence, including special pieces."""
    manifest, files = bundle.read_directory(directory)
    maker = build_row_maker(read_tokenizer(files, manifest), manifest, "complete")
    starts = np.cumsum([0, *map(len, sentences)])
    rows = maker.make_rows([t for tokens in sentences for t in tokens], starts, np.zeros(starts[-1], np.int64))
    return rows.end - rows.begin + 2


def run(
    found: list[Way], sentences: list[list[str]], repeats: int, rounds: int
) -> tuple[dict[str, list[machine.Spent]], dict[peak.Kind, float]]:
    """Measure the time of each way, and the highest peaks."""
    work = {way.name: first_sentence.WAYS[way.how](way.directory, way.precision) for way in found}
    peaks = {kind: peak.measurement(kind, rounds) for kind in sorted({way.peak for way in found})}
    spent: dict[str, list[machine.Spent]] = {name: [] for name in work}
    highest = dict.fromkeys(peaks, 0.0)
    for repeat in range(repeats + 1):
        for name, tag in work.items():
            once = machine.spend(lambda: tag(sentences))  # noqa: B023
            if repeat:
                spent[name].append(once)
        for kind, measure in peaks.items():
            highest[kind] = max(highest[kind], measure())
    return spent, highest


def fresh(way: Way, sentences: Path, repeats: int) -> dict[str, float]:
    """Return medians of the measurements of processes that only load the model."""
    script = Path(__file__).with_name("first_sentence.py")
    command = [sys.executable, script, way.how, way.directory, way.precision, sentences]
    path = os.pathsep.join([str(texts.ROOT / "jobs"), os.environ.get("PYTHONPATH", "")])
    said = [
        json.loads(
            subprocess.run(
                [str(part) for part in command], check=True, capture_output=True, env={**os.environ, "PYTHONPATH": path}
            ).stdout.splitlines()[-1]
        )
        for _ in range(repeats)
    ]
    return {key: statistics.median(one[key] for one in said) for key in said[0]}


def report(
    found: list[Way], spent: dict[str, list[machine.Spent]], highest: dict[peak.Kind, float], operations: float
) -> None:
    """Print ratios to the pipeline and batches by length, and shares of the peak measured in the same run."""
    print("peak of matrix products, operations a CPU second: " + json.dumps({k: f"{v:.3g}" for k, v in highest.items()}))
    cpu = {name: machine.median(runs).cpu for name, runs in spent.items()}
    for way in found:
        if way.how == "pipeline":
            continue
        said = [f"{operations / cpu[way.name] / highest[way.peak]:.2f} of the {way.peak} peak"]
        if way.how == "packed":
            said[0] += f" (to meet {SHARE_OF_PEAK[way.peak]})"
            said += [f"{cpu[way.name.replace('packed', 'by-length')] / cpu[way.name]:.2f} x batches by length"]
        if PIPELINE in cpu:
            said += [f"{cpu[PIPELINE] / cpu[way.name]:.2f} x the pipeline (to meet {FASTER_THAN_PIPELINE[way.peak]})"]
        print(f"{way.name:36} {', '.join(said)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print times, ratios, shares of the peak, memory and time to the first sentence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a bundle, such as models/demo")
    parser.add_argument("--sentences", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="run for seconds, only to see that it works")
    options = parser.parse_args(arguments)
    shape = random_models.BASE if options.model is None else random_models.read_shape(options.model)
    rounds = 40
    if options.smoke:
        options.sentences, options.repeats, rounds = 48, 1, 2
        shape = random_models.TINY if options.model is None else shape
    sentences = texts.sentences(options.sentences)
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        found = ways(options.model, shape, Path(scratch))
        lengths = pieces(found[-1].directory, sentences)
        print(f"{options.model or 'random weights'}, {shape}, one thread; {len(sentences):,} sentences, ", end="")
        print(f"mean {lengths.mean():.1f} pieces, {options.repeats} repeats after one warm-up", flush=True)
        spent, highest = run(found, sentences, options.repeats, rounds)
        for name, runs in spent.items():
            print(machine.line(name, runs, len(sentences), "sentences"))
        report(found, spent, highest, shape.operations(lengths))
        print(
            "a process of its own: to the first tagged sentence, resident then, and after some hundred sentences", flush=True
        )
        (Path(scratch) / "sentences.json").write_text(json.dumps(sentences[:FRESH_SENTENCES]), encoding="utf8")
        for way in found[-2:] if options.smoke else found:
            said = fresh(way, Path(scratch) / "sentences.json", min(options.repeats, MAX_FRESH))
            print(f"{way.name:36} {said['seconds']:6.2f} s {said['loaded']:7.0f} MB {said['after']:7.0f} MB", flush=True)


if __name__ == "__main__":
    main()
