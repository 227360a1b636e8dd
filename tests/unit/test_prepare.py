import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openvino import opset13 as ops
from safetensors.numpy import load_file, save_file

from entitymill.errors import OutputError
from entitymill.recognition.tagger import bundle
from entitymill.recognition.tagger.network import INPUTS
from entitymill_models import atomic_directories, precision_loss
from entitymill_models import prepare_command as preparation
from unit import tiny

Prepare = Callable[..., tuple[int, str]]
SPEECHES = preparation.DEFAULT_SAMPLE


@pytest.fixture
def prepare(capfd: pytest.CaptureFixture[str]) -> Prepare:
    """Return a function that runs the command line, and returns its exit code and its output as one line."""

    def call(*arguments: object) -> tuple[int, str]:
        code = preparation.main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, " ".join((out + err).split())

    return call


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Write a table of the first hundred sentences of the speeches, with their tokens and made-up tags."""
    sentences = precision_loss.read_sample(SPEECHES, "x").sentences[:100]
    tags = [["B-PER" if token[0].isupper() else "O" for token in sentence] for sentence in sentences]
    pq.write_table(pa.table({"tokens": sentences, "tags": tags}), tmp_path / "speeches.parquet")
    return tmp_path / "speeches.parquet"


def left_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def manifest_of(directory: Path) -> bundle.Manifest:
    return bundle.read_directory(directory)[0]


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_a_hugging_face_directory_becomes_a_bundle(prepare: Prepare, tmp_path: Path, kind: str) -> None:
    code, said = prepare(tiny.TINY / kind, tmp_path / "out", "--name", "mine", "--licence", "MIT", "--max-length", 32)

    assert code == 0, said
    manifest = manifest_of(tmp_path / "out")
    assert (manifest.name, manifest.licence, manifest.max_length, manifest.precision) == ("mine", "MIT", 32, "f32")
    assert manifest.source == f"a Hugging Face {kind} token classifier: {kind}"
    assert precision_loss.find_mentions(tmp_path / "out", "f32", tiny.SENTENCES)
    assert left_in(tmp_path) == {"out"}


def test_an_onnx_directory_and_a_saved_model_become_the_same_bundle(prepare: Prepare, tmp_path: Path) -> None:
    tiny.onnx_directory(tmp_path / "onnx")
    tiny.saved_onnx(tmp_path / "saved")
    folder = tmp_path / "zip"
    shutil.copytree(tmp_path / "saved", folder / "model")
    shutil.make_archive(str(tmp_path / "root"), "zip", tmp_path / "saved")
    shutil.make_archive(str(tmp_path / "folder"), "zip", folder)

    made = [
        (
            prepare(tmp_path / source, tmp_path / "out" / source, "--casing", "uncased"),
            manifest_of(tmp_path / "out" / source),
        )
        for source in ("onnx", "saved", "root.zip", "folder.zip")
    ]

    assert [code for (code, _), _ in made] == [0, 0, 0, 0]
    assert len({(m.files[bundle.WEIGHTS], m.files[bundle.VOCABULARY], m.files[bundle.LABELS]) for _, m in made}) == 1
    assert made[3][1].max_length == 48


def test_an_onnx_network_is_used_although_a_pickle_is_there(prepare: Prepare, tmp_path: Path) -> None:
    directory = tiny.onnx_directory(tmp_path / "onnx")
    shutil.copy(tiny.TINY / "bert" / "config.json", directory / "config.json")
    (directory / "pytorch_model.bin").write_bytes(b"never opened")
    code, said = prepare(directory, tmp_path / "out", "--casing", "uncased")
    assert code == 0, said
    assert manifest_of(tmp_path / "out").source.startswith("an ONNX network")


def test_a_bundle_goes_to_spark_nlp_and_back(prepare: Prepare, tmp_path: Path) -> None:
    assert prepare(tiny.TINY / "distilbert", tmp_path / "one")[0] == 0
    assert prepare(tmp_path / "one", tmp_path / "saved", "--to", "sparknlp")[0] == 0
    assert prepare(tmp_path / "saved", tmp_path / "two")[0] == 0

    assert precision_loss.find_mentions(tmp_path / "two", "f32", tiny.SENTENCES) == precision_loss.find_mentions(
        tmp_path / "one", "f32", tiny.SENTENCES
    )
    one, two = manifest_of(tmp_path / "one"), manifest_of(tmp_path / "two")
    assert (one.casing, one.max_length, one.files[bundle.LABELS]) == (two.casing, two.max_length, two.files[bundle.LABELS])
    assert one.files[bundle.WEIGHTS] == two.files[bundle.WEIGHTS]


def test_a_vocabulary_that_spark_nlp_cannot_take_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    code, said = prepare(tiny.TINY / "roberta", tmp_path / "saved", "--to", "sparknlp")
    assert (code, left_in(tmp_path)) == (5, set())
    assert "BPE vocabulary, but DistilBertForTokenClassification of Spark NLP needs WordPiece" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "calibrated", "runs"),
    [
        (["--precision", "bf16"], False, {"f32", "bf16"}),
        (["--precision", "int8"], False, {"f32", "bf16", "int8"}),
        (["--precision", "int8", "--calibrate"], True, {"f32", "bf16", "int8"}),
    ],
    ids=["bf16", "int8", "calibrated"],
)
def test_lower_precision_is_checked_and_noted(
    prepare: Prepare, tmp_path: Path, texts: Path, options: list[str], calibrated: bool, runs: set[str]
) -> None:
    given = [*options, texts] if calibrated else [*options, "--sample", texts]
    code, said = prepare(tiny.TINY / "distilbert", tmp_path / "out", *given, "--max-loss", 1)

    assert code == 0, said
    manifest = manifest_of(tmp_path / "out")
    assert (manifest.precision, manifest.calibrated) == (options[1], calibrated)
    assert set(manifest.f1) == {"speeches"} and set(manifest.f1["speeches"]) == runs
    gold = precision_loss.read_sample(texts, "x")
    assert gold.gold is not None
    expected = precision_loss.join_gold_tags(gold.gold)
    if not calibrated:
        for precision, f1 in manifest.f1["speeches"].items():
            found = precision_loss.find_mentions(tmp_path / "out", precision, gold.sentences)  # type: ignore[arg-type]
            assert f1 == pytest.approx(precision_loss.compute_span_f1(found, expected), abs=1e-4)
        assert "checked on 100 sentences" in said


@pytest.mark.slow
def test_a_calibrated_bundle_loses_its_calibration_on_request_and_runs_the_same_in_f32(
    prepare: Prepare, tmp_path: Path, texts: Path
) -> None:
    options = ["--precision", "int8", "--calibrate", texts, "--max-loss", 1]
    assert prepare(tiny.TINY / "distilbert", tmp_path / "calibrated", *options)[0] == 0
    assert prepare(tmp_path / "calibrated", tmp_path / "plain", "--precision", "int8")[0] == 0

    assert manifest_of(tmp_path / "calibrated").calibrated
    assert not manifest_of(tmp_path / "plain").calibrated
    network = (tmp_path / "plain" / bundle.NETWORK).read_text(encoding="utf8")
    assert "FakeQuantize" in (tmp_path / "calibrated" / bundle.NETWORK).read_text(encoding="utf8")
    assert "FakeQuantize" not in network
    found = [precision_loss.find_mentions(tmp_path / name, "f32", tiny.SENTENCES) for name in ("calibrated", "plain")]
    assert found[0] == found[1]


@pytest.mark.deep
@pytest.mark.slow
def test_a_bundle_that_loses_too_much_is_not_written(prepare: Prepare, tmp_path: Path) -> None:
    code, said = prepare(
        tiny.TINY / "distilbert", tmp_path / "out" / "model", "--precision", "int8", "--max-loss", 0, "--sample", SPEECHES
    )
    assert code == 5 and "more than --max-loss 0: nothing was written" in said
    assert left_in(tmp_path / "out") == set()


def test_what_is_there_stays_unless_it_is_a_model_and_may_go(prepare: Prepare, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    for flags, message in (([], "exists"), (["--overwrite"], "is not a model")):
        code, said = prepare(tiny.TINY / "distilbert", out, *flags)
        assert code == 2 and message in said
    assert (out / "thesis.txt").read_text() == "years of work"

    (out / "thesis.txt").rename(tmp_path / "thesis.txt")
    out.rmdir()
    assert prepare(tiny.TINY / "distilbert", out)[0] == 0
    before = manifest_of(out)
    assert prepare(tiny.TINY / "bert", out)[0] == 2
    assert prepare(tmp_path / "nothing", out, "--overwrite")[0] == 2
    assert manifest_of(out) == before
    assert prepare(tiny.TINY / "bert", out, "--overwrite")[0] == 0
    assert manifest_of(out).casing == "uncased"
    assert left_in(tmp_path) == {"out", "thesis.txt"}


@pytest.mark.parametrize("files", [("metadata/v1.metadata.json", "data/rows.parquet"), ("manifest.json", "index.html")])
def test_what_only_looks_like_a_model_is_not_overwritten(prepare: Prepare, tmp_path: Path, files: tuple[str, ...]) -> None:
    """An Iceberg table or a website must not be overwritten, although some files are named like those of a model."""
    for file in files:
        (tmp_path / "out" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / file).write_text('{"name": "years of work", "files": {}}')
    code, said = prepare(tiny.TINY / "distilbert", tmp_path / "out", "--overwrite")
    assert code == 2 and "is not a model" in said
    assert all((tmp_path / "out" / file).is_file() for file in files)


def test_gold_with_labels_of_other_names_shows_no_loss(prepare: Prepare, tmp_path: Path) -> None:
    pq.write_table(pa.table({"tokens": [["Anna"]], "tags": [["B-someone"]]}), tmp_path / "gold.parquet")
    options = ["--precision", "bf16", "--sample", tmp_path / "gold.parquet"]
    code, said = prepare(tiny.TINY / "distilbert", tmp_path / "out", *options)
    assert code == 2 and "the model finds none of the mentions in this table" in said


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--max-length", 0], 2, "at least 8"),
        (["--max-length", 65], 2, "takes at most 64 pieces"),
        (["--max-length", 4], 2, "at least 8"),
        (["--calibrate", SPEECHES], 2, "--calibrate needs --precision int8"),
        (["--precision", "int8", "--sample", "/nowhere"], 2, "--sample: /nowhere does not exist"),
        (["--casing", "uncased"], 2, "leave the option out"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    prepare: Prepare, tmp_path: Path, options: list[object], code: int, message: str
) -> None:
    found, said = prepare(tiny.TINY / "distilbert", tmp_path / "out", *options)
    assert found == code and message in said
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize("share", ["-1", "1.5", "nan", "much"])
def test_a_loss_is_a_share(share: str) -> None:
    with pytest.raises(SystemExit) as exit_info:
        preparation.main(["a", "b", "--max-loss", share])
    assert exit_info.value.code == 2


def test_a_network_that_computes_no_numbers_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    """As after a training that diverged; it would find no mention, without an error."""
    directory = tiny.copied("distilbert", tmp_path / "source")
    weights = load_file(directory / "model.safetensors")
    weights["classifier.bias"] = np.full_like(weights["classifier.bias"], np.nan)
    save_file(weights, directory / "model.safetensors")
    code, said = prepare(directory, tmp_path / "out")
    assert code == 5 and "computes NaN or infinity for a test sentence" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.deep
def test_weights_of_8_bits_are_not_reduced_again(prepare: Prepare, tmp_path: Path, demo_files: dict[str, Path]) -> None:
    demo = demo_files[bundle.NETWORK].parent
    for options in (["--precision", "f32"], ["--precision", "int8", "--calibrate", SPEECHES]):
        code, said = prepare(demo, tmp_path / "out", *options)
        assert code == 5 and "already has 8-bit weights" in said
    code, said = prepare(demo, tmp_path / "out", "--precision", "int8")
    assert code == 0, said
    assert manifest_of(tmp_path / "out").f1 == {}, "the scores are of the calibrated network"
    code, said = prepare(demo, tmp_path / "same")
    assert code == 0, said
    assert manifest_of(tmp_path / "same").f1 == manifest_of(demo).f1 != {}


def test_the_length_of_a_foreign_network_is_bound_by_its_positions(prepare: Prepare, tmp_path: Path) -> None:
    code, said = prepare(tiny.onnx_directory(tmp_path / "onnx"), tmp_path / "out", "--casing", "uncased", "--max-length", 65)
    assert code == 2 and "takes at most 64 pieces" in said
    assert prepare(tmp_path / "onnx", tmp_path / "out", "--casing", "uncased")[0] == 0
    assert manifest_of(tmp_path / "out").max_length == 64
    code, said = prepare(tmp_path / "out", tmp_path / "again", "--max-length", 65)
    assert code == 2 and "takes at most 64 pieces" in said


def test_a_network_that_fails_at_its_full_length_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    directory = tiny.onnx_directory(tmp_path / "source")
    (directory / "model.onnx").unlink()
    ids, mask = (ops.parameter([-1, -1], np.int64, name=name) for name in INPUTS)
    for node, name in zip((ids, mask), INPUTS, strict=True):
        node.output(0).get_tensor().set_names({name})
    zero, one = ops.constant(np.array([0], np.int64)), ops.constant(np.array([1], np.int64))
    rows = ops.gather(ops.constant(np.ones((200, 5), np.float32)), ids, ops.constant(np.int64(0)))
    length = ops.gather(ops.shape_of(mask, "i64"), one, ops.constant(np.int64(0)))
    places = ops.slice(ops.constant(np.ones((1, 64, 5), np.float32)), zero, length, one, one)
    ov.save_model(ov.Model([ops.result(ops.add(rows, places))], [ids, mask]), directory / "model.xml")

    code, said = prepare(directory, tmp_path / "out", "--casing", "uncased")
    assert code == 5 and "does not take 128 pieces at once: pass a smaller --max-length" in said
    assert prepare(directory, tmp_path / "out", "--casing", "uncased", "--max-length", 64)[0] == 0


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"text"])
def test_a_file_that_is_no_model_is_refused(prepare: Prepare, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.zip").write_bytes(content)
    code, said = prepare(tmp_path / "model.zip", tmp_path / "out")
    assert code == 5 and "is not a readable zip archive" in said


def test_a_tokenizer_at_which_its_package_panics_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    shutil.copytree(tiny.TINY / "distilbert", tmp_path / "source")
    file = tmp_path / "source" / "tokenizer.json"
    normalizer = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    file.write_text(json.dumps({**json.loads(file.read_text()), "normalizer": normalizer}))
    code, said = prepare(tmp_path / "source", tmp_path / "out")
    assert code == 5 and "is not a readable tokenizer" in said


def test_a_network_alone_is_no_model(prepare: Prepare, tmp_path: Path) -> None:
    code, said = prepare(tiny.onnx_directory(tmp_path / "onnx") / "model.onnx", tmp_path / "out")
    assert code == 5 and "SOURCE must be the directory with this file" in said


def test_a_directory_of_nothing_known_lists_what_would_be(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, said = prepare(tmp_path / "empty", tmp_path / "out")
    assert code == 5 and "a Hugging Face directory" in said


def test_what_was_there_comes_back_when_the_new_cannot_be_put(tmp_path: Path) -> None:
    old, scratch = tmp_path / "out", tmp_path / "scratch"
    old.mkdir()
    scratch.mkdir()
    (old / bundle.MANIFEST).write_text("{}")
    with pytest.raises(OutputError, match="cannot be written"):
        atomic_directories.move_into_place(scratch / "never made", old, scratch)
    assert (old / bundle.MANIFEST).read_text() == "{}"


@pytest.mark.deep
def test_confidences_are_fitted_to_gold_and_change_the_digest(prepare: Prepare, tmp_path: Path) -> None:
    demo = Path(preparation.__file__).parents[2] / "models" / "demo"
    sample = precision_loss.read_sample(SPEECHES, "x").select_evenly(600)
    found = precision_loss.find_mentions(demo, "f32", sample.sentences)
    tags = [["O"] * len(sentence) for sentence in sample.sentences]
    for number, (sentence, first, last, label) in enumerate(sorted(found)):
        if number % 3:  # so a third of the mentions is wrong
            tags[sentence][first:last] = [f"B-{label}", *[f"I-{label}"] * (last - first - 1)]
    pq.write_table(pa.table({"tokens": sample.sentences, "tags": tags}), tmp_path / "gold.parquet")

    code, said = prepare(demo, tmp_path / "out", "--calibrate-confidence", tmp_path / "gold.parquet")

    assert code == 0, said
    assert "expected calibration error 0." in said
    assert set(manifest_of(tmp_path / "out").confidence) == {"LOC", "MISC", "ORG", "PER"}
    ours, theirs = manifest_of(tmp_path / "out"), manifest_of(demo)
    network = {"openvino_model.xml"}  # contains the version of OpenVINO that wrote it
    assert {key: ours.files[key] for key in ours.files.keys() - network} == {
        key: theirs.files[key] for key in theirs.files.keys() - network
    }
    assert ours.digest() != theirs.digest()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"text": ["Angela Merkel flew to Paris."]}, "needs a column tags with one IOB2 tag for each token"),
        (
            {"tokens": [["Angela"]], "tags": [["B-PER"]]},
            "at least 50, some correct and some wrong",
        ),
    ],
)
def test_a_table_that_confidences_cannot_be_fitted_to_says_why(
    prepare: Prepare, tmp_path: Path, table: dict[str, object], message: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "gold.parquet")
    demo = Path(preparation.__file__).parents[2] / "models" / "demo"
    code, said = prepare(demo, tmp_path / "out", "--calibrate-confidence", tmp_path / "gold.parquet")
    assert (code, message in said) == (2, True), said
    assert not (tmp_path / "out").exists()
