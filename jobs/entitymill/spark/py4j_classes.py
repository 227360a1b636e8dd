"""Get Java classes by their full names, without the search that py4j makes for each name.

At each use of `jvm.org.apache.spark.X`, py4j asks Java for each part of the name. Java then looks in every jar for a class
`org`, a class `org.apache`, and so on. PySpark itself does this for each call of a function such as `F.col`. In a run over
ten documents, these searches took a tenth of the driver's CPU time.
"""

from __future__ import annotations

from typing import Any

from py4j.java_gateway import JavaClass, JavaMember
from pyspark.sql import SparkSession

HADOOP_PATH = "org.apache.hadoop.fs.Path"
_USED_BY_PYSPARK = ("functions", "SparkSession", "SparkSession$", "PythonUtils")
"""Names that PySpark looks up in `SparkContext._jvm` at each call of a function, cast or conversion."""


class RememberedClass(JavaClass):  # type: ignore[misc]  # py4j has no types
    """A Java class that looks up each of its static methods only once."""

    def __getattr__(self, name: str) -> Any:
        """Return a static member; store a method in this object, so that its next use does not ask Java."""
        member = super().__getattr__(name)
        if isinstance(member, JavaMember):
            setattr(self, name, member)
        return member


def get_class(spark: SparkSession, name: str) -> Any:
    """Return the py4j proxy of a Java class by its full name; an unknown class raises an error only when it is used."""
    return JavaClass(name, _get_client(spark))


def remember_classes(spark: SparkSession) -> None:
    """Store Java classes that PySpark uses often, so that PySpark no longer searches for them in this Spark application."""
    view: Any = spark.sparkContext._jvm
    for name in _USED_BY_PYSPARK:
        if name in vars(view):
            continue
        found: Any = getattr(view, name, None)
        if type(found) is JavaClass:
            setattr(view, name, RememberedClass(found._fqn, _get_client(spark)))


def _get_client(spark: SparkSession) -> Any:
    """Return py4j's client for the JVM of a session."""
    gateway: Any = spark.sparkContext._gateway
    return gateway._gateway_client
