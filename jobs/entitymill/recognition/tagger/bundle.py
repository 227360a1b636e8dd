"""Read and check a model bundle: a directory with a network, a vocabulary, labels, and a manifest that describes them.

The manifest says where the model comes from and how to run it, and has the SHA-256 of every file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from entitymill.errors import ModelError
from entitymill.recognition.best_tags_and_confidence import Scaling
from entitymill.recognition.model_loading_limits import MAX_LABEL_BYTES, MAX_LABEL_CHARACTERS, read_limited
from entitymill.spark import installation

MANIFEST = "manifest.json"
FILES = ("openvino_model.xml", "openvino_model.bin", "vocab.txt", "tokenizer.json", "labels.json")
NETWORK, WEIGHTS, VOCABULARY, TOKENIZER, LABELS = FILES
REQUIRED = (NETWORK, WEIGHTS, LABELS)
"""Names of the files that every manifest must list. It must also list VOCABULARY or TOKENIZER."""
Scheme = Literal["iob2", "iob1"]
"""Tagging scheme: what an I- tag means after a tag with a different label. In IOB2, as in Spark NLP's NerConverter, the I-
tag continues the mention. In IOB1, it begins a new mention."""
MAX_ROW_PIECES = 2**20
"""Maximum number of pieces (subwords) in an input row of a network; a manifest with a larger number is damaged."""
MAX_DESCRIPTION_BYTES = 2**20
"""Maximum size of a manifest and of a file of labels; those of models/demo have 2 kB and 0.1 kB."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HELP_PAGE = "docs/models.md"  # error messages refer to it
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""Spark's name for the partition directory of rows without a label. A label with this name would be read back as null."""
_QUOTED_CHARACTERS = 40
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_HUGGING_FACE_WEIGHTS = re.compile(r".*\.safetensors|pytorch_model.*\.bin")


class Manifest(BaseModel):
    """The content of `manifest.json`: the model's origin, how to run it, and the SHA-256 of each of the bundle's files.

    name, source, licence: the model's name, where it comes from, and its licence.
    casing: `cased` if the tokenizer distinguishes upper and lower case.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal[1] = 1
    name: str = Field(min_length=1, max_length=255)
    source: str = Field(max_length=2000)
    licence: str = Field(max_length=2000)
    casing: Literal["cased", "uncased"]
    max_length: int = Field(ge=8, le=MAX_ROW_PIECES, description="pieces in one input row, [CLS] and [SEP] included")
    sparknlp_max_length: int = Field(
        128, ge=8, le=MAX_ROW_PIECES, description="maxSentenceLength in Spark NLP, for the encoding sparknlp"
    )
    precision: Literal["f32", "bf16", "int8"] = Field(description="number format of the stored weights")
    calibrated: bool = Field(default=False, description="whether the network quantizes activations by measured ranges")
    scheme: Scheme = Field("iob2", description="tagging scheme: how tags join to mentions")
    confidence: dict[str, Scaling] = Field(default_factory=dict, description="scaling of the confidences of each label")
    f1: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="span F1 by data set, then by precision of the computation"
    )
    files: dict[str, str] = Field(description="SHA-256 of each file, hex, by the file's name")

    def digest(self) -> str:
        """Return a SHA-256, in hex, that identifies the files, the tagging scheme and the scaling of confidences.

        No other field affects this digest. `engine_choice` makes it part of a run's fingerprint, with some other fields.
        """
        scheme = {} if self.scheme == "iob2" else {"scheme": self.scheme}
        scaling = {"confidence": self.model_dump(include={"confidence"})["confidence"]} if self.confidence else {}
        decisive: dict[str, object] = {**self.files, **scheme, **scaling}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def shipped_names(self) -> dict[str, str]:
        """Return a dict from each file's name to a unique name, under which Spark copies it to executors.

        The unique name consists of the first 16 hex digits of the file's SHA-256, a hyphen, and the file's name.
        """
        return {name: f"{digest[:16]}-{name}" for name, digest in self.files.items()}


def is_plain_name(name: str) -> bool:
    """Return whether a name from an untrusted file is a plain file name, not a path to another directory.

    A plain name consists of 1 to 100 ASCII letters, digits and the characters ._- and does not begin with . or -. So Python,
    Hadoop and Spark find no separator, URI scheme or wildcard in it.
    """
    return _PLAIN_NAME.fullmatch(name) is not None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(text: str, where: str) -> Manifest:
    """Parse and check the text of a manifest, and return the manifest; messages contain `where`, the bundle's path or URI.

    Raises:
        ModelError: the text is too long or not JSON; a field is missing, unknown or of the wrong type; a required file is
            not listed; or a file name or a digest is not valid.
    """
    if len(text) > MAX_DESCRIPTION_BYTES:
        raise ModelError(f"{where}/{MANIFEST} is too large to be a model manifest. Prepare the model again.")
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or MANIFEST
        raise ModelError(
            f"{where}/{MANIFEST} is not a model manifest: {field}: {first['msg']}. Prepare the model again."
        ) from error
    missing = [name for name in REQUIRED if name not in manifest.files]
    if not {VOCABULARY, TOKENIZER} & set(manifest.files):
        missing.append(f"{TOKENIZER} (or {VOCABULARY})")
    if missing:
        raise ModelError(
            f"{where}/{MANIFEST} does not list {', '.join(missing)}: the bundle is incomplete. Prepare the model again."
        )
    # Names and digests become file names on the driver (`shipped_names`), so check them first.
    unsafe = [name for name in manifest.files if not is_plain_name(name)]
    if unsafe:
        raise ModelError(
            f"{where}/{MANIFEST} lists {unsafe[0]!r}, which is not a valid file name inside the bundle. Prepare the model "
            "again."
        )
    damaged = [name for name, digest in manifest.files.items() if not _DIGEST.fullmatch(digest)]
    if damaged:
        raise ModelError(
            f"{where}/{MANIFEST} has no valid SHA-256 of {damaged[0]} (64 digits, 0-9 and a-f). Prepare the model again."
        )
    return manifest


def read_directory(directory: Path) -> tuple[Manifest, dict[str, Path]]:
    """Return the manifest of a bundle in a local directory, and a dict from the name of each of its files to the path.

    Raise a ModelError if the manifest is invalid or cannot be read. Whether the other files exist is not checked.
    """
    try:
        with (directory / MANIFEST).open(encoding="utf8", errors="replace") as file:
            text = file.read(MAX_DESCRIPTION_BYTES + 1)
    except OSError as error:
        raise ModelError(
            f"{directory} is not a model bundle: its {MANIFEST} cannot be read ({error.strerror}). Specify the directory of "
            "a bundle."
        ) from error
    manifest = read_manifest(text, str(directory))
    return manifest, {name: directory / name for name in manifest.files}


def check_files(files: dict[str, Path], manifest: Manifest, where: str) -> None:
    """Raise a ModelError if a file of a bundle is missing, or does not have the SHA-256 in the manifest.

    Call this function before reading the files, since a damaged file may crash the library that reads it. `files` is a dict
    from file names to local paths, and `where` is the bundle's path or URI, for error messages.
    """
    for name, expected in manifest.files.items():
        path = files.get(name)
        if path is None or not path.is_file():
            raise ModelError(f"The model at {where} has no {name}, which its manifest lists. Copy the bundle again.")
        check_file(path, expected, name, where)


def check_file(path: Path, expected: str, name: str, where: str) -> None:
    """Raise a ModelError if a file of a bundle cannot be read, or does not have the SHA-256 `expected`.

    The message contains `name`, the file's name in the bundle, and `where`, the bundle's path or URI.
    """
    try:
        actual = sha256(path)
    except OSError as error:
        raise ModelError(f"{name} of the model at {where} cannot be read ({error.strerror}).") from error
    if actual != expected:
        raise ModelError(
            f"{name} of the model at {where} has SHA-256 {actual[:12]}…, but {expected[:12]}… is expected: "
            "the file was altered or damaged, and will not be loaded. Copy the model again."
        )


def read_tags(path: Path) -> tuple[str, ...]:
    """Return a model's tags in the order of the network's outputs: O and tags such as B-PER and I-PER.

    Raise a ModelError if the file cannot be read or is not a JSON list of O and distinct tags, or if
    `check_labels_as_directory_names` finds an invalid label.
    """
    try:
        labels = json.loads(read_limited(path, MAX_DESCRIPTION_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} of the model is not JSON. Prepare the model again.") from error
    ok = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    if ok:
        check_labels_as_directory_names(labels, f"{path.name} of the model")
        ok = all(label == "O" or label[:2] in ("B-", "I-") for label in labels)
    if not ok or "O" not in labels or len(set(labels)) != len(labels):
        raise ModelError(
            f"{path.name} of the model is not a list of O and distinct tags (B-PER, I-PER, …). Prepare the model again."
        )
    return tuple(labels)


def check_labels_as_directory_names(tags: Sequence[str], where: str) -> None:
    """Raise a ModelError if a label cannot be part of a directory's name (the table `entities` is partitioned by label).

    Args:
        tags: tags in the order of the network's outputs; the part after B- or I- is the label.
        where: name of the file that lists the tags, for error messages.
    """
    for number, tag in enumerate(tags):
        label = tag[2:] if tag[:2] in ("B-", "I-") else tag
        fault = find_label_fault(label)
        if fault is not None:
            raise ModelError(
                f"Label {number} (counted from 0) of {where}, '{shorten_label(label)}', {fault}. Each label becomes the "
                "name of a directory of the table entities. Rename it in the original model, then prepare the model again."
            )


def find_label_fault(label: str) -> str | None:
    """Return why a label cannot be part of a directory's name in the table `entities`: "is empty", …; None if it can."""
    # Spark writes many ASCII signs in directory names as %XX, so a sign may take three bytes.
    signs = sum(char.isascii() and not char.isalnum() for char in label)
    faults = (
        (not label.strip(), "is empty"),
        (not label.isprintable(), "contains a character that is not printable"),
        ("/" in label, "contains a slash"),
        (label == _NULL_PARTITION, "is Spark's name for rows without a label"),
        (len(label) > MAX_LABEL_CHARACTERS, f"is longer than {MAX_LABEL_CHARACTERS} characters"),
        (
            len(label.encode("utf8", "surrogatepass")) + 2 * signs > MAX_LABEL_BYTES,
            f"takes more than {MAX_LABEL_BYTES} bytes as the name of a directory",
        ),
    )
    return next((description for is_fault, description in faults if is_fault), None)


def shorten_label(label: str) -> str:
    """Return a label for an error message: its first 40 characters, unprintable ones escaped, and … if it is longer."""
    return repr(label[:_QUOTED_CHARACTERS])[1:-1] + ("…" if len(label) > _QUOTED_CHARACTERS else "")


def write_manifest(directory: Path, manifest: dict[str, object]) -> Manifest:
    """Write a bundle's manifest.json, which lists those files in `directory` whose names are in FILES; return the manifest.

    `manifest` has values of `Manifest`'s fields except `files`, the files' SHA-256, which is computed here. Raise a
    ModelError, and write nothing, if a value is invalid or a required file is missing.
    """
    files = {path.name: sha256(path) for path in sorted(directory.iterdir()) if path.name in FILES}
    written = read_manifest(json.dumps({**manifest, "files": files}), str(directory))
    (directory / MANIFEST).write_text(written.model_dump_json(indent=1) + "\n", encoding="utf8")
    return written


def update_manifest(directory: Path, **fields: object) -> Manifest:
    """Replace the given fields in a bundle's manifest.json, and recompute each file's SHA-256; return the new manifest."""
    manifest, _ = read_directory(directory)
    return write_manifest(directory, manifest.model_copy(update=fields).model_dump(exclude={"files"}))


def describe_missing(path: str) -> str:
    """Return the end of an error message: that there is no model at `path`, and what the user can do."""
    advice = installation.explain_missing_model(path)
    if advice:
        return f"there is nothing at {path}; {advice} ({_HELP_PAGE})."
    if path.startswith("pretrained:"):
        return (
            f"{path} is on Spark NLP's models hub: to use it, set recognition.sparknlp_model and `recognition.engine: "
            "sparknlp`; otherwise, specify the directory of a model bundle."
        )
    if "/" in path and _HUB_NAME.fullmatch(path):
        return (
            f"there is nothing at {path}. If it is a model's name on the Hugging Face hub, download it "
            f"(hf download {path} --local-dir DIRECTORY), run prepare_model.py DIRECTORY DEST (or entitymill prepare), and "
            f"use DEST ({_HELP_PAGE})."
        )
    return f"there is nothing at {path}; specify a model bundle."


def describe_other_format(path: str, names: Collection[str]) -> str:
    """Return the end of an error message: that the directory `path` is not a bundle, and what the user can do.

    Args:
        names: names of the files and directories in the directory.
    """
    kind = _detect_format(names)
    if kind is None:
        return f"{path} has no {MANIFEST}: it is not a model bundle; prepare_model.py makes a bundle ({_HELP_PAGE})."
    make = f"prepare_model.py {path} DEST (or entitymill prepare)"
    return f"{path} is {kind}, not a model bundle: run {make}, and use DEST ({_HELP_PAGE})."


def _detect_format(names: Collection[str]) -> str | None:
    """Return the format of a model whose directory contains `names`, such as "an ONNX directory"; None if unknown."""
    if "config.json" in names and any(map(_HUGGING_FACE_WEIGHTS.fullmatch, names)):
        return "a Hugging Face directory"
    if "metadata" in names:
        return "a saved Spark NLP model"
    if any(name.endswith(".onnx") for name in names):
        return "an ONNX directory"
    if any(name.endswith(".xml") for name in names):
        return "an OpenVINO directory"
    return None
