"""What a path is that was to be a model bundle and is none, and what to do with it."""

from __future__ import annotations

import re
from collections.abc import Collection

from entitymill.platform import not_installed
from entitymill.recognition.tagger import bundle

PAGE = "docs/models.md"
_ON_A_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_WEIGHTS = re.compile(r".*\.safetensors|pytorch_model.*\.bin")


def nothing_there(path: str) -> str:
    """Of a path at which nothing is."""
    carried = not_installed.model(path)
    if carried:
        return f"nothing is at {path}; {carried} ({PAGE})."
    if path.startswith("pretrained:"):
        return f"{path} is on Spark NLP's models hub, which recognition.sparknlp_model names; a bundle is a directory."
    if "/" in path and _ON_A_HUB.fullmatch(path):
        return (
            f"nothing is at {path}. If it is a model's name on the Hugging Face hub, download it "
            f"(hf download {path} --local-dir DIRECTORY), run prepare_model.py DIRECTORY DEST (or entitymill prepare), and "
            f"name DEST ({PAGE})."
        )
    return f"nothing is at {path}; name a model bundle."


def other_model(path: str, held: Collection[str]) -> str:
    """Of a directory without a manifest.

    Args:
        path: its address.
        held: names of the files and directories in it.
    """
    kind = _kind(held)
    if kind is None:
        return f"{path} has no {bundle.MANIFEST}: it is not a model bundle; prepare_model.py makes one ({PAGE})."
    make = f"prepare_model.py {path} DEST (or entitymill prepare)"
    return f"{path} is {kind}, not a model bundle: run {make}, and name DEST ({PAGE})."


def _kind(held: Collection[str]) -> str | None:
    if "config.json" in held and any(map(_WEIGHTS.fullmatch, held)):
        return "a Hugging Face directory"
    if "metadata" in held:
        return "a saved Spark NLP model"
    if any(name.endswith(".onnx") for name in held):
        return "an ONNX directory"
    if any(name.endswith(".xml") for name in held):
        return "an OpenVINO directory"
    return None
