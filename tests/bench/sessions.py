"""The session of the benches that run Spark: the settings of a plain local run."""

from __future__ import annotations

import importlib.util
import os

import texts
from pyspark.sql import SparkSession

from entitymill import settings
from entitymill.settings import sections
from entitymill.spark.session import has_class, open_session

DEFAULTS = texts.ROOT / "conf" / "base.yaml"
JARS = tuple(texts.ROOT / "build" / name for name in ("jars", "jars-sparknlp"))


def loaded(*overrides: str) -> settings.Settings:
    """The defaults of a run, and something else."""
    always = (f"segmentation.model={texts.ROOT}/models/sentence_detector", "source.path=unused", "output.path=unused")
    return settings.load(DEFAULTS, [*always, *overrides], {})


def open_bench(memory: str | None = None, *, sparknlp: bool = False, brief: bool = False) -> SparkSession:
    """The session that is there, or one on all cores.

    Args:
        memory: of the JVM, where it is not the default.
        sparknlp: whether Spark NLP's jars are wanted, where they are there.
        brief: as `entitymill extract` has it of a small source.
    """
    jars = [str(directory) for directory in JARS[: 1 + sparknlp] if directory.is_dir()]
    # Spark forgets old executions, and with them how many there were.
    conf = {"spark.sql.ui.retainedExecutions": "1000000"}
    if memory is not None:
        conf["spark.driver.memory"] = memory
    chosen = sections.SparkSettings(master=f"local[{os.cpu_count()}]", jars=",".join(jars), conf=conf)
    return open_session(chosen, "bench", brief=lambda: brief)


def has_sparknlp(spark: SparkSession) -> bool:
    """Whether engine sparknlp can run here."""
    there = has_class(spark, "com.johnsnowlabs.nlp.DocumentAssembler")
    return there and importlib.util.find_spec("sparknlp") is not None
