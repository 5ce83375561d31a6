"""What any broker has to pay for the same bytes: the file alone, and the pipe alone."""

import os
import sys

import zmq

from systems.base import Producer, System
from systems.message import job_bytes

ECHO = """
import sys, zmq
context = zmq.Context()
jobs, answers = context.socket(zmq.PULL), context.socket(zmq.PUSH)
jobs.bind(sys.argv[1] + ".jobs")
answers.bind(sys.argv[1] + ".answers")
while True:
    frame = jobs.recv(copy=False)
    frame.buffer[0]
    answers.send(b"1")
"""


class FileFloor(System):
    """write and fdatasync of a new file in the folder; its removal is not measured."""

    key = "file"
    label = "floor: write + fdatasync"
    takes = False

    @classmethod
    def missing(cls):
        return None

    def start(self, sync=True):
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def address(self):
        return str(self.folder)

    def trim(self):
        for path in self.folder.iterdir():
            path.unlink()

    @staticmethod
    def producer(address, payload_bytes):
        return _File(address, payload_bytes)


class _File(Producer):
    def __init__(self, folder, payload_bytes):
        self.folder = folder
        self.message = job_bytes(payload_bytes)
        self.count = 0

    def send(self):
        self.count += 1
        self.fd = os.open(f"{self.folder}/{self.count}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        left = memoryview(self.message)
        while left:
            left = left[os.write(self.fd, left):]

    def confirm(self):
        os.fdatasync(self.fd)
        os.close(self.fd)


class PipeFloor(System):
    """PUSH to a PULL of another process, which answers with one byte."""

    key = "pipe"
    label = "floor: PUSH/PULL over ipc"
    takes = False

    @classmethod
    def missing(cls):
        return None

    def argv(self, sync):
        return [sys.executable, "-c", ECHO, self.address()]

    def address(self):
        return f"ipc://{self.sockets}/pipe"

    def waiting(self):
        return 0 if (self.sockets / "pipe.answers").exists() else None

    @staticmethod
    def producer(address, payload_bytes):
        return _Pipe(address, payload_bytes)


class _Pipe(Producer):
    def __init__(self, address, payload_bytes):
        self.context = zmq.Context()
        self.jobs = self.context.socket(zmq.PUSH)
        self.answers = self.context.socket(zmq.PULL)
        self.jobs.connect(address + ".jobs")
        self.answers.connect(address + ".answers")
        self.message = bytearray(job_bytes(payload_bytes))

    def send(self):
        self.jobs.send(self.message, copy=False)

    def confirm(self):
        self.answers.recv()

    def close(self):
        self.context.destroy(linger=0)
