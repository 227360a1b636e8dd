"""Test which outputs a run may take over."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from entitymill.errors import SettingsError
from entitymill.run import guards
from entitymill.settings import load

MINE = "/lake/texts"


@pytest.mark.parametrize(
    ("here", "before", "adopts", "refused"),
    [
        (MINE, MINE, False, False),
        (MINE, f"{MINE}/", False, False),
        (MINE, "/lake//out/../texts", False, False),
        ("s3a://lake/texts", "s3://Lake/texts/", False, False),
        ("s3a://lake/texts", "/other/texts", False, True),
        (MINE, "/lake/others", False, True),
        (MINE, "/lake/others", True, False),
        (MINE, None, False, False),  # nobody wrote there yet
    ],
)
def test_the_output_of_another_source_is_taken_over_only_if_that_is_said(
    here: str, before: str | None, *, adopts: bool, refused: bool
) -> None:
    chosen = load(None, [f"source.path={here}", "output.path=/lake/out", f"output.adopt_source={adopts}"], {})
    said = rf"/lake/out belongs to {before}, whose documents .* give {here} an output of its own, or set output\."
    with pytest.raises(SettingsError, match=said) if refused else nullcontext():
        guards.check_owner(chosen, here, before)


def test_a_secret_in_the_sources_address_is_told_to_nobody() -> None:
    chosen = load(None, ["source.path=s3a://me:hunter2@bucket/texts", "output.path=/lake/out"], {})
    here = chosen.dump_masked()["source"]["path"]
    guards.check_owner(chosen, here, here)  # masked, as in the table `runs`
    with pytest.raises(SettingsError) as refused:
        guards.check_owner(chosen, here, "/lake/others")
    assert here in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_scheme_that_spark_connect_does_not_know_makes_no_difference() -> None:
    chosen = load(None, [f"source.path={MINE}", "output.path=/lake/out"], {})
    guards.check_owner(chosen, f"hdfs://lake:8020{MINE}", MINE)
    with pytest.raises(SettingsError, match="belongs to /lake/others"):
        guards.check_owner(chosen, f"hdfs://lake:8020{MINE}", "/lake/others")


def test_a_link_to_the_source_is_the_same_source(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "link").symlink_to("texts")
    chosen = load(None, [f"source.path={tmp_path}/link", "output.path=/lake/out"], {})
    assert not guards.is_another_source(chosen, f"{tmp_path}/link", f"{tmp_path}/texts")
    assert not guards.is_another_source(chosen, f"{tmp_path}/texts", f"{tmp_path}/link")
    assert guards.is_another_source(chosen, f"{tmp_path}/link", f"{tmp_path}/others")


def test_a_catalog_table_is_compared_by_name() -> None:
    chosen = load(None, ["source.format=table", "source.path=lake.texts", "output.path=/lake/out"], {})
    guards.check_owner(chosen, "lake.texts", "lake.texts")
    with pytest.raises(SettingsError, match=r"belongs to lake\.others"):
        guards.check_owner(chosen, "lake.texts", "lake.others")
