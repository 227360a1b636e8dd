"""Test models/demo/recipe/text.py, which joins gold tokens to a text and projects their labels onto this job's tokens."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

RECIPE = Path(__file__).parents[2] / "models" / "demo" / "recipe"
WORDS = [
    "America",
    "'s",
    "U.S.",
    "Inc.",
    ".",
    ",",
    "(",
    ")",
    '"',
    "'",
    "did",
    "n't",
    "$",
    "5",
    "-",
    "/",
    "@",
    "#",
    "we",
    "Ångström",
    "😀",
]


@pytest.fixture(scope="module")
def text() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipe_text", RECIPE / "text.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("gold", "written"),
    [
        ("Israel 's plan , he said , did n't work .", "Israel's plan, he said, didn't work."),
        ("It ' s what they do n ' t like", "It's what they don't like"),
        ("the Democrats ' plan", "the Democrats' plan"),
        ('He said : " Stop , thief ! " and ran .', 'He said: "Stop, thief!" and ran.'),
        ('" No , " he said .', '"No," he said.'),
        ('it goes on here . "', 'it goes on here."'),
        ("about the ' spiritual ' demand", "about the 'spiritual' demand"),
        ("`` No '' she said", '"No" she said'),
        ("the Front ( SDI ) : a party [ of two ]", "the Front (SDI): a party [of two]"),
        ("a U.S.-led force in the U.S. .", "a U.S.-led force in the U.S."),
        ("it cost $ 5 , or 7 % more", "it cost $5, or 7% more"),
        ("RT @ someone : # Catalonia", "RT @someone: #Catalonia"),
        ("& gt ; * quoted", "&gt; * quoted"),
        ("him / her posted in /r/soccer and on / r / news", "him/her posted in /r/soccer and on /r/news"),
        ("from 1939 - 1945 at 12 : 46", "from 1939-1945 at 12:46"),
        ("Frank O 'Hara and the prize -winning author", "Frank O'Hara and the prize-winning author"),
        ("you 're gon na see ... really", "you're gonna see... really"),
        ("legislators - a group - met", "legislators - a group - met"),
    ],
)
def test_gold_tokens_are_joined_as_a_person_writes_them(text: ModuleType, gold: str, written: str) -> None:
    assert text.joined(gold.split()).text == written


def test_a_corpus_that_parts_hyphens_has_them_joined(text: ModuleType) -> None:
    assert text.joined(["al", "-", "Qaeda", "-", "and", "others"], hyphens=True).text == "al-Qaeda - and others"


def test_curly_quotes_are_the_typographers(text: ModuleType) -> None:
    assert text.joined(['"', "America", "'s", '"', ",", "he", "said"], curly=True).text == "“America’s”, he said"


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), st.booleans())
def test_every_gold_token_has_its_characters(text: ModuleType, gold: list[str], hyphens: bool) -> None:
    sentence = text.joined(gold, hyphens=hyphens)

    assert [sentence.text[begin:end] for begin, end in sentence.spans] == gold
    assert "".join(sentence.text.split()).replace(".", "") == "".join(gold).replace(".", "")


def test_a_sentence_that_ends_with_an_abbreviation_has_one_stop(text: ModuleType) -> None:
    sentence = text.joined(["in", "the", "U.S.", "."])

    assert sentence.text == "in the U.S."
    assert sentence.spans[2:] == [(7, 11), (10, 11)]


@pytest.mark.parametrize(
    ("gold", "tags", "tokens", "projected"),
    [
        ("America 's army", "B-LOC O O", ["America's", "army"], ["B-LOC", "O"]),
        ("the U.S. .", "O B-LOC O", ["the", "U.S", "."], ["O", "B-LOC", "I-LOC"]),
        ("a U.S.-led force", "O B-MISC O", ["a", "U.S.-led", "force"], ["O", "B-MISC", "O"]),
        ("( George Bush )", "O B-PER I-PER O", ["(", "George", "Bush", ")"], ["O", "B-PER", "I-PER", "O"]),
        ("Obama / Biden", "B-PER O B-PER", ["Obama/Biden"], ["B-PER"]),
        (
            "Paris Hilton , France",
            "B-PER I-PER O B-LOC",
            ["Paris", "Hilton", ",", "France"],
            ["B-PER", "I-PER", "O", "B-LOC"],
        ),
        ("France Germany", "B-LOC B-LOC", ["France", "Germany"], ["B-LOC", "B-LOC"]),
        (
            "J.P. Morgan Inc. , he said",
            "B-ORG I-ORG I-ORG O O O",
            None,
            ["B-ORG", "I-ORG", "I-ORG", "I-ORG", "I-ORG", "O", "O"],
        ),
        ("Île-de-France 😀 Zürich", "B-LOC O B-LOC", ["Île-de-France", "😀", "Zürich"], ["B-LOC", "O", "B-LOC"]),
    ],
)
def test_labels_go_to_the_tokens_of_this_job(
    text: ModuleType, gold: str, tags: str, tokens: list[str] | None, projected: list[str]
) -> None:
    sentence = text.joined(gold.split())

    ((found, labels),) = text.retokenized([sentence.text], [text.mentions(sentence, tags.split())])

    assert tokens is None or found == tokens
    assert labels == projected


def test_texts_are_cut_each_for_itself(text: ModuleType) -> None:
    assert text.cut(["a (b", "", "😀 c)"]) == [[(0, 1), (2, 3), (3, 4)], [], [(0, 1), (2, 3), (3, 4)]]
