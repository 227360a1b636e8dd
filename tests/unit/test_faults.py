from __future__ import annotations

import pytest

from entitymill import faults

REFUSED = (
    "java.net.ConnectException: getFileStatus on s3a://lake/out: com.amazonaws.SdkClientException: Unable to execute HTTP "
    "request: Connect to 127.0.0.1:9 [/127.0.0.1] failed: Connection refused\n\tat x"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            REFUSED,
            "s3a://lake/out: the storage cannot be reached (Connect to 127.0.0.1:9 [/127.0.0.1] failed: Connection ref",
        ),
        (
            "java.nio.file.AccessDeniedException: s3a://lake/a: Forbidden",
            "s3a://lake/a: the storage refuses these credentials",
        ),
        (
            "java.net.UnknownHostException: account.dfs.core\n\tat org.apache.hadoop.fs.azurebfs.X",
            "source, model or output: the storage cannot be reached (account.dfs.core)",
        ),
        ("AWSStatus500Exception: open s3a://lake/b: 500", "s3a://lake/b: the storage answers with errors"),
    ],
)
def test_a_storage_that_fails_is_named(text: str, expected: str) -> None:
    assert str(faults.storage_fault(text)).startswith(expected)


@pytest.mark.parametrize(
    "text",
    [
        "java.io.FileNotFoundException: No such file: s3a://lake/out",
        "java.nio.file.AccessDeniedException: /data/out",
        "io.netty.channel.AnnotatedConnectException: x\nCaused by: java.net.ConnectException: Connection refused\n",
    ],
)
def test_other_errors_are_left_alone(text: str) -> None:
    assert faults.storage_fault(text) is None
