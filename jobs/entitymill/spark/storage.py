"""Files on any file system Spark's Hadoop client knows: local, s3a, abfss, dbfs, Volumes, hdfs.

Beside what each function says, all raise StorageError where the storage does not answer or refuses the credentials.
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
from entitymill.spark import spark_connect

_confs: WeakKeyDictionary[SparkSession, Any] = WeakKeyDictionary()
"""Of sessions: a copy of a thousand properties, and asked for a hundred times a run."""
_CREDENTIALS = re.compile(
    r"SignatureDoesNotMatch|InvalidAccessKeyId|NoAuthWithAWSException|No AWS Credentials|AccessDeniedException: (?:s3a?|abfss?|gs)://"
    r"|Status Code: 40[13]|AuthenticationFailed|AuthorizationFailure|ExpiredToken|invalid_grant"
)
_SILENT = re.compile(
    r"Unable to execute HTTP request: (?P<reason>[^\n]{1,160}?)(?:\n|$)"
    r"|(?:ConnectException|ConnectTimeoutException|SocketTimeoutException|UnknownHostException|NoHttpResponseException"
    r"|NoRouteToHostException)(?:: (?P<other>[^\n]{1,160}?))?(?:\n|$)"
)
_FAILING = re.compile(r"AWSStatus5\d\d|Status Code: 5\d\d|AWSServiceThrottled")
_CLIENTS = re.compile(
    r"org\.apache\.hadoop\.(?:fs|hdfs|net)\.|com\.amazonaws|com\.google\.cloud\.hadoop|(?:s3a?|abfss?|gs)://"
)
"""Without one of these in it, an error of the network is Spark's own: a lost executor, for one."""
_GLOB, _ESCAPED = re.compile(r"[\\*?\[\]{}]"), r"\\\g<0>"
"""Characters with a meaning in a pattern, and how Hadoop wants them escaped."""
_ADDRESS = re.compile(r"\b(?:s3a?|s3n|abfss?|wasbs?|gs)://[^\s:,;)]+")
_ROOT = re.compile(r"\w+://[^/]*")
_REASON = re.compile(r"Connection re(?:fused|set)|[Tt]imed out|[Nn]o route to host|UnknownHost|Name or service not known")
_roots: set[str] = set()
"""Scheme and bucket of every address that was asked for: an error may name one of these, whatever else it quotes."""


def forget_configuration(spark: SparkSession) -> None:
    """Take the properties of the storage's clients anew: they may have been changed since."""
    _confs.pop(spark, None)


def hadoop_path(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """(FileSystem, Path) of an address, both py4j proxies of Hadoop's classes.

    Raises:
        OSError: the scheme is unknown or its client is not set up; the message is Hadoop's.
    """
    gateway: Any = spark.sparkContext._jvm
    if root := _ROOT.match(path):
        _roots.add(root[0])
    with _translate_errors(path):
        java_path = gateway.org.apache.hadoop.fs.Path(path)
        if spark not in _confs:
            _confs[spark] = spark._jsparkSession.sessionState().newHadoopConf()
        system = java_path.getFileSystem(_confs[spark])
        return system, system.makeQualified(java_path)


def qualify(spark: SparkSession, path: str) -> str:
    """The address in full: scheme, and for a relative path the directory it is relative to.

    Raises:
        OSError: the scheme is unknown or its client is not set up.
    """
    return spark_connect.qualify(path) if spark_connect.is_remote(spark) else str(hadoop_path(spark, path)[1].toString())


def prefer_local_file(path: str) -> str:
    """The address of a path without a scheme that is there for the driver itself; others as they stand.

    Hadoop's client takes such a path for one on the default file system, which is another one on YARN and on Databricks:
    there a volume is a mount, /Volumes/..., that Hadoop's client refuses.
    """
    # Not as_uri(): Hadoop's client takes an address with %20 in it at its word.
    return f"file://{Path(path).resolve()}" if Path(path).exists() else path


def exists(spark: SparkSession, path: str) -> bool:
    """Whether anything is at a path.

    Raises:
        OSError: the file system cannot be asked.
    """
    if spark_connect.is_remote(spark):
        return spark_connect.exists(spark, path)
    system, java_path = hadoop_path(spark, path)
    with _translate_errors(path):
        return bool(system.exists(java_path))


def list_files(spark: SparkSession, path: str) -> Iterator[tuple[str, int, int]]:
    """(address, bytes, modification time in ms) of every file below a directory, in order of address.

    Raises:
        OSError: the directory cannot be listed.
    """
    if spark_connect.is_remote(spark):
        yield from spark_connect.list_files(spark, path)
        return
    system, java_path = hadoop_path(spark, path)
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
    """Names of the files and directories that a path with wildcards in its last part matches.

    Raises:
        OSError: the file system cannot be asked.
    """
    if spark_connect.is_remote(spark):
        return spark_connect.list_names(spark, pattern)
    directory, _, name = pattern.rpartition("/")
    system, java_path = hadoop_path(spark, f"{_GLOB.sub(_ESCAPED, directory)}/{name}")
    with _translate_errors(pattern):
        return sorted(str(status.getPath().getName()) for status in system.globStatus(java_path) or ())


def fetch(spark: SparkSession, path: str, into: Path) -> None:
    """Copy one file to a local path.

    Raises:
        OSError: it is missing, or cannot be read.
    """
    if spark_connect.is_remote(spark):
        spark_connect.fetch(spark, path, into)
        return
    system, java_path = hadoop_path(spark, path)
    _, local = hadoop_path(spark, into.as_uri())
    with _translate_errors(path):
        # False, True: keep the source; write no .crc beside the copy.
        system.copyToLocalFile(False, java_path, local, True)


def write(spark: SparkSession, path: str, text: str) -> None:
    """Put a small file in its place, whole.

    Raises:
        OSError: it cannot be written.
    """
    system, java_path = hadoop_path(spark, path)
    with _translate_errors(path):
        stream = system.create(java_path, True)
        stream.write(bytearray(text.encode()))
        stream.close()


def remove_empty(spark: SparkSession, path: str) -> None:
    """Delete a directory, if it is there and nothing is in it."""
    system, java_path = hadoop_path(spark, path)
    # Not OSError: somebody has put something into it.
    with suppress(OSError), _translate_errors(path):
        system.delete(java_path, False)


def remove(spark: SparkSession, path: str) -> None:
    """Delete a file, or a directory with all that is in it, if it is there.

    Raises:
        OSError: it cannot be deleted.
    """
    system, java_path = hadoop_path(spark, path)
    with _translate_errors(path):
        system.delete(java_path, True)


def rename(spark: SparkSession, path: str, to: str) -> bool:
    """Rename a file or directory; whether that was done.

    Raises:
        OSError: the file system cannot.
    """
    system, source = hadoop_path(spark, path)
    _, target = hadoop_path(spark, to)
    with _translate_errors(path):
        return bool(system.rename(source, target))


def hash_files(spark: SparkSession, addresses: Iterable[str]) -> str:
    """SHA-256 of the content of some files, names apart; each is fetched once.

    Raises:
        OSError: a file cannot be read.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"
        digests = []
        for address in addresses:
            fetch(spark, address, copy)
            with copy.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return combine_digests(digests)


def combine_digests(digests: Iterable[str]) -> str:
    """One SHA-256 for several, in any order."""
    return hashlib.sha256(" ".join(sorted(digests)).encode()).hexdigest()


def check_writable(spark: SparkSession, directory: str) -> None:
    """Create a directory, and an empty file in it that is removed again.

    Raises:
        OSError: either fails; the message is the file system's.
    """
    system, java_path = hadoop_path(spark, directory)
    # Of two runs that start at once, each removes its own.
    gateway: Any = spark.sparkContext._jvm
    probe = gateway.org.apache.hadoop.fs.Path(java_path, f".entitymill-probe-{uuid.uuid4().hex}")
    with _translate_errors(directory):
        if not system.mkdirs(java_path):
            raise OSError("the directory cannot be created")
        system.create(probe, True).close()
        system.delete(probe, False)


@contextmanager
def _translate_errors(address: str) -> Iterator[None]:
    """Java's errors as OSError; as StorageError where the storage is at fault, which no caller takes for a missing file."""
    try:
        yield
    except Py4JJavaError as error:
        raise (storage_fault(str(error), address) or OSError(java_message(error))) from error


def java_message(error: Py4JJavaError) -> str:
    """First line of the innermost Java exception."""
    cause = error.java_exception
    while cause.getCause() is not None:
        cause = cause.getCause()
    lines = str(cause.getMessage() or cause.getClass().getSimpleName()).strip().splitlines()
    return lines[0] if lines else ""


def storage_fault(text: str, address: str | None = None) -> StorageError | None:
    """Return what the storage did, from the text of an error and its causes; None if the error is about something else.

    Errors of tasks may quote a document: of such a text only addresses that this program itself uses and a few known
    reasons reach the message.

    Args:
        text: of the error.
        address: that this program asked for. The error is about nothing else then, and is quoted.
    """
    text = strip_quoted_values(text)
    if not _CLIENTS.search(text):
        return None
    if _CREDENTIALS.search(text):
        why = (
            "the storage refuses these credentials, or there are none; set them in the environment or name a credentials "
            "provider (docs/cluster.md)"
        )
    elif silent := _SILENT.search(text):
        quoted = (silent["reason"] or silent["other"] or "").strip().rstrip(".:")
        known = _REASON.search(silent[0])
        reason = quoted if address else known[0] if known else ""
        why = f"the storage cannot be reached ({reason or 'no answer'})"
    elif _FAILING.search(text):
        why = "the storage answers with errors"
    else:
        return None
    return StorageError(
        f"{address or _find_used_bucket(text)}: {why}; published data is intact; run again when this is fixed."
    )


def _find_used_bucket(text: str) -> str:
    """Return the first address in a text that lies in a bucket this program uses, without what is below the bucket."""
    roots = (_ROOT.match(found[0]) for found in _ADDRESS.finditer(text))
    return next((root[0] for root in roots if root and root[0] in _roots), "source, model or output")


@contextmanager
def raise_storage_errors() -> Iterator[None]:
    """Let Spark's errors pass, but for those of a storage that fails: what it holds is not to be judged by them.

    Raises:
        StorageError: the storage does not answer, or refuses the credentials.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        fault = storage_fault(str(error))
        if fault is not None:
            raise fault from error
        raise
