import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from entitymill.errors import SettingsError
from entitymill.settings import Settings, list_keys, load, secret_masking, sections
from entitymill.settings.unsupported_source_formats import describe_conversion

CONF = Path(__file__).parents[2] / "conf"
MINIMAL = ["source.path=texts", "output.path=out"]


def test_base_yaml_lists_every_setting_with_its_default() -> None:
    listed = yaml.safe_load((CONF / "base.yaml").read_text(encoding="utf8"))
    defaults = load(None, MINIMAL, {}).model_dump(by_alias=True, mode="json")
    del defaults["source"]["path"]
    defaults["output"]["path"] = None
    assert listed == defaults


def test_layers_later_ones_win(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("source: {path: base, id_column: a, text_column: a, max_chars: 1}")
    named = tmp_path / "mine.yaml"
    named.write_text("source: {path: file, text_column: b, max_chars: 2}\noutput: {path: out}")
    environment = {"ENTITYMILL__SOURCE__PATH": "environment", "ENTITYMILL__SOURCE__MAX_CHARS": "3", "OTHER": "x"}

    found = load(named, ["source.max_chars=4"], environment).source

    assert (found.id_column, found.text_column, found.path, found.max_chars) == ("a", "b", "environment", 4)


def test_values_are_typed_by_their_setting() -> None:
    found = load(None, [*MINIMAL, "source.path=007", "source.passthrough=[a, b]", "source.where=null",
                        "limits.max_reject_ratio=0.5", "spark.conf.spark.sql.shuffle.partitions=8"], {})  # fmt: skip
    assert found.source.path == "007"
    assert found.source.passthrough == ("a", "b")
    assert found.source.where is None
    assert found.limits.max_reject_ratio == 0.5
    assert found.spark.conf == {"spark.sql.shuffle.partitions": "8"}


def test_one_column_is_a_list_of_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("source: {passthrough: year}")
    assert load(file, MINIMAL, {}).source.passthrough == ("year",)
    assert load(None, [*MINIMAL, "source.passthrough=year"], {}).source.passthrough == ("year",)


def test_a_condition_is_taken_as_written() -> None:
    found = load(None, [*MINIMAL, "source.where=event_date = '2026-11-01' and kind: x # y"], {})
    assert found.source.where == "event_date = '2026-11-01' and kind: x # y"


def numbers() -> list[str]:
    """Return the keys of all settings that are numbers."""

    def kinds(key: str) -> set[Any]:
        kind: Any = Settings
        for level in key.split("."):
            [kind] = [field.annotation for name, field in kind.model_fields.items() if level == (field.alias or name)]
        return {kind, *get_args(kind)}

    return [key for key in list_keys() if {int, float} & kinds(key)]


def test_all_numbers_are_found() -> None:
    assert {"source.max_chars", "limits.batch_seconds", "limits.max_removed_ratio", "spark.partitions"} < set(numbers())


@pytest.mark.parametrize("key", numbers())
def test_a_number_has_two_ends(tmp_path: Path, key: str) -> None:
    section, name = key.split(".")
    file = tmp_path / "mine.yaml"
    for value in (".inf", "-.inf", ".nan", "1.0e+300", "-1", f"1{'0' * 12}", f"1{'0' * 30}"):
        file.write_text(f"{section}: {{{name}: {value}}}")
        with pytest.raises(SettingsError, match=rf"^{re.escape(key)}: "):
            load(file, MINIMAL, {})
        with pytest.raises(SettingsError, match=rf"^{re.escape(key)}: "):
            load(None, [*MINIMAL, f"{key}={value.replace('.inf', 'inf').replace('.nan', 'nan')}"], {})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["source.pth=x"], r"source\.pth is not a setting; did you mean source\.path\?"),
        (["source_path=x"], r"source_path is not a setting; did you mean source\.path\?"),
        (["color=red"], "^color is not a setting; the top-level keys are source, output, "),
        (["source.zzz=red"], "source.zzz is not a setting; the keys of source are format, path, id_column, "),
        (["id_column=key"], r"id_column is not a setting; did you mean source\.id_column\?"),
        (["path=x"], r"path is not a setting; did you mean source\.path, output\.path or model\.path\?"),
        (["output.text_colum=x"], r"output\.text_colum is not a setting; did you mean source\.text_column\?"),
        (["output.replace_slice=true"], r"^output\.replace_slice needs source\.where"),
        (["source.passthrough=a,b"], r"source\.passthrough: write several names as a list: \[a,b\]"),
        (["source.max_chars=many"], r"source\.max_chars: .*a whole number"),
        (["source.format=orc"], r"source\.format: .*'delta', 'parquet' or 'table'"),
        (["source.format=CSV"], r"^source\.format: CSV is not supported; convert it to Parquet .*pandas\.read_csv"),
        (["limits.batch_seconds=inf"], r"limits\.batch_seconds: .*finite"),
        (["limits.max_removed_ratio=nan"], r"limits\.max_removed_ratio: .*finite"),
        (["limits.max_reject_ratio=2"], r"limits\.max_reject_ratio: .*less than or equal to 1"),
        (["output.schema=main.entities"], "set either"),
        (["source=x", "source.path=y"], "source is set to a single value"),
        (
            ["source.passthrough=[a"],
            r"^source\.passthrough: a value that begins with \[ or { must be a YAML list or mapping\.$",
        ),
        (["source.passthrough=[2024-02-31]"], r"^source\.passthrough: a value that begins with \[ or { must be a YAML list"),
        (["nonsense"], "not of the form"),
        (["recognition.precision=fp4"], r"recognition\.precision"),
        (["report.path=page.pdf"], r"report\.path: must be a path that ends in \.html, on the driver's own disk"),
        (["report.path=s3a://lake/page.html"], r"report\.path: must be a path .* on the driver's own disk"),
        (["report.date_column=day"], r"report\.date_column: day must be one of the columns in source\.passthrough"),
        (["report.show_text=some"], r"report\.show_text: .*true or false"),
        (["report.fail_on_drift=often"], r"report\.fail_on_drift: .*true or false"),
        (["report.drift_share=1.1"], r"report\.drift_share: .*less than or equal to 1"),
        (["report.drift_rate=-0.1"], r"report\.drift_rate: .*greater than or equal to 0"),
        (["report.drift_confidence=high"], r"report\.drift_confidence: .*number"),
        (["report.drift_sentences=0"], r"report\.drift_sentences: .*greater than or equal to 1"),
        (
            ["metrics.textfile=run.txt"],
            r"metrics\.textfile: must be a path that ends in \.prom, .*: the collector reads only \.prom files",
        ),
        (["metrics.pushgateway=gateway:9091"], r"metrics\.pushgateway: must be an address such as http://pushgateway:9091"),
        (["metrics.pushgateway=ftp://gateway"], r"metrics\.pushgateway: must be an address"),
        (["lineage.url=marquez:5000"], r"lineage\.url: must be an address such as http://marquez:5000"),
        (["lineage.namespace="], r"lineage\.namespace"),
        (["entities.labels=PER,LOC"], r"entities\.labels: write several names as a list: \[PER,LOC\]"),
        (
            ["entities.min_confidence=high"],
            r"entities\.min_confidence: must be a number from 0 to 1, or one number per label",
        ),
        (["entities.min_confidence={PER: 2}"], r"entities\.min_confidence: must be a number from 0 to 1"),
        (
            ["entities.labels=PER", "entities.min_confidence={LOC: 1}"],
            "entities: min_confidence has the label LOC, which is not in labels",
        ),
    ],
)
def test_a_wrong_setting_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(None, [*MINIMAL, *overrides], {})


@pytest.mark.parametrize(
    ("name", "lines"), [("a.json", False), ("a.json.gz", False), ("a.jsonl", True), ("a.jsonl.gz", True)]
)
def test_how_pandas_reads_a_json_file(name: str, lines: bool) -> None:
    assert f"pandas.read_json('x/{name}', lines={lines}, " in describe_conversion("JSON", f"x/{name}")


def test_a_least_confidence_of_no_label_is_none() -> None:
    assert load(None, [*MINIMAL, "entities.min_confidence={}"], {}).entities == sections.EntitySettings()


def test_what_is_missing_is_named() -> None:
    with pytest.raises(SettingsError, match=r"source\.path is not set"):
        load(None, ["source.id_column=id", "output.path=out"], {})


def test_parquet_cannot_be_a_catalog_table() -> None:
    with pytest.raises(SettingsError, match=r"parquet` needs output\.path"):
        load(None, ["source.path=x", "output.schema=main.entities", "output.format=parquet"], {})


def test_an_unknown_environment_variable_of_ours_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"source\.paht"):
        load(None, MINIMAL, {"ENTITYMILL__SOURCE__PAHT": "x"})


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [", "not YAML at line"), ("a: 2024-13-01", "not YAML"), ("- a", "contains no settings"), (None, "No such file")],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=f"mine.yaml.*{message}"):
        load(path, MINIMAL, {})


def test_a_fault_says_in_which_line_it_was_set(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("source:\n  max_chars: none\n  format: delta\n")
    file = tmp_path / "mine.yaml"
    file.write_text("source:\n  format: delta\n\n  # a comment\n  pth: x\n")
    with pytest.raises(SettingsError) as refused:
        load(file, [*MINIMAL, "source.id_column="], {"ENTITYMILL__LIMITS__UNIT_MB": "0"})
    said = str(refused.value)
    assert f"source.pth is not a setting ({file}, line 5); did you mean source.path?" in said
    assert f"source.max_chars: must be a whole number ({tmp_path}/base.yaml, line 2)." in said
    assert "greater than or equal to 1 (environment variable ENTITYMILL__LIMITS__UNIT_MB)." in said
    assert "source.id_column: string should have at least 1 character." in said


def test_each_fault_is_on_a_line_of_its_own_and_a_section_is_called_one() -> None:
    with pytest.raises(SettingsError) as refused:
        load(None, [*MINIMAL, "recognition=int8", "limits.unit_rows=many"], {})
    assert str(refused.value).splitlines() == [
        "2 settings are wrong:",
        "- recognition is a section, not a setting: below it, set engine, encoding, precision, sparknlp_model.",
        "- limits.unit_rows: must be a whole number.",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("source:\n  path: a\noutput:\n  path: b\nsource:\n  path: c\n", "line 5: source is already set in line 1"),
        ("source:\n  path: a\n  where: x\n  path: b\n", r"line 4: source\.path is already set in line 2; remove one"),
    ],
)
def test_a_key_is_there_once(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=f"mine.yaml, {message}"):
        load(file, MINIMAL, {})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ENTITYMIL__SOURCE__PATH", "ENTITYMILL__SOURCE__PATH"),
        ("ENTITYMILL_SOURCE__PATH", "ENTITYMILL__SOURCE__PATH"),
        ("ENTITYMILL_SOURCE_ID_COLUMN", "ENTITYMILL__SOURCE__ID_COLUMN"),
        ("ENTITY_MILL__LOG", "ENTITYMILL__LOG"),
        ("entitymill__source__path", "ENTITYMILL__SOURCE__PATH"),
        ("ENTITYMILLS__SPARK__CONF__SPARK__UI__showPages", "ENTITYMILL__SPARK__CONF__SPARK__UI__showPages"),
    ],
)
def test_a_variable_that_is_almost_ours_is_refused(name: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=rf"^Environment variable {name} is not a setting; did you mean {meant}\?$"):
        load(None, MINIMAL, {name: "x"})


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("ENTITYMILL__SPARK__CONF__SPARK__EXECUTOR__memoryOverhead", "spark.executor.memoryOverhead"),
        ("ENTITYMILL__spark__conf__spark__sql__ansi__ENABLED", "spark.sql.ansi.enabled"),
        ("ENTITYMILL__SPARK__CONF__SPARK__HADOOP__FS__S3A__ACCESS__KEY", "spark.hadoop.fs.s3a.access.key"),
    ],
)
def test_a_variable_may_name_a_property_with_capitals(name: str, key: str) -> None:
    assert load(None, MINIMAL, {name: "x"}).spark.conf == {key: "x"}


def test_capitals_do_not_matter_in_other_variables() -> None:
    assert load(None, MINIMAL, {"ENTITYMILL__Source__id_Column": "x"}).source.id_column == "x"


def test_a_value_of_the_wrong_type_is_one_fault_of_its_key() -> None:
    with pytest.raises(SettingsError) as refused:
        load(None, [*MINIMAL, "output.deletion_vectors=maybe", "source.passthrough=[a, [b]]", "spark.conf.a.b=[c]"], {})
    assert str(refused.value).splitlines() == [
        "3 settings are wrong:",
        "- source.passthrough.1: must be text; put true, false and dates in quotes.",
        "- output.deletion_vectors: must be 'auto' or true or false.",
        "- spark.conf.a.b: must be text; put true, false and dates in quotes.",
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("source: {where: true}", "source.where: must be text; put true, false and dates in quotes"),
        ("source: {passthrough: 7}", "source.passthrough: must be a list, such as [a, b]"),
        ("source: {passthrough: [a, b, a]}", "source.passthrough: the list contains 'a' twice; remove one"),
        ("spark: {conf: fast}", "spark.conf: must be names with values, such as {a: b}"),
        ("mentions: {trim: perhaps}", "mentions.trim: must be true or false"),
        ("limits: {max_reject_ratio: [1]}", "limits.max_reject_ratio: must be a number"),
        ("recognition: {precision: int4}", "recognition.precision: must be 'f32', 'bf16' or 'int8'"),
    ],
)
def test_a_wrong_type_is_said_in_words_of_yaml(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError) as refused:
        load(file, MINIMAL, {})
    assert str(refused.value) == f"{sentence} ({file}, line 1)."


def test_what_yaml_makes_of_a_value_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("source:\n  passthrough:\nspark:\n  conf: {spark.ui.enabled: false, spark.cores.max: 4}\n")
    found = load(file, MINIMAL, {})
    assert found.source.passthrough == ()
    assert found.spark.conf == {"spark.ui.enabled": "false", "spark.cores.max": "4"}


@pytest.mark.parametrize("config", ["", ".", "..", "/"])
def test_a_directory_is_no_settings_file(config: str) -> None:
    """As in `--config "$CONF"`, with a variable that is not set."""
    with pytest.raises(SettingsError, match="Is a directory"):
        load(Path(config), MINIMAL, {})


def test_variables_of_others_are_none_of_our_business() -> None:
    # Variables of the DAGs, the package's interpreter and the tests; those that Kubernetes sets for a service entitymill.
    own = ("HOME", "TABLES", "PYTHON", "KILLS", "SEED", "SWAP", "CRASH_POINTS", "FUZZ")
    service = ("PORT", "SERVICE_HOST", "SERVICE_PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR", "PORT_80_TCP_PROTO")
    foreign = {f"ENTITYMILL_{name}": "x" for name in (*own, *service)} | {"PATH": "x", "SOURCE__PATH": "x", "LOG": "x"}
    load(None, MINIMAL, foreign)


def test_secrets_are_masked_wherever_settings_are_shown() -> None:
    found = load(None, [*MINIMAL, "spark.conf.spark.hadoop.fs.s3a.secret.key=hunter2",
                        "source.path=jdbc://reader:hunter2@host/db"], {})  # fmt: skip
    shown = str(found.dump_masked())
    assert "hunter2" not in shown
    assert found.dump_masked()["source"]["path"] == f"jdbc://{secret_masking.MASK}@host/db"


@pytest.mark.parametrize(
    "text",
    [
        "spark: {conf: {spark.hadoop.fs.s3a.secret.key: hunter2}}",
        "spark: {conf: {spark.hadoop.fs.s3a.access.key: hunter2}}",
        "spark: {conf: {spark.hadoop.fs.azure.account.key.a.dfs.core.windows.net: hunter2}}",
        "spark: {conf: {spark.hadoop.fs.gs.auth.service.account.private.key: hunter2}}",
        "spark: {conf: {spark.hadoop.fs.azure.sas.texts.lake: hunter2}}",
        "spark: {conf: {spark.driver.extraJavaOptions: -Djavax.net.ssl.trustStorePassword=hunter2}}",
        "spark: {conf: {spark.hadoop.javax.jdo.option.ConnectionURL: 'jdbc:mysql://h/db?user=a&password=hunter2'}}",
        'source: {path: "s3a://me:hunter2@lake/texts"}',
        'lineage: {url: "https://:hunter2@marquez"}',
        'lineage: {url: "https://hunter2@marquez"}',
        'lineage: {url: "https://marquez/?api_key=hunter2"}',
    ],
)
def test_a_file_that_holds_a_secret_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "conf.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match="holds a secret") as refused:
        load(path, MINIMAL, {})
    assert "hunter2" not in str(refused.value)


def test_a_file_may_say_where_a_secret_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "conf.yaml"
    names = [
        "hadoop.fs.s3a.aws.credentials.provider",
        "hadoop.security.credential.provider.path",
        "kubernetes.driver.secretKeyRef.AWS_ACCESS_KEY_ID",
        "hadoop.fs.azure.sas.token.provider.type.lake",
    ]
    path.write_text("spark: {conf: {" + ", ".join(f"spark.{name}: x" for name in names) + "}}")
    assert load(path, MINIMAL, {}).spark.conf == {f"spark.{name}": "x" for name in names}


def test_settings_do_not_change_after_they_are_checked() -> None:
    found: Settings = load(None, MINIMAL, {})
    with pytest.raises(ValueError, match="frozen"):
        found.source.path = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("chosen", "detector"),
    [
        ([], "sentencex"),
        (["segmentation.model=mine"], "dl"),
        (["recognition.encoding=sparknlp"], "dl"),
        (["recognition.engine=sparknlp", "recognition.sparknlp_model=saved"], "dl"),
        (["segmentation.detector=dl"], "dl"),
        (["segmentation.detector=rules", "segmentation.model=mine"], "rules"),
    ],
)
def test_the_detector_is_sentencex_unless_a_setting_speaks_for_another(chosen: list[str], detector: str) -> None:
    assert load(None, [*MINIMAL, *chosen], {}).detector == detector
