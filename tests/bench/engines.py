"""Both engines over the same rows: `python tests/bench/engines.py [--sentences N] [--repeats N]`.

DistilBERT-base's shape with random weights, documents of 1 to 40 real sentences, all cores, one warm session:
segmentation and tagging, the result thrown away. They run in turn, so that a machine that drifts drifts for both. Spark
NLP's engine runs on the OpenVINO release that ours runs on, with a stream and a thread for each core.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import machine
import numpy as np
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from safetensors.numpy import save_file

from entitymill import preparation, settings
from entitymill.engines import sparknlp_model
from entitymill.extraction import FEWEST_TASKS_PER_CORE
from entitymill.recognition.tagger import bundle
from entitymill.session import open_session

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "models" / "demo"
LAYERS, WIDTH, HIDDEN, HEADS, POSITIONS = 6, 768, 3072, 12, 512
LONGEST_DOCUMENT = 40
WARM_UPS = 2
"""Rounds not counted: the JVM compiles itself meanwhile."""
TO_MEET = {"f32": ("f32", 2.0), "bf16": ("bf16", None), "int8": ("f32", 5.0)}
"""Our precision -> the precision of Spark NLP's engine it is held against, and the ratio to meet."""


def write_model(directory: Path) -> None:
    """A Hugging Face directory: DistilBERT-base's shape, the demo model's vocabulary, random weights, nearly all tags O."""
    directory.mkdir()
    rng = np.random.default_rng(0)
    labels = bundle.read_labels(DEMO / bundle.LABELS)
    shutil.copy(DEMO / bundle.TOKENIZER, directory / bundle.TOKENIZER)
    vocabulary = len(json.loads((DEMO / bundle.TOKENIZER).read_text(encoding="utf8"))["model"]["vocab"])
    shapes = {
        "embeddings.word_embeddings.weight": (vocabulary, WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
    }
    linear = {f"attention.{part}_lin": (WIDTH, WIDTH) for part in ("q", "k", "v", "out")}
    linear |= {"ffn.lin1": (HIDDEN, WIDTH), "ffn.lin2": (WIDTH, HIDDEN)}
    for layer in range(LAYERS):
        for name, shape in linear.items():
            shapes |= {
                f"transformer.layer.{layer}.{name}.weight": shape,
                f"transformer.layer.{layer}.{name}.bias": shape[:1],
            }
    tensors = {f"distilbert.{name}": rng.normal(0, 0.02, shape).astype(np.float32) for name, shape in shapes.items()}
    norms = [f"transformer.layer.{i}.{name}" for i in range(LAYERS) for name in ("sa_layer_norm", "output_layer_norm")]
    for name in ("embeddings.LayerNorm", *norms):
        tensors[f"distilbert.{name}.weight"] = np.ones(WIDTH, np.float32)
        tensors[f"distilbert.{name}.bias"] = np.zeros(WIDTH, np.float32)
    tensors["classifier.weight"] = rng.normal(0, 0.02, (len(labels), WIDTH)).astype(np.float32)
    tensors["classifier.bias"] = np.eye(len(labels), dtype=np.float32)[0] * 3
    save_file(tensors, directory / "model.safetensors")
    config = {
        "model_type": "distilbert",
        "architectures": ["DistilBertForTokenClassification"],
        "activation": "gelu",
        "dim": WIDTH,
        "hidden_dim": HIDDEN,
        "n_heads": HEADS,
        "n_layers": LAYERS,
        "max_position_embeddings": POSITIONS,
        "vocab_size": vocabulary,
        "sinusoidal_pos_embds": False,
        "id2label": {str(i): label for i, label in enumerate(labels)},
    }
    (directory / "config.json").write_text(json.dumps(config))


def prepare(*arguments: object) -> None:
    """Run prepare_model.py."""
    code = preparation.main([str(argument) for argument in arguments])
    assert code == 0, code


def documents(spark: SparkSession, sentences: int) -> DataFrame:
    """Documents of 1 to 40 sentences of the speeches, drawn with a fixed seed."""
    texts = pq.read_table(ROOT / "data" / "state_union.parquet")["text"].to_pylist()
    found = [part for text in texts for part in re.split(r"(?<=[.!?])\s+", text) if part.strip()]
    rng = np.random.default_rng(0)
    chosen = [found[i] for i in rng.permutation(len(found))[:sentences]]
    rows, at = [], 0
    while at < len(chosen):
        length = int(rng.integers(1, LONGEST_DOCUMENT + 1))
        rows.append((str(len(rows)), " ".join(chosen[at : at + length])))
        at += length
    frame = spark.createDataFrame(rows, "doc_id string, text string")
    counted = frame.select("doc_id", "text", F.lit("").alias("text_hash"), F.length("text").alias("chars"))
    # As many tasks as the job makes of so few rows.
    return counted.repartition(FEWEST_TASKS_PER_CORE * (os.cpu_count() or 1)).persist()


def ways(spark: SparkSession, scratch: Path) -> dict[str, tuple[str, Callable[[DataFrame], DataFrame]]]:
    """Name -> precision and recogniser of each way of running the model."""
    write_model(scratch / "hf")
    prepare(scratch / "hf", scratch / "f32", "--precision", "f32", "--max-length", 512)
    sample = ("--calibrate", ROOT / "data" / "state_union.parquet", "--max-loss", 1)
    prepare(scratch / "hf", scratch / "int8", "--precision", "int8", "--max-length", 512, *sample)
    for name in ("f32", "int8"):
        prepare(scratch / name, scratch / f"{name}-sparknlp", "--to", "sparknlp")
    common = ["source.path=unused", f"output.path={scratch}/unused", f"segmentation.model={ROOT}/models/sentence_detector"]
    found = {}
    for precision in ("f32", "bf16", "int8"):
        stored = "int8" if precision == "int8" else "f32"
        for engine in ("openvino", "sparknlp"):
            overrides = [*common, f"recognition.precision={precision}", f"recognition.engine={engine}"]
            overrides += [f"model.path={scratch}/{stored}", f"recognition.sparknlp_model={scratch}/{stored}-sparknlp"]
            recogniser = open_engine(spark, settings.load(None, overrides, {}))
            found[f"{engine} {precision}"] = (precision, recogniser.load())
    return found


def main() -> None:
    """Print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=4_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    jars = f"{ROOT}/build/jars,{ROOT}/build/jars-sparknlp"
    spark = open_session(settings.SparkSettings(master=f"local[{cores}]", jars=jars), "bench", sparknlp=True)
    spent: dict[str, list[machine.Spent]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        every = ways(spark, Path(scratch))
        rows = documents(spark, options.sentences)
        print(machine.describe())
        print(f"DistilBERT-base's shape, random weights; {rows.count():,} documents, about {options.sentences:,} sentences")
        for repeat in range(-WARM_UPS, options.repeats):
            for name, (precision, recognise) in every.items():
                sparknlp_model.configure(spark, precision)
                once = machine.spend(lambda: recognise(rows).write.format("noop").mode("overwrite").save())  # noqa: B023
                if repeat >= 0:
                    spent.setdefault(name, []).append(once)
    report(spent, options.sentences)


def report(spent: dict[str, list[machine.Spent]], sentences: int) -> None:
    """CPU seconds per 1,000 sentences, and ratios."""
    for name, runs in spent.items():
        print(machine.line(name, runs, sentences, "sentences"))
    thousands = sentences / 1_000
    cpu = {name: machine.median(runs).cpu / thousands for name, runs in spent.items()}
    wall = {name: machine.median(runs).wall / thousands for name, runs in spent.items()}
    for name in spent:
        print(f"{name:16} {cpu[name]:6.2f} cpu-s, {wall[name]:6.2f} s per 1,000 sentences")
    for ours, (theirs, wanted) in TO_MEET.items():
        a, b = f"openvino {ours}", f"sparknlp {theirs}"
        aim = f" (to meet {wanted})" if wanted else ""
        print(f"{a} against {b}: {cpu[b] / cpu[a]:.2f} x by cpu, {wall[b] / wall[a]:.2f} x by wall{aim}")
    best = {
        engine: min(value for name, value in cpu.items() if name.startswith(engine)) for engine in ("openvino", "sparknlp")
    }
    print(f"best against best: {best['sparknlp'] / best['openvino']:.2f} x by cpu (to meet 3.0, where F1 allows either)")


if __name__ == "__main__":
    main()
