"""Limit the memory and disk space that a model may use; if it cannot be loaded, raise an error that names the file.

A damaged file may crash the C++ and Rust libraries that read a model. So a process that loads a model reports to its parent
process which file it is reading (`report_files_to`). If the process crashes, its parent can name the file in an error
(see `workers.child_process`). The limits protect against malicious models.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from entitymill.errors import ModelError, is_rust_panic
from entitymill.recognition import hardware

MAX_UNPACKED_FILES = 10_000
MAX_UNPACKED_BYTES = 16 * 2**30
"""Maximum number and total size in bytes of a model's unpacked files, including the files of nested archives."""
MAX_UNPACKED_RATIO = 200
"""Maximum ratio of the total size of a model's unpacked files to the size of its archive. Real models need far less."""
UNPACKED_BASE_BYTES = 2**20
"""Bytes added to the limit that follows from MAX_UNPACKED_RATIO, so that small archives are not rejected."""
MAX_DETECTOR_FILE_BYTES = 64 * 2**20
"""Maximum size of each unpacked file in a saved sentence detector's zip archive, the file generic_classifier_tensorflow. The
largest in models/sentence_detector has 0.6 MB."""
MAX_DETECTOR_TABLE_BYTES = 256 * 2**20
"""Maximum size, in memory, of the look-up tables computed from a sentence detector's network. The tables of
models/sentence_detector take 0.15 MB."""
MAX_DETECTOR_CHARACTERS = 2**16
"""Maximum number of character ids of a sentence detector, since 16 bits are used for an id."""
MAX_JAVA_DEPTH = 100
"""Maximum nesting depth of Java objects in a file of a saved Spark NLP model; a tokenizer's rules have a depth of 12."""
MAX_SUPERCLASSES = 10
"""Maximum number of superclasses of a Java class in such a file; real models have at most three."""
MAX_LABEL_CHARACTERS = 100
MAX_LABEL_BYTES = 240
"""Maximum length of a label, in characters and in bytes. The label becomes part of the name of a directory, `label=NAME`,
which may have at most 255 bytes."""
_LOADING_BASE_BYTES = 2 * 2**30
_LOADING_BYTES_PER_CORE = 32 * 2**20
"""Bytes of memory that loading a model may take per core, for threads: OpenVINO, Arrow and NumPy each start a thread per
core, and a thread has a stack of 8 MB."""
_LOADING_RATIO = 24
"""Bytes of memory that loading a model may take for each byte of its files, since 8-bit weights become floats and are then
repacked. The model in models/demo takes 10 times the size of its files."""
_TAGGING_BYTES_PER_CHARACTER = 512
"""Bytes of memory that a process may use to tag texts, per character of text. News texts need a tenth of this number."""
_TAGGING_BASE_BYTES = 2**30
_MIN_TAGGING_BYTES = 256_000_000
_TAGGING_SHARE = 4
"""In a container with a memory limit, each process may use at most a quarter of its share of the limit to tag texts, but
always _MIN_TAGGING_BYTES. For one batch of texts, models/demo needs 75 MB, and DistilBERT-base in f32 needs 120 MB."""
_MEGABYTE = 1_000_000
_STATUS = Path("/proc/self/status")
_FAILURES = (
    EOFError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError, AssertionError,
)  # fmt: skip
"""Errors that OpenVINO, NumPy and this program's own readers raise if a file does not contain what they expect."""
_listeners: list[Callable[[str], None]] = []
"""At most one listener: the one that was last passed to `report_files_to`."""
_files: list[str] = [""]
"""A stack of what is being loaded: first "", which stands for nothing, then a model, and then a file of the model."""


def report_files_to(listener: Callable[[str], None]) -> None:
    """Make this process call `listener` whenever it begins or ends loading a model or one of a model's files.

    The listener gets the path or URI of what is being loaded now. When a file of a model has been loaded, the listener
    gets the path or URI of the model again, and after the model it gets "". A listener from an earlier call is removed.
    """
    _listeners[:] = [listener]


@contextmanager
def report_loading(file: str) -> Iterator[None]:
    """Report to the listener of `report_files_to` that the `with` block loads `file`, a path or URI.

    `file` is a model or a file of a model. If this process crashes inside the block, its parent process raises an error that
    names `file`.
    """
    _files.append(file)
    _report_file()
    try:
        yield
    finally:
        _files.pop()
        _report_file()


@contextmanager
def convert_loading_errors(file: str) -> Iterator[None]:
    """Raise a ModelError that names `file`, a path or URI, if the `with` block fails because the file is damaged.

    The ModelError replaces a MemoryError, an error listed in _FAILURES (such as a ValueError), or a panic (crash) of Rust
    code. All other errors, such as an OSError, are raised unchanged. The file is also reported to the parent process, as in
    `report_loading`.
    """
    try:
        with report_loading(file):
            yield
    except MemoryError as error:
        raise ModelError(
            f"Loading {file} needs far more memory than a model of its size should: the file is damaged or malicious. Copy "
            "the model again from a source that you trust."
        ) from error
    except BaseException as error:
        if not (isinstance(error, _FAILURES) or is_rust_panic(error)):
            raise
        raise ModelError(
            f"{file} cannot be loaded: it is damaged, or does not fit the model's other files. Copy the model again, or "
            "prepare it again."
        ) from error


def _report_file() -> None:
    """Call the listener that was passed to `report_files_to`, if any, with the file that is being loaded."""
    for listener in _listeners:
        listener(_files[-1])


def limit_memory(limit: int) -> None:
    """Limit this process to `limit` bytes of memory; exceeding the limit raises a MemoryError or ends the process.

    A lower limit that was set earlier stays in force. The limit applies to private writable memory (RLIMIT_DATA). A limit on
    address space would also count OpenVINO's mapped weights and memory that allocators reserve but never touch.
    """
    current, highest = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = limit if current == resource.RLIM_INFINITY else min(limit, current)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, highest))


@contextmanager
def limited_memory(limit: int) -> Iterator[None]:
    """Limit this process to `limit` bytes of memory, as `limit_memory` does, until the `with` block ends."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit_memory(limit)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def compute_loading_limit(files: Iterable[Path]) -> int:
    """Return how many bytes of memory a process may use to load a model with these files; missing files are ignored.

    The result is a base amount (2 GiB, and 32 MiB per core) plus 24 times the size of the files. Since a sparse file may
    claim any size, the result is at most this machine's memory. But it is never less than the base amount.
    """
    size = sum(file.stat().st_size for file in files if file.is_file())
    base = _LOADING_BASE_BYTES + _LOADING_BYTES_PER_CORE * (os.cpu_count() or 1)
    return min(base + _LOADING_RATIO * size, max(base, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))


def compute_tagging_limit(
    characters: int, megabytes: int | None = None, processes: int | None = None, share: int | None = None
) -> int:
    """Return how many bytes of memory a process may use to tag texts, in addition to its loaded model.

    If `megabytes` is set, the result is that many megabytes, whatever the other arguments are. If it is None, the result is
    1 GiB plus 512 bytes per character, or less if this container has a memory limit or `share` is set.

    Args:
        characters: total number of characters in the texts.
        megabytes: the limit in MB from the `limits.tagger_mb` setting; None to compute it.
        processes: how many processes tag texts in this container at once; None for one per core, as on a Spark executor.
            Ignored if `share` is set.
        share: bytes of the container's memory for this process; None to divide the container's memory limit, if any, equally
            among the processes. The result is at most a quarter of the share, but 256 MB are always allowed.
    """
    if megabytes is not None:
        return megabytes * _MEGABYTE
    enough = _TAGGING_BASE_BYTES + _TAGGING_BYTES_PER_CHARACTER * characters
    if share is None:
        container = hardware.read_memory_limit()
        if container is None:
            return enough
        share = container // (processes or hardware.count_cores())
    return min(enough, max(_MIN_TAGGING_BYTES, share // _TAGGING_SHARE))


def read_used_memory() -> int:
    """Return the bytes of private writable memory that this process uses (VmData in proc(5)); see `limit_memory`."""
    return next(int(line.split()[1]) * 1024 for line in _STATUS.read_text().splitlines() if line.startswith("VmData:"))


def read_limited(file: Path, limit: int) -> str:
    """Return the text of a file in UTF-8.

    Raise ValueError if the file has more than `limit` bytes or is not UTF-8, and OSError if it cannot be read.
    """
    with file.open("rb") as opened:
        content = opened.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{file.name} has more than {limit:,} bytes")
    return content.decode("utf8")


def list_model_files(source: Path) -> list[Path]:
    """Return the files and directories directly in a local model directory; return [source] if `source` is no directory."""
    return list(source.iterdir()) if source.is_dir() else [source]
