"""The bare tagger with a DistilBERT-base of random weights, against a Hugging Face pipeline and the machine's peak.

`python tests/bench/tagger.py`: one thread each, the same sentences, in turn within one run. Weights do not change the speed;
the classifier is biased to O, since a pipeline would otherwise spend its time on spurious entities.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import machine
import nncf
import numpy as np
import openvino as ov
import pyarrow.parquet as pq
import torch
import transformers
from openvino import opset13 as ops
from tokenizers import Tokenizer

from entitymill.recognition.tagger import bundle, network
from entitymill.recognition.tagger.encoding import Encoder
from entitymill.recognition.tagger.execution import Precision
from entitymill.recognition.tagger.inference import Tagger
from entitymill.recognition.tagger.rows import CompleteRows

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "models" / "demo"
LAYERS, WIDTH, HIDDEN = 6, 768, 3072
MAX_LENGTH = 512
FASTER_THAN_PIPELINE = {"f32": 1.8, "bf16": 3.5, "int8": 6.0}
SHARE_OF_PEAK = {"f32": 0.85, "bf16": 0.80, "int8": 0.70}


def sentences(count: int) -> list[list[str]]:
    """Tokens of real sentences: the speeches, split by rule; length and words are what matters here."""
    texts = pq.read_table(ROOT / "data" / "state_union.parquet")["text"].to_pylist()
    split = (part for text in texts for part in re.split(r"(?<=[.!?])\s+", text))
    found = [re.findall(r"\w+|[^\w\s]", part) for part in split]
    chosen = np.random.default_rng(0).permutation([i for i, tokens in enumerate(found) if tokens])[:count]
    return [found[i] for i in chosen]


def random_model(vocabulary: int) -> transformers.DistilBertForTokenClassification:
    """DistilBERT-base with nine labels and random weights."""
    torch.manual_seed(0)
    config = transformers.DistilBertConfig(vocab_size=vocabulary, num_labels=9)
    model = transformers.DistilBertForTokenClassification(config).eval()
    model.classifier.bias.data[0] = 50.0
    return model


class _Logits(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits alone."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def converted(model: torch.nn.Module) -> ov.Model:
    """The OpenVINO network, shapes dynamic."""
    ids = torch.ones(2, 16, dtype=torch.long)
    found = ov.convert_model(_Logits(model), example_input={"input_ids": ids, "attention_mask": ids})
    for port, name in zip(found.inputs, network.INPUTS, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(ov.PartialShape([-1, -1]))
        port.get_node().set_element_type(ov.Type.i64)
    found.validate_nodes_and_infer_types()
    return found


def quantized(model: ov.Model, encoder: Encoder, texts: list[list[str]]) -> ov.Model:
    """Post-training int8, activations calibrated on some of the sentences."""
    feeds = []
    for tokens in texts[:64]:
        ids = np.array([[encoder.cls_id, *encoder.encode(tokens).ids, encoder.sep_id]], np.int64)
        feeds.append({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    return nncf.quantize(model, nncf.Dataset(feeds), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(feeds))


def reread(model: ov.Model, directory: Path, name: str) -> ov.Model:
    """Through a file, as a bundle is."""
    ov.save_model(model, directory / f"{name}.xml", compress_to_fp16=False)
    return ov.Core().read_model(directory / f"{name}.xml")


def chain(model_type: str) -> ov.CompiledModel:
    """Four of the encoder's own matrix products, one after the other, in one precision: the peak is measured on it."""
    rng = np.random.default_rng(0)
    data = ops.parameter([512, WIDTH], np.float32)
    node = data
    for rows, columns in ((WIDTH, HIDDEN), (HIDDEN, WIDTH)) * 2:
        weight = ops.constant(rng.normal(0, 0.02, (columns, rows)).astype(np.float32))
        node = ops.matmul(node, weight, transpose_a=False, transpose_b=True)
    model = ov.Model([node], [data], "peak")
    if model_type == "int8":
        feeds = [rng.normal(size=(512, WIDTH)).astype(np.float32) for _ in range(4)]
        model = nncf.quantize(model, nncf.Dataset(feeds), subset_size=4)
    hint = "f32" if model_type == "f32" else "bf16"
    options = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": hint}
    return ov.Core().compile_model(model, "CPU", {**options, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0})


def peak(model_type: str, rounds: int = 40) -> Callable[[], float]:
    """A measurement of floating (or integer) operations a CPU second."""
    request = chain(model_type).create_infer_request()
    data = np.random.default_rng(1).normal(size=(512, WIDTH)).astype(np.float32)
    operations = 4 * 2 * 512 * WIDTH * HIDDEN

    def measure() -> float:
        request.infer([data])
        spent = machine.spend(lambda: [request.infer([data]) for _ in range(rounds)])
        return operations * rounds / spent.cpu

    return measure


def operations_of(lengths: np.ndarray) -> float:
    """Useful operations of an encoder over sentences of so many pieces, padding not counted."""
    dense = 2 * LAYERS * (4 * WIDTH**2 + 2 * WIDTH * HIDDEN)
    return float((lengths * dense + LAYERS * 4 * WIDTH * lengths**2).sum())


def ways(texts: list[list[str]], scratch: Path) -> tuple[dict[str, Callable[[], object]], np.ndarray]:
    """Every way of tagging the sentences, and the pieces of each sentence."""
    tokenizer = Tokenizer.from_file(str(DEMO / bundle.TOKENIZER))
    labels = bundle.read_labels(DEMO / bundle.LABELS)
    encoder = Encoder(tokenizer, MAX_LENGTH - 2)
    tokens, counts = [token for text in texts for token in text], np.array([len(text) for text in texts])
    lengths = np.array([len(encoder.encode(text).ids) + 2 for text in texts])
    torch_model = random_model(tokenizer.get_vocab_size())
    plain = reread(converted(torch_model), scratch, "plain")
    compressed = reread(
        nncf.compress_weights(converted(torch_model), mode=nncf.CompressWeightsMode.INT8_SYM), scratch, "compressed"
    )
    calibrated = reread(quantized(converted(torch_model), encoder, texts), scratch, "calibrated")

    def tagger(model: ov.Model, precision: Precision, weights: str) -> Callable[[], object]:
        compiled = network.compile_model(model, precision, 1, weights)
        built = Tagger(compiled, CompleteRows(Encoder(tokenizer, MAX_LENGTH - 2), MAX_LENGTH), labels)
        return lambda: built.tag(tokens, counts)

    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    )
    torch.set_num_threads(1)
    pipeline = transformers.pipeline("token-classification", torch_model, tokenizer=wrapped, batch_size=8, device="cpu")
    joined = [" ".join(text) for text in texts]
    return {
        "Hugging Face pipeline": lambda: pipeline(joined),
        "f32": tagger(plain, "f32", "f32"),
        "bf16": tagger(plain, "bf16", "f32"),
        "int8 weights, in bf16": tagger(compressed, "bf16", "int8"),
        "int8 weights, in int8": tagger(compressed, "int8", "int8"),
        "int8": tagger(calibrated, "bf16", "int8"),
    }, lengths


def main() -> None:
    """Print times, ratios and shares of the peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    texts = sentences(options.sentences)
    with tempfile.TemporaryDirectory() as scratch:
        run_all, lengths = ways(texts, Path(scratch))
        peaks = {name: peak(name) for name in ("f32", "bf16", "int8")}
        print(machine.describe())
        print(f"DistilBERT-base, random weights, one thread; {len(texts):,} sentences, mean {lengths.mean():.1f} pieces")
        spent: dict[str, list[machine.Spent]] = {name: [] for name in run_all}
        highest: dict[str, float] = dict.fromkeys(peaks, 0.0)
        for repeat in range(options.repeats + 1):
            for name, work in run_all.items():
                once = machine.spend(work)
                if repeat:
                    spent[name].append(once)
            for name, measure in peaks.items():
                highest[name] = max(highest[name], measure())
    for name, runs in spent.items():
        print(machine.line(name, runs, len(texts), "sentences"))
    report(spent, highest, operations_of(lengths))


def report(spent: dict[str, list[machine.Spent]], highest: dict[str, float], operations: float) -> None:
    """Ratios against the pipeline, and shares of the peak measured in the same run."""
    base = machine.median(spent["Hugging Face pipeline"]).cpu
    print("peak of matrix products, operations per CPU second: " + json.dumps({k: f"{v:.3g}" for k, v in highest.items()}))
    for name in ("f32", "bf16", "int8 weights, in bf16", "int8 weights, in int8", "int8"):
        precision = "int8" if name.endswith("int8") else name.rsplit(maxsplit=1)[-1]
        cpu = machine.median(spent[name]).cpu
        print(
            f"{name:24} {base / cpu:5.2f} x the pipeline (to meet {FASTER_THAN_PIPELINE[precision]}), "
            f"{operations / cpu / highest[precision]:.2f} of the {precision} peak (to meet {SHARE_OF_PEAK[precision]})"
        )


if __name__ == "__main__":
    main()
