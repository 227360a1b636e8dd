from __future__ import annotations

from typing import Any

import pytest
from pyspark.errors import PySparkException

from entitymill.errors import StorageError
from entitymill.settings.sections import OutputSettings
from entitymill.spark import storage
from entitymill.tables import Tables
from entitymill.tables.table_setup import check_writable

REFUSED = (
    "java.net.ConnectException: getFileStatus on s3a://lake/out: com.amazonaws.SdkClientException: Unable to execute HTTP "
    "request: Connect to 127.0.0.1:9 [/127.0.0.1] failed: Connection refused\n\tat x"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            REFUSED,
            "s3a://lake: the storage cannot be reached (Connection refused)",
        ),
        (
            "java.nio.file.AccessDeniedException: s3a://lake/a: Forbidden",
            "s3a://lake: the storage refuses these credentials",
        ),
        (
            "java.net.UnknownHostException: account.dfs.core\n\tat org.apache.hadoop.fs.azurebfs.X",
            "source, model or output: the storage cannot be reached (UnknownHost)",
        ),
        ("AWSStatus500Exception: open s3a://lake/b: 500", "s3a://lake: the storage answers with server errors"),
    ],
)
def test_a_storage_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.setattr(storage, "_roots", {"s3a://lake"})
    assert str(storage.find_storage_fault(text)).startswith(expected)


def test_only_addresses_that_this_program_uses_are_named() -> None:
    quoting = (
        "value 'com.amazonaws Unable to execute HTTP request: my secret\ns3a://secret/a' AccessDeniedException: s3a://secret"
    )
    assert "secret" not in str(storage.find_storage_fault(quoting))
    assert "secret" not in str(storage.find_storage_fault(quoting.partition("Access")[0]))
    assert str(storage.find_storage_fault(REFUSED, "s3a://lake/out")).startswith(
        "s3a://lake/out: the storage cannot be reached (Connect to 127.0.0.1:9 [/127.0.0.1] failed: Connection refused)"
    )


@pytest.mark.parametrize(
    "text",
    [
        "java.io.FileNotFoundException: No such file: s3a://lake/out",
        "java.nio.file.AccessDeniedException: /data/out",
        "io.netty.channel.AnnotatedConnectException: x\nCaused by: java.net.ConnectException: Connection refused\n",
    ],
)
def test_other_errors_are_left_alone(text: str) -> None:
    assert storage.find_storage_fault(text) is None


class SilentSession:
    """Stands in for a session whose storage does not answer."""

    def sql(self, query: str) -> Any:
        raise PySparkException(f"{query}: {REFUSED}")

    @property
    def catalog(self) -> SilentSession:
        return self

    databaseExists = sql  # noqa: N815  # as Spark's catalog calls it


class NamedTables(Tables):
    """Stands in for tables whose SQL names need no session."""

    def sql_name(self, name: str) -> str:
        return name


def test_a_table_whose_storage_does_not_answer_is_not_somebody_elses() -> None:
    session: Any = SilentSession()
    with pytest.raises(StorageError, match="cannot be reached"):
        NamedTables(session, OutputSettings(path="s3a://lake/out")).properties("runs")
    with pytest.raises(StorageError, match="cannot be reached"):
        check_writable(Tables(session, OutputSettings(schema="lake.entities")))
