"""Open the session of benchmarks with Spark, with the settings of a plain local run."""

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


SPARK_NLPS_DETECTOR = ("segmentation.detector=dl", f"segmentation.model={texts.ROOT}/models/sentence_detector")
"""Settings with which engine openvino finds sentences as engine sparknlp does."""


def loaded(*overrides: str) -> settings.Settings:
    """Load default settings with some overrides."""
    return settings.load(DEFAULTS, ["source.path=unused", "output.path=unused", *overrides], {})


def open_bench(memory: str | None = None, *, sparknlp: bool = False, brief: bool = False) -> SparkSession:
    """Return the active session, or open one on all cores.

    Args:
        memory: heap size of the JVM, such as 4g; None for the default.
        sparknlp: whether to load Spark NLP's jars, if they are installed.
        brief: whether to start Java as `entitymill extract` does for a small source.
    """
    jars = [str(directory) for directory in JARS[: 1 + sparknlp] if directory.is_dir()]
    # By default, Spark would delete old executions, and `count_jobs` could not count them.
    conf = {"spark.sql.ui.retainedExecutions": "1000000"}
    if memory is not None:
        conf["spark.driver.memory"] = memory
    chosen = sections.SparkSettings(master=f"local[{os.cpu_count()}]", jars=",".join(jars), conf=conf)
    return open_session(chosen, "bench", brief=lambda: brief)


def has_sparknlp(spark: SparkSession) -> bool:
    """Return whether engine sparknlp can run here."""
    there = has_class(spark, "com.johnsnowlabs.nlp.DocumentAssembler")
    return there and importlib.util.find_spec("sparknlp") is not None
