"""Check which Java objects a serialized stream contains, without instantiating them, before a JVM reads the stream.

A JVM that deserializes a stream instantiates any class that the stream names, and some classes run code when that happens.
So each class must be in ALLOWED, which lists the few classes that Spark NLP's models need. The grammar of a stream is in the
Java Object Serialization Specification, chapter 6. This module refuses the parts of the grammar that models do not need:
proxies, enums, exceptions, resets and class annotations. So it cannot interpret a stream differently than the JVM does. Each
class must also have the flags that ALLOWED states. Flags say whether objects of a class have more data after their fields.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from entitymill.errors import ModelError
from entitymill.recognition.model_loading_limits import MAX_JAVA_DEPTH, MAX_SUPERCLASSES

_MAGIC = b"\xac\xed\0\5"
_NULL, _REFERENCE, _CLASS_DESCRIPTION, _OBJECT, _STRING, _ARRAY, _CLASS, _BLOCK, _END = range(0x70, 0x79)
_LONG_BLOCK, _LONG_STRING = 0x7A, 0x7C
_FIRST_HANDLE = 0x7E0000
_PLAIN, _WITH_OWN_DATA = 2, 3
"""Flags of a class: only SC_SERIALIZABLE, or also SC_WRITE_METHOD, which means that more data follows an object's fields."""
_PRIMITIVES = {"B": 1, "C": 2, "D": 8, "F": 4, "I": 4, "J": 8, "S": 2, "Z": 1}
"""The size in bytes of each primitive type, by the code of the type in a stream."""
_LAMBDA = "java.lang.invoke.SerializedLambda"
_LAMBDA_OWNER = "com.johnsnowlabs.nlp.util.regex.RuleFactory"
"""The only class whose lambdas a stream may contain: it turns a SerializedLambda only into one of its own functions. It is
also the only class whose java.lang.Class object a stream may contain."""
ALLOWED = {
    **dict.fromkeys(
        (
            *(f"[{code}" for code in _PRIMITIVES),
            *(f"java.lang.{name}" for name in ("Boolean", "Double", "Float", "Integer", "Long", "Number")),
            "[Ljava.lang.Object;",
            "[Ljava.lang.String;",
            "[Lscala.Tuple2;",
            "scala.Tuple2",
            # A tokenizer's rules need the classes below.
            f"[L{_LAMBDA_OWNER};",
            _LAMBDA_OWNER,
            _LAMBDA,
            "com.johnsnowlabs.nlp.util.io.MatchStrategy$",
            "com.johnsnowlabs.nlp.util.regex.RegexRule",
            "com.johnsnowlabs.nlp.util.regex.TransformStrategy$",
            "java.util.regex.Pattern",
            "scala.Enumeration",
            "scala.Enumeration$Val",
            "scala.Enumeration$Value",
            "scala.collection.immutable.ListSerializeEnd$",
            "scala.collection.mutable.WrappedArray$ofRef",
            "scala.util.matching.Regex",
        ),
        _PLAIN,
    ),
    **dict.fromkeys(
        ("scala.collection.immutable.List$SerializationProxy", "scala.collection.mutable.HashMap"), _WITH_OWN_DATA
    ),
}
"""The classes that a stream may contain: a dict from the name of a class to the flags that it must have."""


@dataclass
class _Description:
    """The description of a class in a stream: its name, its flags, the type codes of its fields, and its superclass.

    A type code is a key of _PRIMITIVES, `L` for an object, or `[` for an array.
    """

    name: str
    flags: int = 0
    codes: list[str] = field(default_factory=list)
    parent: _Description | None = None

    def list_ancestry(self) -> list[_Description]:
        """Return the class and its superclasses, the topmost first: an object's fields are in this order in a stream.

        Raise _DamagedError if there are more than MAX_SUPERCLASSES, because a small file could make such lists long.
        """
        found = [self]
        while found[-1].parent is not None:
            if len(found) > MAX_SUPERCLASSES:
                raise _DamagedError
            found.append(found[-1].parent)
        return found[::-1]


class _DamagedError(Exception):
    """Raised if the bytes do not follow the grammar of Java serialization, or exceed MAX_JAVA_DEPTH or MAX_SUPERCLASSES."""


class _ForbiddenError(Exception):
    """Raised if the stream contains a class or an element that is not allowed; the message names the class or element."""


def check_stream(content: bytes, where: str) -> None:
    """Raise ModelError unless `content` is a complete Java serialization stream of one value, with only classes in ALLOWED.

    Also refused are classes with other flags than in ALLOWED, and parts of the grammar that models do not need, such as
    proxies and enums. `where` is the path of the file that contains the stream, for error messages.
    """
    try:
        _Reader(content).read_all()
    except _ForbiddenError as error:
        raise ModelError(
            f"{where} contains a Java object ({error}) that no token classifier of Spark NLP needs and that may run code: "
            "copy the model again from a source that you trust."
        ) from error
    except (_DamagedError, struct.error, IndexError, RecursionError, UnicodeDecodeError) as error:
        raise ModelError(f"{where} is not a readable stream of Java objects: copy the model again.") from error


class _Reader:
    """Reads a stream once; each method reads the next element of the stream, from index `_at`, and moves `_at` past it.

    The methods raise _DamagedError or _ForbiddenError, or errors of `struct` or of decoding text. Each new class
    description, string, object and array is appended to `_handles`, because later elements may refer to it by number. An
    object or array is listed as None: its content is not kept.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = len(_MAGIC)
        self._depth = 0
        self._handles: list[_Description | str | None] = []

    def read_all(self) -> None:
        """Check the complete stream; raise _DamagedError unless it is the magic number, one value, and nothing after it."""
        if not self._content.startswith(_MAGIC):
            raise _DamagedError
        self._check_value()
        if self._at != len(self._content):
            raise _DamagedError

    def _read_number(self, code: str) -> int:
        """Read and return a big-endian number; `code` is its format character in the module `struct`, such as `i`."""
        (number,) = struct.unpack_from(f">{code}", self._content, self._at)
        self._at += struct.calcsize(f">{code}")
        return int(number)

    def _read_bytes(self, size: int) -> bytes:
        """Read and return `size` bytes; raise _DamagedError if fewer are left."""
        begin, self._at = self._at, self._at + size
        if size < 0 or self._at > len(self._content):
            raise _DamagedError
        return self._content[begin : self._at]

    def _read_text(self, length: str = "H") -> str:
        """Read the size of a string, then the string, and return the string; `length` is the size's format in `struct`."""
        return self._read_bytes(self._read_number(length)).decode("utf8", "surrogatepass")

    def _read_reference(self) -> _Description | str | None:
        """Read the number of an earlier element, and return that element, or None if it is an object or array.

        Raise _DamagedError if no earlier element has this number.
        """
        number = self._read_number("i") - _FIRST_HANDLE
        if not 0 <= number < len(self._handles):
            raise _DamagedError
        return self._handles[number]

    def _read_description(self) -> _Description | None:
        """Read and return the description of a class and its superclasses, or an earlier one by reference; None for null.

        A new description is added to `_handles`. Raise _ForbiddenError if the class is not in ALLOWED, has other flags than
        there, has annotations, or is a proxy. Raise _DamagedError if a reference leads to anything except a description, or
        a field has an unknown type code.
        """
        kind = self._read_number("B")
        if kind == _NULL:
            return None
        if kind == _REFERENCE:
            found = self._read_reference()
            if not isinstance(found, _Description):
                raise _DamagedError
            return found
        if kind != _CLASS_DESCRIPTION:
            raise _ForbiddenError("a proxy class")
        description = _Description(self._read_text())
        self._read_bytes(8)  # serialVersionUID
        self._handles.append(description)
        description.flags = self._read_number("B")
        if ALLOWED.get(description.name) != description.flags:
            raise _ForbiddenError(f"class {description.name!r}"[:200])
        for _ in range(self._read_number("H")):
            code = chr(self._read_number("B"))
            self._read_text()
            if code in "L[":
                self._read_type()
            elif code not in _PRIMITIVES:
                raise _DamagedError
            description.codes.append(code)
        if self._read_number("B") != _END:
            raise _ForbiddenError("a class with annotations")
        self._descend()
        description.parent = self._read_description()
        self._depth -= 1
        return description

    def _read_type(self) -> None:
        """Move past the type of a field: any string, which is added to `_handles`, or a reference to an earlier string.

        The content of the string is not checked. Raise _DamagedError if there is anything else.
        """
        kind = self._read_number("B")
        if kind == _STRING:
            self._handles.append(self._read_text())
        elif kind != _REFERENCE or not isinstance(self._read_reference(), str):
            raise _DamagedError

    def _descend(self) -> None:
        """Enter one more level of nesting; raise _DamagedError if there would be more than MAX_JAVA_DEPTH levels.

        The caller must leave the level with `_depth -= 1`.
        """
        self._depth += 1
        if self._depth > MAX_JAVA_DEPTH:
            raise _DamagedError

    def _check_value(self) -> None:
        """Check the next value and move past it: object, array, string, reference, null, or _LAMBDA_OWNER's Class object.

        Raise _ForbiddenError for any other value, such as an enum or another Class object.
        """
        self._descend()
        kind = self._read_number("B")
        if kind == _REFERENCE:
            self._read_reference()
        elif kind in (_STRING, _LONG_STRING):
            self._handles.append(self._read_text("H" if kind == _STRING else "q"))
        elif kind == _ARRAY:
            self._read_array()
        elif kind == _OBJECT:
            self._read_object()
        elif kind == _CLASS:
            found = self._read_description()
            if found is None or found.name != _LAMBDA_OWNER:
                raise _ForbiddenError("java.lang.Class")
            self._handles.append(None)
        elif kind != _NULL:
            raise _ForbiddenError(f"type code 0x{kind:02x}")
        self._depth -= 1

    def _read_array(self) -> None:
        """Check an array and move past it: its class, then its elements; primitive elements are skipped without a check.

        Raise _DamagedError if the class is not that of an array, or has a superclass, or too few bytes are left.
        """
        description = self._read_description()
        if description is None or description.name[0] != "[" or description.parent is not None:
            raise _DamagedError
        self._handles.append(None)
        count, code = self._read_number("i"), description.name[1]
        if code in _PRIMITIVES:
            self._read_bytes(count * _PRIMITIVES[code])
            return
        if not 0 <= count <= len(self._content) - self._at:  # each element has at least one byte
            raise _DamagedError
        for _ in range(count):
            self._check_value()

    def _read_object(self) -> None:
        """Check an object and move past it: its class, then the data of each superclass, and of the class itself.

        The data of a class are the values of its fields and, if its flags are _WITH_OWN_DATA, more data after them.
        Primitive values are skipped without a check. Raise _DamagedError if the class is null or that of an array.
        """
        description = self._read_description()
        if description is None or description.name[0] == "[":
            raise _DamagedError
        self._handles.append(None)
        for part in description.list_ancestry():
            for code in part.codes:
                if code in _PRIMITIVES:
                    self._read_bytes(_PRIMITIVES[code])
                else:
                    self._check_value()
            if part.flags == _WITH_OWN_DATA:
                self._read_own_data()

    def _read_own_data(self) -> None:
        """Move past the data after the fields of a class whose flags are _WITH_OWN_DATA, and past their end marker.

        Values are checked; blocks of bytes are skipped without a check.
        """
        while (kind := self._content[self._at]) != _END:
            if kind in (_BLOCK, _LONG_BLOCK):
                self._at += 1
                self._read_bytes(self._read_number("B" if kind == _BLOCK else "i"))
            else:
                self._check_value()
        self._at += 1
