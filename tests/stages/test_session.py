"""What runs of one process share: a session's properties."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from bench import stub
from entitymill.errors import SourceError
from entitymill.platform.session import in_turn
from entitymill.run import extraction

from .conftest import chosen


def test_of_two_runs_in_one_session_the_second_waits(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "open_engine", stub.open_stub)
    ended = {spark: threading.Event(), spark.newSession(): threading.Event()}

    def run(session: SparkSession) -> None:
        with pytest.raises(SourceError, match="nothing is at"):
            extraction.extract(session, chosen(tmp_path, f"source.path={tmp_path}/nothing"))
        ended[session].set()

    threads = [threading.Thread(target=run, args=(session,)) for session in ended]
    with in_turn(spark), in_turn(spark):  # also inside of itself
        for thread in threads:
            thread.start()
        mine, other = ended.values()
        assert other.wait(30)
        assert not mine.wait(3)
    assert mine.wait(30)
    for thread in threads:
        thread.join()
