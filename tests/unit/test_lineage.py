"""Test the events about a run that OpenLineage's client sends to a local HTTP server."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from entitymill import settings
from entitymill.errors import DriftError, SourceError
from entitymill.run import exit_codes
from entitymill.run.summary import Summary
from entitymill_reports import lineage

SUMMARY = Summary("r1", datetime(2026, 11, 20, 3, tzinfo=timezone.utc), documents=7, by_label={"PER": 5, "LOC": 2})


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Start a local HTTP server; return its address and the list of the events that it receives."""
    events: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # http.server calls this name
            events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", events
    server.shutdown()
    server.server_close()
    thread.join()


def loaded(*overrides: str) -> settings.Settings:
    return settings.load(None, ["source.path=s3a://lake/texts", "output.path=/lake/out", *overrides], {})


def test_a_run_that_went_well(receiver: tuple[str, list[dict[str, Any]]]) -> None:
    address, events = receiver
    with lineage.emit_lineage(loaded(f"lineage.url={address}"), enabled=True) as story:
        assert story is not None
        story.begin(SUMMARY)
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"]
    assert events[0]["run"]["runId"] == events[1]["run"]["runId"]
    done = events[1]
    assert [(one["namespace"], one["name"]) for one in done["inputs"]] == [("s3://lake", "/texts")]
    entities, documents = done["outputs"]
    assert (entities["namespace"], entities["name"]) == ("file", "/lake/out/entities")
    assert entities["outputFacets"]["outputStatistics"]["rowCount"] == 7
    assert {"name": "label", "type": "string"}.items() <= {
        key: value
        for field in entities["facets"]["schema"]["fields"]
        if field["name"] == "label"
        for key, value in field.items()
    }.items()
    assert documents["name"] == "/lake/out/documents"


@pytest.mark.parametrize(
    ("error", "state"), [(SourceError("source.path: there is nothing at x."), "FAIL"), (KeyboardInterrupt(), "ABORT")]
)
def test_a_run_that_did_not(receiver: tuple[str, list[dict[str, Any]]], error: BaseException, state: str) -> None:
    address, events = receiver
    chosen = loaded(f"lineage.url={address}", "source.format=table", "source.path=a.b")

    def run() -> None:
        with lineage.emit_lineage(chosen, enabled=True) as story:
            assert story is not None
            story.begin(SUMMARY)
            raise error

    with pytest.raises(type(error)):
        run()
    assert events[-1]["eventType"] == state
    assert events[-1]["run"]["facets"]["errorMessage"]["message"] == exit_codes.describe_error(error)[0]
    assert events[-1]["inputs"][0]["name"] == "a.b"


def test_a_drift_is_seen_when_everything_is_published(receiver: tuple[str, list[dict[str, Any]]]) -> None:
    address, events = receiver

    def run() -> None:
        with lineage.emit_lineage(loaded(f"lineage.url={address}"), enabled=True) as story:
            assert story is not None
            story.begin(SUMMARY)
            raise DriftError("far from the runs before")

    with pytest.raises(DriftError):
        run()
    assert events[-1]["eventType"] == "COMPLETE"
    assert events[-1]["outputs"]


def test_nobody_listens_and_the_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with lineage.emit_lineage(loaded("lineage.url=http://user:secret@127.0.0.1:9"), enabled=True) as story:
        assert story is not None
        story.begin(SUMMARY)
    said = capsys.readouterr().err
    assert "the event START of the run could not be sent" in said and "COMPLETE" in said
    assert "secret" not in said


def test_nothing_is_told_unasked() -> None:
    with lineage.emit_lineage(loaded(), enabled=True) as story:
        assert story is None
