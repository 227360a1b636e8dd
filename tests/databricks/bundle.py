"""Read the bundle's YAML, and resolve its variables and parameters here, because the Databricks CLI needs a workspace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
JOB = "extract_entities"
_REFERENCE = re.compile(r"\$\{([a-z_.]+)\}")


def top() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "databricks.yml").read_text(encoding="utf8"))


def resources(kind: str) -> dict[str, Any]:
    """Return resource name -> resource of one kind, from all files that the bundle includes."""
    found: dict[str, Any] = {}
    for pattern in top()["include"]:
        for path in ROOT.glob(pattern):
            found |= yaml.safe_load(path.read_text(encoding="utf8"))["resources"].get(kind, {})
    return found


def values(target: str) -> dict[str, str]:
    """Return reference -> value in a target."""
    bundle = top()
    chosen = bundle["targets"][target].get("variables", {})
    return {
        **{f"var.{name}": str(chosen.get(name, variable["default"])) for name, variable in bundle["variables"].items()},
        "bundle.name": bundle["bundle"]["name"],
        "bundle.target": target,
        "workspace.file_path": str(ROOT),
        "workspace.current_user.short_name": "ann_lee",
    }


def resolved(content: Any, target: str) -> Any:
    """Return the content with every ${reference} replaced, also references in a variable's default."""
    known = values(target)
    if isinstance(content, dict):
        return {key: resolved(value, target) for key, value in content.items()}
    if isinstance(content, list):
        return [resolved(value, target) for value in content]
    while isinstance(content, str) and _REFERENCE.search(content):
        content = _REFERENCE.sub(lambda reference: known[reference[1]], content)
    return content


def job(target: str) -> dict[str, Any]:
    return resolved(resources("jobs")[JOB], target)


def command_line(target: str, **chosen: str) -> list[str]:
    """Return the wheel task's parameters, as Databricks fills them in.

    Args:
        target: target of the bundle.
        chosen: job parameters of this run; the others have their defaults.
    """
    whole = job(target)
    parameters = {parameter["name"]: parameter["default"] for parameter in whole["parameters"]}
    assert chosen.keys() <= parameters.keys()
    parameters |= chosen

    def fill(text: str) -> str:
        return re.sub(r"\{\{job\.parameters\.(\w+)\}\}", lambda match: parameters[match[1]], text)

    return [fill(text) for text in whole["tasks"][0]["python_wheel_task"]["parameters"]]
