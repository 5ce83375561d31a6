"""The process's one client, and the thread that tells what became of its jobs.

A detached saver must not lose bad news: the node has long returned when a job is refused
or fails, so a thread waits for the end of each job and puts failures in ComfyUI's log.
With LUNA_OUTBOX jobs outlive this process, and the library tells when they must.
"""

import atexit
import collections
import logging
import os
import threading
import time

from .luna_client import (RC_BUSY, RC_TIMEOUT, RC_UNAVAILABLE, Client, LibraryMissing,
                          LunaError)

LINGER_MS = 10_000  # at exit: for jobs that the broker has not accepted yet
BUSY_WAIT_S = 120  # for room in the queue while the broker answers
DISK_WAIT_S = 5  # the same while only the outbox can make some
REMEMBERED = 4096  # jobs whose end is told by their thread, as libluna remembers receipts
_STEP_MS = 200  # longest single wait: the threads look up this often

# What a notice of the library is worth in the log; others are passed over.
_NOTICES = {"outbox": logging.WARNING, "delivered": logging.INFO,
            "outbox_failed": logging.WARNING, "outbox_works": logging.INFO,
            "refused": logging.ERROR, "lost": logging.ERROR}

_log = logging.getLogger("luna")
_lock = threading.Lock()
_session = None


class Session:
    """A client and the thread that follows its jobs. Not to be shared across fork."""

    def __init__(self):
        self.client = Client()
        self.pid = os.getpid()
        self._jobs = collections.deque()
        self._told_later = collections.deque(maxlen=REMEMBERED)
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._follow, name="luna", daemon=True)
        self._thread.start()
        self.client.notices(self._told)

    def submit(self, submission, check_interrupt):
        """Queues the job; waits for room while the broker is there but behind."""
        begin = time.monotonic()
        while True:
            try:
                job_id = self.client.submit(submission)
            except LunaError as error:
                waited_s = time.monotonic() - begin
                if error.code != RC_BUSY or waited_s > BUSY_WAIT_S:
                    raise
                check_interrupt()
                self._wait_for_room(error, waited_s)
                continue
            with self._changed:
                self._jobs.append(job_id)
                self._told_later.append(job_id)
                self._changed.notify()
            return job_id

    def _wait_for_room(self, error, waited_s):
        try:
            self.client.wait_available(_STEP_MS)
        except LunaError:
            if outbox_folder() and waited_s < DISK_WAIT_S:
                return
            raise LunaError(error.code, error.word,
                            f"no broker answers at {self.client.endpoint} and the queue in "
                            f"memory is full{self._outbox_too()}; start luna-broker, then queue "
                            "again") from None
        with self._changed:
            self._changed.wait(_STEP_MS / 1000)

    @staticmethod
    def _outbox_too():
        return f", the outbox {outbox_folder()} too" if outbox_folder() else ""

    def _told(self, kind, reason, job_id):
        """A notice of the library. The end of our own jobs is told by their thread."""
        level = _NOTICES.get(kind)
        with self._changed:
            known = job_id in self._told_later
        if level and not known:
            _log.log(level, "Luna: %s%s", f"job {job_id}: " if job_id else "", reason)

    def _follow(self):
        while True:
            with self._changed:
                while not self._jobs and not self._stopping:
                    self._changed.wait()
                if self._stopping:
                    return
                job_id = self._jobs.popleft()
            if not self._ended(job_id):
                with self._changed:
                    self._jobs.append(job_id)

    def _ended(self, job_id):
        try:
            self.client.wait_job(job_id, _STEP_MS)
            _log.info("Luna: job %s is saved", job_id)
        except LunaError as error:
            if error.code in (RC_TIMEOUT, RC_UNAVAILABLE):
                return False
            # Sentences on a job's own end begin with its id.
            reason = error.sentence.removeprefix(f"job {job_id} ")
            _log.error("Luna: job %s was not saved: %s", job_id, reason)
        return True

    def close(self):
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()  # it waits at most _STEP_MS at a time
        lost = self.client.close(LINGER_MS)
        if lost:
            _log.error("Luna: jobs that no broker confirmed, probably lost: %d", lost)


def outbox_folder():
    return os.environ.get("LUNA_OUTBOX")


def deliver_outbox():
    """What a former ComfyUI left in the outbox goes out at once, not with the next job."""
    if not outbox_folder():
        return
    try:
        session()
    except (LunaError, LibraryMissing) as error:
        _log.warning("%s", error)


def session():
    """The session of this process, made at the first call and ended at exit."""
    global _session
    with _lock:
        if _session is None or _session.pid != os.getpid():
            _session = Session()
            atexit.register(_close, os.getpid())
        return _session


def _close(pid):
    global _session
    if pid != os.getpid():
        return  # a child of fork: the client is its parent's
    with _lock:
        if _session is not None:
            _session.close()
            _session = None
