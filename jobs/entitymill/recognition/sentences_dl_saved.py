"""Read a SentenceDetectorDLModel saved by Spark NLP, without TensorFlow, without a JVM and without unpickling anything.

The file metadata/part-* is one line of JSON with the parameters. The file generic_classifier_tensorflow is a zip archive of
a TensorFlow checkpoint: an index in LevelDB's table format (tensorflow/core/lib/io/table_format.txt), which contains
BundleEntryProto messages (tensorflow/core/protobuf/tensor_bundle.proto), and a file with the bytes of all tensors.
"""

from __future__ import annotations

import json
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entitymill.errors import ModelError
from entitymill.recognition import model_loading_limits
from entitymill.recognition.model_loading_limits import convert_loading_errors

METADATA, NETWORK = "metadata", "generic_classifier_tensorflow"
"""Names of the two parts of a saved sentence detector: METADATA is a directory with one file part-*, NETWORK is a file."""
EMBEDDING, KERNEL, FILTER_BIAS = "embedding/embeddings", "conv1d/kernel", "conv1d/bias"
HIDDEN, HIDDEN_BIAS, OUTPUT, OUTPUT_BIAS = "dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"
"""Names of the network's weight arrays in the checkpoint: of the embedding, the convolution and two dense layers."""
_WEIGHTS = {EMBEDDING: 2, KERNEL: 3, FILTER_BIAS: 1, HIDDEN: 2, HIDDEN_BIAS: 1, OUTPUT: 2, OUTPUT_BIAS: 1}
"""The number of dimensions of each weight array."""
_CLASS = "com.johnsnowlabs.nlp.annotators.sentence_detector_dl.SentenceDetectorDLModel"
_UNLIMITED = 2**31 - 1
_SUPPORTED_VALUES: dict[str, Any] = {
    "modelArchitecture": "cnn",
    "customBounds": [],
    "useCustomBoundsOnly": False,
    "explodeSentences": False,
    "minLength": 0,
    "maxLength": _UNLIMITED,
    "splitLength": _UNLIMITED,
}
"""The value that each of these parameters of a saved model must have. All these values are Spark NLP's defaults."""
CONTEXT_WIDTH = 11
"""Number of UTF-16 code units that the network sees: a mark, which may end a sentence, and five on either side."""
_MAX_INDEX_ENTRIES = 1000
"""Maximum number of blocks, and of entries in all blocks, of a checkpoint's index; models/sentence_detector: 24 entries."""
_MAX_ENTRY_BYTES = 1024
"""Maximum size of a key, and of a value, in a checkpoint's index; the largest in models/sentence_detector has 32 bytes."""
_MAX_METADATA_BYTES = 16 * 2**20
_INDEX_MAGIC = bytes.fromhex("57fb808b247547db")
_FLOAT32 = 1
DAMAGE_ERRORS = (
    OSError, EOFError, LookupError, TypeError, ValueError, OverflowError, RuntimeError, MemoryError, struct.error,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""Errors that may occur if damaged or malicious files are unpacked and read as a network."""


@dataclass(frozen=True)
class SavedDetector:
    """A sentence detector that was saved by Spark NLP.

    ids: dict from a character to its id in the network's input.
    never_last: words after which no sentence ends, such as Dr.
    weights: dict from the name of a weight array to the array.
    """

    ids: dict[str, int]
    never_last: tuple[str, ...]
    weights: dict[str, NDArray[np.float32]]


def read_detector(metadata: Path, network: Path, where: str) -> SavedDetector:
    """Return the sentence detector that Spark NLP saved in two files.

    Args:
        metadata: path of the detector's file metadata/part-*.
        network: path of the detector's file `generic_classifier_tensorflow`.
        where: path or URI of the detector's directory, for error messages.

    Raises:
        ModelError: the model is damaged, is not a SentenceDetectorDLModel, or has an unsupported parameter value.
    """
    ids, never_last = _read_parameters(metadata, where)
    with convert_loading_errors(f"{where}/{NETWORK}"):
        try:
            weights = _read_weights(network)
            _check_shapes(weights, ids)
        except DAMAGE_ERRORS as error:
            raise ModelError(
                f"segmentation.model: {NETWORK} of {where} is not the network of a SentenceDetectorDLModel ({error}). "
                "Copy the model again."
            ) from error
    return SavedDetector(ids, never_last, weights)


def _read_parameters(metadata: Path, where: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the ids of characters, and the words after which no sentence ends, from a metadata file.

    Raise a ModelError if the file is damaged, describes no SentenceDetectorDLModel, or has an unsupported parameter value.
    """
    try:
        saved = json.loads(model_loading_limits.read_limited(metadata, _MAX_METADATA_BYTES))
        kind = saved["class"]
        chosen = {**saved["defaultParamMap"], **saved["paramMap"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"segmentation.model: the metadata of {where} is not valid metadata of a Spark NLP model. Copy the model again."
        ) from error
    if kind != _CLASS:
        raise ModelError(
            f"segmentation.model: {where} is a {str(kind).rpartition('.')[2]}, not a SentenceDetectorDLModel. Specify the "
            "directory of a saved SentenceDetectorDLModel."
        )
    for name, supported in _SUPPORTED_VALUES.items():
        if chosen.get(name, supported) != supported:
            raise ModelError(
                f"segmentation.model: {where} was saved with {name} {chosen[name]!r}, but this program's detector supports "
                f"only {supported!r}. Save the model with this value, or set `recognition.engine: sparknlp`."
            )
    try:
        ids = {key: int(value) for entry in chosen["Encoder"] for key, value in entry.items()}
        never_last = tuple(str(word) for word in chosen.get("impossiblePenultimates", ()) if word)
        lowest = min(ids.values())
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(
            f"segmentation.model: the metadata of {where} lists no characters with valid ids. Copy the model again."
        ) from error
    if lowest < 0 or not all(ids):
        raise ModelError(
            f"segmentation.model: the metadata of {where} is damaged: in its list of characters, one is empty or has "
            "a negative id. Copy the model again."
        )
    return ids, never_last


def _read_weights(network: Path) -> dict[str, NDArray[np.float32]]:
    """Read a network's file, and return a dict from names to weight arrays.

    Raise one of DAMAGE_ERRORS if the file is damaged or too large.
    """
    with zipfile.ZipFile(network) as archive:
        members = {Path(member.filename).name: member for member in archive.infolist()}
        index, data = members["variables.index"], members["variables.data-00000-of-00001"]
        if max(index.file_size, data.file_size) > model_loading_limits.MAX_DETECTOR_FILE_BYTES:
            raise ValueError(f"a file in the archive has more than {model_loading_limits.MAX_DETECTOR_FILE_BYTES:,} bytes")
        entries, content = _read_table(archive.read(index)), archive.read(data)
    return {name: _read_tensor(entries[name.encode()], content) for name in _WEIGHTS}


def _check_shapes(weights: dict[str, NDArray[np.float32]], ids: dict[str, int]) -> None:
    """Raise a ValueError if weights are not finite, do not fit each other or `ids`, or would need too much memory."""
    if any(weights[name].ndim != dimensions for name, dimensions in _WEIGHTS.items()):
        raise ValueError("the weights are not those of an embedding, a convolution and two dense layers")
    rows, width = weights[EMBEDDING].shape
    kernel, inner, filters = weights[KERNEL].shape
    hidden = weights[HIDDEN].shape
    fits = (inner, hidden[0], weights[OUTPUT].shape) == (width, filters, (hidden[1], 1))
    biased = (len(weights[FILTER_BIAS]), len(weights[HIDDEN_BIAS]), len(weights[OUTPUT_BIAS])) == (filters, hidden[1], 1)
    characters = max(ids.values()) + 1
    if not fits or not biased or characters > min(rows, model_loading_limits.MAX_DETECTOR_CHARACTERS):
        raise ValueError("the layers do not fit each other, or do not fit the character ids")
    if not 0 < kernel <= CONTEXT_WIDTH:
        raise ValueError(f"the convolution spans {kernel} characters; 1 to {CONTEXT_WIDTH} are supported")
    size = CONTEXT_WIDTH * characters * (CONTEXT_WIDTH - kernel + 1) * filters * np.dtype(np.float64).itemsize
    if size > model_loading_limits.MAX_DETECTOR_TABLE_BYTES:
        raise ValueError(
            f"the network would need {size:,} bytes of memory; "
            f"the limit is {model_loading_limits.MAX_DETECTOR_TABLE_BYTES:,}"
        )
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise ValueError("some weights are not finite numbers")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a protocol buffer's variable-length integer (varint) at index `at` of `data`, and the index after the integer.

    Raise a ValueError if the integer has more than ten bytes (64 bits need ten), and an IndexError if it is incomplete.
    """
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("an integer has more than 64 bits")


def _read_fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (field number, value) of each field of a protocol buffer message; a value is an int for a varint, else bytes."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _read_varint(data, at)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            size, at = _read_varint(data, at)
        yield key >> 3, data[at : at + size]
        at += size


def _read_block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, value) for each entry of the block of `size` bytes at index `offset` of a LevelDB table.

    Raise a ValueError if the block is compressed, or if an entry ends after the block, or has a key or value with more than
    _MAX_ENTRY_BYTES. A key is stored as the length of the prefix that it shares with the previous key, and its remaining
    bytes.
    """
    block = data[offset : offset + size]
    if data[offset + size] != 0:
        raise ValueError("the checkpoint's index is compressed, which is not supported")
    end = len(block) - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    at, key = 0, b""
    while at < end:
        shared, at = _read_varint(block, at)
        own, at = _read_varint(block, at)
        length, at = _read_varint(block, at)
        key = key[:shared] + block[at : at + own]
        if max(len(key), length) > _MAX_ENTRY_BYTES or at + own + length > end:
            raise ValueError(
                f"an entry of the checkpoint's index has more than {_MAX_ENTRY_BYTES:,} bytes, or is incomplete"
            )
        yield key, block[at + own : at + own + length]
        at += own + length


def _read_table(data: bytes) -> dict[bytes, bytes]:
    """Return a dict from the name of each tensor in a checkpoint's index to a serialized BundleEntryProto.

    A BundleEntryProto contains the tensor's type, shape and place in the data file. The key b"" has the checkpoint's header.
    Raise a ValueError if `data` is not an index, is compressed, or has more than _MAX_INDEX_ENTRIES blocks or entries.
    """
    footer = data[-48:]
    if footer[-8:] != _INDEX_MAGIC:
        raise ValueError("variables.index is not the index of a checkpoint")
    _, at = _read_varint(footer, 0)
    _, at = _read_varint(footer, at)
    offset, at = _read_varint(footer, at)
    size, at = _read_varint(footer, at)
    entries: dict[bytes, bytes] = {}
    count = 0
    for blocks, (_, handle) in enumerate(_read_block(data, offset, size), 1):
        if blocks > _MAX_INDEX_ENTRIES:
            raise ValueError(f"the checkpoint's index has more than {_MAX_INDEX_ENTRIES:,} blocks")
        begin, at = _read_varint(handle, 0)
        length, _ = _read_varint(handle, at)
        for key, value in _read_block(data, begin, length):
            count += 1
            if count > _MAX_INDEX_ENTRIES:
                raise ValueError(f"the checkpoint's index has more than {_MAX_INDEX_ENTRIES:,} entries")
            entries[key] = value
    return entries


def _read_tensor(entry: bytes, data: bytes) -> NDArray[np.float32]:
    """Return the array that a serialized BundleEntryProto describes; `data` is the file with the bytes of all tensors.

    Raise a ValueError if the array does not consist of 32-bit floats, or if its size does not match its shape or `data`.
    """
    values: dict[int, Any] = {}
    shape: list[int] = []
    for number, value in _read_fields(entry):
        values[number] = value
        if number == 2:
            shape = [dict(_read_fields(dimension)).get(1, 1) for inner, dimension in _read_fields(value) if inner == 2]
    offset, size = values.get(4, 0), values[5]
    if values.get(1) != _FLOAT32 or size != 4 * math.prod(shape) or offset + size > len(data):
        raise ValueError("a tensor does not consist of 32-bit floats, or its size does not match its shape")
    return np.frombuffer(data[offset : offset + size], "<f4").reshape(shape).copy()
