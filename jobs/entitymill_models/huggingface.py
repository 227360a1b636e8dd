"""Read a model from a Hugging Face directory (config.json, safetensors, tokenizer), without PyTorch and transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from entitymill.errors import ModelError, SettingsError
from entitymill.recognition.tagger import bundle
from entitymill.spark import installation
from entitymill_models import encoder_builder, labels_and_tokenizer_files
from entitymill_models.imported_classifier import Casing, Parts, read_json

INDEX = "model.safetensors.index.json"
_ATTENTION = "encoder.layer.{}.attention"
_EXPORT = "Export the model to ONNX, then run `entitymill prepare` on the export."


def _build_bert_names(prefix: str) -> encoder_builder.Names:
    """Return the names of the parameters of BERT or RoBERTa; all except the classifier's begin with `prefix`."""
    return encoder_builder.Names(
        words=f"{prefix}.embeddings.word_embeddings",
        positions=f"{prefix}.embeddings.position_embeddings",
        segments=f"{prefix}.embeddings.token_type_embeddings",
        normalized=f"{prefix}.embeddings.LayerNorm",
        query=f"{prefix}.{_ATTENTION}.self.query",
        key=f"{prefix}.{_ATTENTION}.self.key",
        value=f"{prefix}.{_ATTENTION}.self.value",
        attended=f"{prefix}.{_ATTENTION}.output.dense",
        after_attention=f"{prefix}.{_ATTENTION}.output.LayerNorm",
        inner=f"{prefix}.encoder.layer.{{}}.intermediate.dense",
        outer=f"{prefix}.encoder.layer.{{}}.output.dense",
        after_network=f"{prefix}.encoder.layer.{{}}.output.LayerNorm",
    )


_LAYER = "distilbert.transformer.layer.{}"
NAMES = {
    "distilbert": encoder_builder.Names(
        words="distilbert.embeddings.word_embeddings",
        positions="distilbert.embeddings.position_embeddings",
        segments=None,
        normalized="distilbert.embeddings.LayerNorm",
        query=f"{_LAYER}.attention.q_lin",
        key=f"{_LAYER}.attention.k_lin",
        value=f"{_LAYER}.attention.v_lin",
        attended=f"{_LAYER}.attention.out_lin",
        after_attention=f"{_LAYER}.sa_layer_norm",
        inner=f"{_LAYER}.ffn.lin1",
        outer=f"{_LAYER}.ffn.lin2",
        after_network=f"{_LAYER}.output_layer_norm",
    ),
    "bert": _build_bert_names("bert"),
    "roberta": _build_bert_names("roberta"),
    "xlm-roberta": _build_bert_names("roberta"),
}
"""A dict from each supported architecture, which is called `model_type` in config.json, to the names of its parameters.

(Source: models/*/modeling_*.py of the library transformers.)
"""
OFFSET_POSITIONS = ("roberta", "xlm-roberta")
"""Architectures that number positions from the padding piece's id plus 1. Their models need a tokenizer.json."""
DISTILBERT_EPSILON = 1e-12
"""The epsilon of DistilBERT's normalizations, a constant in the code of transformers that is not in config.json."""


def is_model_directory(directory: Path) -> bool:
    """Return whether a directory contains a Hugging Face model: config.json, and *.safetensors or pytorch_model*.bin.

    A directory with *.onnx and pytorch_model*.bin, but no *.safetensors, is not a Hugging Face model: its *.onnx is read
    instead, because pytorch_model*.bin is never opened.
    """
    has_weights = bool(list(directory.glob("*.safetensors")))
    if not has_weights and not list(directory.glob("*.onnx")):
        has_weights = bool(list(directory.glob("pytorch_model*.bin")))
    return has_weights and (directory / labels_and_tokenizer_files.CONFIG).is_file()


def read_directory(directory: Path, where: str, casing: Casing | None = None) -> Parts:
    """Read a token classifier of one of the architectures in NAMES from config.json, safetensors files and a tokenizer.

    Args:
        where: path of the model, for error messages.
        casing: the casing that the user specified, or None to read it from the tokenizer's files.

    Raises:
        ModelError: a file is missing or damaged, or the files do not fit each other; or the model's architecture is not in
            NAMES, or has an option that is not supported.
        SettingsError: `casing` is None although no file states the casing, or `casing` contradicts the tokenizer; or the
            library safetensors is not installed.
    """
    config = read_json(directory / labels_and_tokenizer_files.CONFIG)
    kind = _check_architecture(config, where)
    labels = labels_and_tokenizer_files.read_config_labels(config, f"{where}/{labels_and_tokenizer_files.CONFIG}")
    tokenizer = labels_and_tokenizer_files.read_tokenizer(directory, where, casing, require_json=kind in OFFSET_POSITIONS)
    weights = _read_weights(directory, where)
    shape = _read_shape(config, kind, where)
    names = NAMES[kind]
    network = encoder_builder.build_classifier(weights, names, shape, where)
    scored = weights[f"{names.classifier}.weight"].shape[0]
    if scored != len(labels):
        raise ModelError(
            f"The network of {where} scores {scored} tags, but id2label in its config.json lists {len(labels)}: copy the "
            "model again."
        )
    rows = weights[f"{names.positions}.weight"].shape[0] - (0 if shape.padding is None else shape.padding + 1)
    return Parts(
        network=network,
        labels=labels,
        tokenizer=tokenizer.tokenizer,
        vocabulary=tokenizer.vocabulary,
        casing=tokenizer.casing,
        max_length=min(rows, labels_and_tokenizer_files.read_max_length(directory)),
        source=f"a Hugging Face {kind} token classifier",
        limit=rows,
    )


def _check_architecture(config: dict[str, object], where: str) -> str:
    """Return the architecture, a key of NAMES, that is stated in `config`, the content of a model's config.json.

    Raise ModelError if the architecture or one of its options is not supported, or the model is not a token classifier.
    """
    kind = str(config.get("model_type"))
    if kind not in NAMES:
        raise ModelError(f"{where} is a {kind} model, but only {', '.join(NAMES)} are supported. {_EXPORT}")
    made_for = config.get("architectures")
    if isinstance(made_for, list) and made_for and not any("TokenClassification" in str(name) for name in made_for):
        raise ModelError(f"{where} is a {made_for[0]}, not a token classifier: choose a model that tags tokens.")
    activation = config.get("activation" if kind == "distilbert" else "hidden_act", "gelu")
    if activation != "gelu":
        raise ModelError(f"{where} uses activation {activation}, but only gelu is supported. {_EXPORT}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ModelError(f"{where} uses relative position embeddings, which are not supported. {_EXPORT}")
    return kind


def _read_shape(config: dict[str, object], kind: str, where: str) -> encoder_builder.Shape:
    """Read the numbers that describe an encoder from config.json, whose keys depend on the architecture `kind`.

    The numbers of layers and attention heads are required. The key layer_norm_eps has the default 1e-12, and is ignored for
    DistilBERT. For the architectures in OFFSET_POSITIONS, pad_token_id has the default 1. Raise ModelError if a required
    number is missing, or a number has a wrong type or an impossible value.
    """
    names = ("n_layers", "n_heads") if kind == "distilbert" else ("num_hidden_layers", "num_attention_heads")
    layers, heads = (config.get(name) for name in names)
    epsilon = DISTILBERT_EPSILON if kind == "distilbert" else config.get("layer_norm_eps", 1e-12)
    padding = config.get("pad_token_id", 1) if kind in OFFSET_POSITIONS else None
    if (
        not isinstance(layers, int)
        or not isinstance(heads, int)
        or not isinstance(epsilon, float)
        or not (padding is None or isinstance(padding, int))
        or not (0 < layers < 1000 and heads > 0)
    ):
        raise ModelError(
            f"config.json of {where} lacks a valid {names[0]} or {names[1]}, or has an invalid layer_norm_eps or "
            "pad_token_id: copy the model again."
        )
    return encoder_builder.Shape(layers, heads, epsilon, padding)


def _read_weights(directory: Path, where: str) -> encoder_builder.Weights:
    """Read every floating-point tensor of a Hugging Face directory, from all its safetensors files, as float32.

    Raise ModelError if a file is missing or damaged, and SettingsError if the library safetensors is not installed.
    """
    weights: encoder_builder.Weights = {}
    for file in _list_weight_files(directory, where):
        weights |= _read_safetensors(file, where)
    return weights


def _list_weight_files(directory: Path, where: str) -> list[Path]:
    """Return the paths of a model's safetensors files: all that the file INDEX lists or, without INDEX, the only one.

    Raise ModelError if there is no safetensors file, there are several files but no INDEX, or INDEX is not valid.
    """
    if (directory / INDEX).is_file():
        shards = read_json(directory / INDEX).get("weight_map")
        names = sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else []
        if not names or not all(map(bundle.is_plain_name, names)):
            raise ModelError(
                f"{INDEX} of {where} lists no files, or files outside the model's directory: copy the model again."
            )
        return [directory / name for name in names]
    found = sorted(directory.glob("*.safetensors"))
    if len(found) == 1:
        return found
    if found:
        raise ModelError(f"{where} has {len(found)} safetensors files, but no {INDEX} that lists them: copy it, too.")
    if (directory / "pytorch_model.bin").exists() or list(directory.glob("pytorch_model-*.bin")):
        raise ModelError(
            f"{where} has its weights only as pytorch_model.bin, a pickle, which can run any code when opened. The file was "
            "not opened: save the model again with save_pretrained(safe_serialization=True)."
        )
    raise ModelError(f"{where} has no *.safetensors file: copy the model again.")


def _read_safetensors(file: Path, where: str) -> encoder_builder.Weights:
    """Return the floating-point tensors of one safetensors file as float32; other tensors, such as integers, are left out.

    Raise ModelError if the file is missing or damaged, and SettingsError if the library safetensors is not installed.
    """
    try:
        import safetensors  # noqa: PLC0415  - needed only for models from Hugging Face
    except ImportError as error:
        raise SettingsError(f"Reading safetensors needs {installation.PREPARE}.") from error
    try:
        tensors = safetensors.deserialize(file.read_bytes())  # type: ignore[no-untyped-call]
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise ModelError(f"{file.name} of {where} is missing or damaged: copy the model again.") from error
    return {name: _convert_to_float32(tensor["data"], tensor["dtype"]).reshape(tensor["shape"]) for name, tensor in tensors
            if tensor["dtype"] in ("F32", "F16", "BF16", "F64")}  # fmt: skip


def _convert_to_float32(data: bytes | bytearray, kind: str) -> NDArray[np.float32]:
    """Convert the bytes of a tensor of type `kind` (F64, F32, F16 or BF16) to a one-dimensional array of float32."""
    if kind == "BF16":
        # A bfloat16 is the upper 16 bits of a float32.
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[kind]).astype(np.float32)
