"""Settings before they are checked: layers of YAML files, environment variables and options, and where each key was set."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from entitymill.errors import SettingsError
from entitymill.settings import bounded_yaml, secret_masking

ENVIRONMENT_PREFIX = "ENTITYMILL__"
_PROGRAM = ENVIRONMENT_PREFIX.rstrip("_")
_SIMILAR_PREFIX, _SIMILAR_VARIABLE, _SIMILAR_KEY = 0.85, 0.92, 0.72
"""How alike two names are, from 0 to 1, that are taken for one another; of foreign variables that is nearly the same."""
_MOST_SUGGESTED = 3


@dataclass
class Layers:
    """Layers that were laid over each other, later ones over earlier ones.

    merged: plain data as `Settings` takes it.
    places: key path -> where it was set last, for messages; not of options, which their user has just typed.
    """

    merged: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def add_file(self, path: Path) -> None:
        """Lay a YAML file over what is there.

        Raises:
            SettingsError: it cannot be read, is not YAML, has a key twice, or holds a secret.
        """
        layer, lines = _read_yaml(path)
        secret_masking.refuse_secrets(layer, path)
        _merge(self.merged, layer)
        self.places |= {key: f"{path}, line {line}" for key, line in lines.items()}

    def add_environment(self, environment: Mapping[str, str], known: Collection[str]) -> None:
        """Lay the environment variables of ENVIRONMENT_PREFIX over what is there.

        Args:
            environment: all variables.
            known: every key path there is.

        Raises:
            SettingsError: another variable is almost one of them.
        """
        for name, text in sorted(environment.items()):
            if name.startswith(ENVIRONMENT_PREFIX):
                path = name[len(ENVIRONMENT_PREFIX) :].lower().split("__")
                self._assign(path, text, f"environment variable {name}")
            elif meant := _find_intended_variable(name, known):
                raise SettingsError(f"Environment variable {name} is not a setting; did you mean {meant}?")

    def add_option(self, override: str) -> None:
        """Lay one `key.path=value` over what is there.

        Raises:
            SettingsError: it is of another form.
        """
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            begins = re.match(r"[\w.]*", override)[0]  # type: ignore[index]  # what follows may be a secret
            more = "…" if begins != override else ""
            raise SettingsError(f"--set {begins}{more} is not of the form key.path=value.")
        self._assign(key.strip().split("."), text, "")

    def describe_place(self, key: str) -> str:
        """Where a key was set, in brackets and with a blank before; empty if its user knows."""
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return f" ({self.places[key]})" if self.places.get(key) else ""

    def _assign(self, path: list[str], text: str, place: str) -> None:
        """Set one key; lists, mappings and null are YAML, everything else is text for its field to parse."""
        if path[:2] == ["spark", "conf"] and len(path) > 2:
            path = ["spark", "conf", ".".join(path[2:])]
        whole = ".".join(path)
        try:
            value: Any = text
            if text.strip()[:1] in ("[", "{") or text in ("null", "~"):
                bounded_yaml.check_size(text)
                value = yaml.safe_load(text)
        except bounded_yaml.UnboundedError as error:
            raise SettingsError(f"{whole}: the value {error}.") from error
        except yaml.YAMLError as error:
            raise SettingsError(f"{whole}: what begins with [ or {{ must be a YAML list or mapping.") from error
        into = self.merged
        for key in path[:-1]:
            inner = into.setdefault(key, {})
            if not isinstance(inner, dict):
                raise SettingsError(f"{whole}: {key} is a single value, not a section.")
            into = inner
        into[path[-1]] = value
        self.places[whole] = place


def suggest_keys(wrong: str, known: Iterable[str]) -> str:
    """What to write in the place of a key that is none: keys that look like it, or what there is at its place.

    Args:
        wrong: the key path.
        known: every key path there is, sections included.
    """
    everything = list(known)
    section, _, name = wrong.rpartition(".")
    siblings = [key for key in everything if key.rpartition(".")[0] == section]
    alike = get_close_matches(wrong, [key for key in everything if key.count(".") == wrong.count(".")], 1, _SIMILAR_KEY)
    # Right, but for the section it is in.
    alike = alike or [key for key in everything if key.rpartition(".")[2] == name]
    names = {key.rpartition(".")[2] for key in everything}
    alike = alike or [
        key for meant in get_close_matches(name, names, 1, _SIMILAR_KEY) for key in everything if key.endswith(f".{meant}")
    ]
    if alike:
        return f"did you mean {_join_names(alike[:_MOST_SUGGESTED])}?"
    if section and siblings:
        return f"{section} has {', '.join(key.rpartition('.')[2] for key in siblings)}."
    return f"there are {', '.join(key for key in everything if '.' not in key)}."


def _join_names(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _find_intended_variable(name: str, known: Collection[str]) -> str:
    """The variable that another one was meant for; empty if it is somebody else's.

    ENTITYMIL__SOURCE__PATH and ENTITYMILL_SOURCE__PATH would otherwise do nothing, without a word.
    """
    head, two, rest = name.partition("__")
    if two and get_close_matches(_normalize_name(head), [_PROGRAM], 1, _SIMILAR_PREFIX):
        path = rest.lower().split("__")
        if path[0] in known:
            return ENVIRONMENT_PREFIX + rest.upper()
    # A section alone is too short a name to tell a slip from somebody else's variable: ENTITYMILL_PORT, say.
    variables = {_PROGRAM + _normalize_name(key.replace(".", "")): key for key in known if "." in key}
    found = get_close_matches(_normalize_name(name), variables, 1, _SIMILAR_VARIABLE)
    return ENVIRONMENT_PREFIX + variables[found[0]].replace(".", "__").upper() if found else ""


def _normalize_name(name: str) -> str:
    return name.replace("_", "").upper()


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """What a file says, and the line of each key path in it."""
    try:
        text = bounded_yaml.read_text(path)
        bounded_yaml.check_size(text)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        lines = dict(_find_lines(node, path))
        content = None if node is None else loader.construct_document(node)
    except OSError as error:
        raise SettingsError(f"--config {path}: {error.strerror or error}.") from error
    except bounded_yaml.UnboundedError as error:
        raise SettingsError(f"--config {path} {error}.") from error
    except (yaml.YAMLError, ValueError) as error:  # the second: bytes that are no text, a date that is none
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise SettingsError(f"--config {path} is not YAML{where}.") from error
    if content is None:
        return {}, {}
    if not isinstance(content, dict):
        raise SettingsError(f"--config {path} holds no settings: expected keys such as source and output.")
    return content, lines


def _find_lines(node: yaml.Node | None, file: Path, at: str = "") -> Iterator[tuple[str, int]]:
    """(key path, line) of all keys, those of a mapping before those inside it.

    Raises:
        SettingsError: a mapping has a key twice, of which YAML's parser would silently take the last.
    """
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        path = f"{at}.{name}" if at else name
        if name in seen:
            raise SettingsError(f"--config {file}, line {line}: {path} is there already, in line {seen[name]}; keep one.")
        seen[name] = line
        yield path, line
        yield from _find_lines(value, file, path)
