"""Run code that may crash or hang in a child process, so that the Python worker survives and can name the document.

The child is a new program, not a fork, because OpenVINO's threads do not survive a fork. Batches are sent in both directions
as Arrow IPC messages. If the worker ends, the kernel kills the child, and the connection between the two is closed.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pickle
import platform
import resource
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entitymill.errors import EntityMillError, ModelError, WorkerError, hide_message, is_rust_panic
from entitymill.recognition import model_loading

if TYPE_CHECKING:
    import pyarrow as pa

CRASHED, TIMED_OUT = "tagger_crashed", "tagger_timed_out"
START_SECONDS = 600.0
"""Time limit, in seconds, for a child to load its model and to test it."""
_DEATH_SECONDS = 30.0
_OUT_OF_MEMORY = 137
_NO_MEMORY = "bad_alloc"
"""C++'s name for a MemoryError, in errors of OpenVINO."""
_PANICKED = 101
"""Exit code of a Rust program that panics."""
_DEATHS = {_OUT_OF_MEMORY: "out of memory", _PANICKED: "a package in Rust panicked"}
_NOT_THE_FILES_FAULT = ("killed by SIGKILL", "killed by SIGTERM", "killed by SIGILL")
"""Causes of death that do not show a fault of the file being loaded: the system, a person, or an unsupported processor."""
_SPARED_SCORE = 800
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from entitymill.workers import isolation
isolation.serve(int(sys.argv[2]), int(sys.argv[3]))
"""

Batch = Callable[["pa.RecordBatch"], "pa.RecordBatch"]


@dataclass(frozen=True)
class Work:
    """The work of a child process.

    factory: `module:function`. The child calls this function once with `arguments`. It returns the function that turns each
        batch into a result, and should test it on harmless input: a crash in the factory is not blamed on a document.
    arguments: arguments of the factory, which must support pickling and comparison.
    quiet: whether to discard the child's stderr, to which C++ and Rust libraries write before they abort.
    prints: whether the child writes to this process's stdout; otherwise the child's stdout goes to stderr.
    """

    factory: str
    arguments: tuple[Any, ...]
    quiet: bool = False
    prints: bool = False


@dataclass(frozen=True)
class _Loading:
    """A message from a child: it is about to load a file of a model or, if `file` is empty, it has finished loading."""

    file: str


class LostError(Exception):
    """A child died or was killed. `code` is CRASHED or TIMED_OUT, and `detail` says how, without text of documents."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


class Child:
    """A child process that is ready for work."""

    def __init__(self, work: Work, seconds: float = START_SECONDS) -> None:
        """Start a child process, and wait at most `seconds` until it is ready.

        Raises:
            ModelError: a file of the model crashes the child.
            WorkerError: the child dies for another reason, or is not ready in time.
            Exception: any error that the factory raised.
        """
        self.work = work
        self.closed = False
        self._file = ""
        self._connection, theirs = Pipe()
        with theirs:
            arguments = [json.dumps(sys.path), str(theirs.fileno()), str(os.getpid())]
            self._process = subprocess.Popen(  # noqa: S603  # the current interpreter
                [sys.executable, "-c", _BOOT, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=None if work.prints else 2,  # a Spark worker's stdout may be a channel to the JVM
                stderr=subprocess.DEVNULL if work.quiet else None,
                # Otherwise tokenizers starts a thread per core of the machine in each child.
                env={"RAYON_NUM_THREADS": "1", **os.environ},
                pass_fds=[theirs.fileno()],
            )
        import pyarrow as pa  # noqa: F401, PLC0415  # needed for the first batch; imported now, while the child starts

        try:
            self._request(lambda: self._connection.send(work), seconds)
        except LostError as lost:
            raise self._describe_start_failure(lost) from lost

    def __call__(self, batch: pa.RecordBatch, seconds: float) -> pa.RecordBatch:
        """Send one batch to the child, and return the result. After an exception, the child is closed.

        Args:
            batch: the batch to process.
            seconds: time limit for the result.

        Raises:
            LostError: the child died, or exceeded the time limit.
            Exception: any error that the child raised while it processed the batch.
        """
        return deserialize_batch(self._request(lambda: self._connection.send_bytes(serialize_batch(batch)), seconds))

    def close(self) -> None:
        """Kill the child process."""
        self.closed = True
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _request(self, send: Callable[[], None], seconds: float) -> Any:
        """Send one message and return the child's answer. After an error, close the child, so no late answer is read.

        The time limit covers sending, waiting and receiving: when it ends, the child is killed, which ends all three.
        """
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._process.kill()

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            send()
            answer = self._receive()
        except (EOFError, OSError):
            lost = LostError(CRASHED, self._describe_death())
            if expired.is_set():
                lost = LostError(TIMED_OUT, f"no answer in {seconds:g} s")
            self.close()
            raise lost from None
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()
        if isinstance(answer, Exception):
            self.close()
            raise answer
        return answer

    def _receive(self) -> Any:
        """Return the next answer, and remember the file that the child is loading, which it reports before the answer."""
        while isinstance(answer := self._connection.recv(), _Loading):
            self._file = answer.file
        return answer

    def _describe_start_failure(self, lost: LostError) -> EntityMillError:
        """Return the error for a child that was lost before it was ready."""
        if self._file and lost.code == CRASHED and lost.detail not in _NOT_THE_FILES_FAULT:
            return ModelError(
                f"{self._file} crashes the process that loads it ({lost.detail}): it is damaged or made to do harm; copy "
                "the model again, from where it can be trusted."
            )
        return WorkerError(f"The tagger cannot be started on {platform.node()}, or fails on a test sentence: {lost.detail}.")

    def _describe_death(self) -> str:
        try:
            code = self._process.wait(_DEATH_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if code in _DEATHS:
            return _DEATHS[code]
        return f"killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_children: list[Child] = []


def get_child(work: Work) -> Child:
    """Return this process's child for the given work. It is started if necessary, and reused by later batches and tasks.

    Raises:
        ModelError, WorkerError: the child cannot be started.
        Exception: any error that the factory raised.
    """
    if not _children or _children[0].closed or _children[0].work != work:
        while _children:
            _children.pop().close()
        _children.append(Child(work))
    return _children[0]


def serialize_batch(batch: pa.RecordBatch) -> bytes:
    """Serialize a batch as an Arrow IPC stream. If the batch is a slice of a larger one, only the slice is serialized."""
    import pyarrow as pa  # noqa: PLC0415  # see `Child`

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def deserialize_batch(content: bytes) -> pa.RecordBatch:
    """Deserialize a batch from an Arrow IPC stream."""
    import pyarrow as pa  # noqa: PLC0415  # see `Child`

    with pa.ipc.open_stream(content) as reader:
        return reader.read_next_batch()


def serve(descriptor: int, parent: int) -> None:
    """Run the child: process the worker's batches until the worker closes the connection.

    Args:
        descriptor: file descriptor of the connection to the worker.
        parent: process id of the worker.
    """
    _prepare_process(parent)
    with Connection(descriptor) as connection:
        try:
            work: Work = connection.recv()
            model_loading.report_files_to(lambda file: connection.send(_Loading(file)))
            module, _, name = work.factory.partition(":")
            tag: Batch = _run_or_send_error(
                connection, lambda: getattr(importlib.import_module(module), name)(*work.arguments)
            )
            connection.send(None)
            while True:
                content = connection.recv_bytes()
                run = partial(_tag_serialized, tag, content)
                connection.send(_run_or_send_error(connection, run, hides_message=True))
        except (EOFError, ConnectionError):
            return


def _tag_serialized(tag: Batch, content: bytes) -> bytes:
    return serialize_batch(tag(deserialize_batch(content)))


def _run_or_send_error(connection: Connection, make: Callable[[], Any], *, hides_message: bool = False) -> Any:
    """Return the result of `make`. If `make` fails, send the error to the worker, and exit.

    With `hides_message`, the message of another package's error is not sent: it may quote a document, and Spark logs it.
    """
    try:
        return make()
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001  # a bug or an altered model; the worker raises the error
        if _NO_MEMORY in str(error):
            os._exit(_OUT_OF_MEMORY)
        error = hide_message(error) if hides_message and not isinstance(error, EntityMillError) else error
        trace = "".join(traceback.format_exception(error))
        error.add_note(f"In the tagger's process:\n{trace}")
        try:
            connection.send(error)
        except (TypeError, AttributeError, ValueError, pickle.PicklingError):  # the error cannot be pickled
            connection.send(RuntimeError(f"{type(error).__name__} in the tagger's process:\n{trace}"))
        os._exit(0)
    except BaseException as error:
        if is_rust_panic(error):
            os._exit(_PANICKED)
        raise


def _prepare_process(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the worker too, which ends this process
    ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # the worker died before prctl took effect
        os._exit(0)
    # A core file would contain text of documents.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # If memory runs out, the kernel should kill this process, which can be restarted, rather than others of the executor.
    # Lowering the score would need a privilege, so the score is never lowered.
    score = Path("/proc/self/oom_score_adj")
    with suppress(OSError):
        score.write_text(str(max(_SPARED_SCORE, int(score.read_text(encoding="ascii")))), encoding="ascii")
