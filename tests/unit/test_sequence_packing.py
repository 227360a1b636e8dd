"""Test packing: the assignment of sentences to rows, and networks that are changed to accept several sentences in a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitymill.recognition.tagger import Execution, bundle, network, sequence_packing
from entitymill.recognition.tagger.inference import Tagger
from entitymill_models import huggingface, network_import
from unit.tiny import EXPECTED, KINDS, TINY, onnx_directory

DEMO = Path(__file__).parents[2] / "models" / "demo"
LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=200)


@given(LENGTHS, st.booleans())
def test_every_sentence_is_in_one_place_and_none_over_another(lengths: list[int], packed: bool) -> None:
    sizes = np.array(lengths)
    taken: dict[int, int] = {}
    for batch in sequence_packing.plan_batches(sizes, 300, packed=packed):
        filled = np.zeros((batch.rows, batch.length), np.int64)
        for item, row, column in zip(batch.items, batch.row, batch.column, strict=True):
            assert column + sizes[item] <= batch.length
            filled[row, column : column + sizes[item]] += 1
            taken[int(item)] = taken.get(int(item), 0) + 1
        assert filled.max() == 1
        assert batch.rows == 1 or batch.rows * batch.length <= sequence_packing.BATCH_PIECES
    assert taken == dict.fromkeys(range(len(lengths)), 1)


def test_rows_of_real_lengths_are_full() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(3.2, 0.5, 1024).astype(int) + 3, 3, 128)
    batches = list(sequence_packing.plan_batches(lengths, 128, packed=True))
    assert lengths.sum() / sum(batch.rows * batch.length for batch in batches) > 0.97
    assert len({batch.length for batch in batches}) <= 2


def test_sentences_that_say_the_same_are_found() -> None:
    ids = np.array([1, 2, 3, 1, 2, 1, 2, 3], np.int32)
    kept, same = sequence_packing.find_distinct_rows(ids, np.array([0, 3, 5]), np.array([3, 5, 8]))
    assert (kept, same.tolist()) == ([0, 1], [0, 1, 0])


EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
"""Options that keep OpenVINO from quantizing activations at run time, as it does by default on some processors."""


def _alone(model: ov.Model, sentences: list[np.ndarray]) -> list[np.ndarray]:
    compiled = ov.Core().compile_model(model, "CPU", EXACT)
    feeds = ({"input_ids": ids[None], "attention_mask": np.ones((1, len(ids)), np.int64)} for ids in sentences)
    return [compiled(feed)[0][0].copy() for feed in feeds]


def _together(model: ov.Model, longest: int, sentences: list[np.ndarray]) -> list[np.ndarray]:
    """Return the logits of each sentence when all sentences are in one row, with some padding after them."""
    positions = sequence_packing.convert_to_packed(model, longest, int(sentences[0][0]))
    assert positions is not None
    lengths = [len(ids) for ids in sentences]
    total = sum(lengths) + 5
    ids, places, segments = np.zeros((3, 1, total), np.int64)
    places[:], segments[:] = positions[0], -1
    found, at = [], 0
    for number, sentence in enumerate(sentences):
        here = slice(at, at + len(sentence))
        ids[0, here], places[0, here], segments[0, here] = sentence, positions[: len(sentence)], number
        at += len(sentence)
    compiled = ov.Core().compile_model(model, "CPU", EXACT)
    logits = compiled({"input_ids": ids, "positions": places, "segments": segments})[0][0]
    for length in lengths:
        found.append(logits[:length])
        logits = logits[length:]
    return found


def _sentences(kind: str) -> list[np.ndarray]:
    batch = {name: np.array(EXPECTED["models"][kind][name]) for name in ("input_ids", "attention_mask")}
    return [ids[mask == 1] for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_every_kind_see_each_sentence_alone(kind: str) -> None:
    sentences = _sentences(kind)
    longest = max(map(len, sentences))
    expected = _alone(huggingface.read_directory(TINY / kind, kind).network, sentences)
    model = huggingface.read_directory(TINY / kind, kind).network
    for found, wanted in zip(_together(model, longest, sentences), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_an_onnx_network_is_packed_too(tmp_path: Path) -> None:
    sentences = _sentences("bert")
    directory = onnx_directory(tmp_path / "onnx")
    expected = _alone(network_import.read_directory(directory, "onnx", "uncased").network, sentences)
    model = network_import.read_directory(directory, "onnx", "uncased").network
    for found, wanted in zip(_together(model, 32, sentences), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_network_of_unknown_build_is_run_one_sentence_a_row(
    tagger: Tagger, demo_files: dict[str, Path], demo_manifest: bundle.Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise sequence_packing._NotPackableError

    # As if the network had no lookup in a table of position embeddings.
    monkeypatch.setattr(sequence_packing, "_find_positions", none)
    apart = Tagger.load(demo_files, demo_manifest, Execution())
    assert apart._positions is None
    tokens = [
        "They",
        "met",
        "in",
        "Paris",
        ".",
        "Angela",
        "Merkel",
        "of",
        "Germany",
        "and",
        "a",
        "great",
        "many",
        "others",
        "were",
        "there",
        ".",
    ]
    lengths = np.array([5, 12])
    found, expected = apart.tag(tokens, lengths, scores=True), tagger.tag(tokens, lengths, scores=True)
    assert found.tags.tolist() == expected.tags.tolist()
    assert found.scores == pytest.approx(expected.scores, abs=1e-5)


def test_unfolded_weights_are_those_that_were_folded(demo_files: dict[str, Path]) -> None:
    def read() -> ov.Model:
        return network.read_network(demo_files[bundle.NETWORK], demo_files[bundle.WEIGHTS], "demo")

    changed = read()
    network.remove_activation_quantization(changed)
    network.decompress_weights(changed)
    folded = [node for node in changed.get_ops() if node.get_type_name() == "MatMul"]
    assert folded and all(node.input_value(1).get_node().get_type_name() == "Constant" for node in folded[:-1:6])
    plain = read()
    network.remove_activation_quantization(plain)
    ids = [np.arange(1000, 1020)]
    np.testing.assert_allclose(_alone(changed, ids)[0], _alone(plain, ids)[0], atol=1e-4)
