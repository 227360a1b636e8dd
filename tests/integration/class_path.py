"""Spark without one of its jars, as where somebody forgot it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyspark.sql import SparkSession


@contextmanager
def class_path_without(spark: SparkSession, name: str) -> Iterator[None]:
    """Give this thread's calls of Java a class path that lacks the jars whose names begin so; for looking, not for running.

    The classes that are loaded stay: a query there would find some of them twice.
    """
    machine: Any = spark.sparkContext._jvm
    thread = machine.java.lang.Thread.currentThread()
    whole = machine.org.apache.spark.util.Utils.getContextOrSparkClassLoader()
    kept = [url for url in whole.getURLs() if not url.getFile().rpartition("/")[2].startswith(name)]
    assert len(kept) < len(whole.getURLs()), name
    urls: Any = spark.sparkContext._gateway.new_array(machine.java.net.URL, len(kept))  # type: ignore[union-attr]
    for at, url in enumerate(kept):
        urls[at] = url
    before = thread.getContextClassLoader()
    thread.setContextClassLoader(machine.java.net.URLClassLoader(urls, whole.getParent()))
    try:
        yield
    finally:
        thread.setContextClassLoader(before)
