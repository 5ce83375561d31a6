"""The process's one client: how it is found, and what it does when ComfyUI ends.

libluna is used where it can be loaded, else HTTP. LUNA_LIBRARY and LUNA_HTTP are orders,
not hints. Jobs that no broker has accepted go into an outbox, by default in ComfyUI's
user folder, and are sent by the next ComfyUI.
"""

import atexit
import logging
import os
import threading
import time

from . import host
from . import http_client
from . import luna_client
from . import parts
from .follower import Follower
from .luna_client import RC_BUSY, LibraryMissing, LunaError

LINGER_MS = 10_000  # at exit: for jobs that the broker has not accepted yet
BUSY_WAIT_S = 120  # for room in the queue while the broker answers
DISK_WAIT_S = 5  # the same while only the outbox can make some
START_WAIT_S = 0.5  # for the broker's first answer; ComfyUI itself takes longer to start
_STEP_MS = 200  # longest single wait

# What a notice is worth in the log; others are passed over.
_NOTICES = {"away": logging.INFO, "back": logging.INFO,
            "outbox": logging.WARNING, "delivered": logging.INFO,
            "outbox_failed": logging.WARNING, "outbox_works": logging.INFO,
            "refused": logging.ERROR, "lost": logging.ERROR}

_log = logging.getLogger("luna")
_lock = threading.Lock()
_session = None


class Session:
    """A client and the follower of its jobs. Not to be shared across fork."""

    def __init__(self):
        self.client, self.outbox = _connect(outbox_folder())
        self.pid = os.getpid()
        self._born = time.monotonic()
        self.follower = Follower(self.client)
        self.client.notices(self._told)

    @property
    def sends_here(self):
        """Whether the daemon can write into ComfyUI's own output folder."""
        return self.client.binding == "libluna" or "//127.0.0.1:" in self.client.endpoint

    def available(self):
        """Whether the broker answers. Waits only where the client has just been made."""
        if not self.client.available():
            left_s = self._born + START_WAIT_S - time.monotonic()
            if left_s <= 0:
                return False
            try:
                self.client.wait_available(int(left_s * 1000))
            except LunaError:
                return False
        return True

    def submit(self, job, check_interrupt):
        """Queues the job; waits for room while the broker is there but behind."""
        begin = time.monotonic()
        while True:
            try:
                return self.client.submit_job(job)
            except LunaError as error:
                waited_s = time.monotonic() - begin
                if error.code != RC_BUSY or waited_s > BUSY_WAIT_S:
                    raise
                check_interrupt()
                self._wait_for_room(error, waited_s)

    def _wait_for_room(self, error, waited_s):
        try:
            self.client.wait_available(_STEP_MS)
        except LunaError:
            if self.outbox and waited_s < DISK_WAIT_S:
                return
            full = f", the outbox {self.outbox} too" if self.outbox else ""
            raise LunaError(error.code, error.word,
                            f"no broker answers at {self.client.endpoint} and the queue in "
                            f"memory is full{full}; start luna-broker, then queue "
                            "again") from None
        self.follower.wait(_STEP_MS / 1000)

    def _told(self, kind, reason, job_id):
        """A notice of the client. The end of our own jobs is told by the follower."""
        level = _NOTICES.get(kind)
        if level and not self.follower.knows(job_id):
            _log.log(level, "Luna: %s%s", f"job {job_id}: " if job_id else "", reason)
            host.send("luna.notice", {"kind": kind, "reason": reason, "job_id": job_id}, None)

    def close(self):
        self.follower.close()
        lost = self.client.close(LINGER_MS)
        if lost:
            _log.error("Luna: jobs that no broker confirmed, probably lost: %d", lost)


# ---- which client -----------------------------------------------------------------------


def _connect(outbox):
    """The client, and the outbox that it has, "" for none."""
    make, ending = _way()
    if outbox:
        try:
            return make(outbox + ending), outbox + ending
        except (LunaError, OSError) as error:
            _log.warning("Luna: no outbox, jobs wait in memory only: %s",
                         getattr(error, "sentence", error))
    return make(""), ""


def _way():
    """What makes a client with an outbox, and the ending of its folder."""
    if os.environ.get("LUNA_HTTP"):
        return _http, "-http"
    try:
        library = luna_client.load_library()
    except LibraryMissing as error:
        if os.environ.get("LUNA_LIBRARY"):
            raise
        _log.info("%s Luna is asked over HTTP instead.", error)
        return _http, "-http"
    return lambda outbox: luna_client.Client(library=library, outbox=outbox), ""


def _http(outbox):
    """The files in its folder are not libluna's, so the folder is another."""
    return http_client.Client(os.environ.get("LUNA_HTTP"), _token(), outbox)


def _token():
    path = os.environ.get("LUNA_HTTP_TOKEN_FILE")
    if not path:
        return os.environ.get("LUNA_HTTP_TOKEN")
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def outbox_folder():
    """The folder for what the broker has not accepted, "" for none."""
    if "LUNA_OUTBOX" in os.environ:
        return os.environ["LUNA_OUTBOX"]
    user = host.user_directory()
    return os.path.join(user, "luna-outbox") if user else ""


# ---- the one session --------------------------------------------------------------------


def start():
    """Makes the session early: the broker's state is known, and a former outbox goes out.
    What a former ComfyUI left unfinished is removed meanwhile."""
    threading.Thread(target=_tidy, name="luna-tidy", daemon=True).start()
    try:
        session()
    except (LunaError, LibraryMissing, OSError) as error:
        _log.warning("%s", error)


def _tidy():
    try:
        parts.sweep(host.output_directory())
    except (ImportError, AttributeError, OSError) as error:  # outside of ComfyUI
        _log.debug("Luna: nothing to tidy: %s", error)


def running():
    """The session if there is one already."""
    return _session


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
