"""Read tags, tokenizer, casing and maximum length from the files next to a model's network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from entitymill.errors import ModelError, SettingsError, is_rust_panic
from entitymill.recognition.model_loading_limits import convert_loading_errors
from entitymill.recognition.tagger import bundle
from entitymill_models.imported_classifier import Casing, parse_json, read_json, read_text, read_vocabulary

CONFIG, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"
MAX_PIECES, DEFAULT_LENGTH = 512, 128
"""Maximum numbers of pieces (subwords) in one input row of the network: MAX_PIECES replaces a larger number in a model's
files, and DEFAULT_LENGTH is used if the files state no valid number."""
_FOLDERS = ("", "assets")
"""Where the files may be: in the model's directory, or in its folder assets/, where Spark NLP's import expects them."""


@dataclass(frozen=True)
class TokenizerFiles:
    """A model's tokenizer and casing.

    tokenizer: the text of a tokenizer.json; None if there is only a vocab.txt.
    vocabulary: the pieces (subwords) in a vocab.txt, in the order of their ids; None if there is a tokenizer.json.
    casing: whether the tokenizer distinguishes upper and lower case.
    """

    tokenizer: str | None
    vocabulary: tuple[str, ...] | None
    casing: Casing


def read_tokenizer(
    directory: Path, where: str, casing: Casing | None = None, *, require_json: bool = False
) -> TokenizerFiles:
    """Read tokenizer.json or, if it does not exist, vocab.txt; return the content with the casing.

    Each of the two may be in `directory` or in its folder assets/. The text of tokenizer.json is returned as changed by
    `adapt_to_single_words`.

    Args:
        where: path of the model, for error messages.
        casing: the casing that the user specified, or None to read it from the files. With a vocab.txt, the user's casing
            overrides tokenizer_config.json. With a tokenizer.json, the user's casing must be the same as in that file.
        require_json: whether to refuse a model that has only a vocab.txt, because a vocab.txt is always read as WordPiece.

    Raises:
        ModelError: neither file exists, only vocab.txt exists although `require_json` is true, or a file cannot be read; or
            tokenizer_config.json, which is read for the casing, has settings that a vocab.txt cannot express.
        SettingsError: `casing` is None although no file states the casing, or `casing` contradicts tokenizer.json.
    """
    file = _find_file(directory, bundle.TOKENIZER)
    if file is not None:
        text, found = adapt_to_single_words(read_text(file), str(file))
        if casing not in (None, found):
            raise SettingsError(f"--casing says {casing}, but the tokenizer in {file} is {found}: leave the option out.")
        return TokenizerFiles(text, None, found)
    file = _find_file(directory, bundle.VOCABULARY)
    if file is None or require_json:
        missing = bundle.TOKENIZER if require_json else f"{bundle.TOKENIZER} or {bundle.VOCABULARY}"
        raise ModelError(f"{where} has no {missing}: add it (save_pretrained of a fast tokenizer writes tokenizer.json).")
    return TokenizerFiles(None, read_vocabulary(file), casing or _read_casing(directory, where))


def adapt_to_single_words(text: str, where: str) -> tuple[str, Casing]:
    """Change a tokenizer.json so that the tokenizer can encode single words; return the changed text, and the casing.

    In byte-level BPE, the first piece (subword) of a word contains the space before the word. For a single word, the
    tokenizer must add this space; otherwise it uses pieces that occur only inside words. Truncation and padding are switched
    off. The casing is "uncased" if the tokenizer converts words to lower case, and "cased" if not.

    `where` is the path of the file, for error messages. Raise ModelError if `text` is not a tokenizer.
    """
    parsed = parse_json(text, where)
    for part in _iterate_components(parsed.get("pre_tokenizer")):
        if part.get("type") == "ByteLevel":
            part["add_prefix_space"] = True
    # The tagger, not the tokenizer, truncates and pads.
    parsed["truncation"] = parsed["padding"] = None
    changed = json.dumps(parsed, ensure_ascii=False)
    with convert_loading_errors(where):
        try:
            Tokenizer.from_str(changed)
        except BaseException as error:
            if not (isinstance(error, Exception) or is_rust_panic(error)):  # tokenizers raises bare Exception
                raise
            raise ModelError(f"{where} is not a readable tokenizer: copy the model again.") from error
    lowers = any(
        part.get("type") == "Lowercase" or (part.get("type") == "BertNormalizer" and part.get("lowercase"))
        for part in _iterate_components(parsed.get("normalizer"))
    )
    return changed, "uncased" if lowers else "cased"


def _iterate_components(component: object) -> Iterator[dict[str, object]]:
    """Yield the elements of `component` if its type is Sequence, otherwise `component` itself.

    `component` is the value of normalizer or pre_tokenizer in a tokenizer.json. If the value is not a JSON object, for
    example null, yield nothing.
    """
    if not isinstance(component, dict):
        return
    if component.get("type") != "Sequence":
        yield component
        return
    for key in ("normalizers", "pretokenizers"):
        parts = component.get(key, [])
        if isinstance(parts, list):
            yield from (part for part in parts if isinstance(part, dict))


def _read_casing(directory: Path, where: str) -> Casing:
    """Return the casing that tokenizer_config.json states, for a model that has a vocab.txt but no tokenizer.json.

    Raise SettingsError if the casing is not stated. Raise ModelError if tokenizer_config.json says that words are normalized
    in a way that a vocab.txt cannot express.
    """
    file = _find_file(directory, TOKENIZER_CONFIG)
    config = read_json(file) if file is not None else {}
    lower = config.get("do_lower_case")
    if not isinstance(lower, bool):
        raise SettingsError(f"{where} does not say whether its vocab.txt is cased: pass --casing cased or --casing uncased.")
    if config.get("strip_accents") not in (None, lower) or config.get("tokenize_chinese_chars", True) is not True:
        raise ModelError(
            f"{where} normalizes words with settings that vocab.txt cannot express (strip_accents, tokenize_chinese_chars): "
            "add its tokenizer.json (save_pretrained of a fast tokenizer writes it)."
        )
    return "uncased" if lower else "cased"


def read_tags(directory: Path, where: str) -> tuple[str, ...]:
    """Return the tags that a network predicts, such as B-PER, in the order of the logits.

    The first of these sources that exists is read: labels.json, the key id2label of config.json, labels.txt. Raise
    ModelError if none exists, or the one that is read is damaged. `where` is the path of the model, for error messages.
    """
    file = _find_file(directory, bundle.LABELS)
    if file is not None:
        return _read_label_list(file)
    file = _find_file(directory, CONFIG)
    if file is not None and "id2label" in (config := read_json(file)):
        return read_config_labels(config, str(file))
    file = _find_file(directory, "labels.txt")
    if file is not None:
        return tuple(line.strip() for line in read_text(file).splitlines() if line.strip())
    raise ModelError(
        f"{where} does not state the tags that its network predicts: add labels.json, a list of tags (O, B-PER, I-PER, …)."
    )


def _read_label_list(file: Path) -> tuple[str, ...]:
    """Return the tags in a labels.json; raise ModelError if the file is not a JSON list of strings."""
    try:
        labels = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is not JSON: copy the model again.") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ModelError(f"{file} is not a JSON list of tags: copy the model again.")
    return tuple(labels)


def read_config_labels(config: dict[str, object], where: str) -> tuple[str, ...]:
    """Return the tags in id2label of a Hugging Face config.json, in the order of their numbers.

    Raise ModelError if id2label is missing, or its numbers are not 0, 1, 2, … without a gap. `where` is the file's path, for
    error messages.
    """
    named = config.get("id2label")
    if not isinstance(named, dict) or set(named) != {str(number) for number in range(len(named))} or not named:
        raise ModelError(
            f"id2label of {where} does not number the tags 0, 1, 2, …: list the tags that the model was trained with."
        )
    return tuple(str(named[str(number)]) for number in range(len(named)))


def read_max_length(directory: Path) -> int:
    """Return the maximum number of pieces (subwords) in one input row of a model's network, at most MAX_PIECES.

    tokenizer_config.json and config.json may each state a maximum. Return the smaller one, or DEFAULT_LENGTH if neither
    states one. A maximum that is not an integer from 1 to 2**20 - 1 is ignored. Raise ModelError if a configuration cannot
    be read as JSON.
    """
    allowed = []
    for name, key in ((TOKENIZER_CONFIG, "model_max_length"), (CONFIG, "max_position_embeddings")):
        file = _find_file(directory, name)
        value = read_json(file).get(key) if file is not None else None
        # transformers writes 1e30 if the maximum length is unknown.
        if isinstance(value, int) and 0 < value < 2**20:
            allowed.append(value)
    return min([*allowed, MAX_PIECES]) if allowed else DEFAULT_LENGTH


def _find_file(directory: Path, name: str) -> Path | None:
    """Return the path of the file `name` in a model's directory or, if it is not there, in assets/; None if in neither."""
    return next((directory / folder / name for folder in _FOLDERS if (directory / folder / name).is_file()), None)
