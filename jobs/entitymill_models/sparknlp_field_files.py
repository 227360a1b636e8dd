"""Read and write the files in which a saved Spark NLP model stores its vocabulary and tags: arrays of pairs.

Each file is a Hadoop SequenceFile, version 6, uncompressed, with NullWritable keys and BytesWritable values, as Spark's
`RDD.saveAsObjectFile` writes it. The header consists of a magic number, two class names, two compression flags, a metadata
count, and a 16-byte sync marker. A record consists of record length, key length, key and value. A record length of -1 means
that the sync marker follows instead of a record. Integers are big-endian. A BytesWritable is a length and that many bytes:
here, a serialized `Array[(String, Int)]`. (Source: org.apache.hadoop.io.SequenceFile.)

This module reads and writes bytes, and instantiates no Java class. The grammar of a serialized array is in the Java Object
Serialization Specification, chapter 6. In an `Array[(String, Int)]`, all bytes except the strings and integers are constant:
the first element of a class contains the description of the class, and later elements refer to the description by number.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator

from entitymill.errors import ModelError
from entitymill_models import java_stream_check

_KEY, _VALUE = b"org.apache.hadoop.io.NullWritable", b"org.apache.hadoop.io.BytesWritable"
_CLASSES = b"SEQ\x06" + bytes([len(_KEY)]) + _KEY + bytes([len(_VALUE)]) + _VALUE
_SYNC_BYTES = 16
_ESCAPE = -1
_SYNC_INTERVAL = 100 * 1024
"""Approximate number of bytes between two sync markers, as in Hadoop 3. A reader that starts inside a file searches for the
next marker."""
_UIDS = (b"\x2e\xcc\x00\xdf\xd1\x4f\xd7\xc0", b"\x2e\x94\x66\x7d\x5b\x92\xf9\xf5", b"\x12\xe2\xa0\xa4\xf7\x81\x87\x38",
         b"\x86\xac\x95\x1d\x0b\x94\xe0\x8b")  # fmt: skip
"""The serialVersionUID of each class in an array, as in Scala 2.12 and Java. Only these values are written; when a file
is read, any values are accepted."""
_ARRAY = b"\xac\xed\0\x05ur\0\x0f[Lscala.Tuple2;" + _UIDS[0] + b"\x02\0\0xp"
_PAIR_CLASS = b"sr\0\x0cscala.Tuple2" + _UIDS[1] + b"\x02\0\x02L\0\x02_1t\0\x12Ljava/lang/Object;L\0\x02_2q\0~\0\x03xp"
_INTEGER_CLASS = (
    b"sr\0\x11java.lang.Integer" + _UIDS[2] + b"\x02\0\x01I\0\x05valuexr\0\x10java.lang.Number" + _UIDS[3] + b"\x02\0\0xp"
)
"""Constant bytes of a serialized array: _ARRAY begins the array; the others describe the classes of pairs and integers."""
_STRINGS, _NUMBERS = (_PAIR_CLASS + b"t", b"sq\0~\0\x02t"), (_INTEGER_CLASS, b"sq\0~\0\x06")
"""Constant bytes before strings and integers: _STRINGS[0] precedes the string in the first pair, and _STRINGS[1] the string
in each later pair. _NUMBERS[0] and _NUMBERS[1] precede the integers in the same way."""
_MAX_UTF_BYTES = 0xFFFF


def read_records(content: bytes, where: str) -> Iterator[bytes]:
    """Yield the values of a SequenceFile, in order; the complete file is checked before the first value is yielded.

    `content` has the bytes of the file, and `where` is its path, for error messages. Raise ModelError if the file is
    damaged or compressed, or its keys and values are not NullWritable and BytesWritable.
    """
    at = len(_CLASSES)
    if content[:at] != _CLASSES:
        raise ModelError(f"{where} is not a SequenceFile of NullWritable and BytesWritable: copy the model again.")
    if content[at : at + 2] != b"\0\0":
        raise ModelError(f"{where} is a compressed SequenceFile, which is not supported: save it uncompressed.")
    if content[at + 2 : at + 6] != b"\0\0\0\0":
        raise _damage_error(where)
    at += 6
    sync = content[at : at + _SYNC_BYTES]
    at += _SYNC_BYTES
    if at > len(content):
        raise _damage_error(where)
    spans, markers = [], [at - _SYNC_BYTES]
    while at < len(content):
        length = _read_integer(content, at, where)
        if length == _ESCAPE:
            if content[at + 4 : at + 4 + _SYNC_BYTES] != sync:
                raise _damage_error(where)
            markers.append(at + 4)
            at += 4 + _SYNC_BYTES
            continue
        key, size = _read_integer(content, at + 4, where), _read_integer(content, at + 8, where)
        begin, end = at + 12, at + 8 + length
        if key != 0 or size < 0 or end - begin != size or end > len(content):
            raise _damage_error(where)
        spans.append((begin, end))
        at = end
    # Hadoop may start reading in the middle of a file, from the next sync marker. So the marker must not occur in a record.
    if list(_find_all(content, sync)) != markers:
        raise _damage_error(where)
    yield from (content[begin:end] for begin, end in spans)


def _find_all(content: bytes, marker: bytes) -> Iterator[int]:
    """Yield the index of each occurrence of `marker` in `content`, also of occurrences that overlap."""
    at = content.find(marker)
    while at >= 0:
        yield at
        at = content.find(marker, at + 1)


def write_records(values: Iterable[bytes]) -> bytes:
    """Return the bytes of a SequenceFile with these values, in order.

    The sync marker, which separates groups of records, is not random but computed from the values. So equal values always
    give equal files.
    """
    chosen = list(values)
    sync = hashlib.md5(b"".join(chosen), usedforsecurity=False).digest()
    parts = [_CLASSES, bytes(6), sync]
    since_sync = 0
    for value in chosen:
        if since_sync >= _SYNC_INTERVAL:
            parts += [struct.pack(">i", _ESCAPE), sync]
            since_sync = 0
        record = struct.pack(">iii", 4 + len(value), 0, len(value)) + value
        parts.append(record)
        since_sync += len(record)
    return b"".join(parts)


def _read_integer(content: bytes, at: int, where: str) -> int:
    """Return the 4-byte integer at index `at`; raise ModelError if the content ends before or within the integer."""
    try:
        return int(struct.unpack_from(">i", content, at)[0])
    except struct.error as error:
        raise _damage_error(where) from error


def _damage_error(where: str) -> ModelError:
    """Return the error for a damaged SequenceFile, whose path is `where`."""
    return ModelError(f"{where} is a damaged SequenceFile: copy the model again.")


def _compile_pattern(template: bytes) -> re.Pattern[bytes]:
    """Return a pattern that matches the bytes of a template, but with any values for the serialVersionUIDs (_UIDS)."""
    pattern = re.escape(template)
    for uid in _UIDS:
        pattern = pattern.replace(re.escape(uid), b".{8}")
    return re.compile(pattern, re.DOTALL)


_PATTERNS = {template: _compile_pattern(template) for template in (_ARRAY, *_STRINGS, *_NUMBERS)}


def read_pairs(content: bytes, where: str) -> list[tuple[str, int]]:
    """Return the pairs of one serialized `Array[(String, Int)]`, in order.

    Only the layout that `write_pairs` writes can be read. Java may write the same pairs in another layout. For example, if
    two pairs share one string object, Java writes the string once, and then a reference to it. Raise ModelError if the
    stream is damaged, or has another layout or content.
    """

    def match_template(template: bytes, at: int) -> int:
        """Match `template` with `content` at index `at`; return the index after the matched bytes, or raise ValueError.

        The serialVersionUIDs in `content` may differ from those in `template`.
        """
        matched = _PATTERNS[template].match(content, at)
        if matched is None:
            raise ValueError(at)
        return matched.end()

    pairs: list[tuple[str, int]] = []
    count = 0
    try:
        at = match_template(_ARRAY, 0) + 4
        (count,) = struct.unpack_from(">i", content, at - 4)
        for number in range(count):
            first = match_template(_STRINGS[number > 0], at) + 2
            (length,) = struct.unpack_from(">H", content, first - 2)
            at = match_template(_NUMBERS[number > 0], first + length) + 4
            pairs.append((_decode_text(content[first : first + length]), struct.unpack_from(">i", content, at - 4)[0]))
    except (ValueError, struct.error):
        at = -1
    if at != len(content) or count < 0:
        raise ModelError(
            f"{where} is damaged, or contains Java objects other than pairs of strings and integers: copy the model again."
        )
    return pairs


def check_field(content: bytes, where: str) -> None:
    """Raise ModelError if a file of a field is damaged, or contains Java classes that no saved Spark NLP model needs.

    A field is a part of a saved Spark NLP model, such as its vocabulary: a directory of SequenceFiles below fields/. The
    caller must call this function before a JVM reads the file, because some Java classes run code when they are read.
    `content` has the bytes of the file, and `where` is its path, for error messages.
    """
    for record in read_records(content, where):
        try:
            read_pairs(record, where)  # succeeds for most fields, and is ten times as fast as check_stream
        except ModelError:
            java_stream_check.check_stream(record, where)


def write_pairs(pairs: list[tuple[str, int]]) -> bytes:
    """Serialize pairs as an `Array[(String, Int)]`, and return the bytes.

    Every string is written in full, even if it occurs twice. Java would write the same bytes if each pair had a string
    object of its own. Raise ModelError if a string has more than 65,535 bytes, because its size must fit into two bytes.
    """
    parts = [_ARRAY, struct.pack(">i", len(pairs))]
    for number, (text, value) in enumerate(pairs):
        parts += [_STRINGS[number > 0], _encode_text(text), _NUMBERS[number > 0], struct.pack(">i", value)]
    return b"".join(parts)


def _decode_text(raw: bytes) -> str:
    """Decode Java's modified UTF-8: NUL has two bytes; a character above U+FFFF is two surrogates of three bytes each.

    Raise UnicodeDecodeError if the bytes are damaged, or contain a surrogate without its counterpart.
    """
    plain = raw.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def _encode_text(text: str) -> bytes:
    """Return a string as Java writes it: its size in two bytes, then modified UTF-8; raise ModelError if it is too long."""
    encoded = text.encode("utf-16-be", "surrogatepass")
    characters = (encoded[i : i + 2].decode("utf-16-be", "surrogatepass") for i in range(0, len(encoded), 2))
    raw = "".join(characters).encode("utf-8", "surrogatepass").replace(b"\0", b"\xc0\x80")
    if len(raw) > _MAX_UTF_BYTES:
        raise ModelError(
            f"A piece of the vocabulary has {len(raw):,} bytes, but a saved Spark NLP model allows at most "
            f"{_MAX_UTF_BYTES:,}: use the model as a bundle, without --to sparknlp."
        )
    return struct.pack(">H", len(raw)) + raw
