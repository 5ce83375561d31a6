"""As much of msgpack (msgpack.org) as a job of Luna's wire needs; the standard library only."""

import struct


def pack(value):
    """The bytes of a value: dict, list, str, bytes or memoryview, int, float or bool."""
    parts = []
    _add(value, parts)
    return b"".join(parts)


def _add(value, parts):
    if isinstance(value, bool):
        parts.append(b"\xc3" if value else b"\xc2")
    elif isinstance(value, int):
        parts.append(_int(value))
    elif isinstance(value, float):
        parts.append(struct.pack(">Bd", 0xCB, value))
    elif isinstance(value, str):
        raw = value.encode()
        parts += [_length(len(raw), None, 0xDB), raw]
    elif isinstance(value, (bytes, bytearray, memoryview)):
        parts += [_length(len(value), None, 0xC6), value]
    elif isinstance(value, dict):
        parts.append(_length(len(value), 0x80, 0xDF))
        for key, item in value.items():
            _add(key, parts)
            _add(item, parts)
    elif isinstance(value, (list, tuple)):
        parts.append(_length(len(value), 0x90, 0xDD))
        for item in value:
            _add(item, parts)
    else:
        raise TypeError(f"Luna: {type(value).__name__} has no place on the wire")


def _int(value):
    if 0 <= value < 128:
        return struct.pack("B", value)
    if value >= 0:
        return struct.pack(">BQ", 0xCF, value)
    return struct.pack(">Bq", 0xD3, value)


def _length(count, short, long):
    """Of a map or a list up to 15 in one byte, else in 32 bits."""
    if short is not None and count < 16:
        return struct.pack("B", short | count)
    return struct.pack(">BI", long, count)
