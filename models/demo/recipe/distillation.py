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
    """Trained networks whose mean probabilities a student learns."""

    def __init__(self, models: Sequence[DistilBertForTokenClassification]) -> None:
        self._models = [model.eval().requires_grad_(requires_grad=False) for model in models]

    @torch.no_grad()
    def probabilities(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the teachers' mean probabilities [batch, length, labels] at TEMPERATURE, for inputs [batch, length]."""
        every = [model(input_ids=ids, attention_mask=mask).logits.float() for model in self._models]
        return torch.stack([(logits / TEMPERATURE).softmax(-1) for logits in every]).mean(0)


def loss_of(logits: torch.Tensor, wanted: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of a student's logits with the teachers' probabilities, over tokens with `counted` true."""
    log_p = (logits.float() / TEMPERATURE).log_softmax(-1)
    return -((wanted * log_p).sum(-1) * counted).sum() / counted.sum() * TEMPERATURE**2


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
