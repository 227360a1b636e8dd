"""Weights in safetensors files: numbers alone, where PyTorch's own files hold a program to run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from entitymill.errors import ModelError, SettingsError
from entitymill.models.classifier_parts import read_json
from entitymill.platform import not_installed
from entitymill.recognition.tagger import bundle

INDEX = "model.safetensors.index.json"
Weights = dict[str, NDArray[np.float32]]


def read(directory: Path, where: str) -> Weights:
    """Every floating-point tensor of a Hugging Face directory, as float32; shards are put together.

    Raises:
        ModelError: there are none, or a file is missing or damaged.
        SettingsError: the library that reads them is not installed.
    """
    found: Weights = {}
    for file in _files(directory, where):
        found |= _read_one(file, where)
    return found


def _files(directory: Path, where: str) -> list[Path]:
    if (directory / INDEX).is_file():
        shards = read_json(directory / INDEX).get("weight_map")
        names = sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else []
        if not names or not all(map(bundle.is_plain, names)):
            raise ModelError(f"{INDEX} of {where} does not list files of its own directory: copy the model again.")
        return [directory / name for name in names]
    found = sorted(directory.glob("*.safetensors"))
    if len(found) == 1:
        return found
    if found:
        raise ModelError(f"{where} has {len(found)} safetensors files and no {INDEX} that joins them: copy it.")
    if (directory / "pytorch_model.bin").exists() or list(directory.glob("pytorch_model-*.bin")):
        raise ModelError(
            f"{where} has its weights only as pytorch_model.bin, a pickle, which can run any code and is not opened: "
            "save it again with save_pretrained(safe_serialization=True)."
        )
    raise ModelError(f"{where} has no *.safetensors file: copy the model again.")


def _read_one(file: Path, where: str) -> Weights:
    try:
        import safetensors  # noqa: PLC0415  - only models from Hugging Face need it
    except ImportError as error:
        raise SettingsError(f"Reading safetensors needs {not_installed.PREPARE}.") from error
    try:
        tensors = safetensors.deserialize(file.read_bytes())  # type: ignore[no-untyped-call]
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise ModelError(f"{file.name} of {where} is missing or damaged: copy the model again.") from error
    return {name: _floats(tensor["data"], tensor["dtype"]).reshape(tensor["shape"]) for name, tensor in tensors
            if tensor["dtype"] in ("F32", "F16", "BF16", "F64")}  # fmt: skip


def _floats(data: bytes | bytearray, kind: str) -> NDArray[np.float32]:
    if kind == "BF16":
        # A bfloat16 is the upper half of a float32.
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[kind]).astype(np.float32)
