"""Write a sample of mentions as a CoNLL file for review, and read the corrected file.

A CoNLL file has one token per line, with its IOB2 tag. An empty line ends a sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from entitymill.errors import SourceError
from entitymill.terminal.review_file_writer import Mention, Sentence, build_mention_facts

CONLL_DOCUMENT, CONLL_MENTIONS = "# doc_id = ", "# mentions = "
"""How the two comments before each sentence of a CoNLL file begin."""
Span = tuple[int, int, str]
"""(begin, end, label): begin and end are offsets in code points, and the end is exclusive."""
Token = tuple[int, int, str, str]
"""(begin, end, prefix, label) of a token of a CoNLL file. The prefix is B, I or O; the label is empty for O."""
_TOKEN = re.compile(r"\w+|[^\w\s]")
_EDIT_ONLY_TAGS = "edit only the tags, which are O, B-LABEL or I-LABEL, and delete a sentence only with both its comments."


def format_conll(sentences: Sequence[Sentence]) -> str:
    """Return the content of a CoNLL file: on each line a token, its begin and end in the document, and its IOB2 tag.

    The columns are separated by tabs; begin and end count code points. Before each sentence are two comments in JSON: the id
    of the document, and the mentions that the `entities` table has in the sentence. After each sentence is an empty line. A
    token is a word, or one other character that is not a blank; the model splits texts differently. Of two mentions that
    overlap, only the first is written.
    """
    lines = []
    for sentence in sentences:
        mentions = list(_skip_overlapping(sentence))
        listed = [{**build_mention_facts(mention), "drawn": mention.mention_id in sentence.drawn} for mention in mentions]
        lines.append(CONLL_DOCUMENT + json.dumps(sentence.doc_id))
        lines.append(CONLL_MENTIONS + json.dumps(listed))
        lines += ["\t".join(map(str, token)) for token in _tag_tokens(sentence, mentions)]
        lines.append("")
    return "\n".join(lines) + "\n"


def _skip_overlapping(sentence: Sentence) -> Iterator[Mention]:
    """Yield a sentence's mentions, but skip a mention that overlaps the last yielded one: IOB2 has one tag per token."""
    end = sentence.begin
    for mention in sentence.mentions:
        if mention.begin >= end:
            yield mention
            end = mention.end


def _tag_tokens(sentence: Sentence, mentions: Iterable[Mention]) -> Iterator[tuple[str, int, int, str]]:
    """Yield (token, begin in the document, end in the document, IOB2 tag) for each token of a sentence.

    A token never crosses the begin or end of a mention. The caller must pass mentions that do not overlap.
    """
    at = 0
    for mention in mentions:
        begin, end = mention.begin - sentence.begin, mention.end - sentence.begin
        yield from ((*token, "O") for token in _split_tokens(sentence, at, begin))
        for number, token in enumerate(_split_tokens(sentence, begin, end)):
            yield (*token, f"{'I' if number else 'B'}-{mention.label}")
        at = end
    yield from ((*token, "O") for token in _split_tokens(sentence, at, len(sentence.text)))


def _split_tokens(sentence: Sentence, begin: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Yield (token, begin in the document, end in the document) for each token of a part of a sentence.

    `begin` and `end` are the offsets of this part in the sentence.
    """
    for found in _TOKEN.finditer(sentence.text, begin, end):
        yield found[0], sentence.begin + found.start(), sentence.begin + found.end()


@dataclass
class ReviewedSentence:
    """A sentence of a corrected CoNLL file.

    where: file and line of the sentence, for messages.
    mentions: the mentions in the comment before the sentence, which `format_conll` wrote; each is a dict with the keys
        mention_id, begin, end, label, confidence and drawn.
    drawn: ids of the mentions that are in the sample.
    tokens: the tokens, with their tags after the review.
    """

    where: str
    mentions: list[dict[str, Any]] = field(default_factory=list)
    drawn: set[str] = field(default_factory=set)
    tokens: list[Token] = field(default_factory=list)

    @property
    def marked(self) -> set[Span]:
        """The spans (begin, end, label) that the tags mark after the review, with offsets in the document."""
        return set(_join_tokens(self.tokens))

    def fit_mentions_to_tokens(self) -> None:
        """Cut blanks off both ends of each of `mentions`, in place: no token is blank, so the tags cannot mark blanks.

        A mention that contains no complete token is kept unchanged.
        """
        for mention in self.mentions:
            begin, end = mention["begin"], mention["end"]
            inside = [token for token in self.tokens if begin <= token[0] and token[1] <= end]
            if inside:
                mention.update(begin=inside[0][0], end=inside[-1][1])


def read_sentences(text: str, where: str) -> Iterator[ReviewedSentence]:
    """Yield the sentences of a CoNLL file whose tags a person has corrected.

    `text` is the file's content. Raise SourceError if a line is malformed, if a line before the first comment with a
    document's id is not blank, or if a sentence lacks its second comment or its tokens. The error message begins with
    `where`, followed by the number of the line.
    """
    first: int | None = None
    lines: list[str] = []
    # Split at line ends only: `str.splitlines` would also split at other characters, which may be tokens.
    for number, line in enumerate([*text.split("\n"), CONLL_DOCUMENT], 1):
        if not line.startswith(CONLL_DOCUMENT):
            lines.append(line)
            continue
        if first is not None:
            yield _read_sentence(lines, where, first)
        elif misplaced := next((at for at, before in enumerate(lines, 1) if before.strip()), None):
            raise SourceError(f"{where} {misplaced} does not belong here; {_EDIT_ONLY_TAGS}")
        first, lines = number, []


def _read_sentence(lines: Sequence[str], where: str, first: int) -> ReviewedSentence:
    """Return the sentence in `lines`; raise SourceError if one of the lines is missing or malformed.

    `lines` are the lines after the comment with the document's id; `first` is the line number of this comment. The error
    message begins with `where`, followed by a line number.
    """
    sentence = ReviewedSentence(f"{where} {first}")
    ended = False
    for number, line in enumerate(lines, first + 1):
        is_comment = number == first + 1
        try:
            if is_comment != line.startswith(CONLL_MENTIONS) or (ended and line.strip()):
                raise ValueError("the line does not belong here")  # noqa: TRY301  # handled like other faults of a line
            if is_comment:
                sentence.mentions = [_check_facts(one) for one in json.loads(line.removeprefix(CONLL_MENTIONS))]
                sentence.drawn = {mention["mention_id"] for mention in sentence.mentions if mention["drawn"]}
            elif line.strip():
                sentence.tokens.append(_read_token(line))
            else:
                ended = bool(sentence.tokens)
        except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise SourceError(f"{where} {number} does not belong here; {_EDIT_ONLY_TAGS}") from error
    if not sentence.tokens:
        raise SourceError(f"{where} {first}: there are no tokens after this comment; {_EDIT_ONLY_TAGS}")
    sentence.fit_mentions_to_tokens()
    return sentence


def _check_facts(mention: dict[str, Any]) -> dict[str, Any]:
    """Return a mention's dict with the keys mention_id, label, confidence, drawn, begin and end; drop its other keys.

    `mention` is an item of the comment before a sentence. Convert begin and end to integers, but do not check
    label, confidence and drawn. Raise KeyError if a key is missing. Raise OverflowError, TypeError or ValueError if begin
    or end is no number, or if the id is no string.
    """
    facts = {name: mention[name] for name in ("mention_id", "label", "confidence", "drawn")}
    if not isinstance(mention["mention_id"], str):
        raise TypeError("the id of a mention is not a string")
    return {**facts, "begin": int(mention["begin"]), "end": int(mention["end"])}


def _read_token(line: str) -> Token:
    """Return (begin, end, prefix, label) from the line of one token in a CoNLL file; the token's text is left out.

    Raise ValueError if the line does not have the four columns token, begin, end and tag, separated by tabs. Also raise it
    if begin or end is no integer, or if the tag is not O, B-LABEL or I-LABEL.
    """
    _, begin, end, tag = line.split("\t")
    prefix, _, label = tag.strip().partition("-")
    if (prefix, bool(label)) not in (("O", False), ("B", True), ("I", True)):
        raise ValueError("not a tag of IOB2")
    return int(begin), int(end), prefix, label


def _join_tokens(tokens: Iterable[Token]) -> Iterator[Span]:
    """Yield the spans that the tags of a sentence's tokens mark.

    As in the script of the CoNLL-2003 shared task, a tag I- begins a new span if the token before has another label or none.
    Source: https://www.clips.uantwerpen.be/conll2003/ner/
    """
    begin = last = 0
    open_label = ""
    for token_begin, token_end, prefix, label in [*tokens, (0, 0, "O", "")]:
        if open_label and (prefix != "I" or label != open_label):
            yield begin, last, open_label
        if label and (prefix == "B" or label != open_label):
            begin = token_begin
        open_label, last = label, token_end
