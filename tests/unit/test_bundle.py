import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from entitymill import errors, python_api
from entitymill.errors import ModelError
from entitymill.recognition import offsets, tokens
from entitymill.recognition.tagger import Execution, Precision, bundle
from entitymill.recognition.tagger.inference import Tagger
from entitymill.run import exit_codes
from entitymill_sparknlp import engine_sparknlp as sparknlp
from unit import tiny
from unit.conftest import DEMO


@pytest.fixture
def copied(demo_files: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    return {name: Path(shutil.copy(path, tmp_path / name)) for name, path in demo_files.items()}


def load(files: dict[str, Path], manifest: bundle.Manifest, precision: Precision = "f32") -> Tagger:
    return Tagger.load(files, manifest, Execution(precision), "s3a://models/mine")


def test_the_carried_model_is_what_its_manifest_says_and_stays_small(
    demo_files: dict[str, Path], demo_manifest: bundle.Manifest
) -> None:
    bundle.check_files(demo_files, demo_manifest, "models/demo")
    assert sum(path.stat().st_size for path in demo_files.values()) < 40 * 2**20
    assert (demo_manifest.casing, demo_manifest.precision) == ("cased", "int8")


def test_the_accurate_model_is_what_its_manifest_says_and_knows_what_the_other_does_not() -> None:
    accurate = DEMO.with_name("accurate")
    manifest, _ = bundle.read_directory(accurate)
    files = {name: accurate / name for name in manifest.files}
    bundle.check_files(files, manifest, "models/accurate")
    assert sum(path.stat().st_size for path in files.values()) < 60 * 2**20
    found = [python_api.load(model, precision="f32")("Ajax beat Roma.") for model in (DEMO, accurate)]
    labels = [[(mention.entity, mention.label) for mention in mentions] for mentions in found]
    assert labels == [[("Ajax", "PER"), ("Roma", "PER")], [("Ajax", "ORG"), ("Roma", "ORG")]]


@pytest.mark.parametrize("name", [bundle.WEIGHTS, bundle.NETWORK, bundle.TOKENIZER, bundle.LABELS])
def test_one_flipped_bit_in_any_file_keeps_the_model_from_running(
    copied: dict[str, Path], demo_manifest: bundle.Manifest, name: str
) -> None:
    content = bytearray(copied[name].read_bytes())
    content[len(content) // 2] ^= 1
    copied[name].write_bytes(content)

    with pytest.raises(ModelError, match=rf"{name} of the model at s3a://models/mine has SHA-256 .* altered"):
        load(copied, demo_manifest)


def test_a_missing_file_is_named(copied: dict[str, Path], demo_manifest: bundle.Manifest) -> None:
    copied[bundle.WEIGHTS].unlink()
    with pytest.raises(ModelError, match=r"has no openvino_model\.bin"):
        load(copied, demo_manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": {}}, "incomplete"),
        ({"max_length": 2}, "max_length"),
        ({"max_length": 10**9}, "max_length"),
        ({"sparknlp_max_length": 10**9}, "sparknlp_max_length"),
        ({"casing": "CASED"}, "casing"),
        ({"surprise": 1}, "surprise"),
        (
            {"files": {"../../etc/passwd": "0", **dict.fromkeys(bundle.REQUIRED, "0"), bundle.VOCABULARY: "0"}},
            "not a valid file name inside the bundle",
        ),
    ],
)
def test_a_manifest_that_is_wrong_says_where(
    demo_manifest: bundle.Manifest, change: dict[str, object], message: str
) -> None:
    text = json.dumps({**demo_manifest.model_dump(), **change})
    with pytest.raises(ModelError, match=message):
        bundle.read_manifest(text, "models/mine")


def test_a_manifest_that_is_not_json_is_refused() -> None:
    with pytest.raises(ModelError, match="not a model manifest"):
        bundle.read_manifest("{", "models/mine")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '["O", "PER"]',
        '["O", "B-PER", "B-PER"]',
        '{"O": 0}',
        "[" * 100_000,
        '["O", "B-\\ud800"]',
        '["O", "B-\\u0000"]',
    ],
    ids=lambda content: content[:20],
)
def test_labels_must_be_iob2_tags(tmp_path: Path, content: str) -> None:
    path = tmp_path / bundle.LABELS
    path.write_text(content)
    with pytest.raises(ModelError, match=r"labels\.json"):
        bundle.read_tags(path)


UNFIT = {
    "x" * 300: f"'{'x' * 40}…', is longer than 100 characters",
    "__HIVE_DEFAULT_PARTITION__": "is Spark's name for rows without a label",
    "a/b": "'a/b', contains a slash",
    "\x1b]52;c;": r"'\x1b]52;c;', contains a character that is not printable",
    "\u202egnp": r"'\u202egnp', contains a character that is not printable",
    "": "'', is empty",
    " ": "' ', is empty",
    "\u4eba" * 90: "takes more than 240 bytes",
    ":" * 90: "takes more than 240 bytes",
}
"""Label that cannot name a directory of the `entities` table -> part of the expected error message."""


@pytest.mark.parametrize("label", UNFIT, ids=lambda label: ascii(label[:12]))
def test_a_label_that_cannot_name_a_partition_is_refused_with_its_position(tmp_path: Path, label: str) -> None:
    path = tmp_path / bundle.LABELS
    path.write_text(json.dumps(["O", "B-PER", "I-PER", f"B-{label}"]))
    with pytest.raises(ModelError) as refused:
        bundle.read_tags(path)
    said = str(refused.value)
    assert said.startswith("Label 3 (counted from 0) of labels.json of the model, ")
    assert UNFIT[label] in said
    assert said.isprintable() and len(said) < 300


@pytest.mark.parametrize("label", ["PER", "x" * 100, "work_of_art", "ORG:company", "\u4eba\u540d", "O'Neill & co."])
def test_a_label_that_can_name_a_partition_is_taken(tmp_path: Path, label: str) -> None:
    path = tmp_path / bundle.LABELS
    path.write_text(json.dumps(["O", f"B-{label}"]))
    assert bundle.read_tags(path) == ("O", f"B-{label}")


def test_spark_nlps_tags_have_the_same_limits() -> None:
    batch = pa.RecordBatch.from_pydict({"ner_result": [["O", "B-PER", f"B-{'x' * 300}"]]})
    texts = offsets.read_texts(pa.array(["one"]))
    with pytest.raises(ModelError, match=r"the model's label 'x{40}…' is longer than 100 characters"):
        sparknlp.read_tags(batch, texts, tokens.tokenize(texts, np.zeros(0, np.int64)))


def test_the_driver_recognizes_what_spark_nlps_workers_refuse() -> None:
    batch = pa.RecordBatch.from_pydict({
        "text": ["one"],
        **{f"{name}_{edge}": [[0]] for name in ("token", "sentence", "ner") for edge in ("begin", "end")},
        "ner_result": [["E-PER"]],
    })  # fmt: skip
    builder = sparknlp._MentionBuilder(True, False, False, errors.SIGNATURE)
    with pytest.raises(ModelError) as refused:
        list(builder([batch]))
    from_spark = RuntimeError(f"Traceback\nentitymill.errors.ModelError: {refused.value}\n")
    message, code = exit_codes.describe_error(from_spark)
    assert (code, message[:60]) == (5, "recognition.sparknlp_model: the model's tag E-PER is neither")


def resigned(copied: dict[str, Path], manifest: bundle.Manifest) -> bundle.Manifest:
    """Write a manifest with the digests of the changed files, so that only a mismatch between files remains; return it."""
    directory = copied[bundle.LABELS].parent
    return bundle.write_manifest(directory, manifest.model_dump(exclude={"files"}))


def test_a_vocabulary_larger_than_the_embedding_is_refused(copied: dict[str, Path], demo_manifest: bundle.Manifest) -> None:
    tokenizer = json.loads(copied[bundle.TOKENIZER].read_text(encoding="utf8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["entirelynewpiece"] = len(vocabulary)
    copied[bundle.TOKENIZER].write_text(json.dumps(tokenizer), encoding="utf8")

    with pytest.raises(ModelError, match="they belong to different models"):
        load(copied, resigned(copied, demo_manifest))


def test_labels_of_another_number_than_the_network_scores_are_refused(
    copied: dict[str, Path], demo_manifest: bundle.Manifest
) -> None:
    copied[bundle.LABELS].write_text('["O", "B-PER", "I-PER"]')
    with pytest.raises(ModelError, match=r"scores 9 tags, but its labels\.json lists 3"):
        load(copied, resigned(copied, demo_manifest))


def test_a_file_that_is_no_network_is_refused(copied: dict[str, Path], demo_manifest: bundle.Manifest) -> None:
    copied[bundle.NETWORK].write_text("<net/>")
    with pytest.raises(ModelError, match=r"openvino_model\.xml cannot be loaded"):
        load(copied, resigned(copied, demo_manifest))


def test_int8_needs_8_bit_weights(copied: dict[str, Path], demo_manifest: bundle.Manifest) -> None:
    with pytest.raises(ModelError, match="prepare the model with int8 weights"):
        load(copied, demo_manifest.model_copy(update={"precision": "f32"}), "int8")


MADE: dict[str, Callable[[Path], Path]] = {
    "a Hugging Face directory": lambda into: tiny.copied("distilbert", into),
    "a saved Spark NLP model": lambda into: tiny.saved_onnx(into / "saved"),
    "an ONNX directory": lambda into: tiny.onnx_directory(into / "exported"),
}


@pytest.mark.parametrize("kind", MADE)
def test_another_model_is_called_what_it_is(tmp_path: Path, kind: str) -> None:
    place = MADE[kind](tmp_path)
    with pytest.raises(ModelError) as refused:
        python_api.load(place)
    assert str(refused.value) == (
        f"{place} is {kind}, not a model bundle: run prepare_model.py {place} DEST (or entitymill prepare), "
        "and use DEST (docs/models.md)."
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("dslim/distilbert-NER", "hf download dslim/distilbert-NER --local-dir DIRECTORY"),
        ("pretrained:distilbert_base/en", "is on Spark NLP's models hub: to use it, set recognition.sparknlp_model"),
        ("/nowhere/at/all", "there is nothing at /nowhere/at/all; specify a model bundle"),
    ],
)
def test_a_model_that_is_not_there_is_said_how_to_get(path: str, message: str) -> None:
    with pytest.raises(ModelError) as refused:
        python_api.load(path)
    assert message in str(refused.value)


def test_a_directory_of_anything_else_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"has no manifest\.json: it is not a model bundle; prepare_model\.py makes"):
        python_api.load(tmp_path)
