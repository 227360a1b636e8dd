from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entitymill.errors import SettingsError, StorageError
from entitymill.spark import overlapping_paths

NAMES = st.text(st.characters(codec="utf8", exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..") and ":" not in name
)


def on_disk(address: str) -> Path:
    return Path(address.removeprefix("file:"))


def exists(address: str) -> bool:
    return on_disk(address).exists()


def names(pattern: str) -> list[str]:
    directory, _, last = str(on_disk(pattern)).rpartition("/")
    held = Path(directory) if directory else Path("/")  # only the last part is a pattern
    patterns = last[1:-1].split(",") if last.startswith("{") else [last]
    found = sorted(held.iterdir()) if held.is_dir() else []
    return [path.name for path in found if any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)]


def nothing(_: str) -> bool:
    return False


def none(_: str) -> list[str]:
    return []


def check(source: object, output: object) -> None:
    overlapping_paths.check_output_path(str(source), str(output), exists, names)


def table(directory: Path, *files: str) -> Path:
    for file in files or ("_delta_log/00000000000000000000.json",):
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        (directory / file).write_text("{}")
    return directory


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("/data/texts", "/data/texts"),
        ("/data/texts", "/data/texts/out"),
        ("/data/texts/", "/data//texts/./out/"),
        ("/data/texts", "/data/other/../texts/out"),
        ("/data/texts", "file:/data/texts/out"),
        ("file:///data/texts", "/data/texts/out"),
        ("file:/data/texts", "FILE:///data/texts"),
        ("file://localhost/data/texts", "file:/data/texts/out"),
        ("/", "/data/out"),
        ("s3a://lake/texts", "s3a://lake/texts/out"),
        ("s3a://lake//texts/./new", "s3a://lake/texts/new/out"),
        ("S3A://Lake/texts", "s3a://lake/texts"),
        ("s3://lake/texts", "s3a://lake/texts/a/b"),
        ("s3a://lake", "s3a://lake/out"),
        ("s3a://lake/", "s3a://lake/../out"),
        ("abfs://c@account.dfs.core.windows.net/t", "abfss://c@ACCOUNT.dfs.core.windows.net/t/out"),
        ("hdfs://name:8020/t", "hdfs://name:8020/t"),
        ("dbfs:/mnt/t", "dbfs:///mnt/t/out"),
        ("/data/a b%20c", "/data/a b%20c/out"),
    ],
)
def test_an_output_in_its_source_is_refused(source: str, output: str) -> None:
    with pytest.raises(SettingsError) as refused:
        overlapping_paths.check_output_path(source, output, nothing, none)
    assert str(refused.value).startswith(f"output.path: {output} is inside the source {source}, ")
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("/data/out/texts.parquet", "/data/out"),
        ("file:/data/out/a/b", "/data/x/../out/"),
        ("s3a://lake/out/texts", "s3://lake//out"),
        ("s3a://lake/texts", "s3a://lake"),
    ],
)
def test_an_output_around_its_source_is_refused(source: str, output: str) -> None:
    with pytest.raises(SettingsError, match="among the output's own tables") as refused:
        overlapping_paths.check_output_path(source, output, nothing, none)
    assert source in str(refused.value) and output in str(refused.value)


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("/data/out", "/data/output"),
        ("/data/output", "/data/out"),
        ("/data/texts.parquet", "/data/out"),
        ("/data/texts", "/data/texts/../out"),
        ("s3a://lake/out", "s3a://lake/output"),
        ("s3a://lake/out", "s3a://lake2/out"),
        ("s3a://lake/data", "hdfs://lake/data"),
        ("s3a://lake/data", "/data"),
        ("s3a://lake/Data", "s3a://lake/data"),
        ("/data/a%20b", "/data/a b/out"),
    ],
)
def test_an_output_beside_its_source_is_fine(source: str, output: str) -> None:
    overlapping_paths.check_output_path(source, output, nothing, none)


def test_links_are_followed_either_way(tmp_path: Path) -> None:
    source, other = tmp_path / "texts", tmp_path / "other"
    (source / "deep").mkdir(parents=True)
    other.mkdir()
    (other / "in").symlink_to(source / "deep")
    (source / "out").symlink_to(other)
    (tmp_path / "link").symlink_to(source)

    for inside in (other / "in" / "x", source / "out" / "x", tmp_path / "link" / "out"):
        with pytest.raises(SettingsError, match="is inside the source"):
            check(source, inside)
    with pytest.raises(SettingsError, match="is inside the source"):
        check(tmp_path / "link", source / "x")
    check(source, f"{other}/in/../x")  # Hadoop's client resolves this to other/x


@pytest.mark.parametrize("below", ["", "a", "a/b/c"])
@pytest.mark.parametrize("files", [(), ("_SUCCESS",), ("_metadata",), ("part-00000-1.snappy.parquet",)])
def test_an_output_in_any_table_is_refused(tmp_path: Path, below: str, files: tuple[str, ...]) -> None:
    foreign = table(tmp_path / "else [1]" / "where", *files)

    with pytest.raises(SettingsError, match="is inside the table"):
        check("", foreign / below)
    with pytest.raises(SettingsError, match="is inside the table") as refused:
        check(tmp_path / "texts", foreign / below)
    assert f"file:{foreign}, " in str(refused.value)


def test_a_table_around_is_seen_behind_links_and_before_them(tmp_path: Path) -> None:
    foreign, plain = table(tmp_path / "foreign"), tmp_path / "plain"
    (foreign / "in").mkdir()
    plain.mkdir()
    (plain / "to").symlink_to(foreign / "in")
    (foreign / "from").symlink_to(plain)

    for inside in (plain / "to" / "out", foreign / "from" / "out"):
        with pytest.raises(SettingsError, match="is inside the table"):
            check(tmp_path / "texts", inside)
    check(tmp_path / "texts", plain / "out")


def test_our_own_tables_and_files_beside_the_output_are_no_table_around_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("entities", "documents", "runs", "_lease"):
        table(out / name)
    (tmp_path / "texts.parquet").write_text("one file")
    (tmp_path / "speeches.parquet").write_text("another")
    table(tmp_path / "outer")

    check(tmp_path / "texts.parquet", out)
    check("", out)  # a view has no path
    check(f"file://{tmp_path}/texts.parquet", f"file:{out}/")


def test_a_storage_that_shows_nothing_above_its_own_directory_is_no_table() -> None:
    asked = []

    def forbidden(address: str) -> bool:
        asked.append(address)
        if address.count("/") < 5:
            raise StorageError("403") if address.count("/") % 2 else OSError("not a directory")
        return False

    overlapping_paths.check_output_path("s3a://lake/texts", "S3A://Lake/a//b/c", forbidden, none)
    assert [address for address in asked if address.endswith(overlapping_paths.LOG)] == [
        f"s3a://Lake/{way}{overlapping_paths.LOG}" for way in ("a/b/c/", "a/b/", "a/", "")
    ]


@given(st.lists(NAMES, min_size=1, max_size=4), st.lists(NAMES, max_size=3), st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_every_spelling_of_a_path_below_the_source_is_refused(way: list[str], more: list[str], data: st.DataObject) -> None:
    def spelled(parts: list[str]) -> str:
        noise = st.sampled_from(["/", "//", "/./", "/x/../", "/x/y/../.././"])
        return "".join(data.draw(noise) + part for part in parts) + data.draw(st.sampled_from(["", "/", "/."]))

    kinds = st.sampled_from(["s3a://bucket", "S3://BUCKET", "s3n://bucket"])
    source, output = data.draw(kinds) + spelled(way), data.draw(kinds) + spelled([*way, *more])
    with pytest.raises(SettingsError, match="is inside the source"):
        overlapping_paths.check_output_path(source, output, nothing, none)


@given(st.lists(NAMES, min_size=1, max_size=3), st.lists(NAMES, max_size=3), NAMES, st.sampled_from(["/", "s3a://bucket/"]))
def test_a_name_that_only_begins_alike_is_another(way: list[str], more: list[str], end: str, root: str) -> None:
    source = "/".join(["no-such-root", *way])
    output = "/".join(["no-such-root", *way[:-1], way[-1] + end, *more])
    overlapping_paths.check_output_path(root + source, root + output, nothing, none)
    overlapping_paths.check_output_path(root + output, root + source, nothing, none)
