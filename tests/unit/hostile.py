"""Malicious models for tests: each function writes one model and returns its directory or file."""

from __future__ import annotations

import io
import json
import math
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from entitymill.recognition import sentences_dl_saved
from entitymill.recognition.tagger import bundle
from entitymill_models import sparknlp_field_files
from unit import tiny
from unit.damage import repacked

PIPELINE = "org.apache.spark.ml.PipelineModel"
ROOT = Path(__file__).parents[2]
DEMO = ROOT / "models" / "demo"
DETECTOR = ROOT / "models" / "sentence_detector"


def changed_bundle(into: Path, name: str, change: Callable[[str], str], **manifest: object) -> Path:
    """Copy the bundled model, change one file, and write a manifest with the digest of the changed file."""
    shutil.copytree(DEMO, into, ignore=shutil.ignore_patterns("recipe"))
    (into / name).write_text(change((into / name).read_text(encoding="utf8")), encoding="utf8")
    said = json.loads((into / bundle.MANIFEST).read_text(encoding="utf8"))
    del said["files"]
    bundle.write_manifest(into, {**said, **manifest})
    return into


def _changed_tokenizer(into: Path, **parts: object) -> Path:
    return changed_bundle(into, bundle.TOKENIZER, lambda text: json.dumps({**json.loads(text), **parts}))


def network_that_crashes(into: Path) -> Path:
    """Write a network in which one activation is an assignment to a missing variable, at which OpenVINO crashes."""
    return changed_bundle(into, bundle.NETWORK, lambda text: text.replace('type="Gelu"', 'type="Assign"', 1))


def network_that_is_refused(into: Path) -> Path:
    """Write a network with another activation, which OpenVINO refuses when it compiles or runs the network."""
    return changed_bundle(into, bundle.NETWORK, lambda text: text.replace('type="Gelu"', 'type="Relu6"'))


def long_window(into: Path) -> Path:
    """Write a manifest with a window of a million pieces, although the network has only 512 positions."""
    return changed_bundle(into, bundle.LABELS, str, max_length=bundle.MAX_ROW_PIECES)


def growing_tokenizer(into: Path, letter: str = "e") -> Path:
    """Write a tokenizer that turns each occurrence of `letter` in a text into a billion letters."""
    more = {"type": "Replace", "pattern": {"String": letter}, "content": letter * 1000}
    return _changed_tokenizer(into, normalizer={"type": "Sequence", "normalizers": [more] * 3})


def panicking_tokenizer(into: Path) -> Path:
    """Write a tokenizer at which the package tokenizers panics when it reads the file."""
    return _changed_tokenizer(into, normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})


def endless_label(into: Path) -> Path:
    """Write a label that is too long for the name of a directory."""
    return changed_bundle(into, bundle.LABELS, lambda text: text.replace("PER", "PER" * 100))


def nested_zip(into: Path, size: int = 400 * 2**20) -> Path:
    """Write a zip of a saved Spark NLP model whose network is a zip of `size` zero bytes."""
    model = tiny.saved_onnx(into / "saved")
    files = {str(path.relative_to(model)): path.read_bytes() for path in model.rglob("*") if path.is_file()}
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("model.onnx", "w") as member:
        for _ in range(size // 2**20):
            member.write(bytes(2**20))
    files["bert_classification_onnx"] = inner.getvalue()
    (into / "model.zip").write_bytes(repacked(files, zipfile.ZIP_DEFLATED))
    return into / "model.zip"


def detector(into: Path, *, kernel: int = 8, width: int = 1, filters: int = 6, hidden: int = 1, numbers: int = 300) -> Path:
    """Write a sentence detector with layers of these sizes, whose weights are all zero."""
    shapes = {
        sentences_dl_saved.EMBEDDING: (numbers, width),
        sentences_dl_saved.KERNEL: (kernel, width, filters),
        sentences_dl_saved.FILTER_BIAS: (filters,),
        sentences_dl_saved.HIDDEN: (filters, hidden),
        sentences_dl_saved.HIDDEN_BIAS: (hidden,),
        sentences_dl_saved.OUTPUT: (hidden, 1),
        sentences_dl_saved.OUTPUT_BIAS: (1,),
    }
    entries, at = [], 0
    for name, shape in sorted(shapes.items()):
        size = 4 * math.prod(shape)
        dimensions = b"".join(_field(2, _field(1, length)) for length in shape)
        entries.append((name.encode(), _field(1, 1) + _field(2, dimensions) + _field(4, at) + _field(5, size)))
        at += size
    members = {"variables.index": _index(entries), "variables.data-00000-of-00001": bytes(at)}
    saved = json.loads(next((DETECTOR / "metadata").glob("part-*")).read_text(encoding="utf8"))
    saved["paramMap"]["Encoder"] = [{".": numbers - 1}]
    (into / "metadata").mkdir(parents=True)
    (into / "metadata" / "part-00000").write_text(json.dumps(saved), encoding="utf8")
    (into / sentences_dl_saved.NETWORK).write_bytes(repacked(members, zipfile.ZIP_DEFLATED))
    return into


def wide_kernel(into: Path) -> Path:
    """Write a detector with a convolution over more characters than its window has."""
    return detector(into, kernel=20)


def large_detector(into: Path) -> Path:
    """Write a detector with layers of a few megabytes of zeros, whose products would be tables of 240 GB."""
    return detector(into, kernel=1, filters=5_000, numbers=50_000)


def large_numbers(into: Path) -> Path:
    """Write a detector with character ids that do not fit into 16 bits."""
    return detector(into, numbers=70_000, kernel=1, filters=1)


def _varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def _field(number: int, value: int | bytes) -> bytes:
    """Return the encoding of one field of a protocol buffer."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _index(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Return the index of a TensorFlow checkpoint, as a table of one block in LevelDB's format."""

    def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
        content = b"".join(b"\0" + _varint(len(key)) + _varint(len(value)) + key + value for key, value in pairs)
        return content + struct.pack("<II", 0, 1)

    return _index_of_blocks(block(entries), 1)


def _index_of_blocks(block: bytes, handles: int) -> bytes:
    """Return the index of a TensorFlow checkpoint in which `handles` handles name the same block."""
    handle = _varint(0) + _varint(len(block))
    entry = b"\0" + _varint(1) + _varint(len(handle)) + b"z" + handle
    top = entry * handles + struct.pack("<II", 0, 1)
    footer = _varint(0) + _varint(0) + _varint(len(block) + 5) + _varint(len(top))
    return block + bytes(5) + top + bytes(5) + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def _detector_with_index(into: Path, index: bytes) -> Path:
    detector(into)
    members = {"variables.index": index, "variables.data-00000-of-00001": b""}
    (into / sentences_dl_saved.NETWORK).write_bytes(repacked(members, zipfile.ZIP_DEFLATED))
    return into


def growing_keys(into: Path) -> Path:
    """Write a detector in whose index each key is 100 bytes longer than the key before: together, they have 200 GB."""
    entries = b"".join(_varint(number * 100) + _varint(100) + _varint(0) + b"a" * 100 for number in range(64_000))
    return _detector_with_index(into, _index_of_blocks(entries + struct.pack("<II", 0, 1), 1))


def many_entries(into: Path) -> Path:
    """Write a detector in whose index a block has a million entries."""
    entry = _varint(0) + _varint(1) + _varint(0) + b"a"
    return _detector_with_index(into, _index_of_blocks(entry * 1_000_000 + struct.pack("<II", 0, 1), 1))


def many_blocks(into: Path) -> Path:
    """Write a detector whose index names the same empty block two million times."""
    return _detector_with_index(into, _index_of_blocks(struct.pack("<II", 0, 1), 2_000_000))


def many_dimensions(into: Path) -> Path:
    """Write a detector whose first tensor has so many dimensions that computing their product would need hours."""
    shape = b"".join(_field(2, _field(1, 2**64 - 1)) for _ in range(200_000))
    value = _field(1, 1) + _field(2, shape) + _field(5, 4)
    name = sentences_dl_saved.EMBEDDING.encode()
    entry = _varint(0) + _varint(len(name)) + _varint(len(value)) + name + value
    return _detector_with_index(into, _index_of_blocks(entry + struct.pack("<II", 0, 1), 1))


def java_object(name: str, flags: int = 2) -> bytes:
    """Return the serialized stream of a Java object of the class `name`, without fields."""
    return b"\xac\xed\0\5sr" + struct.pack(">H", len(name)) + name.encode() + bytes(8) + bytes([flags]) + b"\0\0xp"


def saved_model(into: Path, *, field: bytes | None = None, **files: bytes) -> Path:
    """Write a saved Spark NLP model with an added vocabulary record and added files; a__b stands for the path a/b."""
    model = tiny.saved_onnx(into)
    if field is not None:
        (model / "fields" / "vocabulary" / "part-00001").write_bytes(sparknlp_field_files.write_records([field]))
    for name, content in files.items():
        path = model / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return model


def smuggled_field(record: bytes) -> bytes:
    """Return a field file with one string record, which contains a sync marker and the given record.

    A Hadoop task that begins to read in the middle of the file would find the inner record.
    """
    sync = b"0123456789abcdef"
    inner = struct.pack(">i", -1) + sync + struct.pack(">iii", 4 + len(record), 0, len(record)) + record
    text = inner.ljust(200, b"x")
    outer = b"\xac\xed\0\5t" + struct.pack(">H", len(text)) + text
    header = sparknlp_field_files.write_records([])
    return header[:-16] + sync + struct.pack(">iii", 4 + len(outer), 0, len(outer)) + outer


def pipeline(into: Path, kind: str, **metadata: object) -> Path:
    """Write a saved pipeline with one stage of the class `kind`; `metadata` changes the pipeline's metadata."""
    for directory, said in ((into, {"class": PIPELINE, "paramMap": {"stageUids": ["a"]}}), (into / "stages" / "0_a", {})):
        (directory / "metadata").mkdir(parents=True)
        content = {"uid": "a", "class": kind, "paramMap": {}, "defaultParamMap": {}, "timestamp": 0, "sparkVersion": "3.5.0"}
        (directory / "metadata" / "part-00000").write_text(json.dumps({**content, **said, **metadata}) + "\n")
        metadata = {}
    return into
