import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitymill import settings
from entitymill.errors import SettingsError
from entitymill.spark import sql_text

LEVEL = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)


@pytest.mark.parametrize(
    ("name", "parts", "quoted"),
    [
        ("a", ("a",), "`a`"),
        ("main.raw.articles", ("main", "raw", "articles"), "`main`.`raw`.`articles`"),
        ("my-cat.raw.x; DROP TABLE y", ("my-cat", "raw", "x; DROP TABLE y"), "`my-cat`.`raw`.`x; DROP TABLE y`"),
        ("`a.b`.c", ("a.b", "c"), "`a.b`.`c`"),
        ("`we``ird`", ("we`ird",), "`we``ird`"),
        ("we`ird.t", ("we`ird", "t"), "`we``ird`.`t`"),
        ("a'b\"c.t -- x", ("a'b\"c", "t -- x"), "`a'b\"c`.`t -- x`"),
    ],
)
def test_names_are_split_and_quoted(name: str, parts: tuple[str, ...], quoted: str) -> None:
    assert sql_text.split_name(name) == parts
    assert ".".join(map(sql_text.quote_part, sql_text.split_name(name))) == quoted
    assert sql_text.split_name(quoted) == parts


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "`", "`a", "`a`b", "a.`b", "``", "a\nb", "a.\x00"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        sql_text.split_name(name)


@given(st.lists(LEVEL, min_size=1, max_size=3))
def test_quoting_any_levels_and_reading_them_gives_them_back(levels: list[str]) -> None:
    assert sql_text.split_name(".".join(map(sql_text.quote_part, levels))) == tuple(levels)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["source.format=table", "source.path=a.b.c.d", "output.path=o"],
            "source: 'a.b.c.d' has 4 levels, but at most 3 are allowed",
        ),
        (["source.format=table", "source.path=a..b", "output.path=o"], "source: 'a..b' is not a valid table or schema name"),
        (["source.path=p", "output.schema=a.b.c"], "output: 'a.b.c' has 3 levels, but at most 2 are allowed"),
        (["source.path=p", "output.schema=a.`b"], "output: 'a.`b' is not a valid table or schema name"),
    ],
)
def test_settings_refuse_them(overrides: list[str], says: str) -> None:
    with pytest.raises(SettingsError) as error:
        settings.load(None, overrides, {})
    assert says in str(error.value)


def test_a_path_is_no_name() -> None:
    assert settings.load(None, ["source.path=/a..b/.c", "output.path=o"], {}).source.path == "/a..b/.c"
