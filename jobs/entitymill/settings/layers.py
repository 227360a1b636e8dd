"""Merge layers of settings (YAML files, environment variables, options), and record where each key was set."""

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
"""How similar a wrong name must be to a right one, from 0 to 1, so that an error message suggests the right one. The first
two limits, for environment variables, are high, since most variables belong to other programs."""
_MAX_SUGGESTED = 3


@dataclass
class Layers:
    """Merged layers of settings; later layers override earlier ones.

    merged: the settings as plain data, which `Settings` validates.
    origins: dict from a key path, such as `source.path`, to text for messages: the file and line, or the environment
        variable, that set the key last. If an option `--set` set it last, the text is empty: the user has just typed it.
    """

    merged: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def add_file(self, path: Path) -> None:
        """Add a YAML file as the next layer: its values override those of earlier layers.

        Raise a SettingsError if the file cannot be read, is not a YAML mapping, contains a key twice, or contains a secret.
        """
        layer, lines = _read_yaml(path)
        secret_masking.refuse_secrets(layer, path)
        _merge(self.merged, layer)
        self.origins |= {key: f"{path}, line {line}" for key, line in lines.items()}

    def add_environment(self, environment: Mapping[str, str], all_keys: Collection[str]) -> None:
        """Add, as the next layer, the settings in those environment variables whose names begin with ENVIRONMENT_PREFIX.

        ENTITYMILL__SOURCE__PATH sets source.path, for example. After the prefix, case does not matter, except in names of
        Spark properties (see `_split_variable`). A list, mapping or null is parsed as YAML. Raise a SettingsError if a list
        or mapping is not valid YAML, if a variable sets a key inside a setting that has a single value, or if a variable
        without this prefix looks like a misspelled setting. `all_keys` has the key paths of all settings.
        """
        for name, text in sorted(environment.items()):
            if name.startswith(ENVIRONMENT_PREFIX):
                self._assign(_split_variable(name), text, f"environment variable {name}")
            elif meant := _find_intended_variable(name, all_keys):
                raise SettingsError(f"Environment variable {name} is not a setting; did you mean {meant}?")

    def add_option(self, override: str) -> None:
        """Add the text `key.path=value` of one option `--set` as the next layer.

        A list, mapping or null is parsed as YAML. Raise a SettingsError if the text does not have this form, if a list or
        mapping is not valid YAML, or if the key is inside a setting that has a single value.
        """
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            begins = re.match(r"[\w.]*", override)[0]  # type: ignore[index]  # the rest may be a secret
            more = "…" if begins != override else ""
            raise SettingsError(f"--set {begins}{more} is not of the form key.path=value.")
        self._assign(key.strip().split("."), text, "")

    def describe_origin(self, key: str) -> str:
        """Return, for the end of a message, which file and line or which environment variable set a key.

        An example is ` (base.yaml, line 3)`. If only the key's section was set, the result says what set the section. The
        result is empty if an option `--set` set the key, or if nothing set the key or its section.
        """
        while key and key not in self.origins:
            key = key.rpartition(".")[0]
        return f" ({self.origins[key]})" if self.origins.get(key) else ""

    def _assign(self, path: list[str], text: str, origin: str) -> None:
        """Set one key in `merged` to the value that `text` contains, and its entry in `origins` to `origin`.

        `path` has the parts of the key path: ["source", "path"] for source.path. All parts after spark.conf become one key,
        the name of a Spark property. A list, mapping or null is parsed as YAML; any other value stays a string, which
        `Settings` parses later. Raise a SettingsError if the YAML is not valid, or an earlier layer set the key's section to
        a single value.
        """
        if path[:2] == ["spark", "conf"] and len(path) > 2:
            path = ["spark", "conf", ".".join(path[2:])]
        key_path = ".".join(path)
        try:
            value: Any = text
            if text.strip()[:1] in ("[", "{") or text in ("null", "~"):
                value = bounded_yaml.construct(bounded_yaml.compose(text))
        except bounded_yaml.YamlLimitError as error:
            raise SettingsError(f"{key_path}: the value {error}.") from error
        except (yaml.YAMLError, ValueError) as error:  # ValueError: an invalid date
            raise SettingsError(f"{key_path}: a value that begins with [ or {{ must be a YAML list or mapping.") from error
        into = self.merged
        for key in path[:-1]:
            inner = into.setdefault(key, {})
            if not isinstance(inner, dict):
                raise SettingsError(f"{key_path} cannot be set, because {key} is set to a single value; remove that value.")
            into = inner
        into[path[-1]] = value
        self.origins[key_path] = origin


def _split_variable(name: str) -> list[str]:
    """Return the key path that an environment variable with ENVIRONMENT_PREFIX sets, as a list of its parts in lower case.

    After spark.conf, a part that is not entirely in upper case stays as it is, since Spark's names contain both cases:
    ENTITYMILL__SPARK__CONF__SPARK__EXECUTOR__memoryOverhead sets spark.executor.memoryOverhead.
    """
    parts = name[len(ENVIRONMENT_PREFIX) :].split("__")
    lower = [part.lower() for part in parts]
    if lower[:2] != ["spark", "conf"]:
        return lower
    return [*lower[:2], *(part.lower() if part.isupper() else part for part in parts[2:])]


def suggest_keys(wrong: str, all_keys: Iterable[str]) -> str:
    """Return the end of a message about the unknown key path `wrong`: the keys that the user may have meant.

    These are up to _MAX_SUGGESTED similar key paths. If none is similar, they are all keys of the section in `wrong` or, if
    there is no such section, all top-level keys.
    """
    everything = list(all_keys)
    section, _, name = wrong.rpartition(".")
    siblings = [key for key in everything if key.rpartition(".")[0] == section]
    # `source_path` and `sourcepath` mean `source.path`.
    alike = [key for key in everything if _normalize_name(key) == _normalize_name(wrong)]
    same_depth = [key for key in everything if key.count(".") == wrong.count(".")]
    alike = alike or get_close_matches(wrong, same_depth, 1, _SIMILAR_KEY)
    # The user may have written the right name in the wrong section.
    alike = alike or [key for key in everything if key.rpartition(".")[2] == name]
    names = {key.rpartition(".")[2] for key in everything}
    alike = alike or [
        key for meant in get_close_matches(name, names, 1, _SIMILAR_KEY) for key in everything if key.endswith(f".{meant}")
    ]
    if alike:
        return f"did you mean {_join_names(alike[:_MAX_SUGGESTED])}?"
    if section and siblings:
        return f"the keys of {section} are {', '.join(key.rpartition('.')[2] for key in siblings)}."
    return f"the top-level keys are {', '.join(key for key in everything if '.' not in key)}."


def _join_names(names: list[str]) -> str:
    """Return names as `a, b or c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _find_intended_variable(name: str, all_keys: Collection[str]) -> str:
    """Return the environment variable that the user probably meant by `name`; empty if `name` resembles no setting.

    Without this check, misspelled variables such as ENTITYMIL__SOURCE__PATH would be ignored silently.
    """
    head, separator, rest = name.partition("__")
    if separator and get_close_matches(_normalize_name(head), [_PROGRAM], 1, _SIMILAR_PREFIX):
        path = rest.lower().split("__")
        if path[0] in all_keys:
            return ENVIRONMENT_PREFIX + (rest if path[:2] == ["spark", "conf"] else rest.upper())
    # Sections are not suggested: a short name such as ENTITYMILL_PORT may well belong to another program.
    variables = {_PROGRAM + _normalize_name(key.replace(".", "")): key for key in all_keys if "." in key}
    found = get_close_matches(_normalize_name(name), variables, 1, _SIMILAR_VARIABLE)
    return ENVIRONMENT_PREFIX + variables[found[0]].replace(".", "__").upper() if found else ""


def _normalize_name(name: str) -> str:
    """Return a name in upper case, without underscores and dots, so that different spellings of it are equal."""
    return name.replace("_", "").replace(".", "").upper()


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Copy the values of a layer into `into`, over existing values; a section that both contain is merged key by key."""
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the content of a YAML file, and the line number of each key path; both are empty for an empty file.

    Raise a SettingsError if the file cannot be read, is not YAML, is too large, contains a key twice, or is not a mapping.
    """
    try:
        node = bounded_yaml.compose(bounded_yaml.read_text(path))
        lines = dict(_find_lines(node, path))
        content = bounded_yaml.construct(node)
    except OSError as error:
        raise SettingsError(f"--config {path}: {error.strerror or error}.") from error
    except bounded_yaml.YamlLimitError as error:
        raise SettingsError(f"--config {path} {error}.") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: invalid UTF-8 or an invalid date
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise SettingsError(f"--config {path} is not YAML{where}.") from error
    if content is None:
        return {}, {}
    if not isinstance(content, dict):
        raise SettingsError(f"--config {path} contains no settings: expected keys such as source and output.")
    return content, lines


def _find_lines(node: yaml.Node | None, file: Path, at: str = "") -> Iterator[tuple[str, int]]:
    """Yield (key path, line number) for each key of a YAML node; a key comes before the keys inside its value.

    Keys of mappings in lists are skipped. `at` is the key path of the node, and empty for the root of the file. Raise a
    SettingsError if a mapping contains a key twice: the YAML parser would silently use the last value. `file` is only for
    the message.
    """
    if not isinstance(node, yaml.MappingNode):
        return
    line_of: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        path = f"{at}.{name}" if at else name
        if name in line_of:
            raise SettingsError(f"--config {file}, line {line}: {path} is already set in line {line_of[name]}; remove one.")
        line_of[name] = line
        yield path, line
        yield from _find_lines(value, file, path)
