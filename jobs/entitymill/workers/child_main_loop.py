"""Run the main loop of a child process, which receives batches from its parent and returns results (see `child_process`)."""

from __future__ import annotations

import ctypes
import importlib
import os
import pickle
import resource
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from entitymill.errors import EntityMillError, hide_message, is_rust_panic
from entitymill.recognition import model_loading_limits
from entitymill.workers.child_process import (
    OUT_OF_MEMORY,
    PANICKED,
    BatchFunction,
    Loading,
    Work,
    deserialize_batch,
    serialize_batch,
)

_OOM_SCORE = 800
"""Out-of-memory score of a child: high, so that the kernel kills the child before the executor's other processes."""
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_OUT_OF_MEMORY_TEXTS = ("bad_alloc", "Failed to allocate", "out_of_memory")
"""Parts of error messages by which OpenVINO and oneDNN report that memory ran out; they raise no MemoryError."""


def serve(descriptor: int, parent: int) -> None:
    """Receive a `Work` from the parent, call its factory, and process batches until the parent closes the connection.

    While the factory runs, the parent gets a `Loading` message whenever the loading of a model file begins or ends. When the
    factory has succeeded, the parent gets None. It then gets the result of each batch. If the factory or a batch fails, the
    parent usually gets the error, and this process ends (see `_run_or_send_error`).

    Args:
        descriptor: file descriptor of the connection to the parent.
        parent: process id of the parent.
    """
    _prepare_process(parent)
    with Connection(descriptor) as connection:
        try:
            work: Work = connection.recv()
            model_loading_limits.report_files_to(lambda file: connection.send(Loading(file)))
            module, _, name = work.factory.partition(":")
            tag: BatchFunction = _run_or_send_error(
                connection, lambda: getattr(importlib.import_module(module), name)(*work.arguments)
            )
            connection.send(None)
            while True:
                content = connection.recv_bytes()
                run = partial(_tag_serialized, tag, content)
                connection.send(_run_or_send_error(connection, run, hides_message=True))
        except (EOFError, ConnectionError):
            return


def _tag_serialized(tag: BatchFunction, content: bytes) -> bytes:
    """Deserialize a batch, call the function `tag` with it, and return the serialized result."""
    return serialize_batch(tag(deserialize_batch(content)))


def _run_or_send_error(connection: Connection, make: Callable[[], Any], *, hides_message: bool = False) -> Any:
    """Call the function `make` and return its result; if it fails, send the error to the parent, and end this process.

    If memory runs out or Rust code panics, no error is sent, and the parent sees only the exit code. With `hides_message`,
    an error that is not an EntityMillError is replaced by a WorkerError, which names the type and omits the message. The
    message may quote a document, and Spark would log it. An error that cannot be pickled is replaced by a RuntimeError.
    """
    try:
        return make()
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001  # a bug or an altered model; the parent raises the error
        if any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS):
            os._exit(OUT_OF_MEMORY)
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
            os._exit(PANICKED)
        raise


def _prepare_process(parent: int) -> None:
    """Make this process end with its parent, ignore Ctrl-C, write no core file, and be killed first if memory runs out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent also receives Ctrl-C, and ends this process
    ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before prctl took effect
        os._exit(0)
    # A core file would contain text of documents.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # If memory runs out, the kernel should kill this process, which can be restarted, not the executor's other processes.
    # A score that is already higher is kept, because lowering a score needs a privilege.
    score = Path("/proc/self/oom_score_adj")
    with suppress(OSError):
        score.write_text(str(max(_OOM_SCORE, int(score.read_text(encoding="ascii")))), encoding="ascii")
