"""Run code in a child process if it may crash or hang, so that the parent survives and knows which batch is the cause.

The parent is either a Python worker of Spark, or a command such as `entitymill tag`. The child is a new Python interpreter,
not a fork, because OpenVINO's threads do not survive a fork. Batches and results are sent as Arrow IPC streams. If the
parent ends, the kernel kills the child.
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
"""Size, in code points, of a window (the batch of documents that is sent to a child at once). A window has about 1,024
sentences, which are enough for the tagger to run efficiently."""
START_SECONDS = 600.0
"""Time limit, in seconds, for a child to start, to load its model and to test the model."""
_EXIT_SECONDS = 30.0
"""Seconds that the parent waits for the exit code of a child whose connection is closed."""
OUT_OF_MEMORY = 137
"""Exit code of a child that ran out of memory."""
PANICKED = 101
"""Exit code of a child in which Rust code panicked (failed with an unrecoverable error); Rust programs use the same code."""
_EXIT_REASONS = {OUT_OF_MEMORY: "out of memory", PANICKED: "a package in Rust panicked"}
_ENDS_NOT_CAUSED_BY_FILE = ("killed by SIGKILL", "killed by SIGTERM", "killed by SIGILL")
"""Values of `ChildLostError.detail` that do not blame the file being loaded: the system or a person killed the child, or the
processor lacks an instruction."""
_BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from entitymill.workers import child_main_loop
child_main_loop.serve(int(sys.argv[2]), int(sys.argv[3]))
"""

BatchFunction = Callable[["pa.RecordBatch"], "pa.RecordBatch"]
"""Type of the function that a child calls for each batch of documents; the function returns the rows of results."""


def cut_texts(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
    """Split texts into lists of consecutive texts; a list ends as soon as its texts have `characters` code points or more.

    The texts of the last list may have fewer code points.
    """
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
    """What a child process runs, and where its output goes.

    factory: name of a function, as `module:function`. The child calls it once, with `arguments`. The factory returns a
        second function, which the child calls for each batch, and which returns the batch's result. The factory should test
        the second function on harmless input, so that no document is blamed if every input crashes the child.
    arguments: arguments of the factory, which must support pickling and comparison.
    quiet: whether to discard the child's stderr, to which C++ and Rust libraries write before they abort.
    prints: True to send the child's stdout to the parent's stdout, False to send it to the parent's stderr.
    """

    factory: str
    arguments: tuple[Any, ...]
    quiet: bool = False
    prints: bool = False


@dataclass(frozen=True)
class Loading:
    """A message in which a child tells its parent which model or file it is loading now; `file` is empty if none."""

    file: str


class ChildLostError(Exception):
    """Raised if a child process died, or was killed because it exceeded a time limit.

    `code` is the reject code CRASHED or TIMED_OUT. `detail` says how the child ended, such as "killed by SIGKILL"; it never
    contains text of documents.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    @property
    def timed_out(self) -> bool:
        """Whether the child exceeded a time limit."""
        return self.code == TIMED_OUT

    @property
    def suggests_lack_of_memory(self) -> bool:
        """Whether the child ran out of memory, or was killed by SIGKILL, as the kernel does when memory runs out."""
        return self.code == CRASHED and self.detail in (_EXIT_REASONS[OUT_OF_MEMORY], "killed by SIGKILL")


class Child:
    """A child process that has called the factory of its `Work`, and processes batches, one after the other.

    work: the `Work` with which the child was started.
    closed: whether this object has killed the child process (in `close` or after an error), and cannot be used again.
    """

    def __init__(self, work: Work, seconds: float = START_SECONDS) -> None:
        """Start a child process, and wait at most `seconds` until it has called the factory of `work`.

        Raises:
            ModelError: a file of the model crashes the child.
            WorkerError: the child cannot be started, dies for another reason, or is not ready in time.
            Exception: any error that the factory raised; a RuntimeError replaces an error that cannot be pickled.
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
                advice = (
                    "give this machine more memory, or allow more processes"
                    if short
                    else f"check that {sys.executable} can be executed"
                )
                raise WorkerError(f"The tagger cannot be started: {error.strerror or error}; {advice}.") from error
        import pyarrow as pa  # noqa: F401, PLC0415  # needed for the first batch; imported now, while the child starts

        try:
            self._request(lambda: self._connection.send(work), seconds)
        except ChildLostError as lost:
            raise self._describe_start_failure(lost) from lost

    def __call__(self, batch: pa.RecordBatch, seconds: float) -> pa.RecordBatch:
        """Send one batch to the child, wait at most `seconds` for the result, and return it.

        If this method raises an exception, it has killed the child. Then this object cannot be used again.

        Raises:
            ChildLostError: the child died, or exceeded the time limit.
            EntityMillError: the function for batches failed in the child; a WorkerError replaces other types of errors.
        """
        return deserialize_batch(self._request(lambda: self._connection.send_bytes(serialize_batch(batch)), seconds))

    def close(self) -> None:
        """Kill the child process, and wait until it has ended."""
        self.closed = True
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _request(self, send: Callable[[], None], seconds: float) -> Any:
        """Call the function `send`, which sends one message to the child, and return the child's answer.

        If the answer is an exception, raise it. If the child dies, or has not answered after `seconds`, raise a
        ChildLostError. After any error, kill the child: a late answer could be mistaken for a later message's answer.
        """
        expired = threading.Event()

        def expire() -> None:
            """Kill the child, so that waiting for the child's answer ends."""
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
        """Return the child's next message that is not a `Loading`; from each `Loading` before it, only store the file."""
        while isinstance(answer := self._connection.recv(), Loading):
            self._file = answer.file
        return answer

    def _describe_start_failure(self, lost: ChildLostError) -> EntityMillError:
        """Return the error to raise because the child ended before it was ready.

        This is a ModelError if the child crashed while it was loading a file of the model. It is a WorkerError if no file
        was being loaded, the time limit was exceeded, or the end is listed in _ENDS_NOT_CAUSED_BY_FILE.
        """
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
        """Wait at most _EXIT_SECONDS until the child ends, and return how it ended, for `ChildLostError.detail`."""
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its connection, but did not end"
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
    """Return this process's child for `work`; start the child if it is not running.

    Later calls with an equal `work` return the same child. A process has only one child at a time: if `work` differs from
    that of the running child, the running child is killed first.

    Raises:
        ModelError: a file of the model crashes the new child.
        WorkerError: the child cannot be started, dies for another reason, or is not ready in time.
        Exception: any error that the factory raised.
    """
    if not _children or _children[0].closed or _children[0].work != work:
        while _children:
            _children.pop().close()
        _children.append(Child(work))
    return _children[0]


def serialize_batch(batch: pa.RecordBatch) -> bytes:
    """Return a batch as an Arrow IPC stream; if the batch is a slice of a larger batch, the stream has only the slice."""
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
