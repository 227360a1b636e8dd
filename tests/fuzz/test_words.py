"""Test hostile words in settings, messages, SQL and spans: secrets stay hidden, and quoted text has no effect."""

from __future__ import annotations

import json
import random
import time

import pytest
import yaml

from entitymill import errors
from entitymill.errors import SettingsError
from entitymill.run import exit_codes
from entitymill.settings import bounded_yaml, list_keys, load, secret_masking
from entitymill.spark import sql_text
from entitymill.tables.text_masking import mask_text
from fuzzing import attempt, report, tries
from unit.test_secret_masking import CONF, MINIMAL, PASSWORDS, SCHEMES, TAILS

SECRET = "hunter2"
ODD = "a1 /@:?#;&=%+.,-_~!$*()[]{}'\"`\\\n\té"
LISTED = ("spark.driver.memory", "spark.eventLog.dir", "spark.sql.files.x", "spark.hadoop.fs.s3a.endpoint")
IN_LISTED = ("a={}", "https://me:{}@h", "1g -Dx {}", "h?{}", "h#{}", "h;{}", "{} {}", '"{}"', "\\{}", "{{{}}}")


def placed(draw: random.Random, secret: str) -> tuple[str, str]:
    """Return the key of a setting, and a value with the secret in a place where a secret may be."""
    if draw.random() < 0.3:
        if draw.random() < 0.5:
            return CONF + draw.choice(LISTED), draw.choice(IN_LISTED).replace("{}", secret)
        name = ".".join("".join(draw.choices("abkeysecretUrl_-", k=draw.randint(1, 9))) for _ in range(draw.randint(1, 4)))
        return f"{CONF}spark.{name}", "".join(draw.choices(ODD, k=draw.randrange(9))) + secret
    if draw.random() < 0.2:
        key = draw.choice(["source.passthrough", "entities.labels"])
        return key, json.dumps(["a", draw.choice(["x;pwd={}", "https://me:{}@h", "k={}", "a@{}"]).format(secret)])
    password = draw.choice(PASSWORDS).format(draw.choice(PASSWORDS).format(secret))
    tails = "".join(draw.choices(TAILS, k=draw.randrange(3))).replace("{}", secret)
    path = draw.choice(["", "/x", "/x/y=1", "/x?y=1", "/x@1", "/día/x"])
    return draw.choice(sorted(secret_masking.ADDRESSES)), f"{draw.choice(SCHEMES)}me:{password}@host{path}{tails}"


def test_no_secret_is_shown_wherever_it_stands() -> None:
    count, refused = tries(60, 2000), 0
    assert {key for key, _ in (placed(random.Random(n), "x") for n in range(500)) if "conf" not in key} <= set(list_keys())  # noqa: S311
    for number in range(count):
        with attempt("secrets", number) as draw:
            secret = SECRET + "".join(draw.choices("0123456789abcdef", k=8))
            key, value = placed(draw, secret)
            given = MINIMAL | {key: value}
            try:
                shown = load(None, [f"{name}={one}" for name, one in given.items()], {}).dump_masked()
            except SettingsError as error:
                shown, refused = {"refused": str(error)}, refused + 1
            assert secret not in json.dumps(shown), (key, value)
    assert refused < count / 2
    report("secrets", settings=count, refused=refused)


def some_yaml(draw: random.Random) -> str:
    """Return YAML with lists and mappings of aliases, sometimes with many levels or with an alias of itself."""
    lines = []
    for number in range(draw.randint(1, 12)):
        names = [f"*a{before}" for before in range(max(0, number - 2), number)] or ["x"]
        inner = draw.choices([*names * 9, "x"], k=draw.choice([1, 2, 3, 9]))
        listed, pairs = ", ".join(inner), ", ".join(f"k{at}: {one}" for at, one in enumerate(inner))
        lines.append(f"a{number}: &a{number} " + draw.choice([f"[{listed}]", f"{{{pairs}}}", f"{{<<: [{listed}]}}"]))
    depth = draw.choice([0, 0, 10, 40, 60, 3000])
    lines.append("z: " + "[" * depth + draw.choice(["1", "*a0", "&b [*b]"]) + "]" * depth)
    return "\n".join(lines)


def expanded(node: yaml.Node, known: dict[int, tuple[int, int]], around: tuple[int, ...] = ()) -> tuple[int, int]:
    """Return the numbers of values and of levels of a node; the target of an alias counts each time."""
    if id(node) in around:
        raise RecursionError
    if id(node) not in known:
        inner = node.value if isinstance(node, yaml.SequenceNode) else [x for pair in node.value for x in pair]
        inner = [] if isinstance(node, yaml.ScalarNode) else inner
        found = [expanded(one, known, (*around, id(node))) for one in inner]
        known[id(node)] = 1 + sum(values for values, _ in found), 1 + max((levels for _, levels in found), default=0)
    return known[id(node)]


def test_a_yaml_is_read_only_where_its_expansion_is_small() -> None:
    count, refused = tries(100, 2000), 0
    for number in range(count):
        with attempt("yaml", number) as draw:
            text, began = some_yaml(draw), time.process_time()
            try:
                node = bounded_yaml.compose(text)
                assert node is not None
                values, levels = expanded(node, {})
                assert values <= bounded_yaml.MAX_VALUES and levels <= bounded_yaml.MAX_DEPTH + 1
                yaml.safe_load(text)
            except bounded_yaml.YamlLimitError:
                refused += 1
            except yaml.YAMLError:  # the value of a merge key is not a mapping
                pass
            assert time.process_time() - began < 5
    assert 0.1 * count < refused < 0.9 * count
    report("yaml", files=count, refused=refused)


QUOTED = (
    f"entitymill.errors.ModelError: [0] {SECRET}",
    f"\nentitymill.errors.SettingsError: [{'0' * 16}] {SECRET}\n",
    f"(TID 7) (host executor 1): org.apache.spark.SparkException: [FAILED_READ_FILE] reading file {SECRET}. ",
    f"org.apache.spark.SparkException: Encountered error while reading file {SECRET}.\n",
    f"Could not read footer for file: {SECRET}. ",
    f"\nCaused by: java.net.ConnectException: {SECRET}\n\tat org.apache.hadoop.fs.x\n",
    f"com.amazonaws.SdkClientException: Unable to execute HTTP request: {SECRET}\n",
    f"s3a://{SECRET}/x Status Code: 403",
    f"AccessDeniedException: s3a://{SECRET}",
    f"' to {SECRET} \\\" ({SECRET}): ",
    f"{SECRET}\x00\u2028\r",
)
TASK = "Job aborted due to stage failure: Lost task 0.3 in stage 1.0 (TID 4) (10.0.0.1 executor 2): org.apache.spark."
WRITING = "SparkException: [TASK_WRITE_FAILED] Task failed while writing rows to x.\n\tat x\nCaused by: org.apache.spark."
RAISED = (
    f"{TASK}SparkNumberFormatException: [CAST_INVALID_INPUT]",
    f"{TASK}SparkRuntimeException: [X]",
    f"{TASK}api.python.PythonException: Traceback (most recent call last):\n  File x\n",
    f"{TASK}{WRITING}SparkDateTimeException: [CANNOT_PARSE_TIMESTAMP]",
    "[CAST_INVALID_INPUT]",  # the message of PySpark itself
)


def test_no_text_of_a_document_chooses_an_exit_code_or_reaches_a_message() -> None:
    count = tries(300, 20_000)
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EntityMillError)]
    for number in range(count):
        with attempt("messages", number) as draw:
            text = "".join(draw.choices(QUOTED, k=draw.randint(1, 4)))
            said = f"{draw.choice(RAISED)} The value '{text}' of the type \"STRING\" cannot be cast.\n\tat x(y.scala:1)\n"
            known = exit_codes.convert_error(RuntimeError(said))
            assert (known.exit_code, SECRET in str(known)) == (1, False), said
            kind = draw.choice(kinds)
            own = f"{kind.__module__}.{kind.__name__}: {errors.sign_error(kind('this is ours'), errors.SIGNATURE)}\n"
            error = RuntimeError(f"{TASK}PythonException: {own}{said}")
            assert exit_codes.describe_error(error) == ("this is ours", kind.exit_code)
    report("messages", messages=count)


def test_overlapping_spans_leave_no_character_of_a_mention() -> None:
    count = tries(300, 20_000)
    for number in range(count):
        with attempt("spans", number) as draw:
            text = "".join(draw.choices("ab 😀é\n", k=draw.randrange(1, 40)))
            edges = [sorted(draw.choices(range(len(text) + 1), k=2)) for _ in range(draw.randrange(7))]
            spans = [(begin, end, "L") for begin, end in edges]
            inside = {at for begin, end in edges for at in range(begin, end)}
            kept = "".join("\1" if at in inside else one for at, one in enumerate(text))
            assert mask_text(text, spans, "\1") == kept
            words = mask_text(text, spans, "<{label}>")
            assert words.replace("<L>", "") == kept.replace("\1", "")
    report("spans", texts=count)


def unescaped(literal: str) -> str:
    """Return the text that Spark reads from a literal without ${variables}, which Spark would replace first."""
    assert "${" not in literal
    assert (literal[0], literal[-1]) == ("'", "'")
    inner, found, at = literal[1:-1], "", 0
    while at < len(inner):
        assert inner[at] != "'"
        if inner[at] != "\\":
            found, at = found + inner[at], at + 1
        elif inner[at + 1] == "u":
            found, at = found + chr(int(inner[at + 2 : at + 6], 16)), at + 6
        else:
            assert inner[at + 1] in "\\'"
            found, at = found + inner[at + 1], at + 2
    return found


@pytest.mark.parametrize("alphabet", ["${}a'\\\"`u0024n", "'\\", "\0\n\r\u2028`;-*/ {}$", "".join(map(chr, range(0x300)))])
def test_no_word_ends_its_quotes_in_sql(alphabet: str) -> None:
    """This test parses the quoted words itself; in tests/fuzz/test_ids.py, Spark does."""
    count = tries(300, 20_000)
    for number in range(count):
        with attempt(f"sql {alphabet[:8]!r}", number) as draw:
            word = "".join(draw.choices(alphabet, k=draw.randrange(1, 30)))
            assert unescaped(sql_text.quote_literal(word)) == word
            quoted = sql_text.quote_part(word)
            assert "`" not in quoted[1:-1].replace("``", "")
            assert (quoted[0], quoted[-1], quoted[1:-1].replace("``", "`")) == ("`", "`", word)
            if not any(one < " " or one == "\x7f" for one in word):
                assert sql_text.split_name(f"{quoted}.{quoted}") == (word, word)
    report("sql words", words=count)
