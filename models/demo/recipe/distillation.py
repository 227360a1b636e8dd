"""Train a model also on the probabilities of larger models (teachers), on gold text and on unlabeled text.

Method: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015). The logits of student and teachers are
divided by a temperature. The loss is multiplied by the square of the temperature, so that gradients keep their size.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from corpus import Sentence
from encoder import NOT_FIRST, cut, padded
from tokenizers import Tokenizer
from transformers import DistilBertForTokenClassification

from entitymill.recognition import offsets, tokens
from entitymill.recognition.sentences import SentencexDetector

TEMPERATURE = 2.0
SHORTEST, LONGEST = 5, 80
"""Minimum and maximum number of tokens of an unlabeled sentence."""
IN_AN_EPOCH = 6_000
"""Maximum number of sentences of each unlabeled file in an epoch."""
PARAGRAPHS_AT_ONCE = 1_000


class Teachers:
    """Trained networks with their tokenizers; a student learns their mean probabilities.

    They are asked once about each sentence, and their probabilities are kept in memory.
    """

    def __init__(
        self, models: Sequence[tuple[DistilBertForTokenClassification, Tokenizer]], answers: Path | None = None
    ) -> None:
        """Take the networks, and the file with what they answered before, if it exists."""
        self._models = [(model.eval().requires_grad_(requires_grad=False), tok) for model, tok in models]
        self._answers = torch.load(answers, weights_only=True) if answers and answers.is_file() else {}

    def save(self, answers: Path) -> None:
        """Write all probabilities so far to a file."""
        torch.save(self._answers, answers)

    @torch.no_grad()
    def probabilities(self, sentences: Sequence[Sequence[str]]) -> torch.Tensor:
        """Return the teachers' mean probabilities at TEMPERATURE, shape [sentences, longest sentence, labels].

        `sentences` has the tokens of each sentence. Tokens beyond a teacher's longest input have the probabilities 0.
        """
        keys = ["\t".join(sentence) for sentence in sentences]
        asked = [i for i, key in enumerate(keys) if key not in self._answers]
        if asked:
            chosen = [sentences[i] for i in asked]
            means = torch.stack([self._ask(model, tok, chosen) for model, tok in self._models]).mean(0).half()
            for i, mean in zip(asked, means, strict=True):
                self._answers[keys[i]] = mean[: len(sentences[i])].clone()
        return torch.nn.utils.rnn.pad_sequence([self._answers[key].float() for key in keys], batch_first=True)

    def _ask(
        self, model: DistilBertForTokenClassification, tok: Tokenizer, sentences: Sequence[Sequence[str]]
    ) -> torch.Tensor:
        """Return one teacher's probabilities; those of a token are those of its first piece."""
        cuts = [cut(tok, tokens) for tokens in sentences]
        ids, firsts = padded([ids for ids, _ in cuts], 0), padded([firsts for _, firsts in cuts], NOT_FIRST)
        logits = model(input_ids=ids, attention_mask=(ids != 0).long()).logits.float()
        result = torch.zeros(len(cuts), max(map(len, sentences)), logits.shape[-1])
        row, column = (firsts != NOT_FIRST).nonzero(as_tuple=True)
        result[row, firsts[row, column]] = (logits[row, column] / TEMPERATURE).softmax(-1)
        return result


def loss_of(logits: torch.Tensor, wanted: torch.Tensor, firsts: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy of a student's logits with the teachers' probabilities, over tokens.

    Args:
        logits: the student's, shape [sentences, pieces, labels].
        wanted: the teachers' probabilities, shape [sentences, tokens, labels].
        firsts: the numbers of the tokens that the pieces begin, or NOT_FIRST, shape [sentences, pieces].
    """
    row, column = (firsts != NOT_FIRST).nonzero(as_tuple=True)
    log_p = (logits[row, column].float() / TEMPERATURE).log_softmax(-1)
    return -(wanted[row, firsts[row, column]] * log_p).sum(-1).mean() * TEMPERATURE**2


def read_unlabelled(files: Iterable[Path]) -> list[list[Sentence]]:
    """Return the sentences of each file, with the tokens into which the job splits them.

    The files are JSON Lines with the key `text`. Sentences without a capital after the first token are left out.
    """
    return [_sentences([json.loads(line)["text"] for line in path.open(encoding="utf8")]) for path in files]


def draw(unlabelled: Sequence[Sequence[Sentence]], rng: random.Random) -> list[Sentence]:
    """Return the unlabeled sentences of one epoch: up to IN_AN_EPOCH of each file, at random."""
    return [sentence for several in unlabelled for sentence in rng.sample(several, min(IN_AN_EPOCH, len(several)))]


def _sentences(paragraphs: list[str]) -> list[Sentence]:
    """Return the suitable sentences of paragraphs, with the weight 0, which keeps them out of the loss on gold labels."""
    found: list[Sentence] = []
    for at in range(0, len(paragraphs), PARAGRAPHS_AT_ONCE):
        texts = offsets.read_texts(pa.array(paragraphs[at : at + PARAGRAPHS_AT_ONCE], pa.large_string()))
        segments = tokens.tokenize(texts, SentencexDetector().find_breaks(texts))
        words = texts.extract_substrings(segments.token_begin, segments.token_end)
        ends = np.cumsum(segments.sentence_tokens).tolist()
        for first, last in zip([0, *ends], ends, strict=False):
            chosen = words[first:last]
            if SHORTEST <= len(chosen) <= LONGEST and any(word[0].isupper() for word in chosen[1:]):
                found.append(Sentence(chosen, ["O"] * len(chosen), weight=0.0))
    return found
