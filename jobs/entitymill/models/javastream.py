"""Java's serialization stream, so much of it as an `Array[(String, Int)]` of Scala uses: bytes are read, no class is built.

The grammar is that of the Java Object Serialization Specification, chapter 6. Spark NLP's fields hold arrays of
scala.Tuple2 whose members are java.lang.String and java.lang.Integer; any other class, and any other layout of these, is
refused. Nothing nests, so nothing recurses.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NoReturn

from entitymill.errors import ModelError

Value = str | int
_MAGIC = b"\xac\xed\x00\x05"
_NULL, _REFERENCE, _CLASS, _OBJECT, _STRING, _ARRAY, _END, _LONG_STRING = 0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x78, 0x7C
_FIRST_HANDLE = 0x7E0000
_SERIALIZABLE = 0x02
_ANY = "Ljava/lang/Object;"
_ARRAY_OF_PAIRS, _PAIR, _INTEGER, _NUMBER = "[Lscala.Tuple2;", "scala.Tuple2", "java.lang.Integer", "java.lang.Number"
_LONGEST = 0xFFFF


@dataclass(frozen=True)
class _Description:
    """A class as the stream describes it: its fields, and its parent's name."""

    fields: tuple[tuple[str, str], ...]
    parent: str | None
    uid: int


_KNOWN = {
    _ARRAY_OF_PAIRS: _Description((), None, 0x2ECC00DFD14FD7C0),
    _PAIR: _Description(((_ANY, "_1"), (_ANY, "_2")), None, 0x2E94667D5B92F9F5),
    _INTEGER: _Description((("I", "value"),), _NUMBER, 0x12E2A0A4F7818738),
    _NUMBER: _Description((), None, 0x86AC951D0B94E08B - 2**64),
}
"""The version uids, of Scala 2.12 and Java, are for writing; a reader that builds no class need not compare them."""


def read_pairs(content: bytes, where: str) -> list[tuple[Value, Value]]:
    """The pairs of one serialized array.

    Args:
        content: the whole stream.
        where: where it was found, for messages.

    Raises:
        ModelError: it is damaged, or holds a class other than pairs of strings and integers.
    """
    return _Reader(content, where).pairs()


class _Reader:
    def __init__(self, content: bytes, where: str) -> None:
        self._content = content
        self._where = where
        self._at = 0
        # What the stream may refer back to, in order: class names, and values; None for arrays and pairs.
        self._handles: list[tuple[str, Value | None]] = []

    def pairs(self) -> list[tuple[Value, Value]]:
        if self._take(len(_MAGIC)) != _MAGIC or self._byte() != _ARRAY or self._class() != _ARRAY_OF_PAIRS:
            self._refuse()
        self._handles.append(("array", None))
        count = self._integer()
        # Each pair takes more than one byte, so a damaged count cannot make this run long.
        if not 0 <= count <= len(self._content) - self._at:
            self._refuse()
        found = [self._pair() for _ in range(count)]
        if self._at != len(self._content):
            self._refuse()
        return found

    def _pair(self) -> tuple[Value, Value]:
        if self._byte() != _OBJECT or self._class() != _PAIR:
            self._refuse()
        self._handles.append(("pair", None))
        return self._value(), self._value()

    def _value(self) -> Value:
        kind = self._byte()
        if kind in (_STRING, _LONG_STRING):
            return self._string(kind)
        if kind == _REFERENCE:
            found = self._referred("value")
        elif kind == _OBJECT and self._class() == _INTEGER:
            found = None
            self._handles.append(("value", None))
            at = len(self._handles) - 1
            found = self._integer()
            self._handles[at] = ("value", found)
        else:
            found = None
        if found is None:
            self._refuse()
        return found

    def _class(self) -> str:
        """Name of a class, described here or before, its description compared with the known one."""
        kind = self._byte()
        if kind == _REFERENCE:
            return str(self._referred("class"))
        if kind != _CLASS:
            self._refuse()
        name = self._described()
        # Number is the one parent there is, and has none itself.
        parent = _KNOWN[name].parent
        kind = self._byte()
        if parent is None:
            expected = kind == _NULL
        elif kind == _REFERENCE:
            expected = self._referred("class") == parent
        else:
            expected = kind == _CLASS and self._described() == parent and self._byte() == _NULL
        if not expected:
            self._refuse()
        return name

    def _described(self) -> str:
        """A class description up to its parent."""
        name = self._text(self._short())
        if name not in _KNOWN:
            self._refuse()
        self._take(8)
        self._handles.append(("class", name))
        if self._byte() != _SERIALIZABLE:
            self._refuse()
        fields = tuple(self._field() for _ in range(min(self._short(), 3)))
        if fields != _KNOWN[name].fields or self._byte() != _END:
            self._refuse()
        return name

    def _field(self) -> tuple[str, str]:
        kind, name = chr(self._byte()), self._text(self._short())
        if kind != "L":
            return kind, name
        tag = self._byte()
        described = self._referred("value") if tag == _REFERENCE else self._string(tag)
        return str(described), name

    def _string(self, kind: int) -> str:
        if kind == _STRING:
            length = self._short()
        elif kind == _LONG_STRING:
            length = int(struct.unpack(">q", self._take(8))[0])
        else:
            self._refuse()
        text = self._text(length)
        self._handles.append(("value", text))
        return text

    def _referred(self, kind: str) -> Value | None:
        at = self._integer() - _FIRST_HANDLE
        if not 0 <= at < len(self._handles) or self._handles[at][0] != kind:
            self._refuse()
        return self._handles[at][1]

    def _text(self, length: int) -> str:
        """Modified UTF-8: NUL in two bytes, and characters beyond the basic plane as two surrogates of three each."""
        raw = self._take(length).replace(b"\xc0\x80", b"\0")
        try:
            return raw.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeError as error:
            raise self._damaged() from error

    def _byte(self) -> int:
        return self._take(1)[0]

    def _short(self) -> int:
        return int(struct.unpack(">H", self._take(2))[0])

    def _integer(self) -> int:
        return int(struct.unpack(">i", self._take(4))[0])

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if count < 0 or end > len(self._content):
            self._refuse()
        taken = self._content[self._at : end]
        self._at = end
        return taken

    def _refuse(self) -> NoReturn:
        raise self._damaged()

    def _damaged(self) -> ModelError:
        return ModelError(
            f"{self._where} is damaged, or holds other Java objects than pairs of strings and integers, at byte {self._at}: "
            "copy the model again."
        )


def write_pairs(pairs: list[tuple[str, int]]) -> bytes:
    """The stream of an `Array[(String, Int)]`, byte for byte as Java writes it. The integers must be distinct objects.

    Raises:
        ModelError: a string is too long for Java's short form.
    """
    parts = [_MAGIC, bytes([_ARRAY]), _describe(_ARRAY_OF_PAIRS), bytes([_NULL]), struct.pack(">i", len(pairs))]
    for number, (text, value) in enumerate(pairs):
        # Handles so far: array class, array, pair class, the field type's name, first pair, its string, Integer, Number.
        again = number > 0
        pair_class = _refer(2) if again else _describe(_PAIR) + bytes([_NULL])
        integer_class = _refer(6) if again else _describe(_INTEGER) + _describe(_NUMBER) + bytes([_NULL])
        parts += [bytes([_OBJECT]), pair_class, bytes([_STRING]), _counted(text)]
        parts += [bytes([_OBJECT]), integer_class, struct.pack(">i", value)]
    return b"".join(parts)


def _describe(name: str) -> bytes:
    """A class description up to its parent."""
    known = _KNOWN[name]
    parts = [bytes([_CLASS]), _counted(name), struct.pack(">q", known.uid), bytes([_SERIALIZABLE])]
    parts.append(struct.pack(">H", len(known.fields)))
    for number, (kind, field) in enumerate(known.fields):
        parts += [kind[:1].encode(), _counted(field)]
        if kind == _ANY:
            parts.append(_refer(3) if number else bytes([_STRING]) + _counted(_ANY))
    return b"".join([*parts, bytes([_END])])


def _refer(handle: int) -> bytes:
    return struct.pack(">Bi", _REFERENCE, _FIRST_HANDLE + handle)


def _counted(text: str) -> bytes:
    units = text.encode("utf-16-be", "surrogatepass")
    characters = (units[i : i + 2].decode("utf-16-be", "surrogatepass") for i in range(0, len(units), 2))
    raw = "".join(characters).encode("utf-8", "surrogatepass").replace(b"\0", b"\xc0\x80")
    if len(raw) > _LONGEST:
        raise ModelError(f"A piece of the vocabulary has {len(raw)} bytes; a saved Spark NLP model takes up to {_LONGEST}.")
    return struct.pack(">H", len(raw)) + raw
