import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitymill.recognition.html_markup import blank_markup
from entitymill.recognition.offsets import utf16_length

pieces = st.sampled_from(
    [
        "<",
        ">",
        "<p>",
        "</p>",
        "<b",
        "<!--",
        "-->",
        "<script>",
        "</script>",
        "<style",
        "&nbsp;",
        "&",
        "a",
        " ",
        "\n",
        "😀",
        "ß",
        "<3",
    ]
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>Satya <b>Nadella</b></p>", "\n\n\nSatya    Nadella    \n\n\n\n"),
        ("Deutsche Bank</b", "Deutsche Bank</b"),  # no tag ends here
        ("a<br/>b", "a\n\n\n\n\nb"),
        ('<a href="x">Paulo</a>', "            Paulo    "),
        ("a<!-- Paris -->b", "a              b"),
        ("a<!-- Paris", "a<!-- Paris"),
        ("a<!-->Paris<!--->Rome<!-- -->", "a     Paris      Rome        "),
        ("<!--[if !IE]><!-->Rome<!--<![endif]-->", " " * 18 + "Rome" + " " * 16),
        ("<SCRIPT>if (a<b) x()</Script >b", "\n" * 30 + "b"),
        ("<style>Paris", "\n\n\n\n\n\n\nParis"),
        ("AT&amp;T&nbsp;Inc", "AT&amp;T      Inc"),
        ("I <3 NY, 1 < 2 > 0", "I <3 NY, 1 < 2 > 0"),
        ("<i 😀>x", "   😀 x"),
        ("", ""),
    ],
)
def test_markup_becomes_blanks(text: str, expected: str) -> None:
    assert blank_markup(text) == expected


@given(st.lists(pieces, max_size=30).map("".join))
def test_no_character_moves(text: str) -> None:
    blanked = blank_markup(text)
    assert (len(blanked), utf16_length(blanked)) == (len(text), utf16_length(text))
    assert all(new == old or new in " \n" for new, old in zip(blanked, text, strict=True))


@pytest.mark.parametrize("rest", ["a", "-", "a-", "/", "!", "?", " ", "a "])
@pytest.mark.parametrize("beginning", ["<", "</", "<a", "<a-", "<!", "<?", "</script", "<script>"])
def test_the_time_is_linear_in_a_tag_without_an_end(beginning: str, rest: str) -> None:
    """A quadratic search would take minutes."""
    text = beginning + rest * (100_000 // len(rest))
    began = time.process_time()
    blanked = blank_markup(text)
    assert time.process_time() - began < 2
    assert blanked[9:] == text[9:]  # no tag ends here, except <script>


@pytest.mark.parametrize("piece", ["<", "<a", "<!--", "<script>", "<style>", "<!", "&nbsp", "</script", "<p a="])
def test_the_time_is_linear(piece: str) -> None:
    """A million characters must take linear time; a quadratic search would take minutes."""
    began = time.process_time()
    blank_markup(piece * (1_000_000 // len(piece)))
    assert time.process_time() - began < 20
