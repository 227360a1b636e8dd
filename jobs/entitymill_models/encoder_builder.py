"""Build BERT-like encoders from OpenVINO operations, without PyTorch.

The layers follow BERT (Devlin et al. 2019), a variant of the transformer of Vaswani et al. 2017. Embeddings are summed and
normalized. Each layer then computes attention, and after that a feed-forward network. The result of each of the two is added
to its input, and the sum is normalized. In this module, pieces are the subwords whose ids the network gets, and segments are
token types.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from entitymill.errors import ModelError
from entitymill.recognition.tagger.network import INPUTS

Weights = dict[str, NDArray[np.float32]]
"""A dict from the name of a parameter, which ends in .weight or .bias, to the array of its values."""


@dataclass(frozen=True)
class Names:
    """The names of an architecture's parameters, without .weight and .bias; "{}" stands for a layer's number.

    words, positions, segments: the embedding tables; `segments` (token types) is None if the architecture has none.
    normalized, after_attention, after_network: the layer normalizations after the embeddings, after attention, and after
        the feed-forward network.
    query, key, value, attended: the linear layers of attention; `attended` is the output layer.
    inner, outer: the two linear layers of the feed-forward network.
    classifier: the linear layer that computes the logits.
    """

    words: str
    positions: str
    segments: str | None
    normalized: str
    query: str
    key: str
    value: str
    attended: str
    after_attention: str
    inner: str
    outer: str
    after_network: str
    classifier: str = "classifier"


@dataclass(frozen=True)
class Shape:
    """The configuration of an encoder, in addition to its parameters (weights).

    layers, heads: number of layers, and number of attention heads in each layer.
    epsilon: the constant that a layer normalization adds to the variance.
    padding: id of the padding piece (subword) in architectures such as RoBERTa, which number positions from this id plus 1;
        None if positions are numbered from 0.
    """

    layers: int
    heads: int
    epsilon: float
    padding: int | None = None


def build_classifier(weights: Weights, names: Names, shape: Shape, where: str) -> ov.Model:
    """Build the network of a token classifier from its parameters; `where` is the model's path, for error messages.

    `names` are the names of the parameters in `weights`. The inputs of the network are input_ids and attention_mask, int64,
    shape [batch, length]. The output is logits, float32, shape [batch, length, tags]. Raise ModelError if a parameter is
    missing, or does not fit the others in shape; or if the hidden size is not a multiple of the number of attention heads.
    """
    try:
        return _Builder(weights, names, shape, where).build()
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"The parameters of {where} do not fit each other or its config.json: copy the model again."
        ) from error


class _Builder:
    """Builds the network of one model; each method `_build_…` returns the last operation of the part that it builds."""

    def __init__(self, weights: Weights, names: Names, shape: Shape, where: str) -> None:
        self._weights = weights
        self._names = names
        self._shape = shape
        self._where = where
        self._width = self._read_parameter(f"{names.words}.weight").shape[1]
        if self._width % shape.heads:
            raise ModelError(
                f"config.json of {where} has {shape.heads} attention heads, but the width of the network, {self._width}, is "
                "not a multiple of this number: copy the model again."
            )

    def build(self) -> ov.Model:
        """Return the token classifier as an OpenVINO network: inputs INPUTS (see `build_classifier`), output `logits`."""
        ids, mask = (ops.parameter([-1, -1], np.int64, name=name) for name in INPUTS)
        for node, name in zip((ids, mask), INPUTS, strict=True):
            node.output(0).get_tensor().set_names({name})
        hidden = self._build_embeddings(ids)
        # True where a piece is not padding. The shape [batch, 1, 1, length] makes it apply to all heads and queries.
        visible = ops.unsqueeze(ops.not_equal(mask, ops.constant(np.int64(0))), ops.constant(np.array([1, 2], np.int64)))
        for layer in range(self._shape.layers):
            hidden = self._build_layer(hidden, visible, layer)
        result = ops.result(self._build_linear(hidden, self._names.classifier))
        result.output(0).get_tensor().set_names({"logits"})
        return ov.Model([result], [ids, mask], "token_classifier")

    def _build_embeddings(self, ids: ov.Node) -> ov.Node:
        """Build the normalized sum of the embeddings of words, positions and, if the architecture has segments, segment 0.

        Segments are token types. `ids` are the ids of pieces (subwords), shape [batch, length]. The result has the shape
        [batch, length, width].
        """
        axis = ops.constant(np.int64(0))
        positions = self._build_constant(f"{self._names.positions}.weight", self._read_segment_embedding())
        words = ops.gather(self._build_constant(f"{self._names.words}.weight"), ids, axis)
        summed = ops.add(words, ops.gather(positions, self._build_positions(ids), axis))
        return self._build_normalization(summed, self._names.normalized)

    def _read_segment_embedding(self) -> NDArray[np.float32] | None:
        """Return the embedding of segment (token type) 0, which every piece has; None if the architecture has none."""
        name = self._names.segments
        return None if name is None else self._read_parameter(f"{name}.weight")[0]

    def _build_positions(self, ids: ov.Node) -> ov.Node:
        """Build the positions: for each piece (subword), the index of its row in the table of position embeddings.

        If `Shape.padding` is None, positions are 0, 1, 2, …, shape [1, length]. If `Shape.padding` is the id of the padding
        piece, the shape is [batch, length]: the pieces of each input sequence, except padding, are numbered from this id
        plus 1. The position of padding is this id.
        """
        zero, one = ops.constant(np.int64(0)), ops.constant(np.int64(1))
        if self._shape.padding is None:
            length = ops.gather(ops.shape_of(ids, "i64"), one, zero)
            return ops.unsqueeze(ops.range(zero, length, one, "i64"), zero)
        padding = ops.constant(np.int64(self._shape.padding))
        counted = ops.convert(ops.not_equal(ids, padding), "i64")
        return ops.add(ops.multiply(ops.cum_sum(counted, one), counted), padding)

    def _build_layer(self, hidden: ov.Node, visible: ov.Node, number: int) -> ov.Node:
        """Build layer `number` (from 0) of the encoder: attention, and then the feed-forward network.

        `hidden` is the layer's input, shape [batch, length, width]. `visible`, bool, shape [batch, 1, 1, length], is true
        for pieces that are not padding; attention is limited to these pieces.
        """
        query, key, value = (
            self._split_heads(self._build_linear(hidden, name.format(number)))
            for name in (self._names.query, self._names.key, self._names.value)
        )
        attended = ops.scaled_dot_product_attention(query, key, value, visible)
        joined = ops.reshape(ops.transpose(attended, _ints(0, 2, 1, 3)), _ints(0, 0, self._width), special_zero=True)
        attention = self._build_linear(joined, self._names.attended.format(number))
        hidden = self._build_normalization(ops.add(attention, hidden), self._names.after_attention.format(number))
        inner = ops.gelu(self._build_linear(hidden, self._names.inner.format(number)), "erf")
        network = self._build_linear(inner, self._names.outer.format(number))
        return self._build_normalization(ops.add(network, hidden), self._names.after_network.format(number))

    def _split_heads(self, hidden: ov.Node) -> ov.Node:
        """Reshape `hidden` from [batch, length, width] to [batch, heads, length, width / heads]."""
        heads = self._shape.heads
        return ops.transpose(
            ops.reshape(hidden, _ints(0, 0, heads, self._width // heads), special_zero=True),
            _ints(0, 2, 1, 3),
        )

    def _build_linear(self, hidden: ov.Node, name: str) -> ov.Node:
        """Build the linear layer that has the input `hidden` and the parameters `name`.weight and `name`.bias."""
        product = ops.matmul(hidden, self._build_constant(f"{name}.weight"), transpose_a=False, transpose_b=True)
        return ops.add(product, ops.constant(self._read_parameter(f"{name}.bias").reshape(1, 1, -1)))

    def _build_normalization(self, hidden: ov.Node, name: str) -> ov.Node:
        """Build the layer normalization of `hidden` with the parameters `name`.weight (gain) and `name`.bias (shift)."""
        last = ops.constant(np.array([-1], np.int64))
        centered = ops.mvn(hidden, last, normalize_variance=True, eps=self._shape.epsilon, eps_mode="inside_sqrt")
        gain, shift = (self._read_parameter(f"{name}.{kind}").reshape(1, 1, -1) for kind in ("weight", "bias"))
        return ops.add(ops.multiply(centered, ops.constant(gain)), ops.constant(shift))

    def _build_constant(self, name: str, addend: NDArray[np.float32] | None = None) -> ov.Node:
        """Build an OpenVINO constant from a parameter of the model; if `addend` is not None, add it to the parameter."""
        value = self._read_parameter(name)
        return ops.constant(value if addend is None else value + addend, name=name)

    def _read_parameter(self, name: str) -> NDArray[np.float32]:
        """Return the values of the parameter `name`; raise ModelError if the model has no parameter of this name.

        LayerNorm.weight and LayerNorm.bias may also have their older names, LayerNorm.gamma and LayerNorm.beta.
        """
        # In checkpoints converted from TensorFlow, the parameters of normalizations are called gamma and beta.
        older = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        values = self._weights.get(name, self._weights.get(older))
        if values is None:
            raise ModelError(
                f"{self._where} has no parameter {name}: it is incomplete or not a token classifier. Copy the model again."
            )
        return values


def _ints(*values: int) -> ov.Node:
    """Return an OpenVINO constant that contains `values`, int64, shape [number of values]."""
    return ops.constant(np.array(values, np.int64))
