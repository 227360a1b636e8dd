"""Test which outputs a run may take over."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from entitymill.errors import SettingsError
from entitymill.run import guards
from entitymill.settings import load

MINE = "/lake/texts"


@pytest.mark.parametrize(
    ("before", "adopts", "refused"),
    [
        (MINE, False, False),
        (f"{MINE}/", False, False),
        ("/lake/others", False, True),
        ("/lake/others", True, False),
        (None, False, False),  # nobody wrote there yet
    ],
)
def test_the_output_of_another_source_is_taken_over_only_if_that_is_said(
    before: str | None, *, adopts: bool, refused: bool
) -> None:
    chosen = load(None, [f"source.path={MINE}", "output.path=/lake/out", f"output.adopt_source={adopts}"], {})
    said = r"/lake/out belongs to /lake/others, whose documents .* give /lake/texts an output of its own, or set output\."
    with pytest.raises(SettingsError, match=said) if refused else nullcontext():
        guards.check_owner(chosen, before)


def test_a_secret_in_the_sources_address_is_told_to_nobody() -> None:
    chosen = load(None, ["source.path=s3a://me:hunter2@bucket/texts", "output.path=/lake/out"], {})
    here = chosen.dump_masked()["source"]["path"]
    guards.check_owner(chosen, here)  # masked, as in the table `runs`
    with pytest.raises(SettingsError) as refused:
        guards.check_owner(chosen, "/lake/others")
    assert here in str(refused.value)
    assert "hunter2" not in str(refused.value)
