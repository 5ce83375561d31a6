"""A NATS JetStream work queue in files, with its default syncing and with `always`.

The default confirms what is in the page cache and syncs every two minutes.
"""

import json
import os
import subprocess
import tempfile

from systems.base import BenchError, Producer, System, Worker
from systems.message import job_bytes
from systems.stream import connect, free_port

REQUESTS = "_INBOX.bench."


def config(port, store, largest_bytes, extra=""):
    return (f"listen: 127.0.0.1:{port}\nmax_payload: {largest_bytes}\n"
            f"max_pending: {max(4 * largest_bytes, 256 << 20)}\n"
            f'jetstream {{ store_dir: "{store}", max_memory_store: 64MB, '
            f"max_file_store: 64GB{extra} }}\n")


def know_always():
    """Whether this version can sync before it confirms."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(config(-1, "/nowhere", 1 << 20, ", sync_interval: always"))
        file.flush()
        return subprocess.run(["nats-server", "-t", "-c", file.name],
                              capture_output=True).returncode == 0


class Client:
    def __init__(self, address):
        self.stream = connect(address)
        self.stream.line()  # INFO
        self.inbox = (REQUESTS + os.urandom(8).hex()).encode()
        self.stream.send(b'CONNECT {"verbose":false,"pedantic":false,"lang":"python",'
                         b'"version":"0"}\r\nSUB %b 1\r\nPING\r\n' % self.inbox)
        while self.stream.line() != b"PONG":
            pass

    def message(self):
        """(reply subject or None, body) of the next message."""
        while True:
            words = self.stream.line().split()
            if words[0] == b"MSG":
                return (words[3] if len(words) == 5 else None,
                        self.stream.body(int(words[-1])))
            if words[0] == b"PING":
                self.stream.send(b"PONG\r\n")
            elif words[0] == b"-ERR":
                raise BenchError(f"nats-server says {b' '.join(words).decode()}")

    def request(self, subject, body=b""):
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, self.inbox, len(body), body)

    def ask(self, subject, **fields):
        body = json.dumps(fields).encode() if fields else b""
        self.stream.send(self.request(subject.encode(), body))
        answer = json.loads(bytes(self.message()[1]))
        if "error" in answer:
            raise BenchError(f"{subject}: {answer['error']}")
        return answer

    def close(self):
        self.stream.close()


class Nats(System):
    key = "nats"
    program = "nats-server"
    label = "NATS work queue (no sync)"
    extra = ""
    most_bytes = 32 << 20
    most_because = "its file store confirms a larger message and then cannot read it"

    def argv(self, sync):
        self.port = free_port()
        path = self.folder.parent / f"{self.key}.conf"
        path.write_text(config(self.port, self.folder, self.largest_bytes, self.extra))
        return ["nats-server", "-c", str(path)]

    def address(self):
        return f"127.0.0.1:{self.port}"

    def waiting(self):
        client = Client(self.address())
        try:
            info = client.ask("$JS.API.INFO")
            if info["streams"] == 0:
                return 0
            return client.ask("$JS.API.STREAM.INFO.JOBS")["state"]["messages"]
        except BenchError:
            return None  # JetStream comes up after the port
        finally:
            client.close()

    def prepare(self):
        client = Client(self.address())
        client.ask("$JS.API.STREAM.CREATE.JOBS", name="JOBS", subjects=["jobs"],
                   retention="workqueue", storage="file", discard="new", num_replicas=1)
        client.ask("$JS.API.CONSUMER.DURABLE.CREATE.JOBS.WORKERS", stream_name="JOBS",
                   config={"durable_name": "WORKERS", "ack_policy": "explicit",
                           "deliver_policy": "all", "max_ack_pending": 1000,
                           "ack_wait": 600 * 10**9})
        client.close()

    @staticmethod
    def producer(address, payload_bytes):
        return _Producer(address, payload_bytes)

    @staticmethod
    def worker(address, name):
        return _Worker(address)


class NatsAlways(Nats):
    key = "nats-always"
    label = "NATS work queue, sync always"
    extra = ", sync_interval: always"

    @classmethod
    def missing(cls):
        reason = super().missing()
        if reason or know_always():
            return reason
        version = subprocess.run(["nats-server", "--version"], capture_output=True, text=True)
        return f"{version.stdout.strip()} does not know sync_interval"


class _Producer(Producer):
    def __init__(self, address, payload_bytes):
        self.client = Client(address)
        self.bytes = self.client.request(b"jobs", job_bytes(payload_bytes))

    def send(self):
        self.client.stream.send(self.bytes)

    def confirm(self):
        answer = bytes(self.client.message()[1])
        if b'"seq"' not in answer:
            raise BenchError(f"nats-server answered {answer!r}")

    def close(self):
        self.client.close()


class _Worker(Worker):
    def __init__(self, address):
        self.client = Client(address)
        self.next = self.client.request(b"$JS.API.CONSUMER.MSG.NEXT.JOBS.WORKERS")
        self.reply = None

    def take(self):
        self.client.stream.send(self.next)
        self.reply, body = self.client.message()
        if self.reply is None:
            raise BenchError("nats-server gave no message")
        return body[0]

    def acknowledge(self):
        self.client.stream.send(self.client.request(self.reply, b"+ACK"))
        self.client.message()

    def close(self):
        self.client.close()
