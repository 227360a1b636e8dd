"""Provide a session with Spark NLP's jars, which no other test level loads, and a model in Spark NLP's format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from entitymill_models import prepare_command
from integration.conftest import MODELS, ROOT, Job, job, main, module_job, recognized
from spark_sessions import open_test_session

__all__ = ["MODELS", "ROOT", "Job", "job", "main", "module_job", "recognized"]


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Return the only Spark session of a test process."""
    session = open_test_session(tmp_path_factory.mktemp("warehouse"), sparknlp=True)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def saved_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the demo model to Spark NLP's format, as a user does, and return the directory of the saved model."""
    directory = tmp_path_factory.mktemp("saved") / "demo"
    assert prepare_command.main([str(ROOT / "models" / "demo"), str(directory), "--to", "sparknlp"]) == 0
    return directory
