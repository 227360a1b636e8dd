from __future__ import annotations

import pytest

from entitymill.errors import SessionError
from entitymill.platform import versions

OLD, NEW = "file:/jars/delta-spark_2.12-3.3.3.jar!/io/delta", "file:/jars/delta-spark_2.13-4.0.1.jar!/io/delta"


@pytest.mark.parametrize(("version", "runs"), [("3.5.9", True), ("4.0.5", True), ("3.4.4", False), ("4.1.0", False)])
def test_only_releases_that_were_run_are_taken(version: str, runs: bool) -> None:
    if runs:
        versions.check_spark(version)
    else:
        with pytest.raises(SessionError, match=f"Spark {version} is not supported: this program runs on Spark 3.5 and 4.0"):
            versions.check_spark(version)


def test_each_spark_takes_its_own_delta() -> None:
    versions.check_delta(OLD, "3.5.9", "2.12.18")
    versions.check_delta(NEW, "4.0.5", "2.13.16")
    versions.check_delta("file:/platform/its-own-name.jar!/io/delta", "3.5.2", "2.12.15")


@pytest.mark.parametrize(
    ("jar", "spark", "scala", "said"),
    [
        (None, "3.5.9", "2.12.18", r"not on Spark.s class path: add io.delta:delta-spark_2.12:3.3.3 .*`make jars`, and"),
        (
            None,
            "4.0.5",
            "2.13.16",
            "add io.delta:delta-spark_2.13:4.0.1 .*`make jars-spark4`, and spark.jars=build/jars-spark4",
        ),
        (OLD, "4.0.5", "2.13.16", r"^delta-spark_2.12-3.3.3.jar does not fit Spark 4.0.5 for Scala 2.13: use .*:4.0.1"),
        (NEW, "3.5.9", "2.12.18", r"^delta-spark_2.13-4.0.1.jar does not fit Spark 3.5.9 for Scala 2.12: use .*:3.3.3"),
        (NEW, "3.5.9", "2.13.8", "does not fit Spark 3.5.9 for Scala 2.13: use io.delta:delta-spark_2.13:3.3.3"),
    ],
)
def test_another_delta_is_refused_with_the_one_to_use(jar: str | None, spark: str, scala: str, said: str) -> None:
    with pytest.raises(SessionError, match=said):
        versions.check_delta(jar, spark, scala)


@pytest.mark.parametrize(
    ("classes", "package", "missing"),
    [(False, True, "jars"), (True, False, "Python package"), (False, False, "jars and Python package")],
)
def test_what_of_spark_nlp_is_missing_is_named_with_the_way_to_it(classes: bool, package: bool, missing: str) -> None:
    with pytest.raises(SessionError, match=f"whose {missing} cannot be found") as raised:
        versions.check_sparknlp("2.12.18", classes=classes, package=package)
    for way in ("make jars-sparknlp", "com.johnsnowlabs.nlp:spark-nlp_2.12:5.5.3", "entitymill[sparknlp]"):
        assert way in str(raised.value)


def test_spark_nlp_runs_on_one_scala() -> None:
    versions.check_sparknlp("2.12.18", classes=True, package=True)
    with pytest.raises(
        SessionError, match=r"runs on Spark 3.5 for Scala 2.12, this Spark is for Scala 2.13; use engine openvino"
    ):
        versions.check_sparknlp("2.13.16", classes=True, package=True)
