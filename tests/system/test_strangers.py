"""Programs that connect to the broker's sockets and do not keep to ZeroMQ's own protocol: it
answers the others and goes on. Each test plays one seed's connections."""

import os
import random
import socket
import struct

import pytest
import wire

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
KINDS = (b"DEALER", b"PUSH", b"SUB", b"REQ", b"ROUTER", b"PULL", b"PAIR", b"XPUB", b"?", b"")


def frame(flags, body, length=None):
    """A ZMTP frame; its length may lie."""
    length = len(body) if length is None else length
    if flags & 2:
        return struct.pack(">BQ", flags, length) + body
    return struct.pack("BB", flags, length & 255) + body


def ready(kind, identity=b""):
    pairs = [(b"Socket-Type", kind), (b"Identity", identity)]
    body = b"\x05READY" + b"".join(
        bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
        for name, value in pairs)
    return frame(6, body)


def greeting(rng):
    if rng.random() < 0.6:
        return GREETING
    if rng.random() < 0.5:
        return GREETING[:rng.randrange(len(GREETING))]
    broken = bytearray(GREETING)
    for _ in range(rng.randrange(1, 4)):
        broken[rng.randrange(len(broken))] = rng.randrange(256)
    return bytes(broken)


def some_frame(rng):
    body = rng.randbytes(rng.choice((0, 1, 5, 40, 300)))
    if rng.random() < 0.3:
        body = wire.pack(rng.choice(("hello", "ping", "query", "bye")), re=1)
    flags = rng.choice((0, 1, 2, 3, 4, 6, 7, 8, 255))
    length = rng.choice((None, None, None, 0, 255, 2**31, 2**63, 2**64 - 1))
    return frame(flags, body, length)


def conversation(rng):
    parts = [greeting(rng), ready(rng.choice(KINDS), rng.randbytes(rng.choice((0, 1, 16, 255))))]
    if rng.random() < 0.2:
        parts.pop(rng.randrange(2))
    parts += [some_frame(rng) for _ in range(rng.randrange(6))]
    return b"".join(parts)


def say(stranger, text, rng):
    """And perhaps no more, and perhaps wait for an answer."""
    try:
        stranger.sendall(text)
        if rng.random() < 0.3:
            stranger.shutdown(socket.SHUT_WR)
        if rng.random() < 0.5:
            stranger.settimeout(0.02)
            stranger.recv(4096)
    except OSError:
        pass  # cut off, or nothing to read: both are an answer


def talk(path, rng):
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(5)
        stranger.connect(path)
        say(stranger, conversation(rng), rng)


@pytest.mark.parametrize("seed", (1, 2, 3))
def test_bytes_that_are_not_zeromq(home, seed):
    home.start_broker()
    welcome = home.client.welcome
    endpoints = (home.endpoint, welcome["intake"], welcome["events"])
    paths = [endpoint.removeprefix("ipc://") for endpoint in endpoints]
    assert all(os.path.exists(path) for path in paths), paths
    rng = random.Random(seed)
    for _ in range(1000):
        talk(rng.choice(paths), rng)
    assert home.client.ping()
