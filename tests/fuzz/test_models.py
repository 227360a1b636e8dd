"""Test hostile models: damaged networks and tokenizers, forbidden Java objects, and nested archives."""

from __future__ import annotations

import json
import random
import re
import shutil
import struct
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from entitymill.errors import ModelError
from entitymill.recognition import model_loading_limits
from entitymill.recognition.tagger import bundle
from entitymill.workers import child_process
from entitymill_models import huggingface, imported_classifier, java_stream_check, model_formats, sparknlp_field_files
from fuzzing import attempt, report, tries
from unit import hostile, tiny
from unit.damage import damaged
from unit.test_saved_model_check import TOKENIZER

FACTORY = "entitymill.commands.tagging_in_child:open_tagger"
TEXTS = pa.RecordBatch.from_arrays([pa.array(["Angela Merkel met Emmanuel Macron in Paris."], pa.large_string())], ["text"])
NUMBERS = ("0", "-1", "1", "2", "7", "64", "65", "100000", "4294967296", "9223372036854775807", "1e9", "x", "")
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**31,
    2**63,
    1e308,
    *("", "a", "\0", "(a+)+$", "["),
    *([], {}, [[]], {"a": {}}),
)
OPERATIONS = {
    "Gelu": ("Assign", "ReadValue", "Result", "Clamp", "Abs", "Ceiling", "Exp", "HSwish", "NonZero", "ShapeOf", "Erf"),
    "Add": (
        "Subtract",
        "Divide",
        "Power",
        "Mod",
        "Maximum",
        "Less",
        "Equal",
        "LogicalAnd",
        "SquaredDifference",
        "MatMul",
        "Tile",
    ),
}
"""Operation -> operations with the same number of inputs, which OpenVINO accepts in its place when it reads a network."""
SECONDS = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle of a tiny DistilBERT, and return its directory."""
    directory = tmp_path_factory.mktemp("bundle")
    found = huggingface.read_directory(tiny.TINY / "distilbert", "here")
    imported_classifier.write_parts(found, directory)
    write_manifest(directory, found.casing, found.max_length)
    return directory


def write_manifest(directory: Path, casing: str = "cased", max_length: int = 64) -> None:
    about = {"name": "tiny", "source": "test", "licence": "none", "casing": casing, "precision": "f32"}
    bundle.write_manifest(directory, {**about, "max_length": max_length})


def a_network(directory: Path, draw: random.Random) -> None:
    """Change words or numbers of a bundle's network file, or damage bytes of the network file or of the weights."""
    file = directory / draw.choice([*[bundle.NETWORK] * 9, bundle.WEIGHTS])
    content = file.read_bytes()
    if file.name == bundle.WEIGHTS or draw.random() < 0.2:
        file.write_bytes(damaged(content, draw))
        return
    text = content.decode()
    if draw.random() < 0.5:
        layer = draw.choice(list(re.finditer(r'type="(Gelu|Add)" version="\w+"', text)))
        other = f'type="{draw.choice(OPERATIONS[layer[1]])}" version="opset4"'
        text = text[: layer.start()] + other + text[layer.end() :]
    for _ in range(draw.choice([0, 0, 0, 1]) if text.encode() != content else draw.choice([1, 1, 2, 5])):
        values = list(re.finditer(r'(\w+)="([^"]*)"|<dim>([^<]*)</dim>', text))
        one = draw.choice(values)
        group = 2 if one[1] else 3
        others = [other[2] for other in values if one[1] and other[1] == one[1]]
        new = draw.choice([*others, draw.choice(NUMBERS), "Assign", "Loop"]) if others else draw.choice(NUMBERS)
        text = text[: one.start(group)] + new + text[one.end(group) :]
    file.write_text(text)


def a_tokenizer(directory: Path, draw: random.Random) -> None:
    """Replace values in a bundle's tokenizer.json by odd values, or by copies of other parts of the file."""
    file = directory / bundle.TOKENIZER
    found = json.loads(file.read_text(encoding="utf8"))
    places: list[tuple[Any, Any]] = []

    def look(at: Any) -> None:
        for key in at if isinstance(at, dict) else range(min(len(at), 20)):
            places.append((at, key))
            if isinstance(at[key], (dict, list)):
                look(at[key])

    look(found)
    for _ in range(draw.choice([1, 1, 3])):
        at, key = draw.choice(places)
        other = draw.choice(places)
        at[key] = json.loads(json.dumps(other[0][other[1]])) if draw.random() < 0.3 else draw.choice(ODD_VALUES)
    file.write_text(json.dumps(found), encoding="utf8")


@pytest.mark.parametrize(("change", "few", "full"), [(a_network, 30, 550), (a_tokenizer, 8, 150)])
def test_a_hostile_bundle_is_refused_or_tags_and_this_process_lives(
    tmp_path: Path, model: Path, change: Any, few: int, full: int
) -> None:
    ends: Counter[str] = Counter()
    for number in range(tries(few, full)):
        with attempt(change.__name__, number) as draw:
            directory = tmp_path / f"{number}"
            shutil.copytree(model, directory)
            try:
                change(directory, draw)
            except RecursionError:  # a part was put into itself
                continue
            write_manifest(directory)
            arguments = (directory, "f32", "rules", None, "none", 100)
            try:
                child = child_process.Child(child_process.Work(FACTORY, arguments, quiet=True), SECONDS)
                child(TEXTS, SECONDS)
                child.close()
                ends["tags"] += 1
            except ModelError as error:
                said = str(error)
                assert str(directory) in said and "\n" not in said and not re.search(r"Traceback|src/|panicked at", said)
                ends["crashes" if "crashes the process" in said else "refused"] += 1
            except child_process.ChildLostError as lost:  # while tagging; unit/test_hostile_models.py tests the message
                ends[lost.code] += 1
            shutil.rmtree(directory)
    assert ends["refused"] and ends["tags"] and not ends[child_process.TIMED_OUT]
    report(change.__name__, **dict(ends))


FORBIDDEN = (*("java.net.URL", "java.util.HashMap", "java.lang.Runtime", "scala.Tuple3"), *("[Ljava.net.URL;", "[[I", ""))


class Objects:
    """A random stream of Java objects of ALLOWED classes; with `harm`, one element of the stream is not allowed."""

    def __init__(self, draw: random.Random, *, harm: bool) -> None:
        self._draw, self._harm, self._left = draw, harm, draw.randint(1, 30)
        self.content = b"\xac\xed\0\5" + self._value(0)
        while self._harm:  # nothing forbidden yet: put one forbidden element into an array
            self.content = b"\xac\xed\0\5" + self._array([self._harmful()])

    def _named(self, name: str, flags: int) -> bytes:
        return struct.pack(">H", len(name)) + name.encode() + self._draw.randbytes(8) + bytes([flags])

    def _array(self, values: list[bytes]) -> bytes:
        head = b"ur" + self._named("[Ljava.lang.Object;", 2) + b"\0\0xp"
        return head + struct.pack(">i", len(values)) + b"".join(values)

    def _harmful(self) -> bytes:
        self._harm = False
        draw, name = self._draw, self._draw.choice(FORBIDDEN)
        wrong = draw.choice([*java_stream_check.ALLOWED, "scala.Tuple2"])
        return draw.choice(
            [
                b"sr" + self._named(name, draw.choice([2, 3])) + b"\0\0xp",
                b"ur" + self._named(name, 2) + b"\0\0xp\0\0\0\0",
                b"sr" + self._named(wrong, java_stream_check.ALLOWED[wrong] ^ draw.choice([1, 4, 8, 16])) + b"\0\0xp",
                b"vr" + self._named("java.lang.Long", 2) + b"\0\0xp",  # java.lang.Class
                b"s}" + struct.pack(">iH", 1, 4) + b"java" + b"xp",  # a proxy
                b"~r" + self._named("scala.Tuple2", 2) + b"\0\0xpt\0\1a",  # an enum
                b"sr" + self._named("java.lang.Long", 2) + b"\0\0t\0\1a" + b"xp",  # a class with annotations
                b"{", b"y",  # an exception, a reset
            ]
        )  # fmt: skip

    def _value(self, depth: int) -> bytes:
        draw, self._left = self._draw, self._left - 1
        if self._harm and draw.random() < 0.2:
            return self._harmful()
        kind = draw.choice("pt|ulos") if depth < 9 and self._left > 0 else draw.choice("pt")
        text = "".join(draw.choices("aé\u4e00", k=draw.randrange(5))).encode()
        plain = {
            "p": b"p",
            "t": b"t" + struct.pack(">H", len(text)) + text,
            "|": b"|" + struct.pack(">q", len(text)) + text,
            "u": b"ur" + self._named("[I", 2) + b"\0\0xp" + struct.pack(">i", 3) + draw.randbytes(12),
        }
        if kind in plain:
            return plain[kind]
        if kind == "l":
            return self._array([self._value(depth + 1) for _ in range(draw.randrange(4))])
        name = draw.choice([one for one in java_stream_check.ALLOWED if one[0] != "["])
        codes = draw.choices("BCDFIJSZL", k=draw.randrange(4))
        fields = b"".join(one.encode() + b"\0\1f" + (b"t\0\1x" if one == "L" else b"") for one in codes)
        head = b"sr" + self._named(name, java_stream_check.ALLOWED[name]) + struct.pack(">H", len(codes)) + fields + b"xp"
        inner = [self._value(depth + 1) if one == "L" else bytes(java_stream_check._PRIMITIVES[one]) for one in codes]
        own = java_stream_check.ALLOWED[name] == java_stream_check._WITH_OWN_DATA
        return head + b"".join(inner) + (b"w\2ab" + self._value(depth + 1) + b"x" if own else b"")


def test_no_other_java_object_passes_wherever_it_stands() -> None:
    count = tries(400, 20_000)
    for number in range(count):
        with attempt("objects", number) as draw:
            harm = number % 2 == 1
            content = Objects(draw, harm=harm).content
            try:
                java_stream_check.check_stream(content, "here")
                passed = True
            except ModelError:
                passed = False
            assert passed != harm, content
    report("objects", streams=count)


def test_java_itself_finds_no_other_class_in_damaged_objects_that_pass(tmp_path: Path) -> None:
    count, passed = tries(1500, 30_000), []
    records = list(sparknlp_field_files.read_records(TOKENIZER.read_bytes(), "here"))
    names = sorted({name for record in records for name in re.findall(rb"[a-z]+\.[\w.$]+", record)})
    for number in range(count):
        with attempt("damaged objects", number) as draw:
            content = damaged(draw.choice(records), draw)
            if draw.random() < 0.5:  # replace a name and its length by another name
                old, new = draw.choice(names), draw.choice([*names, b"java.net.URL", b"java.util.HashMap"])
                content = draw.choice(records).replace(
                    struct.pack(">H", len(old)) + old, struct.pack(">H", len(new)) + new, draw.choice([1, -1])
                )
            try:
                java_stream_check.check_stream(content, "here")
            except ModelError:
                continue
            (tmp_path / f"{number}").write_bytes(content)
            passed.append(str(tmp_path / f"{number}"))
    (tmp_path / "list").write_text("\n".join(passed))
    jars = [*(hostile.ROOT / "build" / "jars-sparknlp").glob("*.jar")]
    scala = Path(pytest.importorskip("pyspark").__file__).parent / "jars" / "*"
    command = ["java", "-cp", f"{scala}:{':'.join(map(str, jars))}", str(Path(__file__).with_name("ReadObjects.java"))]
    done = subprocess.run([*command, str(tmp_path / "list")], capture_output=True, text=True, check=True, timeout=300)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == len(passed)
    found = {name for _, *classes in lines for name in classes}
    assert found <= set(java_stream_check.ALLOWED), found - set(java_stream_check.ALLOWED)
    whole = sum(end == "read" for end, *_ in lines)
    assert whole > 0.2 * len(passed) > 10
    report("damaged objects", streams=count, passed=len(passed), read=whole)


def test_no_archive_writes_more_than_its_size_allows(tmp_path: Path) -> None:
    count, refused = tries(3, 40), 0
    for number in range(count):
        with attempt("archives", number) as draw:
            directory = tmp_path / f"{number}"
            (directory / "scratch").mkdir(parents=True)
            source = hostile.nested_zip(directory, draw.choice([0, 1, 5, 40, 400]) * 2**20)
            try:
                model_formats.read_model(source, directory / "scratch")
            except ModelError:
                refused += 1
            written = sum(path.stat().st_size for path in (directory / "scratch").rglob("*") if path.is_file())
            allowed = (
                model_loading_limits.MAX_UNPACKED_RATIO * source.stat().st_size + model_loading_limits.UNPACKED_BASE_BYTES
            )
            assert written <= allowed
            shutil.rmtree(directory)
    assert refused == count  # the archives contain only zeros, which are not a network
    report("archives", archives=count)
