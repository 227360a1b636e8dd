"""A trained Hugging Face directory to model bundles: `python export.py TRAINED OUT`.

Writes OUT/int8 (8-bit weights, what the repository carries) and OUT/f32 (to compare with), both checked on a sentence.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import nncf
import openvino as ov
import torch
from corpus import LABELS
from transformers import DistilBertForTokenClassification

from entitymill.recognition.tagger import bundle

NAME = "distilbert_ner_minilm_l6_384_cased_conll_english"


class _Logits(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """[batch, length] ids and mask -> [batch, length, labels]."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def network(trained: Path) -> ov.Model:
    """The OpenVINO network of a Hugging Face DistilBERT token classifier, shapes dynamic."""
    model = DistilBertForTokenClassification.from_pretrained(trained, attn_implementation="sdpa").eval()
    ids = torch.ones(2, 16, dtype=torch.long)
    converted = ov.convert_model(_Logits(model), example_input={"input_ids": ids, "attention_mask": ids})
    for port, name in zip(converted.inputs, ("input_ids", "attention_mask"), strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(ov.PartialShape([-1, -1]))
        port.get_node().set_element_type(ov.Type.i64)
    converted.output(0).get_tensor().set_names({"logits"})
    converted.validate_nodes_and_infer_types()
    return converted


def write(model: ov.Model, trained: Path, out: Path, precision: str, max_length: int) -> None:
    """One bundle."""
    out.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, out / bundle.NETWORK, compress_to_fp16=False)
    shutil.copy(trained / bundle.TOKENIZER, out / bundle.TOKENIZER)
    (out / bundle.LABELS).write_text(json.dumps(LABELS) + "\n")
    bundle.write_manifest(
        out,
        {
            "name": NAME,
            "source": "all-MiniLM-L6-v2 in DistilBERT's layout, fine-tuned by models/demo/recipe",
            "licence": "Apache-2.0; see THIRD_PARTY_NOTICES.md for the training data",
            "casing": "cased",
            "max_length": max_length,
            "precision": precision,
        },
    )


def main() -> None:
    """Export both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trained", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--max-length", type=int, default=128, help="pieces in one window; no more than were trained on")
    options = parser.parse_args()
    model = network(options.trained)
    write(model, options.trained, options.out / "f32", "f32", options.max_length)
    compressed = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    write(compressed, options.trained, options.out / "int8", "int8", options.max_length)


if __name__ == "__main__":
    main()
