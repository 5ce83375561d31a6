"""beanstalkd with its write-ahead log, fsync before each answer."""

from systems.base import BenchError, Producer, System, Worker
from systems.message import job_bytes
from systems.stream import connect

LEAST_LOG_BYTES = 10 << 20  # of one file of its log, its default; a job must fit


class Beanstalkd(System):
    key = program = "beanstalkd"
    label = "beanstalkd -f0"

    def argv(self, sync):
        return ["beanstalkd", "-b", str(self.folder), *(["-f0"] if sync else ["-F"]),
                "-z", str(self.largest_bytes),
                "-s", str(max(self.largest_bytes + LEAST_LOG_BYTES // 10, LEAST_LOG_BYTES)),
                "-l", f"unix:{self.address()}"]

    def address(self):
        return str(self.sockets / "beanstalkd")

    def waiting(self):
        stream = connect(self.address())
        try:
            stream.send(b"stats\r\n")
            length = int(stream.line().split()[1])
            stats = dict(line.split(": ", 1) for line in
                         bytes(stream.body(length)).decode().splitlines() if ": " in line)
            return int(stats["current-jobs-ready"])
        finally:
            stream.close()

    @staticmethod
    def producer(address, payload_bytes):
        return _Producer(address, payload_bytes)

    @staticmethod
    def worker(address, name):
        return _Worker(address)


class _Producer(Producer):
    def __init__(self, address, payload_bytes):
        self.stream = connect(address)
        body = job_bytes(payload_bytes)
        self.message = b"put 1 0 3600 %d\r\n%b\r\n" % (len(body), body)

    def send(self):
        self.stream.send(self.message)

    def confirm(self):
        answer = self.stream.line()
        if not answer.startswith(b"INSERTED "):
            raise BenchError(f"beanstalkd answered {answer!r}")

    def close(self):
        self.stream.close()


class _Worker(Worker):
    def __init__(self, address):
        self.stream = connect(address)
        self.job = None

    def take(self):
        self.stream.send(b"reserve\r\n")
        answer = self.stream.line().split()
        if answer[0] != b"RESERVED":
            raise BenchError(f"beanstalkd answered {answer!r}")
        self.job = answer[1]
        return self.stream.body(int(answer[2]))[0]

    def acknowledge(self):
        self.stream.send(b"delete %b\r\n" % self.job)
        answer = self.stream.line()
        if answer != b"DELETED":
            raise BenchError(f"beanstalkd answered {answer!r}")

    def close(self):
        self.stream.close()
