"""A WebSocket client (RFC 6455) of the standard library: texts only, for ComfyUI and Chromium."""

import base64
import json
import os
import socket
import struct
from urllib.parse import urlsplit


class WebSocket:
    def __init__(self, url, timeout_s=30):
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout_s)
        key = base64.b64encode(os.urandom(16)).decode()
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        self._socket.sendall((f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
                              "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                              f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
                              ).encode())
        self._file = self._socket.makefile("rb")
        status = self._file.readline()
        assert b" 101 " in status, status
        while self._file.readline() != b"\r\n":
            pass

    def send(self, message):
        """A dict as JSON."""
        data = json.dumps(message).encode()
        size = len(data)
        head = (struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else
                struct.pack("!BBH", 0x81, 0x80 | 126, size) if size < 65536 else
                struct.pack("!BBQ", 0x81, 0x80 | 127, size))
        mask = os.urandom(4)
        repeated = (mask * (size // 4 + 1))[:size]
        masked = (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(
            size, "big")
        self._socket.sendall(head + mask + masked)

    def receive(self):
        """The next text as JSON; other frames are passed over. OSError at the end."""
        text = b""
        while True:
            first, second = self._read(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", self._read(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self._read(8))
            data = self._read(size)
            kind = first & 0x0F
            if kind == 8:
                raise ConnectionError("the other side closed the WebSocket")
            if kind in (0, 1):
                text += data
                if first & 0x80:
                    return json.loads(text)

    def _read(self, count):
        data = self._file.read(count)
        if len(data) < count:
            raise ConnectionError("the WebSocket ended")
        return data

    def close(self):
        self._socket.close()
