import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from tokenizers import Tokenizer

from entitymill.errors import ModelError, SettingsError
from entitymill.recognition.tagger import Execution, bundle, network
from entitymill.recognition.tagger.inference import Tagger
from entitymill.recognition.tagger.tokens_to_model_input import Encoder, build_wordpiece_tokenizer
from entitymill_models import huggingface, imported_classifier, lower_precision, network_import
from unit import tiny

assert_close = partial(np.testing.assert_allclose, rtol=0, atol=1e-5)


def tagger_of(found: imported_classifier.Parts, directory: Path) -> Tagger:
    imported_classifier.write_parts(found, directory)
    about = {"name": "tiny", "source": "test", "licence": "none", "casing": found.casing, "precision": "f32"}
    manifest = bundle.write_manifest(directory, {**about, "max_length": found.max_length})
    return Tagger.load({name: directory / name for name in manifest.files}, manifest, Execution())


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_the_network_gives_the_logits_that_transformers_gives(kind: str) -> None:
    found = huggingface.read_directory(tiny.TINY / kind, kind)

    assert_close(tiny.logits(found.network, kind), tiny.expected_logits(kind))
    assert found.max_length == 64 and found.casing == ("uncased" if kind == "bert" else "cased")
    network.check_signature(found.network, vocabulary={"x": 0}, labels=5, where=kind)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_the_tagger_says_of_whole_sentences_what_transformers_says(kind: str, tmp_path: Path) -> None:
    tagger = tagger_of(huggingface.read_directory(tiny.TINY / kind, kind), tmp_path)
    lengths = np.array([len(sentence) for sentence in tiny.SENTENCES])

    found = tagger.tag([token for sentence in tiny.SENTENCES for token in sentence], lengths)

    expected = [tag for sentence in tiny.EXPECTED["models"][kind]["tags"] for tag in sentence]
    assert [tagger.labels[tag] for tag in found.tags] == expected
    assert len(set(expected)) > 2


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_words_become_the_pieces_that_transformers_makes_of_them(kind: str) -> None:
    found = huggingface.read_directory(tiny.TINY / kind, kind)
    if found.tokenizer is not None:
        encoder = Encoder(Tokenizer.from_str(found.tokenizer), 62)
    else:
        encoder = Encoder(build_wordpiece_tokenizer(tiny.TINY / kind / "vocab.txt", lowercase=True), 62)
    expected = tiny.EXPECTED["models"][kind]
    for sentence, ids, mask in zip(tiny.SENTENCES, expected["input_ids"], expected["attention_mask"], strict=True):
        assert [encoder.cls_id, *encoder.encode(sentence).ids, encoder.sep_id] == ids[: sum(mask)]
        assert set(ids[sum(mask) :]) <= {encoder.pad_id}


def test_shards_are_put_together_and_a_missing_one_is_named(tmp_path: Path) -> None:
    directory = tiny.copied("distilbert", tmp_path)
    file = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").rename(directory / "model-00001-of-00001.safetensors")
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "model-00001-of-00001.safetensors"}})
    )
    found = huggingface.read_directory(directory, "here")
    assert_close(tiny.logits(found.network, "distilbert"), tiny.expected_logits("distilbert"))

    (directory / "model-00001-of-00001.safetensors").write_bytes(file[:-5])
    with pytest.raises(ModelError, match=r"model-00001-of-00001\.safetensors of here is missing or damaged"):
        huggingface.read_directory(directory, "here")


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    directory = tiny.copied("distilbert", tmp_path)
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ModelError, match="a pickle, which can run any code"):
        huggingface.read_directory(directory, "here")


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("distilbert", {"model_type": "electra"}, "is a electra model"),
        ("distilbert", {"activation": "relu"}, "activation relu"),
        ("bert", {"hidden_act": "gelu_new"}, "activation gelu_new"),
        ("bert", {"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM, not a token classifier"),
        ("bert", {"position_embedding_type": "relative_key"}, "relative position embeddings"),
        ("bert", {"num_hidden_layers": 3}, r"no parameter bert\.encoder\.layer\.2"),
        ("bert", {"num_hidden_layers": "2"}, "lacks a valid num_hidden_layers"),
        ("bert", {"num_attention_heads": 5}, "has 5 attention heads, but the width"),
        ("bert", {"id2label": {"0": "O", "1": "B-PER"}}, "scores 5 tags, but id2label in its config.json lists 2"),
        ("bert", {"id2label": {"0": "O", "2": "B-PER"}}, "does not number the tags"),
    ],
)
def test_what_would_be_built_wrongly_is_refused(tmp_path: Path, kind: str, change: dict[str, object], message: str) -> None:
    directory = tiny.copied(kind, tmp_path)
    tiny.change_config(directory, **change)
    with pytest.raises(ModelError, match=message):
        huggingface.read_directory(directory, "here")


def test_roberta_needs_its_whole_tokenizer(tmp_path: Path) -> None:
    directory = tiny.copied("roberta", tmp_path)
    (directory / "tokenizer.json").unlink()
    (directory / "vocab.txt").write_text("<s>\n")
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        huggingface.read_directory(directory, "here")


def test_casing_is_asked_for_only_where_nothing_tells_it(tmp_path: Path) -> None:
    directory = tiny.copied("bert", tmp_path)
    (directory / "tokenizer_config.json").unlink()
    with pytest.raises(SettingsError, match="--casing cased or --casing uncased"):
        huggingface.read_directory(directory, "here")
    assert huggingface.read_directory(directory, "here", "uncased").casing == "uncased"
    with pytest.raises(SettingsError, match="leave the option out"):
        huggingface.read_directory(tiny.TINY / "distilbert", "here", "uncased")


def test_an_onnx_network_of_three_inputs_becomes_one_of_two(tmp_path: Path) -> None:
    found = network_import.read_directory(tiny.onnx_directory(tmp_path / "onnx"), "here", "uncased")

    assert [port.get_any_name() for port in found.network.inputs] == list(network.INPUTS)
    assert_close(tiny.logits(found.network, "bert"), tiny.expected_logits("bert"))


def test_an_openvino_network_is_read_from_where_spark_nlp_wants_it(tmp_path: Path) -> None:
    source = huggingface.read_directory(tiny.TINY / "distilbert", "here")
    ov.save_model(source.network, tmp_path / "any.xml", compress_to_fp16=True)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "labels.txt").write_text("\n".join(tiny.LABELS))
    shutil.copy(tiny.TINY / "distilbert" / "tokenizer.json", tmp_path / "assets")

    found = network_import.read_directory(tmp_path, "here")

    assert (found.labels, found.casing) == (tuple(tiny.LABELS), "cased")
    assert_close(tiny.logits(found.network, "distilbert"), tiny.expected_logits("distilbert"), atol=0.02)
    assert lower_precision.detect_stored_precision(found.network, "here") == "f32"
    lower_precision.widen_weights(found.network)
    assert_close(tiny.logits(found.network, "distilbert"), tiny.expected_logits("distilbert"), atol=0.02)


def toy(ids: str = "i64", mask: str = "attention_mask", width: int = 5, length: int = -1) -> ov.Model:
    """Return a token classifier that looks scores up in one table, with a second output that does not score tags."""
    kind = np.int64 if ids == "i64" else np.int32
    given = {name: ops.parameter([-1, length], kind, name=name) for name in ("input_ids", mask)}
    for name, node in given.items():
        node.output(0).get_tensor().set_names({name})
    table = ops.constant(np.arange(20 * width, dtype=np.float32).reshape(20, width))
    rows = ops.gather(table, given["input_ids"], ops.constant(np.int64(0)))
    scored = ops.multiply(rows, ops.unsqueeze(ops.convert(given[mask], "f32"), ops.constant(np.int64(2))))
    if length != -1:
        scored = ops.reshape(scored, ops.constant(np.array([-1, length, width], np.int64)), special_zero=False)
    extra = ops.reduce_sum(scored, ops.constant(np.int64(2)))
    return ov.Model([ops.result(scored), ops.result(extra)], list(given.values()))


def test_32_bit_inputs_are_widened_and_extra_outputs_dropped() -> None:
    found = network_import.normalize_inputs_and_output(toy("i32"), 5, "here")

    assert {port.get_element_type() for port in found.inputs} == {ov.Type.i64}
    assert len(found.outputs) == 1 and found.output(0).get_any_name() == "logits"
    ids = np.array([[3, 1]], np.int64)
    scores = ov.Core().compile_model(found, "CPU")({"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
    assert scores[0, 0].tolist() == [15, 16, 17, 18, 19]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (toy(mask="weights"), r"has the inputs \['input_ids', 'weights'\]"),
        (toy(width=4), "must have exactly one output that scores 5 tags"),
        (toy(length=16), "accepts only a fixed batch size or sequence length"),
    ],
    ids=["inputs", "width", "fixed length"],
)
def test_other_networks_are_refused(given: ov.Model, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        network_import.normalize_inputs_and_output(given, 5, "here")


def test_rounding_to_bfloat16_is_to_nearest_even_and_calibration_is_seen(tmp_path: Path) -> None:
    network_of = huggingface.read_directory(tiny.TINY / "distilbert", "here").network
    weights = {node.get_friendly_name(): node.data.copy() for node in lower_precision._find_weights(network_of.get_ops())}
    reduced = lower_precision.convert_precision(network_of, "bf16")
    ov.save_model(reduced, tmp_path / "m.xml", compress_to_fp16=False)
    again = ov.Core().read_model(tmp_path / "m.xml")
    assert lower_precision.detect_stored_precision(again, "here") == "bf16"
    lower_precision.widen_weights(again)
    wide = {
        node.get_friendly_name(): node.data
        for node in lower_precision._find_weights(again.get_ops())
        if node.get_element_type() == ov.Type.f32
    }
    assert wide
    for name, rounded in wide.items():
        before = weights[name.removesuffix("/bf16")]
        assert (rounded.view(np.uint32) & 0xFFFF == 0).all()
        assert (np.abs(rounded - before) <= np.abs(before) * 2**-8).all() and (rounded != before).any()
