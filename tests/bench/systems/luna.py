"""luna-broker: jobs over PUSH, receipts on the DEALER, work through a slot."""

import mmap
import os
from pathlib import Path

import wire
import zmq

from systems.base import BenchError, Producer, System, Worker, now_ms
from systems.message import VAE, job_bytes

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(os.environ.get("LUNA_BIN", ROOT / "build" / "bin")).resolve()
WAIT_S = 60
CREDIT_BYTES = 1 << 40
HEAD_BYTES = 4096
PAYLOAD_KEY = b"\xa7payload\xc6"  # and four bytes of length


class Luna(System):
    key = "luna"
    label = "Luna"
    program = str(BIN / "luna-broker")

    def argv(self, sync):
        return [self.program]

    #  Limits out of the way, and no lease that ends while others are measured.
    def environment(self):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LUNA_")}
        return {**kept, "LUNA_HOME": str(self.folder), "LUNA_HTTP_LISTEN": "off",
                "LUNA_BROKER_CONTROL": self.address(),
                "LUNA_BROKER_INTAKE": f"ipc://{self.sockets}/intake",
                "LUNA_BROKER_EVENTS": f"ipc://{self.sockets}/events",
                "LUNA_BROKER_SLOTS": f"ipc://{self.sockets}/d",
                "LUNA_LIMITS_MAX_JOBS": "1000000", "LUNA_LIMITS_MAX_QUEUED_BYTES": "1024GiB", "LUNA_LIMITS_MAX_CLIENT_BYTES": "1024GiB",
                "LUNA_LEASE_TIME": "10min"}

    def address(self):
        return f"ipc://{self.sockets}/control"

    def waiting(self):
        """Asks once, and waits for the answer: the socket connects as soon as it can."""
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RECONNECT_IVL, 1)
            socket.connect(self.address())
            socket.send(wire.pack("query", re=1, what="status"))
            while not socket.poll(100):
                self.process.check()
            return wire.unpack(socket.recv())["status"].get("pending", 0)

    @staticmethod
    def producer(address, payload_bytes):
        return _Producer(address, payload_bytes)

    @staticmethod
    def worker(address, name, credit_jobs=2, maps_payload=True):
        return _Decoder(address, name, credit_jobs, maps_payload)


class _Producer(Producer):
    """Prebuilt bytes; each job gets its id written into a buffer that is not on its way."""

    def __init__(self, address, payload_bytes):
        self.peer = wire.Producer(address, "bench")
        mark = os.urandom(16)
        message = job_bytes(payload_bytes, mark, self.peer.instance)
        self.id_at = message.index(mark)
        self.buffers = [bytearray(message)]
        self.message = message
        self.on_the_way = {}

    def send(self):
        buffer = self.buffers.pop() if self.buffers else bytearray(self.message)
        job_id = wire.new_id()
        buffer[self.id_at:self.id_at + 16] = job_id
        self.on_the_way[job_id] = buffer
        self.peer.intake.send(buffer, copy=False)

    def confirm(self):
        if not self.peer.socket.poll(WAIT_S * 1000):
            raise BenchError(f"no receipt within {WAIT_S} s")
        receipt = wire.unpack(self.peer.socket.recv())
        if receipt["type"] != "receipt" or receipt["status"] != "accepted":
            raise BenchError(f"luna-broker answered {receipt}")
        self.buffers.append(self.on_the_way.pop(receipt["id"]))

    def close(self):
        self.peer.close()


def open_work(frame):
    """The work message, and a view of the payload that it brings; nothing large is copied."""
    head = bytes(frame[:HEAD_BYTES])
    at = head.find(PAYLOAD_KEY)
    if at < 0:
        return wire.unpack(frame), None
    begin = at + len(PAYLOAD_KEY) + 4
    end = begin + int.from_bytes(head[begin - 4:begin], "big")
    without = head[:begin - 5] + b"\xc4\x00" + bytes(frame[end:])
    return wire.unpack(without), frame[begin:end]


class _Decoder(Worker):
    """Takes work, touches its payload and says done, with the job's one image."""

    def __init__(self, address, name, credit_jobs, maps_payload):
        self.decoder = wire.Decoder(address, name, [VAE], maps_payload=maps_payload,
                                    credit_jobs=0, credit_bytes=CREDIT_BYTES)
        self.credit_jobs = credit_jobs
        self.maps_payload = maps_payload
        self.work = None

    def _listen(self):
        self.completed = wire.Subscriber(self.decoder, "job/")
        self.completed.next(WAIT_S)  # the snapshot: later events come
        self.poller = zmq.Poller()
        self.poller.register(self.decoder.slot, zmq.POLLIN)
        self.poller.register(self.completed.socket, zmq.POLLIN)

    def give_credit(self, jobs):
        self.decoder.send("credit", credit_jobs=jobs, credit_bytes=CREDIT_BYTES,
                          maps_payload=self.maps_payload)

    def take(self):
        if not self.decoder.slot.poll(WAIT_S * 1000):
            raise BenchError(f"no work within {WAIT_S} s")
        self.work, payload = open_work(self.decoder.slot.recv(copy=False).buffer)
        if payload:
            return payload[0]
        with open(self.work["payload_path"], "rb") as file:
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as payload:
                return payload[0]

    def say_done(self):
        image = {"input": 0, "index": 0, "path": f"/bench/{self.work['id'].hex()}.png",
                 "bytes": 1, "sha256": "0" * 64, "width": 8, "height": 8}
        self.decoder.report("done", self.work, images=[image])

    def _completes(self, job_id):
        """Whether the event that is here says so."""
        topic, event = self.completed.next(WAIT_S)
        if event["kind"] in ("failed", "requeued", "cancelled"):
            raise BenchError(f"{topic}: {event}")
        return event["kind"] == "completed" and event["jobs"][0]["id"] == job_id

    def _finish_one(self, more):
        """Says done; (ms to the completed event, ms to the next work, if `more` comes)."""
        job_id = self.work["id"]
        begin = now_ms()
        self.say_done()
        acknowledged = taken = None
        while acknowledged is None or (more and taken is None):
            ready = dict(self.poller.poll(WAIT_S * 1000))
            if not ready:
                raise BenchError(f"luna-broker went silent for {WAIT_S} s")
            if more and taken is None and self.decoder.slot in ready:
                self.take()
                taken = now_ms() - begin
            if self.completed.socket in ready and self._completes(job_id):
                acknowledged = now_ms() - begin
        return acknowledged, taken

    def drain(self, count):
        """`take` is from the credit, then from each done, to the work with its payload
        touched; `acknowledge` from done to the completed event; both run side by side."""
        times = {"take": [], "acknowledge": [], "both": []}
        self._listen()
        begin = now_ms()
        self.give_credit(self.credit_jobs)
        self.take()
        times["take"].append(now_ms() - begin)
        for left in reversed(range(count)):
            acknowledged, taken = self._finish_one(left > 0)
            times["acknowledge"].append(acknowledged)
            if left:
                times["take"].append(taken)
                times["both"].append(max(acknowledged, taken))
        self.give_credit(0)
        return times

    def finish(self, count):
        """Two jobs in hand as long as there are two more to do; returns when the last one
        is completed, and then all are: the store works in order."""
        self.give_credit(min(2, count))
        for left in reversed(range(count)):
            self.take()
            if left < 2:
                self.give_credit(left)
            self.say_done()
        topic = f"job/{wire.id_text(self.work['id'])}"
        with_last = wire.Subscriber(self.decoder, topic)
        while True:
            event = with_last.next(WAIT_S)[1]
            if event["jobs"][0]["state"] == "completed":
                return

    def close(self):
        self.decoder.send("bye")
        self.decoder.socket.setsockopt(zmq.LINGER, 1000)
        self.decoder.context.destroy(linger=1000)
