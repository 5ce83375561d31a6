"""A Redis stream with one consumer group; the append-only file is synced before answers."""

import time

from systems.base import BenchError, Producer, System, Worker
from systems.message import job_bytes
from systems.stream import connect

REWRITE_BYTES = 512 << 20  # of the append-only file; it never shrinks by itself here


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


def answer(stream):
    """A reply: bytes, int, list or None; bodies are copied."""
    line = stream.line()
    kind, rest = line[:1], line[1:]
    if kind == b"-":
        raise BenchError(f"redis answered {rest.decode()}")
    if kind == b"+":
        return rest
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else bytes(stream.body(int(rest)))
    return None if rest == b"-1" else [answer(stream) for _ in range(int(rest))]


class Redis(System):
    key = "redis"
    program = "redis-server"
    label = "Redis stream, AOF always"

    def argv(self, sync):
        #  Rewriting goes on between the measurements only.
        return ["redis-server", "--port", "0", "--unixsocket", self.address(),
                "--dir", str(self.folder), "--save", "", "--appendonly", "yes",
                "--appendfsync", "always" if sync else "no",
                "--auto-aof-rewrite-percentage", "0"]

    def address(self):
        return str(self.sockets / "redis")

    def ask(self, *words):
        stream = connect(self.address())
        try:
            stream.send(command(*words))
            return answer(stream)
        finally:
            stream.close()

    def waiting(self):
        try:
            return self.ask(b"XLEN", b"jobs")
        except BenchError as error:
            if "LOADING" in str(error):
                return None
            raise

    def prepare(self):
        self.ask(b"XGROUP", b"CREATE", b"jobs", b"workers", b"0", b"MKSTREAM")

    def _info(self, name):
        text = self.ask(b"INFO", b"persistence").decode()
        return int(dict(line.split(":", 1) for line in text.splitlines() if ":" in line)[name])

    def trim(self):
        if self._info("aof_current_size") < REWRITE_BYTES:
            return
        self.ask(b"BGREWRITEAOF")
        end = time.monotonic() + 60
        while self._info("aof_rewrite_in_progress") or self._info("aof_rewrite_scheduled"):
            if time.monotonic() > end:
                raise BenchError("redis does not finish rewriting its append-only file")
            time.sleep(0.05)

    @staticmethod
    def producer(address, payload_bytes):
        return _Producer(address, payload_bytes)

    @staticmethod
    def worker(address, name):
        return _Worker(address, name)


class _Producer(Producer):
    def __init__(self, address, payload_bytes):
        self.stream = connect(address)
        self.message = command(b"XADD", b"jobs", b"*", b"job", job_bytes(payload_bytes))

    def send(self):
        self.stream.send(self.message)

    def confirm(self):
        answer(self.stream)

    def close(self):
        self.stream.close()


class _Worker(Worker):
    def __init__(self, address, name):
        self.stream = connect(address)
        self.request = command(b"XREADGROUP", b"GROUP", b"workers", name.encode(), b"COUNT",
                               b"1", b"BLOCK", b"10000", b"STREAMS", b"jobs", b">")
        self.entry = None

    def _expect(self, line):
        got = self.stream.line()
        if got != line:
            raise BenchError(f"redis answered {got!r} where {line!r} was expected")

    #  [[stream, [[id, [field, body]]]]]
    def take(self):
        self.stream.send(self.request)
        for line in (b"*1", b"*2", b"$4", b"jobs", b"*1", b"*2"):
            self._expect(line)
        self.entry = answer(self.stream)
        for line in (b"*2", b"$3", b"job"):
            self._expect(line)
        return self.stream.body(int(self.stream.line()[1:]))[0]

    def acknowledge(self):
        self.stream.send(command(b"XACK", b"jobs", b"workers", self.entry) +
                         command(b"XDEL", b"jobs", self.entry))
        if (answer(self.stream), answer(self.stream)) != (1, 1):
            raise BenchError("redis did not know the entry it gave")

    def close(self):
        self.stream.close()
