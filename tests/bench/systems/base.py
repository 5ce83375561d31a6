"""What every measured system can do.

System     a server process in folders of its own: start, stop, reopen, and its address
Producer   hands over one message and waits for the confirmation, or keeps several on the way
Worker     takes a message, and acknowledges it

Producers and workers hold one connection each and prebuilt buffers; nothing is packed or
copied inside a measured time but what the protocol asks for.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

START_S = 30
_LIBC = ctypes.CDLL(None)


class BenchError(Exception):
    """A system did not do what was measured; one sentence."""


def now_ms():
    return time.perf_counter_ns() / 1e6


def poll_until(try_it, what, deadline_s=START_S):
    """The first value of `try_it` that is neither None nor an OSError; asks each millisecond."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            value = try_it()
        except OSError:
            value = None
        if value is not None:
            return value
        if time.monotonic() > end:
            raise BenchError(f"{what}: not within {deadline_s} s")
        time.sleep(0.001)


def _die_with_parent():
    _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Process:
    """A server in its own process group; its output is in a file."""

    def __init__(self, argv, log, env=None):
        self.log = Path(log)
        with open(self.log, "ab") as out:
            self.popen = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=out, start_new_session=True,
                                          preexec_fn=_die_with_parent)

    def check(self):
        if self.popen.poll() is not None:
            raise BenchError(f"{self.popen.args[0]} ended with {self.popen.returncode}: "
                             f"{self.log.read_text(errors='replace')[-600:].strip()}")

    def kill(self):
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(START_S)


class System:
    key = label = program = ""
    takes = True  # has a worker
    most_bytes = 1 << 40  # of a message
    most_because = ""

    def __init__(self, folder, sockets, largest_bytes):
        """`folder` is on the measured disk; `sockets` has a short path."""
        self.folder = Path(folder) / self.key
        self.sockets = Path(sockets)
        self.largest_bytes = largest_bytes
        self.process = None

    @classmethod
    def missing(cls):
        """Why it cannot be measured here, or None."""
        return None if shutil.which(cls.program) else f"{cls.program} is not installed"

    # ---- for each system to say ---------------------------------------------------------

    def argv(self, sync):
        raise NotImplementedError

    def address(self):
        raise NotImplementedError

    def waiting(self):
        """How many messages wait; OSError or None while the server does not answer."""
        raise NotImplementedError

    @staticmethod
    def producer(address, payload_bytes):
        raise NotImplementedError

    @staticmethod
    def worker(address, name):
        raise NotImplementedError

    def prepare(self):
        """Queues and the like, once, in a new server."""

    def trim(self):
        """Gives disk space back while the queue is empty; not measured."""

    # ---- the same for all ---------------------------------------------------------------

    def environment(self):
        return None

    def start(self, sync=True):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.spawn(sync)
        poll_until(self._answer, f"{self.label} answers")
        self.prepare()
        return self

    def spawn(self, sync=True):
        self.process = Process(self.argv(sync), self.folder.parent / f"{self.key}.log",
                               self.environment())

    def _answer(self):
        self.process.check()
        return self.waiting()

    def reopen(self, count, sync=True):
        """Killed and started again: milliseconds until it answers and has all messages."""
        self.process.kill()
        begin = now_ms()
        self.spawn(sync)
        found = poll_until(self._answer, f"{self.label} answers after a kill")
        took = now_ms() - begin
        if found != count:
            raise BenchError(f"{self.label} has {found} of {count} messages after a kill")
        return took

    def settle(self):
        """What was written is on the disk, so that nobody else's sync pays for it."""
        for path in [*self.folder.rglob("*"), self.folder]:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                os.fsync(fd)
            except OSError:
                pass  # a socket
            finally:
                os.close(fd)

    def stop(self):
        if self.process:
            self.process.kill()
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)


class Producer:
    def send(self):
        """One message, whole."""
        raise NotImplementedError

    def confirm(self):
        """The next confirmation, which must be a good one."""
        raise NotImplementedError

    def put(self):
        self.send()
        self.confirm()

    def put_many(self, count, depth):
        """`count` messages with at most `depth` of them unconfirmed."""
        sent = 0
        for confirmed in range(count):
            while sent < count and sent - confirmed < depth:
                self.send()
                sent += 1
            self.confirm()

    def put_for(self, seconds, depth):
        """Messages confirmed in about so many seconds."""
        end, sent, confirmed = time.monotonic() + seconds, 0, 0
        while True:
            while sent - confirmed < depth and time.monotonic() < end:
                self.send()
                sent += 1
            if sent == confirmed:
                return confirmed
            self.confirm()
            confirmed += 1

    def close(self):
        pass


class Worker:
    def take(self):
        """Blocks until a message is here, whole, and its first byte was read."""
        raise NotImplementedError

    def acknowledge(self):
        """Blocks until the server has confirmed that the message is done."""
        raise NotImplementedError

    def drain(self, count):
        """`count` messages, one after the other: {"take": [ms], "acknowledge", "both"}."""
        times = {"take": [], "acknowledge": [], "both": []}
        for _ in range(count):
            begin = now_ms()
            self.take()
            taken = now_ms()
            self.acknowledge()
            done = now_ms()
            times["take"].append(taken - begin)
            times["acknowledge"].append(done - taken)
            times["both"].append(done - begin)
        return times

    def finish(self, count):
        """`count` messages as fast as they come."""
        for _ in range(count):
            self.take()
            self.acknowledge()

    def close(self):
        pass
