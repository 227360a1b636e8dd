"""Write a bundle as a saved Spark NLP model that DistilBertForTokenClassification.load can read.

Each class of Spark NLP splits words differently and gives the network different inputs. The DistilBERT class fits any
network that has a WordPiece vocabulary and no input token_type_ids, which a bundle's network never has. So every bundle with
a WordPiece vocabulary is saved as this class, even if its network is not DistilBERT.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
import zipfile
from importlib.metadata import version
from pathlib import Path

import openvino as ov

from entitymill.errors import ModelError
from entitymill.recognition.tagger import bundle, network
from entitymill.recognition.tagger.inference import read_tokenizer
from entitymill.recognition.tagger.tokens_to_model_input import BERT_PIECES
from entitymill_models import sparknlp_field_files
from entitymill_models.imported_classifier import parse_json
from entitymill_models.sparknlp_saved import FIELDS, METADATA, NETWORKS, PACKAGE

CLASS = "DistilBertForTokenClassification"
NETWORK = f"{NETWORKS[f'{PACKAGE}.{CLASS}']}_openvino"
MAX_SENTENCE_LENGTH = 512
"""The largest maxSentenceLength, in pieces (subwords), that Spark NLP accepts for CLASS."""
_PAIRS_IN_RECORD = 10
"""The number of elements that Spark's saveAsObjectFile writes into one record."""


def write_saved_model(directory: Path, into: Path, *, keep_calibration: bool = False) -> None:
    """Write the bundle `directory` as a saved Spark NLP model to the empty directory `into`.

    The bundle's files are not compared with the digests in its manifest.json. The caller must have compared them, or written
    the bundle itself.

    `keep_calibration` says whether to keep the measured ranges of activations if the bundle is calibrated. With these
    ranges, Spark NLP quantizes activations even in f32, so it finds other mentions than this program in f32.

    Raises:
        ModelError: the bundle's vocabulary is not WordPiece or lacks a special piece, so Spark NLP's class cannot use it.
    """
    manifest, files = bundle.read_directory(directory)
    vocabulary = _read_vocabulary(files, manifest)
    labels = bundle.read_tags(files[bundle.LABELS])
    _write_field(into, "vocabulary", sorted(vocabulary.items(), key=lambda item: item[1]))
    _write_field(into, "labels", [(label, number) for number, label in enumerate(labels)])
    defaults = {"batchSize": 8, "caseSensitive": True, "maxSentenceLength": 128, "lazyAnnotator": False}
    chosen = {
        "inputCols": ["document", "token"],
        "outputCol": "ner",
        "caseSensitive": manifest.casing == "cased",
        "maxSentenceLength": min(manifest.sparknlp_max_length, MAX_SENTENCE_LENGTH),
        "engine": "openvino",
    }
    metadata = {
        "class": f"{PACKAGE}.{CLASS}",
        "timestamp": int(time.time() * 1000),
        "sparkVersion": version("pyspark"),
        "uid": f"DISTILBERT_FOR_TOKEN_CLASSIFICATION_{uuid.uuid4().hex[:12]}",
        "paramMap": chosen,
        "defaultParamMap": {**defaults, "engine": "tensorflow"},
    }
    _write_part(into / METADATA, (json.dumps(metadata) + "\n").encode("utf8"))
    with tempfile.TemporaryDirectory(dir=into) as scratch:
        if manifest.calibrated and not keep_calibration:
            files = {**files, **_write_uncalibrated(files, Path(scratch), str(directory))}
        with zipfile.ZipFile(into / NETWORK, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in (bundle.WEIGHTS, bundle.NETWORK):
                packed.write(files[name], name)


def _write_uncalibrated(files: dict[str, Path], into: Path, where: str) -> dict[str, Path]:
    """Write a copy of a bundle's network, without quantized activations, to `into`; return a dict from file name to path."""
    model = network.read_network(files[bundle.NETWORK], files[bundle.WEIGHTS], where)
    network.remove_activation_quantization(model)
    ov.save_model(model, into / bundle.NETWORK, compress_to_fp16=False)
    return {name: into / name for name in (bundle.NETWORK, bundle.WEIGHTS)}


def _read_vocabulary(files: dict[str, Path], manifest: bundle.Manifest) -> dict[str, int]:
    """Return a dict from a bundle's pieces (subwords) to their ids; raise ModelError if Spark NLP cannot use them."""
    if bundle.TOKENIZER in manifest.files:
        described = parse_json(files[bundle.TOKENIZER].read_text(encoding="utf8"), bundle.TOKENIZER)
        model = described.get("model")
        kind = model.get("type") if isinstance(model, dict) else None
        if kind != "WordPiece":
            raise ModelError(
                f"{manifest.name} has a {kind} vocabulary, but {CLASS} of Spark NLP needs WordPiece, like BERT's: use the "
                "model as a bundle, without --to sparknlp."
            )
    vocabulary: dict[str, int] = read_tokenizer(files, manifest).get_vocab()
    missing = [piece for piece in BERT_PIECES if piece not in vocabulary]
    if missing:
        raise ModelError(
            f"The vocabulary of {manifest.name} has no {missing[0]}, which {CLASS} of Spark NLP needs: use the model as a "
            "bundle, without --to sparknlp."
        )
    return vocabulary


def _write_field(into: Path, name: str, pairs: list[tuple[str, int]]) -> None:
    """Write (key, value) pairs to fields/`name` of the saved model `into`, _PAIRS_IN_RECORD to a record, as Spark does."""
    records = (
        sparknlp_field_files.write_pairs(pairs[first : first + _PAIRS_IN_RECORD])
        for first in range(0, len(pairs), _PAIRS_IN_RECORD)
    )
    _write_part(into / FIELDS / name, sparknlp_field_files.write_records(records))


def _write_part(directory: Path, content: bytes) -> None:
    """Write a directory with one part file and an empty file _SUCCESS, as a Spark job does."""
    directory.mkdir(parents=True)
    (directory / "part-00000").write_bytes(content)
    (directory / "_SUCCESS").touch()
