from __future__ import annotations

import pytest

from entitymill import faults


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "java.net.ConnectException: getFileStatus on s3a://lake/out: com.amazonaws.SdkClientException: Unable to execute "
            "HTTP request: Connect to 127.0.0.1:9 [/127.0.0.1] failed: Connection refused\n\tat x",
            "s3a://lake/out: the storage cannot be reached (Connect to 127.0.0.1:9 [/127.0.0.1] failed: Connection refused); ",
        ),
        (
            "java.nio.file.AccessDeniedException: s3a://lake/a: AmazonS3Exception: Forbidden (Status Code: 403)",
            "s3a://lake/a: the storage refuses these credentials",
        ),
        ("java.net.UnknownHostException: account.dfs.core\n\tat", "source, model or output: the storage cannot be reached"),
        ("AWSStatus500Exception: open s3a://lake/b: 500", "s3a://lake/b: the storage answers with errors"),
    ],
)
def test_a_storage_that_fails_is_named(text: str, expected: str) -> None:
    assert (faults.storage_fault(text) or "").startswith(expected)


def test_other_errors_are_left_alone() -> None:
    assert faults.storage_fault("java.io.FileNotFoundException: No such file: s3a://lake/out") is None
