"""A child process for what may crash or hang, so that the Python worker it belongs to survives and can tell who did it.

It is a new program, not a fork: OpenVINO's threads do not survive one. Batches go to it and come back as Arrow IPC messages.
It dies with its worker: the kernel kills it, and its connection ends.
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
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entitymill.errors import EntityMillError, ModelError, WorkerError, is_rust_panic
from entitymill.recognition import model_loading

if TYPE_CHECKING:
    import pyarrow as pa

CRASHED, TIMED_OUT = "tagger_crashed", "tagger_timed_out"
START_SECONDS = 600.0
"""A child may take so long to load its model and to try it."""
_DEATH_SECONDS = 30.0
_LATE = object()
_OUT_OF_MEMORY = 137
_PANICKED = 101
"""What a program in Rust ends with when it panics."""
_DEATHS = {_OUT_OF_MEMORY: "out of memory", _PANICKED: "a package in Rust panicked"}
_NOT_THE_FILES_FAULT = ("killed by SIGKILL", "killed by SIGTERM", "killed by SIGILL")
"""Ways to die that say nothing of the file being loaded: the system's or a person's choice, or another processor."""
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
    """What a child does.

    factory: `module:function`; called once in the child with `arguments`, it returns what takes one batch to another. It
        tries what it made on something harmless: a child that dies in it says that the machine is at fault.
    arguments: can be pickled, and compared.
    quiet: whether nothing that the child writes to stderr is shown: what C++ and Rust say before they abort.
    prints: whether the child writes to this process's stdout; otherwise what it prints goes to stderr.
    """

    factory: str
    arguments: tuple[Any, ...]
    quiet: bool = False
    prints: bool = False


@dataclass(frozen=True)
class _Loading:
    """What a child sends before it loads a file of a model, and with no file after that."""

    file: str


class LostError(Exception):
    """A child died or was killed over a batch: `code` is CRASHED or TIMED_OUT, `detail` says how, without text."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


class Child:
    """A child process that is ready for work."""

    def __init__(self, work: Work, seconds: float = START_SECONDS) -> None:
        """Start it, and wait until it is ready, at most so many seconds.

        Raises:
            ModelError: a file of the model crashes it.
            WorkerError: it dies of something else, or is not ready in time.
            Exception: whatever the factory raised.
        """
        self.work = work
        self.closed = False
        self._file = ""
        self._connection, theirs = Pipe()
        with theirs:
            arguments = [json.dumps(sys.path), str(theirs.fileno()), str(os.getpid())]
            self._process = subprocess.Popen(  # noqa: S603  # this very interpreter
                [sys.executable, "-c", _BOOT, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=None if work.prints else 2,  # a Spark worker's own may be a channel to the JVM
                stderr=subprocess.DEVNULL if work.quiet else None,
                # Else tokenizers starts as many threads as the machine has cores, in each child.
                env={"RAYON_NUM_THREADS": "1", **os.environ},
                pass_fds=[theirs.fileno()],
            )
        import pyarrow as pa  # noqa: F401, PLC0415  # for the first batch: now, while the child does the same

        try:
            self._ask(lambda: self._connection.send(work), seconds)
        except LostError as lost:
            raise self._start_failure(lost) from lost

    def __call__(self, batch: pa.RecordBatch, seconds: float) -> pa.RecordBatch:
        """Have one batch worked on. Whatever is raised, this child is no more.

        Args:
            batch: to work on.
            seconds: that it may take.

        Raises:
            LostError: the child died, or took longer.
            Exception: whatever the work raised in it.
        """
        return unpacked(self._ask(lambda: self._connection.send_bytes(packed(batch)), seconds))

    def close(self) -> None:
        """End it."""
        self.closed = True
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _ask(self, send: Callable[[], None], seconds: float) -> Any:
        """The answer to one message. None must ever be left behind: it would be taken for that to the next one."""
        try:
            send()
            answer = self._receive(time.monotonic() + seconds)
        except (EOFError, OSError):
            death = self._death()
            self.close()
            raise LostError(CRASHED, death) from None
        except BaseException:
            self.close()
            raise
        if answer is _LATE:
            answer = LostError(TIMED_OUT, f"no answer in {seconds:g} s")
        if isinstance(answer, Exception):
            self.close()
            raise answer
        return answer

    def _receive(self, deadline: float) -> Any:
        """The next answer, or _LATE. Names of files that the child loads may come before it."""
        while self._connection.poll(max(0.0, deadline - time.monotonic())):
            answer = self._connection.recv()
            if not isinstance(answer, _Loading):
                return answer
            self._file = answer.file
        return _LATE

    def _start_failure(self, lost: LostError) -> EntityMillError:
        """The error for a child that was lost before it was ready."""
        if self._file and lost.code == CRASHED and lost.detail not in _NOT_THE_FILES_FAULT:
            return ModelError(
                f"{self._file} crashes the process that loads it ({lost.detail}): it is damaged or made to do harm; copy "
                "the model again, from where it can be trusted."
            )
        return WorkerError(
            f"The tagger cannot be started on {platform.node()}, or fails on a harmless sentence: {lost.detail}."
        )

    def _death(self) -> str:
        try:
            code = self._process.wait(_DEATH_SECONDS)
        except subprocess.TimeoutExpired:
            return "it hung up"
        if code in _DEATHS:
            return _DEATHS[code]
        return f"killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_children: list[Child] = []


def child(work: Work) -> Child:
    """This process's child: started for the first batch that needs it, kept for the next ones and the next tasks.

    Raises:
        WorkerError: it cannot be started.
        Exception: whatever the factory raised.
    """
    if not _children or _children[0].closed or _children[0].work != work:
        while _children:
            _children.pop().close()
        _children.append(Child(work))
    return _children[0]


def packed(batch: pa.RecordBatch) -> bytes:
    """A batch, of a slice no more than the slice, as an Arrow IPC stream."""
    import pyarrow as pa  # noqa: PLC0415  # see `Child`

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def unpacked(content: bytes) -> pa.RecordBatch:
    """The batch that was packed."""
    import pyarrow as pa  # noqa: PLC0415  # see `Child`

    with pa.ipc.open_stream(content) as reader:
        return reader.read_next_batch()


def serve(descriptor: int, parent: int) -> None:
    """What the child does until its worker hangs up.

    Args:
        descriptor: of its connection.
        parent: the worker's process id.
    """
    _prepare(parent)
    with Connection(descriptor) as connection:
        try:
            work: Work = connection.recv()
            model_loading.report_files_to(lambda file: connection.send(_Loading(file)))
            module, _, name = work.factory.partition(":")
            tag: Batch = _answer(connection, lambda: getattr(importlib.import_module(module), name)(*work.arguments))
            connection.send(None)
            while True:
                content = connection.recv_bytes()
                connection.send(_answer(connection, lambda content=content: packed(tag(unpacked(content)))))  # type: ignore[misc]
        except (EOFError, ConnectionError):
            return


def _answer(connection: Connection, make: Callable[[], Any]) -> Any:
    """What was made; an error goes to the worker, with its stack trace as a note, and ends this process."""
    try:
        return make()
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001  # a bug or an altered model: for the worker to raise
        trace = "".join(traceback.format_exception(error))
        error.add_note(f"In the tagger's process:\n{trace}")
        try:
            connection.send(error)
        except (TypeError, AttributeError, ValueError, pickle.PicklingError):  # it cannot be pickled
            connection.send(RuntimeError(f"{type(error).__name__} in the tagger's process:\n{trace}"))
        os._exit(0)
    except BaseException as error:
        if is_rust_panic(error):
            os._exit(_PANICKED)
        raise


def _prepare(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the worker too, which ends this process
    ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        os._exit(0)
    # A core file would hold text.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Of this executor's processes this one can be spared. To lower the score would need a privilege.
    score = Path("/proc/self/oom_score_adj")
    with suppress(OSError):
        score.write_text(str(max(_SPARED_SCORE, int(score.read_text(encoding="ascii")))), encoding="ascii")
