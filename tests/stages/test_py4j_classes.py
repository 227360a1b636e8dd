"""Test that calls of PySpark's functions and of Java classes need no search through the jars."""

from __future__ import annotations

import pytest
from py4j.clientserver import JavaClient
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from entitymill.spark import session

LOOKUP = "r\n"
"""Prefix of py4j's command that asks Java whether a name is a class or a package."""


def count_lookups(monkeypatch: pytest.MonkeyPatch, commands: list[str]) -> None:
    send = JavaClient.send_command

    def record(client: JavaClient, command: str, *args: object, **options: object) -> object:
        commands.append(command)
        return send(client, command, *args, **options)

    monkeypatch.setattr(JavaClient, "send_command", record)


def test_functions_are_looked_up_once(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session.remember_classes(spark)
    F.lit(1)
    F.col("a").cast("string")
    commands: list[str] = []
    count_lookups(monkeypatch, commands)
    F.lit(2)
    F.col("b").cast("string")
    assert len(commands) >= 3
    assert [command for command in commands if command.startswith(LOOKUP)] == []


def test_a_class_is_named_without_a_search(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[str] = []
    count_lookups(monkeypatch, commands)
    path = session.get_class(spark, "org.apache.hadoop.fs.Path")("/a//b")
    assert path.toString() == "/a/b"
    assert [command for command in commands if command.startswith(LOOKUP)] == []


def test_remembering_twice_changes_nothing(spark: SparkSession) -> None:
    session.remember_classes(spark)
    before = dict(vars(spark.sparkContext._jvm))
    session.remember_classes(spark)
    assert vars(spark.sparkContext._jvm) == before
