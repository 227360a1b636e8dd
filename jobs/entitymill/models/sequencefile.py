"""Hadoop's SequenceFile, version 6, uncompressed, of NullWritable keys and BytesWritable values.

That is what Spark's `RDD.saveAsObjectFile` writes, and Spark NLP with it. The layout, integers big-endian: a header (magic,
two class names, two compression flags, a metadata count, a 16-byte sync marker), then records (record length, key length,
key, value); -1 in place of a record length announces the marker again. A BytesWritable is a length and its bytes.
(Hadoop's org.apache.hadoop.io.SequenceFile.)
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator

from entitymill.errors import ModelError

_KEY, _VALUE = b"org.apache.hadoop.io.NullWritable", b"org.apache.hadoop.io.BytesWritable"
_CLASSES = b"SEQ\x06" + bytes([len(_KEY)]) + _KEY + bytes([len(_VALUE)]) + _VALUE
_SYNC_BYTES = 16
_ESCAPE = -1
_SYNC_INTERVAL = 100 * 1024
"""Bytes between two markers, about what Hadoop 3 leaves; a reader of a part of the file looks for the next one."""


def read(content: bytes, where: str) -> Iterator[bytes]:
    """The values of a file, in order.

    Args:
        content: the whole file.
        where: its address, for messages.

    Raises:
        ModelError: it is damaged, compressed, or of other classes.
    """
    at = len(_CLASSES)
    if content[:at] != _CLASSES:
        raise ModelError(f"{where} is not a SequenceFile of NullWritable and BytesWritable: copy the model again.")
    if content[at : at + 2] != b"\0\0":
        raise ModelError(f"{where} is a compressed SequenceFile, which is not supported: save it uncompressed.")
    if content[at + 2 : at + 6] != b"\0\0\0\0":
        raise _damaged(where)
    at += 6
    sync = content[at : at + _SYNC_BYTES]
    at += _SYNC_BYTES
    if at > len(content):
        raise _damaged(where)
    while at < len(content):
        length = _integer(content, at, where)
        if length == _ESCAPE:
            if content[at + 4 : at + 4 + _SYNC_BYTES] != sync:
                raise _damaged(where)
            at += 4 + _SYNC_BYTES
            continue
        key, size = _integer(content, at + 4, where), _integer(content, at + 8, where)
        begin, end = at + 12, at + 8 + length
        if key != 0 or size < 0 or end - begin != size or end > len(content):
            raise _damaged(where)
        yield content[begin:end]
        at = end


def write(values: Iterable[bytes]) -> bytes:
    """A file of these values. Its sync marker follows from the values, so that the same model is the same bytes."""
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


def _integer(content: bytes, at: int, where: str) -> int:
    try:
        return int(struct.unpack_from(">i", content, at)[0])
    except struct.error as error:
        raise _damaged(where) from error


def _damaged(where: str) -> ModelError:
    return ModelError(f"{where} is a damaged SequenceFile: copy the model again.")
