"""A producer that can be killed at any moment: what it sent and what was accepted is in a
file of its own, one line each, written before it sends and after it has the receipt.

    soak_producer.py ENDPOINT FOLDER NAME OUTPUT VAE
"""

import random
import sys
import time
from pathlib import Path

import msgpack

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "system"))
sys.dont_write_bytecode = True

import wire  # noqa: E402

UNANSWERED_MAX = 8
BACKLOG_MAX = 20  # jobs that wait for a decoder: enough to keep all busy
RESEND_S = 1.0


class Flow:
    def __init__(self, endpoint, folder, name, output, vae):
        self.batches = msgpack.unpackb((Path(folder) / "batches").read_bytes())
        self.ledger = open(Path(folder) / f"{name}.ledger", "a", buffering=1)
        self.output, self.vae = output, vae
        self.producer = None
        self.endpoint, self.name = endpoint, name
        self.waiting = {}  # id: [bytes, sent at]
        self.backlog = 0

    def connect(self):
        while self.producer is None:
            try:
                self.producer = wire.Producer(self.endpoint, self.name, deadline_s=2)
            except wire.WireError:
                continue

    def send_new(self):
        which = random.randrange(len(self.batches))
        job_id = wire.new_id()
        body = self.producer.job(
            [self.batches[which]], id=job_id, vae=self.vae, output_dir=self.output,
            filename=f"s{random.randrange(20)}", priority=random.randrange(10))
        self.ledger.write(f"sent {wire.id_text(job_id)} {which}\n")
        self.waiting[job_id] = [body, 0.0]

    def send_due(self):
        now = time.monotonic()
        for entry in self.waiting.values():
            if now - entry[1] > RESEND_S and self.producer.intake.poll(0, 2):  # POLLOUT
                entry[1] = now
                self.producer.push(entry[0])

    def take_answers(self, wait_s):
        """Receipts and the broker's status, as they come."""
        end = time.monotonic() + wait_s
        while self.producer.socket.poll(max(0, int((end - time.monotonic()) * 1000))):
            message = wire.unpack(self.producer.socket.recv())
            if message["type"] == "receipt" and message["status"] != "busy":
                self.ledger.write(f"{message['status']} {wire.id_text(message['id'])}\n")
                self.waiting.pop(message["id"], None)
            elif "status" in message and message["type"] == "answer":
                self.backlog = message["status"].get("pending", 0)

    def run(self):
        self.connect()
        while True:
            if len(self.waiting) < UNANSWERED_MAX and self.backlog < BACKLOG_MAX:
                self.send_new()
            self.send_due()
            self.producer.send("query", re=1, what="status")
            self.take_answers(random.uniform(0.02, 0.2))


if __name__ == "__main__":
    Flow(*sys.argv[1:]).run()
