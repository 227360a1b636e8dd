"""What a storage that fails looks like from the outside, in words its user can act on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from entitymill.errors import StorageError

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
_ADDRESS = re.compile(r"\b(?:s3a?|s3n|abfss?|wasbs?|gs)://[^\s:,;)]+")


def reason(text: str) -> str | None:
    """What the storage did, from an error with its causes; none where it is about something else."""
    if not _CLIENTS.search(text):
        return None
    if _CREDENTIALS.search(text):
        return (
            "the storage refuses these credentials, or there are none; set them in the environment or name a credentials "
            "provider (docs/cluster.md)"
        )
    silent = _SILENT.search(text)
    if silent:
        told = (silent["reason"] or silent["other"] or "no answer").strip().rstrip(".:")
        return f"the storage cannot be reached ({told})"
    return "the storage answers with errors" if _FAILING.search(text) else None


def storage_fault(text: str, address: str | None = None) -> StorageError | None:
    """The same for a run that broke off; none where the error is about something else.

    Args:
        text: the error with its causes.
        address: that was asked for, where that is known.
    """
    why = reason(text)
    if why is None:
        return None
    found = _ADDRESS.search(text)
    where = address or (found[0] if found else "source, model or output")
    return StorageError(f"{where}: {why}; what was published before is whole; run again when that is mended.")


@contextmanager
def storage_told_apart() -> Iterator[None]:
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
