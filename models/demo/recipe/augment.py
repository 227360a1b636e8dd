"""Augment gold sentences: replace names, change capitals, and join neighboring sentences."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

Gold = tuple[list[str], list[str]]
"""Tokens and their IOB2 tags."""

SWAP = 0.5
"""Share of a sentence's names that `swapped` replaces."""
GLUE = 0.06
"""Share of sentences that are joined to the sentence before, because sentence detectors sometimes miss an end."""
LONGEST_GLUED = 60
UPPER, LOWER, TITLE = 0.02, 0.08, 0.10
"""Cumulative shares of sentences in upper case (2 %), in lower case (6 %), and With Initial Capitals (2 %)."""


def names(parts: Iterable[Sequence[Gold]]) -> dict[str, list[list[str]]]:
    """Return a dict from each label to its mentions, as lists of tokens; a name is listed as often as it occurs."""
    found: defaultdict[str, list[list[str]]] = defaultdict(list)
    for part in parts:
        for tokens, tags in part:
            for first, last, label in _spans(tags):
                found[label].append(tokens[first:last])
    return dict(found)


def swapped(gold: Gold, by_label: dict[str, list[list[str]]], rng: random.Random) -> Gold:
    """Return the sentence with about half of its PER, ORG and LOC mentions replaced by others with the same label.

    MISC mentions stay: an election in place of a nationality makes no sense.
    """
    tokens, tags = gold
    new_tokens: list[str] = []
    new_tags: list[str] = []
    at = 0
    for first, last, label in _spans(tags):
        new_tokens += tokens[at:first]
        new_tags += tags[at:first]
        name = rng.choice(by_label[label]) if label != "MISC" and rng.random() < SWAP else tokens[first:last]
        new_tokens += name
        new_tags += [f"B-{label}"] + [f"I-{label}"] * (len(name) - 1)
        at = last
    return new_tokens + tokens[at:], new_tags + tags[at:]


def glued(sentences: Sequence[Gold], rng: random.Random) -> list[Gold]:
    """Return the sentences; some neighbors, chosen at random, are joined to one if they are short enough."""
    done: list[Gold] = []
    for tokens, tags in sentences:
        if done and len(done[-1][0]) + len(tokens) <= LONGEST_GLUED and rng.random() < GLUE:
            done[-1] = (done[-1][0] + tokens, done[-1][1] + tags)
        else:
            done.append((tokens, tags))
    return done


def recased(tokens: list[str], rng: random.Random) -> list[str]:
    """Return a sentence, sometimes at random with other capitals, as in headlines and in careless typing."""
    draw = rng.random()
    # "US" in lower case would teach that the pronoun is a country.
    if draw >= TITLE or (draw >= UPPER and "US" in tokens):
        return tokens
    if draw < UPPER:
        return [token.upper() for token in tokens]
    if draw < LOWER:
        return [token.lower() for token in tokens]
    return [token[:1].upper() + token[1:] for token in tokens]


def _spans(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return first token, end (exclusive) and label of each mention; an I- that continues no mention starts a mention."""
    found: list[tuple[int, int, str]] = []
    for i, tag in enumerate(tags):
        if tag == "O":
            continue
        if tag[0] == "I" and found and found[-1][1] == i and found[-1][2] == tag[2:]:
            found[-1] = (found[-1][0], i + 1, tag[2:])
        else:
            found.append((i, i + 1, tag[2:]))
    return found
