"""Read and write files on any file system of Spark's Hadoop client: local, s3a, abfss, dbfs, Volumes, hdfs.

All functions that access a storage also raise StorageError if the storage does not answer or rejects the credentials. With
Spark Connect, files can only be read; the module `spark_connect` describes the other differences.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from entitymill.errors import StorageError, strip_quoted_values
from entitymill.spark import session, spark_connect
from entitymill.spark.files_on_this_machine import exists_here, find_in_clone, open_private_directory
from entitymill.spark.sql_text import escape_pattern

_confs: WeakKeyDictionary[SparkSession, Any] = WeakKeyDictionary()
"""Dict from a session to its Hadoop configuration, cached because Spark copies a thousand properties to create one."""
_CREDENTIALS = re.compile(
    r"SignatureDoesNotMatch|InvalidAccessKeyId|NoAuthWithAWSException|No AWS Credentials|AccessDeniedException: (?:s3a?|abfss?|gs)://"
    r"|Status Code: 40[13]|AuthenticationFailed|AuthorizationFailure|ExpiredToken|invalid_grant"
)
_NO_ANSWER = re.compile(
    r"Unable to execute HTTP request: (?P<reason>[^\n]{1,160}?)(?:\n|$)"
    r"|(?:ConnectException|ConnectTimeoutException|SocketTimeoutException|UnknownHostException|NoHttpResponseException"
    r"|NoRouteToHostException)(?:: (?P<other>[^\n]{1,160}?))?(?:\n|$)"
)
_FAILING = re.compile(r"AWSStatus5\d\d|Status Code: 5\d\d|AWSServiceThrottled")
_CLIENTS = re.compile(
    r"org\.apache\.hadoop\.(?:fs|hdfs|net)\.|com\.amazonaws|com\.google\.cloud\.hadoop|(?:s3a?|abfss?|gs)://"
)
"""Matches names of storage clients in an error. A network error without such a name may be due to a lost executor."""
_ADDRESS = re.compile(r"\b(?:s3a?|s3n|abfss?|wasbs?|gs)://[^\s:,;)]+")
_ROOT = re.compile(r"\w+://[^/]*")
_REASON = re.compile(r"Connection re(?:fused|set)|[Tt]imed out|[Nn]o route to host|UnknownHost|Name or service not known")
_roots: set[str] = set()
"""Scheme and bucket of each URI that this program has used, such as `s3a://b`. Messages about a failed Spark task quote only
these from the task's error, because the rest of the error may contain text of a document."""


def forget_configuration(spark: SparkSession) -> None:
    """Discard the cached Hadoop configuration of a session; call this after the session's properties have changed."""
    _confs.pop(spark, None)


def get_file_system_and_path(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Return Hadoop's FileSystem and Path objects for a path or URI, as py4j proxies.

    This also records the URI's scheme and bucket, so that error messages may name them. Raise OSError, with Hadoop's
    message, if the scheme is unknown or the storage client for it is not configured.
    """
    if root := _ROOT.match(path):
        _roots.add(root[0])
    with _translate_errors(path):
        java_path = session.get_class(spark, session.HADOOP_PATH)(path)
        if spark not in _confs:
            _confs[spark] = spark._jsparkSession.sessionState().newHadoopConf()
        system = java_path.getFileSystem(_confs[spark])
        return system, system.makeQualified(java_path)


def qualify(spark: SparkSession, path: str) -> str:
    """Return a path as a complete URI, with its scheme and, if the path is relative, the working directory.

    With Spark Connect, a path that is not on this program's own disk is returned unchanged. Raise OSError if the scheme is
    unknown or the storage client for it is not configured.
    """
    return (
        spark_connect.qualify(path)
        if spark_connect.is_remote(spark)
        else str(get_file_system_and_path(spark, path)[1].toString())
    )


def prefer_local_file(path: str) -> str:
    """Return the `file:` URI of a path that exists on the driver's own disk; return any other path unchanged.

    A relative path is looked up in the working directory, then as `find_in_clone` does in the Git clone of this program.

    Use this because Hadoop's client looks for a path without a scheme on the default file system, which is not the local
    disk on YARN and Databricks. Databricks mounts its volumes (/Volumes/...) on the local disk, so they are found, too.
    """
    # as_uri() would write %20 for a space, which Hadoop's client does not decode.
    local = Path(find_in_clone(path))
    return f"file://{local.resolve()}" if exists_here(local) else path


def exists(spark: SparkSession, path: str) -> bool:
    """Return whether a path or URI exists; raise OSError if the file system cannot be accessed."""
    if spark_connect.is_remote(spark):
        return spark_connect.exists(spark, path)
    system, java_path = get_file_system_and_path(spark, path)
    with _translate_errors(path):
        return bool(system.exists(java_path))


def list_files(spark: SparkSession, path: str) -> Iterator[tuple[str, int, int]]:
    """Yield (path, size in bytes, modification time in ms since 1970) of every file below a directory, sorted by path.

    Raise OSError if the directory cannot be listed.
    """
    if spark_connect.is_remote(spark):
        yield from spark_connect.list_files(spark, path)
        return
    system, java_path = get_file_system_and_path(spark, path)
    with _translate_errors(path):
        if system.getScheme() == "file":
            local = spark_connect.list_local_files(Path(java_path.toUri().getPath()))
            found = [(f"file:{file}", size, modified) for file, size, modified in local]
        else:
            found, listing = [], system.listFiles(java_path, True)
            while listing.hasNext():
                status = listing.next()
                found.append((str(status.getPath().toString()), status.getLen(), status.getModificationTime()))
    yield from sorted(found)


def list_names(spark: SparkSession, pattern: str) -> list[str]:
    """Return the sorted names of the files and directories that match `pattern`, a path with wildcards in its last part.

    Raise OSError if the file system cannot be accessed.
    """
    if spark_connect.is_remote(spark):
        return spark_connect.list_names(spark, pattern)
    directory, _, name = pattern.rpartition("/")
    system, java_path = get_file_system_and_path(spark, f"{escape_pattern(directory)}/{name}")
    with _translate_errors(pattern):
        return sorted(str(status.getPath().getName()) for status in system.globStatus(java_path) or ())


def fetch(spark: SparkSession, path: str, into: Path) -> None:
    """Copy the file `path` to the local path `into`; raise OSError if the file is missing or cannot be read."""
    if spark_connect.is_remote(spark):
        spark_connect.fetch(spark, path, into)
        return
    system, java_path = get_file_system_and_path(spark, path)
    # as_uri() would encode blanks and letters outside ASCII, which Hadoop's client does not decode.
    _, local = get_file_system_and_path(spark, f"file://{into.absolute()}")
    with _translate_errors(path):
        # Arguments: do not delete the source, and write no .crc file next to the copy.
        system.copyToLocalFile(False, java_path, local, True)


def write(spark: SparkSession, path: str, text: str) -> None:
    """Write a small file in UTF-8, and replace an existing file; raise OSError if the file cannot be written."""
    system, java_path = get_file_system_and_path(spark, path)
    with _translate_errors(path):
        stream = system.create(java_path, True)
        stream.write(bytearray(text.encode()))
        stream.close()


def remove_empty(spark: SparkSession, path: str) -> None:
    """Delete a directory if it exists and is empty; otherwise do nothing."""
    system, java_path = get_file_system_and_path(spark, path)
    # An OSError means that the directory is not empty.
    with suppress(OSError), _translate_errors(path):
        if system.getScheme() == "file":
            # Hadoop's client checks first and deletes later: it would delete a file that another program writes in between.
            Path(java_path.toUri().getPath()).rmdir()
        else:
            system.delete(java_path, False)


def remove(spark: SparkSession, path: str) -> None:
    """Delete a file, or a directory with its content, if it exists; raise OSError if the file system cannot delete it."""
    system, java_path = get_file_system_and_path(spark, path)
    with _translate_errors(path):
        system.delete(java_path, True)


def rename(spark: SparkSession, path: str, to: str) -> bool:
    """Rename the file or directory `path` to `to`, and return True.

    If this fails, return False or raise OSError, depending on the file system's client; the caller must handle both cases.
    """
    system, source = get_file_system_and_path(spark, path)
    _, target = get_file_system_and_path(spark, to)
    with _translate_errors(path):
        return bool(system.rename(source, target))


def hash_files(spark: SparkSession, addresses: Iterable[str]) -> str:
    """Return one SHA-256, in hexadecimal, for the contents of several files; the names and order of files do not matter.

    Raise OSError if a file cannot be read.
    """
    with tempfile.TemporaryDirectory(dir=open_private_directory()) as scratch:
        copy = Path(scratch) / "copy"
        digests = []
        for address in addresses:
            fetch(spark, address, copy)
            with copy.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return combine_digests(digests)


def combine_digests(digests: Iterable[str]) -> str:
    """Return one SHA-256, in hexadecimal, for several digests; the order of the digests does not matter."""
    return hashlib.sha256(" ".join(sorted(digests)).encode()).hexdigest()


def check_writable(spark: SparkSession, directory: str) -> None:
    """Raise OSError if a directory cannot be written.

    To find out, create the directory if it is missing, then create and delete an empty file in it.
    """
    system, java_path = get_file_system_and_path(spark, directory)
    # The name is unique, so that runs that start at the same time do not delete each other's file.
    probe = session.get_class(spark, session.HADOOP_PATH)(java_path, f".entitymill-probe-{uuid.uuid4().hex}")
    with _translate_errors(directory):
        if not system.mkdirs(java_path):
            raise OSError("the directory cannot be created")
        system.create(probe, True).close()
        system.delete(probe, False)


@contextmanager
def _translate_errors(address: str) -> Iterator[None]:
    """Convert a Java error in the block: to StorageError if the storage failed; otherwise (a missing file, say) to OSError.

    `address` is the path or URI that the block accesses, for the message.
    """
    try:
        yield
    except Py4JJavaError as error:
        raise (find_storage_fault(str(error), address) or OSError(java_message(error))) from error


def java_message(error: Py4JJavaError) -> str:
    """Return the first line of the innermost Java exception's message, or the name of its class if it has no message."""
    cause = error.java_exception
    while cause.getCause() is not None:
        cause = cause.getCause()
    lines = str(cause.getMessage() or cause.getClass().getSimpleName()).strip().splitlines()
    return lines[0] if lines else ""


def find_storage_fault(text: str, address: str | None = None) -> StorageError | None:
    """Return a StorageError if the text of an error shows that the storage failed; otherwise None.

    Errors of Spark tasks may contain text of a document. So the message repeats only two parts of such an error: a bucket
    that this program has used, and a reason from a fixed list, such as `Connection refused`.

    Args:
        text: text of the error and its causes.
        address: path or URI that the driver itself accessed. The error then contains no text of a document, so the message
            quotes its reason completely. None for errors of Spark tasks.
    """
    text = strip_quoted_values(text)
    if not _CLIENTS.search(text):
        return None
    if _CREDENTIALS.search(text):
        why = (
            "the storage refuses these credentials, or none are set; set them in environment variables, or configure a "
            "credentials provider (docs/cluster.md)"
        )
    elif unanswered := _NO_ANSWER.search(text):
        quoted = (unanswered["reason"] or unanswered["other"] or "").strip().rstrip(".:")
        known = _REASON.search(unanswered[0])
        reason = quoted if address else known[0] if known else ""
        why = f"the storage cannot be reached ({reason or 'no answer'})"
    elif _FAILING.search(text):
        why = "the storage answers with server errors"
    else:
        return None
    return StorageError(
        f"{address or _find_used_bucket(text)}: {why}; published data is intact; run again when this is fixed."
    )


def _find_used_bucket(text: str) -> str:
    """Return the first bucket in `text`, such as `s3a://b`, that this program has used.

    If there is no such bucket, return the words "source, model or output", which then replace the bucket in the message.
    """
    roots = (_ROOT.match(found[0]) for found in _ADDRESS.finditer(text))
    return next((root[0] for root in roots if root and root[0] in _roots), "source, model or output")


@contextmanager
def convert_spark_errors() -> Iterator[None]:
    """Convert Spark errors in the block to StorageError if the storage failed; other errors pass unchanged.

    Without this, a caller could mistake an unreadable table for a missing one.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        fault = find_storage_fault(str(error))
        if fault is not None:
            raise fault from error
        raise
