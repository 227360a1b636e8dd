"""Export a trained Hugging Face directory as model bundles: `python export.py TRAINED DATA OUT`.

The script writes OUT/int8 (8-bit weights and calibrated activations, as in the repository) and OUT/f32 (for comparison).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import openvino as ov
import text
import torch
from corpus import LABELS, read
from tokenizers import Tokenizer
from transformers import DistilBertForTokenClassification

from entitymill.recognition.tagger import bundle
from entitymill_models import lower_precision

MINILM = ("distilbert_ner_minilm_l6_384_cased_conll_english", "all-MiniLM-L6-v2", "Apache-2.0")
E5 = ("distilbert_ner_e5_small_l12_384_cased_conll_english", "e5-small-v2", "MIT")
BERT = ("distilbert_ner_bert_base_l12_768_cased_conll_english", "BERT-base, cased", "Apache-2.0")
"""Name of the model, its encoder, and the encoder's licence."""
ENCODERS = {(6, 384): MINILM, (12, 384): E5, (12, 768): BERT}
"""Dict from number of layers and width to the encoder."""
CALIBRATION = (
    "gmb/train.bio4.tsv",
    "wnut17/train.bio4.tsv",
    "crossner/politics.train.bio4.tsv",
    "uner-ewt/en_ewt-ud-dev.bio4.tsv",
)
CALIBRATION_SENTENCES = 50
"""Number of sentences to take from each file in CALIBRATION."""


class _Logits(torch.nn.Module):
    """A token classifier whose only output is its logits."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits [batch, length, labels] for ids and mask [batch, length]."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def network(trained: Path) -> ov.Model:
    """Return a Hugging Face DistilBERT token classifier as an OpenVINO network with dynamic shapes."""
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


def calibrated(model: ov.Model, trained: Path, data: Path, max_length: int) -> ov.Model:
    """Return a network with 8-bit weights and 8-bit activations; the activations' ranges are measured on training text."""
    quantized = lower_precision.quantize_calibrated(model, _inputs(trained, data, max_length))
    _name_weights(quantized)
    return quantized


def _inputs(trained: Path, data: Path, max_length: int) -> list[dict[str, np.ndarray]]:
    """Return some training sentences, split into tokens as the job does, as inputs of the network."""
    tokenizer = Tokenizer.from_file(str(trained / bundle.TOKENIZER))
    begin, end = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    rng = random.Random(0)
    inputs = []
    for path in CALIBRATION:
        written = [text.joined(tokens).text for tokens, _ in rng.sample(read(data / path), CALIBRATION_SENTENCES)]
        for words, _ in text.retokenized(written, [[] for _ in written]):
            pieces = tokenizer.encode(words, is_pretokenized=True, add_special_tokens=False).ids[: max_length - 2]
            ids = np.array([[begin, *pieces, end]], np.int64)
            inputs.append({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    return inputs


def _name_weights(model: ov.Model) -> None:
    """Name matrices after their parameters, because quantization has removed these names; add `/scale` for their scales."""
    for node in model.get_ops():
        match = re.match(r"__module\.(.*?)/aten::(linear|embedding)", node.get_friendly_name())
        if node.get_type_name() not in ("MatMul", "Gather") or not match:
            continue
        for port in node.inputs():
            scaled = port.get_source_output().get_node()
            if scaled.get_type_name() != "Multiply":
                continue
            widened, scale = (scaled.input_value(i).get_node() for i in (0, 1))
            if widened.get_type_name() == "Convert" and scale.get_type_name() == "Constant":
                name = f"self.{match.group(1)}.weight"
                widened.input_value(0).get_node().set_friendly_name(name)
                scale.set_friendly_name(f"{name}/scale")


def write(model: ov.Model, trained: Path, out: Path, max_length: int, *, quantized: bool) -> None:
    """Write the network `model`, and the tokenizer in the directory `trained`, as a bundle to `out`."""
    config = json.loads((trained / "config.json").read_text())
    name, encoder, licence = ENCODERS[config["n_layers"], config["dim"]]
    out.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, out / bundle.NETWORK, compress_to_fp16=False)
    shutil.copy(trained / bundle.TOKENIZER, out / bundle.TOKENIZER)
    (out / bundle.LABELS).write_text(json.dumps(LABELS) + "\n")
    bundle.write_manifest(
        out,
        {
            "name": name,
            "source": f"{encoder} in DistilBERT's layout, fine-tuned by models/demo/recipe",
            "licence": f"{licence}; see THIRD_PARTY_NOTICES.md for the training data",
            "casing": "cased",
            "max_length": max_length,
            "precision": "int8" if quantized else "f32",
            "calibrated": quantized,
        },
    )


def main() -> None:
    """Write both bundles: OUT/f32 and OUT/int8."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trained", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--max-length", type=int, default=128, help="pieces in one window; no more than were trained on")
    options = parser.parse_args()
    model = network(options.trained)
    write(model, options.trained, options.out / "f32", options.max_length, quantized=False)
    quantized = calibrated(model, options.trained, options.data, options.max_length)
    write(quantized, options.trained, options.out / "int8", options.max_length, quantized=True)


if __name__ == "__main__":
    main()
