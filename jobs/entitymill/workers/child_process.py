"""Run code that may crash or hang in a child process, so that the parent survives and knows which batch is the cause.

The parent is a Python worker of Spark or a command, such as `entitymill tag`; this module calls both a worker. The child is
a new program, not a fork, because OpenVINO's threads do not survive a fork. Batches are sent in both directions as Arrow IPC
messages. If the worker ends, the kernel kills the child.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any

from entitymill.errors import EntityMillError, ModelError, WorkerError

if TYPE_CHECKING:
    import pyarrow as pa

CRASHED, TIMED_OUT = "tagger_crashed", "tagger_timed_out"
"""Reject codes of documents whose child process died or exceeded the time limit."""
WINDOW_CHARS = 128 * 1024
"""Size in code points of a window: the batch of documents that is sent to a child at once. This is about 1,024 sentences,
enough to fill the rows into which the tagger packs sentences."""
START_SECONDS = 600.0
"""Time limit, in seconds, for a child to load its model and to test it."""
_EXIT_SECONDS = 30.0
"""Time limit, in seconds, for a child to end after its connection was closed."""
OUT_OF_MEMORY = 137
"""Exit code of a child that ran out of memory."""
PANICKED = 101
"""Exit code of a Rust program that panics."""
_EXIT_REASONS = {OUT_OF_MEMORY: "out of memory", PANICKED: "a package in Rust panicked"}
_ENDS_NOT_CAUSED_BY_FILE = ("killed by SIGKILL", "killed by SIGTERM", "killed by SIGILL")
"""Values of `ChildLostError.detail` that point to the system, a person or the processor, not to the file being loaded."""
_BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from entitymill.workers import child_main_loop
child_main_loop.serve(int(sys.argv[2]), int(sys.argv[3]))
"""

Batch = Callable[["pa.RecordBatch"], "pa.RecordBatch"]
"""The type of the function that a child calls for each batch; the function returns the batch's result."""


def cut_texts(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
    """Split texts into lists of consecutive texts; a list ends as soon as it has `characters` characters in total."""
    window: list[str] = []
    size = 0
    for text in texts:
        window.append(text)
        size += len(text)
        if size >= characters:
            yield window
            window, size = [], 0
    if window:
        yield window


@dataclass(frozen=True)
class Work:
    """The work of a child process.

    factory: name of a function, as `module:function`. The child calls it once, with `arguments`. It returns a second
        function, which turns a batch into a result. It should first test the second function on harmless input, so that no
        document is blamed if every input crashes the child.
    arguments: arguments of the factory, which must support pickling and comparison.
    quiet: whether to discard the child's stderr, to which C++ and Rust libraries write before they abort.
    prints: whether the child prints to this process's stdout; otherwise it prints to this process's stderr.
    """

    factory: str
    arguments: tuple[Any, ...]
    quiet: bool = False
    prints: bool = False


@dataclass(frozen=True)
class Loading:
    """A message from a child: it begins to load `file` or, if `file` is empty, it has finished loading."""

    file: str


class ChildLostError(Exception):
    """Raised if a child process died, or was killed because it exceeded a time limit.

    `code` is CRASHED or TIMED_OUT; `detail` says how the child ended, without text of documents.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    @property
    def timed_out(self) -> bool:
        """Return whether the child exceeded a time limit."""
        return self.code == TIMED_OUT

    @property
    def suggests_lack_of_memory(self) -> bool:
        """Return whether the child ran out of memory, or was killed as the kernel kills a process to free memory."""
        return self.code == CRASHED and self.detail in (_EXIT_REASONS[OUT_OF_MEMORY], "killed by SIGKILL")


class Child:
    """A child process that has called the factory of its `Work`, and turns batches into results, one after the other.

    work: the work for which the child was started.
    closed: whether the child was killed, by `close` or after an error.
    """

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
        self._connection, child_end = Pipe()
        with child_end:
            arguments = [json.dumps(sys.path), str(child_end.fileno()), str(os.getpid())]
            try:
                self._process = subprocess.Popen(  # noqa: S603  # the current interpreter
                    # Without -P, a file json.py in the working directory would be executed.
                    [sys.executable, "-P", "-c", _BOOT, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=None if work.prints else 2,  # a Spark worker's stdout may be a channel to the JVM
                    stderr=subprocess.DEVNULL if work.quiet else None,
                    # Otherwise tokenizers starts a thread per core of the machine in each child.
                    env={"RAYON_NUM_THREADS": "1", **os.environ},
                    pass_fds=[child_end.fileno()],
                )
            except OSError as error:
                self._connection.close()
                short = error.errno in (errno.EAGAIN, errno.ENOMEM)
                advice = "give this machine more memory, or allow it more processes" if short else "check Python"
                raise WorkerError(f"The tagger cannot be started: {error.strerror or error}: {advice}.") from error
        import pyarrow as pa  # noqa: F401, PLC0415  # needed for the first batch; imported now, while the child starts

        try:
            self._request(lambda: self._connection.send(work), seconds)
        except ChildLostError as lost:
            raise self._describe_start_failure(lost) from lost

    def __call__(self, batch: pa.RecordBatch, seconds: float) -> pa.RecordBatch:
        """Send one batch to the child, and return its result, which must arrive within `seconds`.

        After an exception, the child is closed.

        Raises:
            ChildLostError: the child died, or exceeded the time limit.
            Exception: any error that the child raised while it processed the batch.
        """
        return deserialize_batch(self._request(lambda: self._connection.send_bytes(serialize_batch(batch)), seconds))

    def close(self) -> None:
        """Kill the child process, and wait until it has ended."""
        self.closed = True
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _request(self, send: Callable[[], None], seconds: float) -> Any:
        """Send one message to the child, and return its answer; if the answer is an error, raise it.

        If sending, waiting and receiving take more than `seconds`, or if the child dies, raise a ChildLostError. After any
        error, the child is closed, so that no late answer is read.
        """
        expired = threading.Event()

        def expire() -> None:
            """Kill the child, which ends the wait for its answer."""
            expired.set()
            self._process.kill()

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            send()
            answer = self._receive()
        except (EOFError, OSError):
            lost = ChildLostError(CRASHED, self._describe_end())
            if expired.is_set():
                lost = ChildLostError(TIMED_OUT, f"no answer in {seconds:g} s")
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
        """Return the child's next answer, and store the file that the last `Loading` message before it names."""
        while isinstance(answer := self._connection.recv(), Loading):
            self._file = answer.file
        return answer

    def _describe_start_failure(self, lost: ChildLostError) -> EntityMillError:
        """Return the error for a child that ended before it was ready: a ModelError if it crashed while it loaded a file."""
        if self._file and lost.code == CRASHED and lost.detail not in _ENDS_NOT_CAUSED_BY_FILE:
            return ModelError(
                f"{self._file} crashes the process that loads it ({lost.detail}): the file is damaged or malicious. Copy "
                "the model again from a source that you trust."
            )
        return WorkerError(
            f"The tagger cannot be started on {platform.node()}, or fails on a test sentence: {lost.detail}. Check the "
            "memory and the processor of this machine."
        )

    def _describe_end(self) -> str:
        """Return how the child ended, for `ChildLostError.detail`; wait at most _EXIT_SECONDS for it to end."""
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if code in _EXIT_REASONS:
            return _EXIT_REASONS[code]
        return f"killed by {_get_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"


def _get_signal_name(number: int) -> str:
    """Return a signal's name, such as SIGKILL, or `signal N` if Python does not know the number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_children: list[Child] = []


def get_child(work: Work) -> Child:
    """Return this process's child for `work`, and start it if it is not running.

    Later batches and tasks reuse the child. A process has one child at a time: a child for different work is killed first.

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
    """Return a batch as an Arrow IPC stream; if it is a slice of a larger batch, the rest of that batch is not included."""
    import pyarrow as pa  # noqa: PLC0415  # see `Child`

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def deserialize_batch(content: bytes) -> pa.RecordBatch:
    """Read an Arrow IPC stream, and return the one batch that it contains."""
    import pyarrow as pa  # noqa: PLC0415  # see `Child`

    with pa.ipc.open_stream(content) as reader:
        return reader.read_next_batch()
