import base64
import http.server
import importlib.util
import os
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from entitymill import settings
from entitymill.errors import ModelError, SettingsError
from entitymill.run.exit_codes import Stopped
from entitymill.run.summary import Summary
from entitymill.settings.report_sections import ReportSettings
from entitymill_reports import drift, prometheus_metrics
from entitymill_reports.prometheus_metrics import Totals
from sample_figures import run

MINIMAL = ["source.path=texts", "output.path=/lake/out"]
SECONDS = {"preparation": 1.0, "recognition": 8.0, "encoding": 3.0, "inference": 9.0, "segmentation": 4.0, "total": 10.0}
START = datetime(2026, 11, 20, 3, tzinfo=timezone.utc)


def summary() -> Summary:
    labels, rejects = {"PER": 5, "LOC": 2}, {"null_text": 3}
    return Summary("r1", START, documents=7, sentences=40, by_label=labels, rejects=rejects, seconds=SECONDS)


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(text: str) -> dict[tuple[str, ...], float]:
    """Return each sample's value by its name and the values of its labels, except `output`."""
    samples = [sample for family in families(text).values() for sample in family.samples]
    assert {sample.labels["output"] for sample in samples} == {"/lake/out"}
    return {(s.name, *(value for name, value in s.labels.items() if name != "output")): s.value for s in samples}


def loaded(*overrides: str) -> settings.Settings:
    return settings.load(None, [*MINIMAL, *overrides], {})


def test_a_run_that_published(tmp_path: Path) -> None:
    file = tmp_path / "entitymill.prom"
    before = run(0, sentences=5000)
    with prometheus_metrics.record_metrics(loaded(f"metrics.textfile={file}")) as known:
        known.summary = summary()
        known.drift = drift.compare_runs(run(1, entities_by_label={"PER": 1000}), [before], ReportSettings())
    found = values(file.read_text())
    assert found["entitymill_run_success",] == 1
    assert found["entitymill_run_exit_code",] == 0
    assert found["entitymill_run_documents",] == 7
    assert found["entitymill_run_sentences_per_second",] == 4
    assert found["entitymill_run_mentions", "PER"] == 5
    assert found["entitymill_run_rejects", "null_text"] == 3
    assert {key[1]: value for key, value in found.items() if key[0] == "entitymill_run_stage_seconds"} == {
        "preparation": 1,
        "recognition": 8,
    }
    assert found["entitymill_run_worker_seconds", "inference"] == 9
    assert found["entitymill_run_drift_marked",] == 3
    assert 0 <= found["entitymill_run_duration_seconds",] < 60
    assert os.listdir(tmp_path) == [file.name]  # noqa: PTH208  # no temporary file is left
    assert file.stat().st_mode & 0o444 == 0o444  # the collector runs as another user


def test_a_run_that_failed(tmp_path: Path) -> None:
    file = tmp_path / "entitymill.prom"
    with pytest.raises(ModelError), prometheus_metrics.record_metrics(loaded(f"metrics.textfile={file}")):
        raise ModelError("altered")
    found = values(file.read_text())
    assert (found["entitymill_run_success",], found["entitymill_run_exit_code",]) == (0, 5)
    assert ("entitymill_run_documents",) not in found


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (Stopped(143, "SIGTERM"), 143)])
def test_a_run_that_was_stopped(tmp_path: Path, stop: BaseException, code: int) -> None:
    file = tmp_path / "entitymill.prom"
    with pytest.raises(type(stop)), prometheus_metrics.record_metrics(loaded(f"metrics.textfile={file}")):
        raise stop
    assert values(file.read_text())["entitymill_run_exit_code",] == code


def test_totals_are_counters(tmp_path: Path) -> None:
    totals = Totals({"done": 4, "failed": 1}, 70, 400, 9, {"PER": 50}, START.timestamp())
    file = tmp_path / "entitymill.prom"
    known = prometheus_metrics.RunOutcome("/lake/out", START, totals=totals)
    prometheus_metrics.write_textfile(prometheus_metrics.build_metrics(known), str(file), known)
    text = file.read_text()
    found = values(text)
    assert found["entitymill_documents_total",] == 70
    assert found["entitymill_mentions_total", "PER"] == 50
    assert found["entitymill_runs_total", "failed"] == 1
    assert found["entitymill_last_success_timestamp_seconds",] == START.timestamp()
    kinds = {name: family.type for name, family in families(text).items()}
    assert kinds["entitymill_documents"] == "counter"
    assert kinds["entitymill_run_success"] == "gauge"
    assert all(family.documentation.endswith(".") for family in families(text).values())


def test_nothing_is_written_where_nothing_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[object] = []
    monkeypatch.setattr(prometheus_metrics, "build_metrics", written.append)
    with prometheus_metrics.record_metrics(loaded()):
        pass
    with prometheus_metrics.record_metrics(loaded(f"metrics.textfile={tmp_path}/x.prom"), enabled=False):
        pass
    assert (written, list(tmp_path.iterdir())) == ([], [])


class Receiver:
    """A local HTTP server that records the requests that it receives."""

    def __init__(self, status: int = 200) -> None:
        self.requests: list[tuple[str, str, str | None, str]] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                receiver.requests.append((self.command, self.path, self.headers["Authorization"], body))
                self.send_response(status)
                self.end_headers()

            do_POST = do_PUT  # noqa: N815  # the server's own names

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.server.shutdown()
    started.server.server_close()


def test_figures_are_pushed(receiver: Receiver) -> None:
    with prometheus_metrics.record_metrics(loaded(f"metrics.pushgateway=http://{receiver.place}")) as known:
        known.summary = summary()
    [(method, path, authorization, body)] = receiver.requests
    group = base64.urlsafe_b64encode(b"/lake/out").decode()
    # PUT replaces all metrics of the output. The Pushgateway requires base64 for a value with slashes.
    assert (method, path, authorization) == ("PUT", f"/metrics/job/entitymill/output@base64/{group}", None)
    assert values(body)["entitymill_run_documents",] == 7


def test_a_failed_run_leaves_figures_that_it_cannot_know(receiver: Receiver) -> None:
    address = f"metrics.pushgateway=http://me:hunter%2F2@{receiver.place}/base"
    with pytest.raises(ModelError), prometheus_metrics.record_metrics(loaded(address)):
        raise ModelError("altered")
    [(method, path, authorization, body)] = receiver.requests
    assert (method, path.startswith("/base/metrics/job/")) == ("POST", True)
    assert authorization == "Basic " + base64.b64encode(b"me:hunter/2").decode()
    assert values(body)["entitymill_run_success",] == 0


@pytest.mark.parametrize("place", ["metrics.textfile=/nowhere/x.prom", "metrics.pushgateway=http://me:hunter2@127.0.0.1:1"])
def test_what_cannot_be_written_is_said_and_no_error(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    with prometheus_metrics.record_metrics(loaded(place)) as known:
        known.summary = summary()
    said = capsys.readouterr().err
    assert said.startswith(f"{place.partition('=')[0]}: the metrics could not be written to ")
    assert "hunter2" not in said


def test_a_missing_library_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with (
        pytest.raises(
            SettingsError, match=r"^metrics needs prometheus_client, which is not installed: run `make (-C \S+ )?extras`\.$"
        ),
        prometheus_metrics.record_metrics(loaded("metrics.textfile=/x.prom")),
    ):
        pytest.fail("work began")


@pytest.mark.parametrize(
    ("address", "shown"), [("http://host:abc", "http://***"), ("http://127.0.0.1:1", "http://127.0.0.1:1")]
)
def test_an_address_that_leads_nowhere_fails_no_run(capsys: pytest.CaptureFixture[str], address: str, shown: str) -> None:
    with prometheus_metrics.record_metrics(loaded(f"metrics.pushgateway={address}")) as known:
        known.summary = summary()
    assert f"metrics.pushgateway: the metrics could not be written to {shown}: " in capsys.readouterr().err
