"""Test that YAML that expands, nests or contains itself without limit is refused at once, with the file's name."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from entitymill.commands import extract
from entitymill.errors import SettingsError
from entitymill.settings import bounded_yaml, load

MINIMAL = ["source.path=texts", "output.path=out"]


def chain(first: str, each: str, length: int) -> str:
    """Return YAML with the anchors a0, a1, and so on; each `@` in `each` becomes an alias of the previous anchor."""
    rest = (f"a{n}: &a{n} " + each.replace("@", f"*a{n - 1}") for n in range(1, length))
    return "\n".join([f"a0: &a0 {first}", *rest])


ENDLESS = {
    "lists of lists": (chain("[x]", "[@, @, @, @, @, @, @, @, @]", 9), "more than 20,000 values"),
    "mappings of mappings": (chain("{x: 1}", "{a: @, b: @, c: @, d: @, e: @, f: @, g: @}", 9), "more than 20,000 values"),
    "merged mappings": (chain("{x: 1}", "{<<: [@, @, @, @, @, @, @, @, @]}", 9), "more than 20,000 values"),
    "nested aliases": (chain("[x]", "[@]", 1500), "deeper than 50 levels"),
    "nested lists": ("a: " + "[" * 5000 + "]" * 5000, "deeper than 50 levels"),
    "nested mappings": ("a: " + "{a: " * 3000 + "1" + "}" * 3000, "deeper than 50 levels"),
    "nested blocks": ("\n".join("  " * n + "a:" for n in range(600)), "deeper than 50 levels"),
    "wide": ("a: [" + "x," * 450_000 + "]", "more than 20,000 values"),
    "long": ("a: " + "x" * 1_000_001, "more than 1,000,000 characters"),
    "list in itself": ("source: &a [*a]", "contains itself"),
    "mapping in itself": ("source: &it\n  path: *it\n", "contains itself"),
    "list in its list": ("source: {passthrough: &a [x, [*a]]}", "contains itself"),
}


@pytest.mark.parametrize(("text", "says"), ENDLESS.values(), ids=ENDLESS)
def test_a_file_without_end(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    began = time.monotonic()
    assert extract.main(["--config", str(file)]) == 2
    assert time.monotonic() - began < 5
    said = capsys.readouterr().err
    assert said.startswith(f"error: --config {file}")
    assert (says in said, said.count("\n")) == (True, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 5000 + "]" * 5000, "deeper than 50 levels"),
        (f"[x]{' ' * 1_000_000}", "more than 1,000,000 characters"),
        ("[&a [*a]]", "contains itself"),
    ],
    ids=["nested", "long", "in itself"],
)
def test_an_option_without_end(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=rf"^source\.passthrough: .*{says}"):
        load(None, [*MINIMAL, f"source.passthrough={text}"], {})


def test_aliases_as_people_use_them(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("entities: {labels: &names [PER, ORG]}\nsource: &s {passthrough: *names}\n")
    assert load(file, MINIMAL, {}).source.passthrough == ("PER", "ORG")
    bounded_yaml.compose("a: &a {x: 1}\nb: {<<: *a, y: 2}\n")


def test_a_file_that_never_ends_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").symlink_to("/dev/zero")
    with pytest.raises(SettingsError, match=r"mine\.yaml"):
        load(tmp_path / "mine.yaml", MINIMAL, {})
