"""A connected stream socket for protocols of lines and counted bodies."""

import socket
import struct

from systems.base import BenchError

LINE_BYTES = 1 << 16
SILENCE = struct.pack("ll", 60, 0)  # a timeval: who is silent for longer fails


def connect(address):
    """`/path` of a UNIX socket, or `host:port`."""
    if address.startswith("/"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        target = address
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = address.rsplit(":", 1)
        target = (host, int(port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, SILENCE)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, SILENCE)
    try:
        sock.connect(target)
    except OSError:
        sock.close()
        raise
    return Stream(sock)


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Stream:
    """Bodies go straight from the socket into one buffer, which is kept and grows."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = bytearray(LINE_BYTES)
        self.begin = self.end = 0
        self.room = memoryview(bytearray(LINE_BYTES))
        self.send = sock.sendall

    def _more(self):
        if self.begin == self.end:
            self.begin = self.end = 0
        if self.end == len(self.buffer):
            rest = self.buffer[self.begin:self.end]
            if self.begin == 0:
                raise BenchError(f"a line is longer than {LINE_BYTES} bytes")
            self.buffer[:len(rest)] = rest
            self.begin, self.end = 0, len(rest)
        got = self.sock.recv_into(memoryview(self.buffer)[self.end:])
        if got == 0:
            raise ConnectionError("the server closed the connection")
        self.end += got

    def line(self):
        """Without its end."""
        while True:
            at = self.buffer.find(b"\r\n", self.begin, self.end)
            if at >= 0:
                line = bytes(self.buffer[self.begin:at])
                self.begin = at + 2
                return line
            self._more()

    def body(self, length):
        """`length` bytes and a line end; a view that lives until the next call."""
        if len(self.room) < length + 2:
            self.room = memoryview(bytearray(length + 2))
        have = min(self.end - self.begin, length + 2)
        self.room[:have] = memoryview(self.buffer)[self.begin:self.begin + have]
        self.begin += have
        while have < length + 2:
            got = self.sock.recv_into(self.room[have:length + 2])
            if got == 0:
                raise ConnectionError("the server closed the connection")
            have += got
        if self.room[length:length + 2] != b"\r\n":
            raise BenchError("a body does not end where it should")
        return self.room[:length]

    def close(self):
        self.sock.close()
