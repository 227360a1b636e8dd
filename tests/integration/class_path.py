"""Hide one of Spark's jars, to test what happens if it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyspark.sql import SparkSession


@contextmanager
def class_path_without(spark: SparkSession, name: str) -> Iterator[None]:
    """Hide the jars whose file names begin with `name` from the Java calls of this thread.

    Inside the context, only look up classes: a query could fail, because it would find loaded classes a second time.
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
