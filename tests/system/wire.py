"""Luna's wire in Python, from proto/README.md alone: a producer, a subscriber, a decoder.

Nothing of Luna's own code is used, so that what works here works for anybody who reads
that page.
"""

import os
import struct
import time
import uuid

import msgpack
import zmq
from zmq.utils import z85

from patience import patient

VERSION = 1
PAYLOAD_MAGIC = b"LUNAJOB1"
PAYLOAD_HEADER_BYTES = 64


class WireError(AssertionError):
    """The broker did not say what the page promises."""


def new_id():
    """A UUIDv7's bytes."""
    head = (int(time.time() * 1000) << 16 | 0x7000 | int.from_bytes(os.urandom(2), "big") & 0xFFF)
    tail = int.from_bytes(os.urandom(8), "big") & (1 << 62) - 1 | 1 << 63
    return head.to_bytes(8, "big") + tail.to_bytes(8, "big")


def new_routing_id():
    return b"\x01" + os.urandom(15)


def id_text(raw):
    return str(uuid.UUID(bytes=raw))


def id_bytes(text):
    return uuid.UUID(text).bytes


def pack(kind, **fields):
    kept = {key: value for key, value in fields.items() if value is not None}
    return msgpack.packb({"luna": VERSION, "type": kind, **kept})


def unpack(frame):
    message = msgpack.unpackb(frame, strict_map_key=True)
    if message.get("luna") != VERSION or not isinstance(message.get("type"), str):
        raise WireError(f"not a message of Luna: {message!r:.200}")
    return message


def latent_input(array, dtype=None, **settings):
    return {"format": "png", **settings, "dtype": dtype or str(array.dtype),
            "shape": list(array.shape), "latent": array.tobytes()}


class Keys:
    """A machine's own pair; `text` is what a broker's list has of it."""

    def __init__(self):
        self.public, self.secret = map(z85.decode, zmq.curve_keypair())
        self.text = self.public.hex()

    def encrypt(self, socket, broker):
        """Before connect; `broker` is its public key in hexadecimal."""
        socket.curve_serverkey = bytes.fromhex(broker)
        socket.curve_publickey = self.public
        socket.curve_secretkey = self.secret


class Peer:
    """A DEALER on the control socket; `welcome` is the broker's answer to its hello.

    `endpoint` may be tcp://HOST:PORT?key=KEY, then `keys` are this peer's own.
    """

    def __init__(self, endpoint, role, deadline_s=10, instance=None, keys=None, **hello):
        self.context = zmq.Context()
        self.instance = instance or new_routing_id()
        self.keys = keys
        self.endpoint, _, self.broker_key = endpoint.partition("?key=")
        self.socket = self.connect(zmq.DEALER, self.endpoint, self.instance)
        self.kept = []  # received while something else was waited for
        self.send("hello", role=role, instance=self.instance, pid=os.getpid(), version="test",
                  **hello)
        try:
            self.welcome = self.receive("welcome", deadline_s=deadline_s)
        except WireError:
            self.close()  # an open socket would hold up the garbage collector for ever
            raise

    def connect(self, kind, endpoint, routing_id=None):
        socket = self.context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, 10)
        if routing_id:
            socket.setsockopt(zmq.ROUTING_ID, routing_id)
        if self.keys:
            self.keys.encrypt(socket, self.broker_key)
        socket.connect(self.follow(endpoint))
        return socket

    def follow(self, endpoint):
        """tcp://*:PORT is on the host by which this peer reached the broker."""
        host = self.endpoint.rpartition(":")[0]
        return endpoint.replace("tcp://*", host, 1)

    def send(self, kind, **fields):
        self.socket.send(pack(kind, **fields))

    def receive(self, kind, deadline_s=10, **wanted):
        """The next message of this type whose fields are as wanted; others are kept."""
        def fits(message):
            return message["type"] == kind and all(message.get(k) == v for k, v in wanted.items())

        for index, message in enumerate(self.kept):
            if fits(message):
                return self.kept.pop(index)
        deadline_s = patient(deadline_s)
        end = time.monotonic() + deadline_s
        while True:
            left_ms = int((end - time.monotonic()) * 1000)
            if left_ms < 0 or not self.socket.poll(left_ms):
                raise WireError(f"no {kind} {wanted} within {deadline_s} s; came: {self.kept}")
            message = unpack(self.socket.recv())
            if fits(message):
                return message
            self.kept.append(message)

    def ping(self):
        self.send("ping")
        return self.receive("pong")

    def close(self):
        self.context.destroy(linger=0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Producer(Peer):
    def __init__(self, endpoint, name="test", deadline_s=10, instance=None, keys=None):
        super().__init__(endpoint, "producer", deadline_s, instance, keys, name=name)
        self.intake = self.connect(zmq.PUSH, self.welcome["intake"])
        self.questions = 0

    def job(self, inputs, **settings):
        """The bytes of a job; give `id` to choose it."""
        fields = {"id": new_id(), "client": self.instance, "created_ms": int(time.time() * 1000),
                  "vae": "auto", **settings, "inputs": inputs}
        return pack("job", **fields)

    def push(self, job):
        self.intake.send(job)

    def submit(self, inputs, deadline_s=10, **settings):
        """Sends a job; its receipt."""
        job_id = settings.setdefault("id", new_id())
        self.push(self.job(inputs, **settings))
        return self.receive("receipt", deadline_s=deadline_s, id=job_id)

    def query(self, what, **fields):
        self.questions += 1
        self.send("query", re=self.questions, what=what, **fields)
        return self.receive("answer", re=self.questions)

    def order(self, kind, job_id):
        self.questions += 1
        self.send(kind, re=self.questions, id=job_id)
        return self.receive("answer", re=self.questions)


class Subscriber:
    def __init__(self, peer, topic):
        self.socket = peer.connect(zmq.SUB, peer.welcome["events"])
        self.socket.subscribe(topic)

    def next(self, deadline_s=10):
        """(topic, event)"""
        deadline_s = patient(deadline_s)
        if not self.socket.poll(int(deadline_s * 1000)):
            raise WireError(f"no event within {deadline_s} s")
        topic, body = self.socket.recv_multipart()
        return topic.decode(), unpack(body)


class Decoder(Peer):
    """A decoder that takes work; what it does with it is the test's business."""

    def __init__(self, endpoint, name, vaes, maps_payload=False, credit_jobs=1,
                 credit_bytes=64 << 20, host=None, keys=None):
        super().__init__(endpoint, "decoder", keys=keys, name=name, device="cpu", host=host,
                         vaes=[{"name": vae} for vae in vaes])
        self.slot = self.connect(zmq.PULL, self.welcome["slot"])
        self.send("ready", credit_jobs=credit_jobs, credit_bytes=credit_bytes,
                  maps_payload=maps_payload)

    def take(self, deadline_s=10):
        deadline_s = patient(deadline_s)
        if not self.slot.poll(int(deadline_s * 1000)):
            raise WireError(f"no work within {deadline_s} s")
        work = unpack(self.slot.recv())
        if work["type"] != "work":
            raise WireError(f"the slot brought {work['type']}")
        return work

    def report(self, kind, work, **fields):
        self.send(kind, id=work["id"], attempt=work["attempt"], epoch=work["epoch"], **fields)


def open_payload(work):
    """The job of a work message, from its bytes or from its file."""
    if "payload_path" in work:
        with open(work["payload_path"], "rb") as file:
            raw = file.read()
    else:
        raw = work["payload"]
    magic, header_bytes, zero, job_id, body_bytes = struct.unpack("<8sII16sQ", raw[:40])
    if (magic, header_bytes, zero) != (PAYLOAD_MAGIC, PAYLOAD_HEADER_BYTES, 0):
        raise WireError(f"not a payload: {raw[:64].hex()}")
    if job_id != work["id"] or len(raw) != header_bytes + body_bytes:
        raise WireError("the payload's header is of another job or length")
    if work["payload_bytes"] not in (len(raw), body_bytes):
        raise WireError(f"payload_bytes {work['payload_bytes']} is neither file nor body")
    return unpack(raw[header_bytes:])
