"""Measure both engines on the same rows: `python tests/bench/engines.py [--sentences N] [--repeats N]`.

The model has DistilBERT-base's shape and random weights. One warm session on all cores segments and tags documents of 1 to
40 real sentences, and discards the results. In each precision, the engines run in turn, so that changes in the speed of the
machine affect both. Both engines keep the model from run to run. Spark NLP uses the same release of OpenVINO, with a stream
and a thread for each core.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import machine
import random_models
import sessions
import texts
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from entitymill.recognition.tagger import Precision
from entitymill.run.work_units import MIN_TASKS_PER_CORE
from entitymill.workers.engine_choice import open_engine

LONGEST_DOCUMENT = 40
ENGINES = ("openvino", "sparknlp")
PRECISIONS: tuple[Precision, ...] = ("f32", "bf16", "int8")
SAME, BEST = 2.0, 3.0
"""Target speedups over Spark NLP: in the same precision, and in our best precision over bf16, Spark NLP's own choice."""
Recognize = Callable[[DataFrame], DataFrame]


def documents(spark: SparkSession, sentences: int) -> DataFrame:
    """Return documents with the columns that an engine reads, in as many partitions as the job would use."""
    many = texts.documents(sentences, LONGEST_DOCUMENT)
    frame = spark.createDataFrame([(f"d{number}", text) for number, text in enumerate(many)], "doc_id string, text string")
    counted = frame.select("doc_id", "text", F.lit("").alias("text_hash"), F.length("text").alias("chars"))
    return counted.repartition(MIN_TASKS_PER_CORE * (os.cpu_count() or 1)).persist()


def models(shape: random_models.Shape, scratch: Path) -> dict[Precision, tuple[Path, Path]]:
    """Return, for each precision, a bundle and the same model as Spark NLP saves it; int8 is calibrated."""
    from entitymill_sparknlp import saved_model_writer  # noqa: PLC0415  - of an extra

    random_models.write_random_model(scratch / "saved", shape)
    found = {}
    for kind in ("f32", "calibrated"):
        made = random_models.make_bundle(scratch / "saved", scratch / kind, kind)
        saved = scratch / f"{kind}-sparknlp"
        saved.mkdir()
        saved_model_writer.write_saved_model(made, saved, keep_calibration=True)
        found[kind] = (made, saved)
    return {"f32": found["f32"], "bf16": found["f32"], "int8": found["calibrated"]}


def opened(spark: SparkSession, precision: Precision, model: tuple[Path, Path]) -> dict[str, Recognize]:
    """Load the recognizer of each engine. Settings for Spark NLP stay until the next precision is opened."""
    chosen = [f"recognition.precision={precision}", f"model.path={model[0]}", f"recognition.sparknlp_model={model[1]}"]
    return {
        engine: open_engine(
            spark, sessions.loaded(*sessions.SPARK_NLPS_DETECTOR, *chosen, f"recognition.engine={engine}")
        ).load()
        for engine in ENGINES
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=4_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm-ups", type=int, default=2, help="unmeasured repeats, in which the JVM compiles code")
    parser.add_argument("--smoke", action="store_true", help="run for seconds, only to see that it works")
    options = parser.parse_args(arguments)
    precisions, shape = PRECISIONS, random_models.BASE
    if options.smoke:
        options.sentences, options.repeats, options.warm_ups = 40, 1, 0
        precisions, shape = ("f32", "int8"), random_models.TINY
    spark = sessions.open_bench("4g", sparknlp=True)
    if not sessions.has_sparknlp(spark):
        print("engines: Spark NLP or its jars are not there; nothing was measured")
        return
    print(machine.describe())
    spent: dict[str, list[machine.Spent]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        made = models(shape, Path(scratch))
        rows = documents(spark, options.sentences)
        print(f"{shape}, random weights; {rows.count():,} documents, about {options.sentences:,} sentences", flush=True)
        for precision in precisions:
            ways = opened(spark, precision, made[precision])
            for repeat in range(-options.warm_ups, options.repeats):
                for engine, recognize in ways.items():
                    once = machine.spend(lambda: recognize(rows).write.format("noop").mode("overwrite").save())  # noqa: B023
                    if repeat >= 0:
                        spent.setdefault(f"{engine} {precision}", []).append(once)
            for engine in ways:
                name = f"{engine} {precision}"
                print(machine.line(name, spent[name], options.sentences, "sentences"), flush=True)
        rows.unpersist()
    report(spent, options.sentences, precisions)


def report(spent: dict[str, list[machine.Spent]], sentences: int, precisions: Sequence[Precision]) -> None:
    """Print CPU seconds per 1,000 sentences, and ratios."""
    thousands = sentences / 1_000
    cpu = {name: machine.median(runs).cpu / thousands for name, runs in spent.items()}
    wall = {name: machine.median(runs).wall / thousands for name, runs in spent.items()}
    for name in spent:
        print(f"{name:16} {cpu[name]:6.2f} cpu-s, {wall[name]:6.2f} s per 1,000 sentences")

    def compare(what: str, ours: str, theirs: str, wanted: float) -> None:
        by_cpu, by_wall = cpu[theirs] / cpu[ours], wall[theirs] / wall[ours]
        print(f"{what}: {ours} against {theirs} {by_cpu:.2f} x by cpu, {by_wall:.2f} x by wall (to meet {wanted})")

    for precision in precisions:
        compare("same precision", f"openvino {precision}", f"sparknlp {precision}", SAME)
    if "bf16" in precisions:
        best = min((name for name in cpu if name.startswith("openvino")), key=cpu.__getitem__)
        compare("best against Spark NLP's bf16", best, "sparknlp bf16", BEST)
        if not machine.has_bf16():
            print("  this processor has no bf16: what Spark NLP gets by itself here is f32, and that row is f32")


if __name__ == "__main__":
    main()
