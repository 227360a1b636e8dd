"""What depends on what in an OpenVINO network, and small parts of one evaluated on their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openvino as ov
from numpy.typing import NDArray


def dependencies(model: ov.Model) -> dict[str, frozenset[str]]:
    """Friendly name of every node -> the inputs whose values, not only shapes, it depends on."""
    found: dict[str, frozenset[str]] = {}
    for node in model.get_ordered_ops():
        name, kind = node.get_friendly_name(), node.get_type_name()
        if kind == "Parameter":
            found[name] = frozenset(node.output(0).get_names())
        elif kind == "ShapeOf":
            found[name] = frozenset()
        else:
            sources = [port.get_source_output().get_node().get_friendly_name() for port in node.inputs()]
            found[name] = frozenset().union(*(found[source] for source in sources))
    return found


def source(port: ov.Input) -> str:
    """Friendly name of the node that a port reads."""
    return str(port.get_source_output().get_node().get_friendly_name())


def evaluate(outputs: Sequence[ov.Output], inputs: dict[str, NDArray[np.int64]] | None = None) -> list[NDArray[np.generic]]:
    """The values of some outputs inside a network, computed in f32.

    Args:
        outputs: of its nodes; the network stays as it is.
        inputs: name -> value, at least for the inputs they depend on.
    """
    used = _parameters_above(outputs)
    compiled = ov.Core().compile_model(ov.Model(list(outputs), used, "part"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = {name for node in used for name in node.output(0).get_names()}
    wanted = {name: value for name, value in (inputs or {}).items() if name in names}
    found = compiled(wanted)
    return [np.array(found[place]) for place in range(len(outputs))]


def _parameters_above(outputs: Sequence[ov.Output]) -> list[ov.Node]:
    found: dict[str, ov.Node] = {}
    seen: set[str] = set()
    waiting = [output.get_node() for output in outputs]
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() in seen:
            continue
        seen.add(node.get_friendly_name())
        if node.get_type_name() == "Parameter":
            found[node.get_friendly_name()] = node
        waiting += [port.get_source_output().get_node() for port in node.inputs()]
    return list(found.values())
