"""Test the tagger in a child process, with real processes and signals; `poison_stub` defines the words that crash it."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import poison_stub
from entitymill import schemas
from entitymill.errors import ModelError, WorkerError
from entitymill.recognition.tagger import Execution, bundle
from entitymill.settings.sections import DAY
from entitymill.workers import child_process, worker
from entitymill.workers.engine_openvino import FACTORY
from entitymill.workers.worker import RecognitionOptions, ShippedDetector, ShippedModel, Worker

DEMO = Path(__file__).parents[2] / "models" / "demo"
GOOD = ["Angela Merkel met Emmanuel Macron .", "They met in Paris .", "Nobody came .", "They met in Rome ."]
RUN = RecognitionOptions(Execution(), "rules", trim=True)


class Here(ShippedModel):
    """A model whose files are local, so that they are found without Spark."""

    def files(self) -> dict[str, Path]:
        return {name: Path(path) for name, path in self.names.items()}


NO_DETECTOR = ShippedDetector({}, "rules", {})


def documents(texts: list[str]) -> pa.RecordBatch:
    fields = {
        "doc_id": pa.array([f"d{i}" for i in range(len(texts))]),
        "text_hash": pa.array(["-"] * len(texts)),
        "chars": pa.array([len(text) for text in texts], pa.int32()),
        "text": pa.array(texts),
    }
    return pa.RecordBatch.from_pydict(fields)


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    yield
    while child_process._children:
        child_process._children.pop().close()


@pytest.fixture
def here(demo_manifest: bundle.Manifest) -> Here:
    return Here({name: str(DEMO / name) for name in demo_manifest.files}, "models/demo", demo_manifest)


def run(
    here: Here, texts: list[str], factory: str = poison_stub.FACTORY, seconds: float = 60, **more: Any
) -> list[dict[str, Any]]:
    batch = documents(texts)
    passed = pa.array([{"n": i} for i in range(len(texts))])
    batch = pa.RecordBatch.from_arrays([*batch.columns, passed], names=[*batch.schema.names, "passthrough"])
    made = Worker(here, NO_DETECTOR, RecognitionOptions(Execution(), "rules", trim=True, **more), seconds, factory)(
        iter([batch])
    )
    return pa.Table.from_batches(list(made)).to_pylist()


def found(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {
        row["doc_id"]: [
            (m["begin"], m["end"], m["label"], pytest.approx(m["confidence"], abs=1e-5)) for m in row["mentions"]
        ]
        for row in rows
    }


@pytest.mark.slow
def test_documents_that_kill_or_hang_the_tagger_alone_fail_and_the_others_do_not(here: Here) -> None:
    clean = run(here, GOOD, FACTORY)
    words = (poison_stub.SEGFAULT, poison_stub.KILL, poison_stub.LOOP, poison_stub.MEMORY, poison_stub.NATIVE)
    deadly = [f"{word} in Paris ." for word in words]

    rows = run(here, [*GOOD, *deadly], seconds=3)

    assert [row["doc_id"] for row in rows] == [f"d{i}" for i in range(9)]
    assert found(rows[:4]) == found(clean)
    varying = dict.fromkeys(("mentions", *(f"{part}_seconds" for part in schemas.TIMES)), 0)
    assert [{**row, **varying} for row in rows[:4]] == [{**row, **varying} for row in clean]
    assert [(row["failure"]["code"], row["failure"]["detail"]) for row in rows[4:]] == [
        ("tagger_crashed", "killed by SIGSEGV"),
        ("tagger_crashed", "killed by SIGKILL"),
        ("tagger_timed_out", "no answer in 3 s"),
        ("tagger_crashed", "out of memory"),
        ("tagger_crashed", "out of memory"),
    ]
    assert [(row["mentions"], row["tokens"], row["passthrough"]) for row in rows[4:]] == [
        ([], 0, {"n": i}) for i in range(4, 9)
    ]


@pytest.mark.deep
def test_a_document_that_needs_too_much_memory_fails_alone(here: Here) -> None:
    """Only this document must fail; otherwise the system would kill the whole executor if it has little memory."""
    rows = run(here, [*GOOD, "They met in Paris . " * 200_000], FACTORY, memory_mb=150)
    assert [row["failure"] and row["failure"]["detail"] for row in rows] == [None] * 4 + ["out of memory"]
    assert found(rows[:4]) == found(run(here, GOOD, FACTORY))


def test_files_of_the_working_directory_are_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("json", "re", "types"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nraise SystemExit(1)\n")
    child_process.Child(child_process.Work(f"{__name__}:open_half", ())).close()
    assert not (tmp_path / "executed").exists()


def test_a_machine_without_processes_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(WorkerError, match="cannot be started: Resource temporarily unavailable; give this machine"):
        child_process.Child(child_process.Work(f"{__name__}:open_half", ()))


def test_the_time_limit_covers_a_child_that_reads_nothing_and_half_an_answer(here: Here) -> None:
    child = child_process.get_child(child_process.Work(f"{__name__}:open_half", ()))
    with pytest.raises(child_process.ChildLostError) as lost:
        child(documents(["a"]), 1.0)
    assert (lost.value.code, child.closed) == (child_process.TIMED_OUT, True)

    child = child_process.get_child(child_process.Work(f"{__name__}:open_half", ()))
    child._process.send_signal(signal.SIGSTOP)
    with pytest.raises(child_process.ChildLostError) as lost:
        child(documents(["a" * 10_000_000]), 1.0)  # more than the connection buffers
    assert (lost.value.code, child.closed) == (child_process.TIMED_OUT, True)


def open_half() -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Return a function that sends the worker the length of an answer, but no answer."""

    def answer(batch: pa.RecordBatch) -> pa.RecordBatch:
        [connection] = [one for one in gc.get_objects() if isinstance(one, Connection)]
        os.write(connection.fileno(), (1000).to_bytes(4, "big"))
        time.sleep(600)
        return batch

    return answer


def test_failed_rows_have_the_columns_of_the_others(here: Here) -> None:
    batch = documents([GOOD[0], poison_stub.KILL])
    run_ = RecognitionOptions(Execution(), "rules", trim=True, annotations=True)
    made = list(Worker(here, NO_DETECTOR, run_, 60, poison_stub.FACTORY)(iter([batch])))
    assert [(row.schema.names, row.schema.types) for row in made] == [(made[0].schema.names, made[0].schema.types)] * 2


def test_a_larger_window_may_take_longer(here: Here) -> None:
    made = Worker(here, NO_DETECTOR, RUN, 10, FACTORY)
    assert made._compute_time_limit(documents(["a b"])) == 10
    assert made._compute_time_limit(documents(["a b\n" * child_process.WINDOW_CHARS])) == 40


def test_batches_are_joined_and_cut_to_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "WINDOW_CHARS", 10)
    batches = [documents(["a" * 4, "b" * 4]), documents([]), documents(["c" * 4, "d" * 25, "e", "f"]), documents(["g"])]
    cut = [window.column("text").to_pylist() for window in worker.cut_windows(batches)]
    assert cut == [["a" * 4, "b" * 4, "c" * 4], ["d" * 25], ["e", "f", "g"]]


def test_windows_of_short_texts_with_much_beside_them_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = documents(["a", "b"])
    monkeypatch.setattr(worker, "WINDOW_BYTES", 2 * batch.nbytes)
    assert [window.num_rows for window in worker.cut_windows([batch] * 5)] == [4, 4, 2]


def test_a_python_error_is_raised_without_its_message_and_is_no_documents_fault(here: Here) -> None:
    """A Python error in the child must be raised without its message, which may quote a document."""
    with pytest.raises(WorkerError, match=r"ZeroDivisionError in the tagging process, at line .* poison_stub") as raised:
        run(here, [*GOOD, poison_stub.BUG])
    shown = "".join(traceback.format_exception(raised.value))
    assert 'poison_stub.py", line' in shown and "ZeroDivisionError: a bug" not in shown
    assert run(here, GOOD)[0]["failure"] is None


def test_an_altered_model_is_refused_by_the_child(here: Here, tmp_path: Path) -> None:
    copied = Path(shutil.copy(DEMO / bundle.LABELS, tmp_path / "labels.json"))
    copied.write_text(copied.read_text() + " ")
    with pytest.raises(ModelError, match=r"labels.json of the model at models/demo has SHA-256"):
        run(Here({**here.names, bundle.LABELS: str(copied)}, here.where, here.manifest), GOOD)


def test_an_altered_detector_is_refused_by_the_child(here: Here, tmp_path: Path) -> None:
    class Detector(ShippedDetector):
        def files(self) -> dict[str, Path]:
            return {name: Path(path) for name, path in self.names.items()}

    (tmp_path / "metadata").write_text("{}")
    detector = Detector({"metadata": str(tmp_path / "metadata")}, "models/sentence_detector", {"metadata": "0" * 64})
    with pytest.raises(ModelError, match=r"metadata of the model at models/sentence_detector has SHA-256"):
        list(Worker(here, detector, RecognitionOptions(Execution(), "dl", trim=True), 60, FACTORY)(iter([documents(GOOD)])))


def test_a_machine_that_cannot_tag_at_all_is_no_documents_fault(here: Here) -> None:
    with pytest.raises(WorkerError, match=r"cannot be started on .*: killed by SIGILL"):
        run(here, GOOD, "poison_stub:broken")


@pytest.mark.slow
def test_many_failures_of_one_task_are_no_documents_fault(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(worker.log, "warning", lambda said, *rest: logged.append(said % rest))
    monkeypatch.setattr(worker, "MAX_FAILED_DOCUMENTS", 2)
    with pytest.raises(WorkerError, match="the tagger crashes or hangs on 3 documents of one task"):
        run(here, [*GOOD, *[poison_stub.KILL] * 5])
    assert f"d{len(GOOD)}, d{len(GOOD) + 1}, " in logged[-1]


def test_the_child_is_kept_from_task_to_task(here: Here) -> None:
    run(here, GOOD)
    first = child_process._children[0]
    run(here, GOOD)
    assert child_process._children == [first]
    run(here, GOOD, FACTORY)
    assert first.closed
    assert first._process.returncode is not None


def test_a_slice_is_packed_alone() -> None:
    batch = documents(["a b c"] * 1000)
    one = batch.slice(500, 1)
    assert child_process.deserialize_batch(child_process.serialize_batch(one)).equals(one)
    assert len(child_process.serialize_batch(one)) < len(child_process.serialize_batch(batch)) / 20


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("entitymill.workers.worker", "openvino delta sparknlp"),
        ("entitymill.dataframe_functions", "openvino delta sparknlp"),
        ("entitymill_sparknlp.engine_sparknlp", "delta sparknlp"),
        ("entitymill.tables.text_masking", "openvino delta sparknlp"),
    ],
)
def test_what_executors_import_needs_no_more_than_this_package(module: str, without: str) -> None:
    """Code for mapInArrow must not need these packages; only a worker's child uses OpenVINO, which is not fork-safe."""
    code = f"import sys; sys.modules.update(dict.fromkeys('{without}'.split())); import {module}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0


def test_the_child_dies_with_its_worker(tmp_path: Path) -> None:
    # The child sleeps while it works, so it does not notice that the connection is closed.
    asleep = tmp_path / "asleep"
    (tmp_path / "sleeper_stub.py").write_text(
        "import pathlib, time\ndef start(path):\n    return lambda batch: (pathlib.Path(path).touch(), time.sleep(600))\n"
    )
    code = (
        "import sys, pyarrow as pa; from entitymill.workers import child_process\n"
        "child = child_process.get_child(child_process.Work('sleeper_stub:start', (sys.argv[1],)))\n"
        "print(child._process.pid, flush=True)\n"
        "child(pa.RecordBatch.from_pydict({'a': [1]}), 600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)])}
    parent = subprocess.Popen([sys.executable, "-c", code, str(asleep)], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert within_seconds(asleep.exists)
    parent.kill()
    parent.wait()
    died = within_seconds(lambda: not alive(child))
    if not died:
        os.kill(child, signal.SIGKILL)
    assert died


def within_seconds(happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.05)
    return happened()


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_longest_text_with_the_longest_limit_is_waited_for(here: Here) -> None:
    largest = pa.RecordBatch.from_pydict({"chars": [100_000_000]})
    limit = Worker(here, NO_DETECTOR, RUN, DAY, FACTORY)._compute_time_limit(largest)
    ours, theirs = multiprocessing.Pipe()
    theirs.send("done")
    assert ours.poll(limit) and limit > DAY
