"""Labels, vocabulary and casing, as the files beside a network give them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from entitymill.errors import ModelError, SettingsError, is_rust_panic
from entitymill.recognition.model_loading import loading
from entitymill.recognition.tagger import bundle
from entitymill_models.token_classifier import Casing, parse_json, read_json, read_text, vocabulary_lines

CONFIG, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"
LONGEST, DEFAULT_LENGTH = 512, 128
_HELD = ("", "assets")
"""Where files lie: beside the network, or where Spark NLP's import wants them."""


@dataclass(frozen=True)
class Words:
    """How a model cuts words: the text of a tokenizer.json, or the pieces of a vocab.txt; and its casing."""

    tokenizer: str | None
    vocabulary: tuple[str, ...] | None
    casing: Casing


def read(directory: Path, where: str, casing: Casing | None = None, *, whole: bool = False) -> Words:
    """The tokenizer of a directory.

    Args:
        directory: holds tokenizer.json, or vocab.txt and perhaps tokenizer_config.json.
        where: its address, for messages.
        casing: what the user says; needed where nothing else tells.
        whole: only a tokenizer.json will do, since vocab.txt means WordPiece.

    Raises:
        ModelError: there is none, or it cannot be read.
        SettingsError: `casing` is needed, or contradicts tokenizer.json.
    """
    file = _find(directory, bundle.TOKENIZER)
    if file is not None:
        text, found = word_by_word(read_text(file), str(file))
        if casing not in (None, found):
            raise SettingsError(f"--casing says {casing}, but {file} is {found}: leave the option out.")
        return Words(text, None, found)
    file = _find(directory, bundle.VOCABULARY)
    if file is None or whole:
        wanted = bundle.TOKENIZER if whole else f"{bundle.TOKENIZER} or {bundle.VOCABULARY}"
        raise ModelError(f"{where} has no {wanted}: add it (save_pretrained of a fast tokenizer writes tokenizer.json).")
    return Words(None, vocabulary_lines(file), casing or _casing(directory, where))


def word_by_word(text: str, where: str) -> tuple[str, Casing]:
    """A tokenizer.json made to cut single words, and its casing.

    Byte-level BPE marks the blank before a word on its first piece; a word that is given alone must be given that blank,
    or it becomes pieces that occur inside words only.

    Raises:
        ModelError: it is not a tokenizer.
    """
    found = parse_json(text, where)
    for part in _components(found.get("pre_tokenizer")):
        if part.get("type") == "ByteLevel":
            part["add_prefix_space"] = True
    # Truncation and padding are the tagger's business.
    found["truncation"] = found["padding"] = None
    changed = json.dumps(found, ensure_ascii=False)
    with loading(where):
        try:
            Tokenizer.from_str(changed)
        except BaseException as error:
            if not (isinstance(error, Exception) or is_rust_panic(error)):  # tokenizers raises bare Exception
                raise
            raise ModelError(f"{where} is not a tokenizer that can be read: copy the model again.") from error
    lowers = any(
        part.get("type") == "Lowercase" or (part.get("type") == "BertNormalizer" and part.get("lowercase"))
        for part in _components(found.get("normalizer"))
    )
    return changed, "uncased" if lowers else "cased"


def _components(component: object) -> Iterator[dict[str, object]]:
    """A normalizer or pre-tokenizer, or the parts of a sequence of them."""
    if not isinstance(component, dict):
        return
    if component.get("type") != "Sequence":
        yield component
        return
    for key in ("normalizers", "pretokenizers"):
        parts = component.get(key, [])
        if isinstance(parts, list):
            yield from (part for part in parts if isinstance(part, dict))


def _casing(directory: Path, where: str) -> Casing:
    """Casing of a bare vocab.txt, from tokenizer_config.json."""
    file = _find(directory, TOKENIZER_CONFIG)
    said = read_json(file) if file is not None else {}
    lower = said.get("do_lower_case")
    if not isinstance(lower, bool):
        raise SettingsError(f"{where} does not say whether its vocab.txt is cased: pass --casing cased or --casing uncased.")
    if said.get("strip_accents") not in (None, lower) or said.get("tokenize_chinese_chars", True) is not True:
        raise ModelError(
            f"{where} normalizes words in a way that vocab.txt cannot carry (strip_accents, tokenize_chinese_chars): "
            "add its tokenizer.json (save_pretrained of a fast tokenizer writes one)."
        )
    return "uncased" if lower else "cased"


def read_labels(directory: Path, where: str) -> tuple[str, ...]:
    """The tag of each logit, from labels.json, id2label of config.json, or labels.txt.

    Raises:
        ModelError: no file gives them, or not one for every number.
    """
    file = _find(directory, bundle.LABELS)
    if file is not None:
        return _listed(file)
    file = _find(directory, CONFIG)
    if file is not None and "id2label" in (config := read_json(file)):
        return labels_of(config, str(file))
    file = _find(directory, "labels.txt")
    if file is not None:
        return tuple(line.strip() for line in read_text(file).splitlines() if line.strip())
    raise ModelError(f"{where} does not say what its outputs mean: add labels.json, a list of tags (O, B-PER, I-PER, …).")


def _listed(file: Path) -> tuple[str, ...]:
    try:
        labels = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is not JSON: copy the model again.") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ModelError(f"{file} is not a JSON list of labels: copy the model again.")
    return tuple(labels)


def labels_of(config: dict[str, object], where: str) -> tuple[str, ...]:
    """The labels that a Hugging Face config.json gives.

    Raises:
        ModelError: id2label is missing, or has gaps.
    """
    named = config.get("id2label")
    if not isinstance(named, dict) or set(named) != {str(number) for number in range(len(named))} or not named:
        raise ModelError(f"id2label of {where} does not number the tags 0, 1, 2, …: add the labels it was trained with.")
    return tuple(str(named[str(number)]) for number in range(len(named)))


def max_length(directory: Path) -> int:
    """Pieces a window may have: what the tokenizer's and the network's configurations allow, else DEFAULT_LENGTH.

    Raises:
        ModelError: a configuration is not JSON.
    """
    allowed = []
    for name, key in ((TOKENIZER_CONFIG, "model_max_length"), (CONFIG, "max_position_embeddings")):
        file = _find(directory, name)
        value = read_json(file).get(key) if file is not None else None
        # transformers writes 1e30 for "not known".
        if isinstance(value, int) and 0 < value < 2**20:
            allowed.append(value)
    return min([*allowed, LONGEST]) if allowed else DEFAULT_LENGTH


def _find(directory: Path, name: str) -> Path | None:
    return next((directory / held / name for held in _HELD if (directory / held / name).is_file()), None)
