"""Test that --print-config, the log and the `runs` table never show a credential, in whichever setting it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from entitymill.commands import common
from entitymill.errors import SettingsError
from entitymill.run import exit_codes
from entitymill.settings import Settings, list_keys, load, secret_masking
from entitymill.terminal.console_text import open_console

SECRET = "hunter2"
MINIMAL = {"source.path": "texts", "output.path": "out"}
CONF = "spark.conf."

PROBES = [
    # Properties of Spark: their names do not reliably say which of them are secret.
    (CONF + "spark.hadoop.fs.s3a.secret.key", SECRET),
    (CONF + "spark.hadoop.fs.s3a.access.key", SECRET),
    (CONF + "spark.hadoop.fs.s3a.session.token", SECRET),
    (CONF + "spark.hadoop.fs.azure.account.key.lake.dfs.core.windows.net", SECRET),
    (CONF + "spark.hadoop.fs.azure.sas.texts.lake.blob.core.windows.net", SECRET),
    (CONF + "spark.hadoop.fs.azure.account.oauth2.client.secret", SECRET),
    (CONF + "spark.hadoop.fs.azure.account.oauth2.client.id", SECRET),
    (CONF + "spark.hadoop.fs.gs.auth.service.account.private.key", SECRET),
    (CONF + "spark.hadoop.fs.gs.auth.service.account.private.key.id", SECRET),
    (CONF + "spark.hadoop.javax.jdo.option.ConnectionURL", f"jdbc:sqlserver://h;user=a;pwd={SECRET}"),
    (CONF + "spark.hadoop.javax.jdo.option.ConnectionPassword", SECRET),
    (CONF + "spark.hadoop.fs.s3a.endpoint", f"https://me:{SECRET}@store"),
    (CONF + "spark.executorEnv.AWS_ACCESS_KEY_ID", SECRET),
    (CONF + "spark.executorEnv.OPENAI_API_KEY", SECRET),
    (CONF + "spark.executorEnv.PGPASS", SECRET),
    (CONF + "spark.executorEnv.DSN", f"host=h user=a pass={SECRET}"),
    (CONF + "spark.yarn.appMasterEnv.SERVICE_PWD", SECRET),
    (CONF + "spark.kubernetes.driverEnv.STORE_AUTH", SECRET),
    (CONF + "spark.connection", f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET}"),
    (CONF + "spark.authenticate.secret", SECRET),
    (CONF + "spark.ssl.keyPassword", SECRET),
    (CONF + "spark.sql.catalog.main.credential", SECRET),
    (CONF + "spark.sql.catalog.main.pat", SECRET),
    (CONF + "spark.driver.extraJavaOptions", f"-Dstore.pass={SECRET}"),
    (CONF + "spark.executor.extraJavaOptions", f"-Dx=y -Dapi.key={SECRET}"),
    (CONF + "spark.executor.memory", f"1g -Dpass={SECRET}"),
    (CONF + "spark.eventLog.dir", f"https://h/logs?sig={SECRET}"),
    (CONF + "spark.jars.repositories", f"https://me:{SECRET}@repository"),
    # Settings that contain addresses.
    ("source.path", f"jdbc://reader:{SECRET}@host/db"),
    ("source.path", f"s3a://me:a/{SECRET}@bucket/texts"),
    ("source.path", f"s3a://me:{SECRET}/b@bucket/texts"),
    ("source.path", f"s3a://me:12/{SECRET}@bucket/texts"),
    ("source.path", f"s3a://me:p@{SECRET}@bucket/texts"),
    ("source.path", f"s3a://me:a?{SECRET}@bucket/texts"),
    ("source.path", f"s3a://me:a#{SECRET}@bucket/texts"),
    ("source.path", f"s3a://{SECRET}@bucket/texts"),
    ("source.path", f"https://h/x?X-Amz-Credential=a&X-Amz-Signature={SECRET}"),
    ("source.path", f"abfss://texts@lake.dfs.core.windows.net/x?sv=1&sig={SECRET}"),
    ("source.path", f"abfss://texts:{SECRET}@lake.dfs.core.windows.net/x"),
    ("source.path", f"jdbc:sqlserver://h;user=a;pwd={SECRET};encrypt=true"),
    ("source.path", f"jdbc:oracle:thin:scott/{SECRET}@//h:1521/x"),
    ("source.path", f"AccountName=a;AccountKey={SECRET}"),
    ("source.path", f"AccountKey={SECRET}"),
    ("source.path", f"me:a/{SECRET}@host"),
    ("source.path", f"/data/x&token={SECRET}"),
    ("source.path", f"host=h user=a password={SECRET}"),
    ("source.passthrough", f"[speech, 'https://me:{SECRET}@host']"),
    ("source.passthrough", f"['api_key={SECRET}']"),
    ("entities.labels", f"['x;pwd={SECRET}']"),
    ("output.path", f"s3a://me:{SECRET}@bucket/out"),
    ("model.path", f"https://{SECRET}@models/demo"),
    ("segmentation.model", f"https://models/x?access_token={SECRET}"),
    ("recognition.sparknlp_model", f"https://me:{SECRET}@models/x"),
    ("report.path", f"a;pwd={SECRET}.html"),
    ("metrics.textfile", f"a#{SECRET}.prom"),
    ("metrics.pushgateway", f"http://me:a/{SECRET}@gateway:9091"),
    ("metrics.pushgateway", f"http://gateway/metrics#{SECRET}"),
    ("lineage.url", f"https://marquez/?code={SECRET}"),
    ("lineage.url", f"https://marquez/;key={SECRET}"),
    ("lineage.namespace", f"https://me:{SECRET}@marquez"),
    ("spark.master", f"sc://host:15002/;token={SECRET}"),
    ("spark.master", f"k8s://https://me:{SECRET}@kubernetes:6443"),
    ("spark.jars", f"build/jars,https://me:{SECRET}@h/jars"),
    ("spark.jars", f"https://me:a,{SECRET}@h/jars"),
    ("spark.jars", f"x.jar,https://me:a,b,{SECRET}@h/jars,s3a://lake/y.jar"),
    ("log", f"https://me:{SECRET}@h/log"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), PROBES)
def test_no_credential_is_shown(key: str, value: str) -> None:
    given = MINIMAL | {key: value}
    shown = load(None, [f"{name}={one}" for name, one in given.items()], {}).dump_masked()
    assert SECRET not in json.dumps(shown)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source.path", "s3a://lake/texts"),
        ("source.path", "s3a://lake/texts@2026-11-28/day=1"),
        ("source.path", "abfss://texts@lake.dfs.core.windows.net/x"),
        ("source.path", "hdfs://namenode:8020/texts/a@b"),
        ("source.path", "file:///data/my texts"),
        ("source.path", "/data/my texts/día=1/x@y:z"),
        ("source.path", "main.raw.articles"),
        ("source.where", "token = 5 AND mail LIKE '%@b.c' AND url = 'https://me:x@h'"),
        ("recognition.sparknlp_model", "pretrained:onto_bert/en"),
        ("metrics.pushgateway", "http://pushgateway:9091/x"),
        ("spark.master", "local[*]"),
        ("spark.master", "spark://one:7077,two:7077"),
        ("spark.master", "k8s://https://kubernetes:6443"),
        ("spark.jars", "build/jars, s3a://lake/jars"),
        ("log", "stderr"),
        (CONF + "spark.sql.shuffle.partitions", "16"),
        (CONF + "spark.driver.memory", "4g"),
        (CONF + "spark.executor.instances", "8"),
        (CONF + "spark.eventLog.dir", "s3a://lake/logs"),
        (CONF + "spark.hadoop.fs.s3a.endpoint", "https://store:9000"),
        (CONF + "spark.hadoop.fs.s3a.aws.credentials.provider", "com.amazonaws.auth.InstanceProfileCredentialsProvider"),
    ],
)
def test_what_says_what_a_run_did_is_shown(key: str, value: str) -> None:
    given = MINIMAL | {key: value}
    shown = load(None, [f"{name}={one}" for name, one in given.items()], {}).dump_masked()
    keys = ["spark", "conf", key.removeprefix(CONF)] if key.startswith(CONF) else key.split(".")
    for one in keys:
        shown = shown[one]
    assert shown == value  # type: ignore[comparison-overlap]


def test_whether_each_setting_is_shown_was_decided() -> None:
    """Each setting must be in one of these lists; a setting that is in none is hidden."""
    leaves = {key for key in list_keys() if not any(other.startswith(f"{key}.") for other in list_keys())}
    assert secret_masking.SHOWN | secret_masking.NAMES | secret_masking.ADDRESSES | {"spark.conf"} == leaves


def test_settings_that_are_shown_as_they_are_take_no_free_text() -> None:
    one_of_many = {"source.time_zone"}  # accepts only names of the tz database
    for key in secret_masking.SHOWN - {"source.where"} - one_of_many:
        kind: Any = Settings
        for level in key.split("."):
            [kind] = [field.annotation for name, field in kind.model_fields.items() if level == (field.alias or name)]
        assert str not in {kind, *get_args(kind)}, key


def test_an_unknown_setting_is_hidden() -> None:
    assert secret_masking.mask_settings({"source": {"new": SECRET}, "other": [SECRET]}) == {
        "source": {"new": "***"},
        "other": "***",
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s3a://lake/texts#1", "s3a://lake/texts#2"),
        ("s3a://lake/texts?1", "s3a://lake/texts?2"),
        ("/data/a;b", "/data/a;c"),
        ("abfss://one@lake.dfs.core.windows.net/x", "abfss://two@lake.dfs.core.windows.net/x"),
        ("s3a://me:x@one/texts", "s3a://me:x@two/texts"),
        ("a=1", "a=2"),
    ],
)
def test_two_tables_stay_two(one: str, other: str) -> None:
    """Different tables must have different masked addresses, because these identify the source of an output.

    For Hadoop, `?`, `#` and `;` are parts of a path.
    """
    assert secret_masking.mask_address(one) != secret_masking.mask_address(other)
    assert secret_masking.mask_address(one) == secret_masking.mask_address(one)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("s3a://me:old@lake/texts", "s3a://me:new/er@lake/texts"),
        ("https://h/x?sig=old", "https://h/x?sig=new"),
    ],
)
def test_a_new_credential_makes_no_other_table(before: str, after: str) -> None:
    assert secret_masking.mask_address(before) == secret_masking.mask_address(after)


IN_MESSAGES = [
    (key, value) for key, value in PROBES if key in secret_masking.ADDRESSES - {"log"} and value != f"a#{SECRET}.prom"
]
"""Without `log`, which takes no URI, and without a plain path, which is not masked in messages."""


@pytest.mark.parametrize(("key", "value"), IN_MESSAGES)
def test_no_credential_is_in_a_message(
    key: str, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_masking, "_hidden", {})
    load(None, [f"{name}={one}" for name, one in (MINIMAL | {key: value}).items()], {})

    def work(start_log: Callable[[str | None], str]) -> None:
        start_log(common.STDERR)
        common.log.info("reads %s", value)
        open_console().print(f"{value}/entities", markup=False, soft_wrap=True)
        raise SettingsError(f"{key}: {value} is inside {value}.")

    results: dict[str, Any] = {}
    assert common.run_and_report(work, "", results) == 2
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err + str(exit_codes.describe_error(results["error"]))
    assert f"error: {key}: " in said.err


@pytest.mark.parametrize("value", [f"https://me:{SECRET}@h/log", "s3a://bucket/log", "dbfs:/log"])
def test_a_log_is_on_this_machine(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="is a URI; name a local file by its path"):
        common._start_log(value)
    assert not list(tmp_path.iterdir())


def test_a_masked_address_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_masking, "_hidden", {})
    for address in ("s3a://b/x?v=1", "s3a://b/x?v=12", "https://me:pw@h/x?y"):
        secret_masking.remember_addresses({"source": {"path": address}})
    once = secret_masking.mask_text("s3a://b/x?v=1 and https://me:pw@h/x?y, s3a://b/x?v=1/part-00-a.parquet, s3a://b/x?v=12")
    assert secret_masking.mask_text(once) == once
    more = secret_masking.mask_text(
        f"s3a://b/x?v=1,https://me:{SECRET}@h/z.jar s3a://b/x?v=1{SECRET} _https://me:{SECRET}@h"
    )
    assert SECRET not in more
    assert re.fullmatch(
        r"s3a://b/x\?\*{3}-(\w{8}) and https://\*{3}@h/x\?\*{3}, s3a://b/x\?\*{3}-\1/part-00-a\.parquet, "
        r"s3a://b/x\?\*{3}-(?!\1)\w{8}",
        once,
    )


@pytest.mark.parametrize(
    "message",
    [
        "s3a://lake: the storage refuses these credentials; run again.",
        "Metrics could not be sent to http://marquez:5000: ConnectionError.",
        "spark.master: Spark cannot start with spark://master:7077: OSError.",
        "output: no entity tables at s3a://lake/out; check output.path or output.schema.",
        "abfss://texts@lake.dfs.core.windows.net: no answer (hdfs://name:8020/x), /data/2026-??/*.parquet, /data/x#1.",
        "see https://docs.delta.io/latest/delta-batch.html! and `http://host:4040`, /data/dt=2026-??/x",
    ],
)
def test_a_message_without_credentials_stays_as_it_is(message: str) -> None:
    load(None, [f"{key}={value}" for key, value in {**MINIMAL, "source.path": "/data/dt=2026-??"}.items()], {})
    assert exit_codes.describe_error(SettingsError(message))[0] == message


def test_addresses_in_the_output_of_another_program_are_masked() -> None:
    said = secret_masking.mask_text(f"[ERROR] no https://me:{SECRET}@h/a.jar nor\nhttp://h/b?token={SECRET}, at h:80")
    assert said == "[ERROR] no https://***@h/a.jar nor\nhttp://h/b?***, at h:80"


def test_an_option_of_another_form_is_not_repeated() -> None:
    with pytest.raises(SettingsError, match=r"--set spark\.conf\.spark\.password… is not of the form") as refused:
        load(None, [f"spark.conf.spark.password: {SECRET}"], {})
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "spark: {conf: {spark.executorEnv.OPENAI_API_KEY: hunter2}}",
        "spark: {conf: {spark.executorEnv.AWS_ACCESS_KEY_ID: hunter2}}",
        "spark: {conf: {spark.executorEnv.DB_PWD: hunter2}}",
        'source: {path: "s3a://me:a/hunter2@lake/texts"}',
        'source: {path: "https://h/x?X-Amz-Signature=hunter2"}',
        'source: {path: "jdbc:sqlserver://h;user=a;pwd=hunter2"}',
        'source: {path: "AccountName=a;AccountKey=hunter2"}',
        'source: {passthrough: ["https://me:hunter2@h"]}',
    ],
)
def test_a_file_that_holds_a_secret_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "conf.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match="holds a secret") as refused:
        load(path, [f"{name}={one}" for name, one in MINIMAL.items()], {})
    assert SECRET not in str(refused.value)


def test_a_condition_is_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "conf.yaml"
    path.write_text("source: {where: \"url LIKE 'x?token=%' OR url = 'https://a:b@c'\"}")
    assert load(path, [f"{name}={one}" for name, one in MINIMAL.items()], {}).source.where is not None


SCHEMES = [
    "s3a://", "S3A://", "gs://", "abfss://", "wasbs://", "hdfs://", "https://", "ftp://", "sc://", "k8s://https://", "other://",
    "jdbc:postgresql://", "jdbc:oracle:thin:", "other:", "",
]  # fmt: skip
PASSWORDS = [
    "{}", "a/{}", "{}/a", "p@{}", "{}@p", "a?{}", "a#{}", "a;{}", "a&x={}", "a {}", ":{}", "{}:", "80,{}", "/{}", "a@b/{}",
    "a/b@{}",
]  # fmt: skip
TAILS = ["?sig={}", "#{}", ";pwd={}", "&token={}", "?a=b@{}", "?a=b@c&x={}", "; k={}", " password={}"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_neither_password_nor_options_are_shown_of_any_address(scheme: str) -> None:
    """Passwords must be hidden even if they contain characters that normally end a password, such as @ and /."""
    passwords = [password.format(SECRET) for password in PASSWORDS]
    paths = ("", "/x", "/x?y=1", "/x@1", "/x#a@b")
    addresses = [f"{scheme}me:{password}@host{path}" for password in passwords for path in paths]
    addresses += [f"{scheme}host/x{tail.format(SECRET)}" for tail in TAILS]
    assert [address for address in addresses if SECRET in secret_masking.mask_address(address)] == []
