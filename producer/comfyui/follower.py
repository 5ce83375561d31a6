"""What becomes of the jobs: a thread asks, and tells the log, the page and the history.

Events of the broker only wake the thread; what it tells, it has asked. So nothing depends
on an event's coming: a restart of the broker or a gap costs at most one period.
"""

import logging
import threading
import time

from . import host
from .luna_client import RC_NOT_FOUND, LunaError

LOOK_EVERY_S = 0.5  # with jobs under way and no event
PAUSE_S = 0.05  # between two looks, however many events come
MANY_PAUSE_S = 0.25  # the same with more than FEW_JOBS
FEW_JOBS = 8  # so many, the oldest, are always asked for one by one: a list has no positions
LIST_JOBS = 1000
REMEMBERED = 1000  # jobs that have ended: for the tab, and for a retry
ASK_MS = 2000
HISTORY_WAIT_S = 3600  # for a prompt to end, so that its history can be completed
VAES_FOR_S = 10  # how long the daemon's names of VAEs are good
ENDS = ("completed", "failed", "cancelled")

_log = logging.getLogger("luna")


class Watched:
    """A job that this ComfyUI made: where it came from and how far it is."""

    def __init__(self, job_id, images, node_id, prompt_id, client_id):
        self.job_id, self.images = job_id, images
        self.node_id, self.prompt_id, self.client_id = node_id, prompt_id, client_id
        self.state = "sending"
        self.position = self.images_done = 0
        self.error = self.detail = self.decoder = ""
        self.files = []  # as the broker lists them
        self.made = time.time()
        self.ended = threading.Event()

    def summary(self):
        """What a page is told."""
        return {"job_id": self.job_id, "node": self.node_id, "prompt_id": self.prompt_id,
                "page": self.client_id,
                "state": self.state, "position": self.position, "images": self.images,
                "images_done": self.images_done, "error": self.error, "detail": self.detail,
                "decoder": self.decoder, "made": self.made, "files": self.views(),
                "paths": [file["path"] for file in self.files]}

    def views(self):
        """The saved pictures as /view names them; those elsewhere are left out."""
        return [view for view in (host.view_of(file["path"]) for file in self.files) if view]


class Follower:
    def __init__(self, client):
        self._client = client
        self._watched = {}  # in the order they were made
        self._history = []  # (Watched, until): outputs for prompts that are not there yet
        self._vaes, self._vaes_at = [], 0.0
        self._changed = threading.Condition()
        self._woken = self._stopping = False
        self._thread = threading.Thread(target=self._run, name="luna", daemon=True)
        self._thread.start()
        client.changes(self.wake)

    # ---- from other threads -------------------------------------------------------------

    def watch(self, job_id, images, node_id, prompt_id, client_id):
        job = Watched(job_id, images, node_id, prompt_id, client_id)
        with self._changed:
            self._watched[job_id] = job
            self._prune()
        self._tell(job)
        self.wake()
        return job

    def knows(self, job_id):
        with self._changed:
            return job_id in self._watched

    def summaries(self):
        with self._changed:
            return [job.summary() for job in self._watched.values()]

    def of_prompt(self, prompt_id):
        """The ids of a prompt's jobs that have not ended."""
        with self._changed:
            return [job.job_id for job in self._watched.values()
                    if job.prompt_id == prompt_id and not job.ended.is_set()]

    def retry(self, job_id):
        """Puts a failed job back and follows it again. LunaError."""
        self._client.retry(job_id, ASK_MS)
        with self._changed:
            job = self._watched.get(job_id)
        if job:
            job.error = job.detail = ""
            job.ended.clear()
            job.state = "pending"
            self._tell(job)
        self.wake()

    def vaes(self):
        """The daemon's names of VAEs, as they were lately; never waits."""
        if time.monotonic() - self._vaes_at > VAES_FOR_S:
            self.wake()
        return self._vaes

    def wake(self):
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def wait(self, seconds):
        """Until something may have changed, at most so long."""
        with self._changed:
            self._changed.wait(seconds)

    def close(self):
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    # ---- the thread -----------------------------------------------------------------------

    def _run(self):
        while True:
            with self._changed:
                busy = self._history or any(not job.ended.is_set()
                                            for job in self._watched.values())
                self._changed.wait_for(lambda: self._woken or self._stopping,
                                       LOOK_EVERY_S if busy else None)
                if self._stopping:
                    return
                self._woken = False
            try:
                time.sleep(self._look())
            except Exception:  # noqa: BLE001 - the thread must outlive any surprise
                _log.exception("Luna: following the jobs")
                time.sleep(LOOK_EVERY_S)

    def _look(self):
        """Asks for what has not ended; how long to rest."""
        with self._changed:
            jobs = [job for job in self._watched.values() if not job.ended.is_set()]
        for job in jobs:
            if job.state == "sending":
                self._ask_receipt(job)
        self._complete_history()
        pause_s = MANY_PAUSE_S if len(jobs) > FEW_JOBS else PAUSE_S
        if not self._client.available():
            return pause_s
        try:
            self._ask([job for job in jobs if job.state not in ("sending", *ENDS)])
            if time.monotonic() - self._vaes_at > VAES_FOR_S:
                self._ask_vaes()
        except LunaError as error:
            _log.debug("%s", error)  # asked again
        return pause_s

    def _ask_receipt(self, job):
        try:
            self._client.wait_receipt(job.job_id, 0)
        except LunaError as error:
            if error.word not in ("timeout", "unavailable"):
                self._end(job, "cancelled" if error.word == "cancelled" else "failed",
                          error.word, error.sentence)
            return
        job.state = "pending"
        self._tell(job)

    def _ask(self, jobs):
        if len(jobs) > FEW_JOBS:
            news = {info["id"]: info for info in self._client.jobs(LIST_JOBS, ASK_MS)}
            jobs = jobs[:FEW_JOBS] + [job for job in jobs[FEW_JOBS:]
                                      if self._is_new(job, news.get(job.job_id))]
        for job in jobs:
            try:
                self._take(job, self._client.job(job.job_id, ASK_MS))
            except LunaError as error:
                if error.code != RC_NOT_FOUND:
                    raise
                self._end(job, "failed", "not_found", "the broker does not know it any more")

    @staticmethod
    def _is_new(job, info):
        return info is None or (info["state"], info["images_done"]) != (
            job.state, job.images_done)

    def _take(self, job, info):
        before = (job.state, job.position, job.images_done, len(job.files))
        state = info["state"]
        job.position, job.decoder = info["position"], info["decoder"]
        job.images, job.images_done = info["images"] or job.images, info["images_done"]
        files = sorted(info["files"], key=lambda file: (file["input"], file["index"]))
        pictures = len(files) > len(job.files)
        job.files = files
        if pictures:
            self._show(job)
        if state in ENDS:
            self._end(job, state, info["error"], info["detail"])
        else:
            job.state = state
            if before != (job.state, job.position, job.images_done, len(job.files)):
                self._tell(job)

    def _end(self, job, state, error, detail):
        job.state, job.error, job.detail = state, error, detail
        if state == "completed":
            _log.info("Luna: job %s is saved", job.job_id)
        elif state == "cancelled":
            _log.warning("Luna: job %s was cancelled", job.job_id)
        else:
            reason = detail.removeprefix(f"job {job.job_id} ")
            if error and error not in reason:
                reason = f"failed ({error}): {reason}"
            _log.error("Luna: job %s was not saved: %s", job.job_id, reason)
        if job.files and job.prompt_id:
            self._history.append((job, time.monotonic() + HISTORY_WAIT_S))
            self._complete_history()
        job.ended.set()
        self._tell(job)

    def _ask_vaes(self):
        names = {name for decoder in self._client.decoders(ASK_MS) for name in decoder["vaes"]}
        self._vaes, self._vaes_at = sorted(names), time.monotonic()

    # ---- the page and the history -----------------------------------------------------------

    @staticmethod
    def _tell(job):
        host.send("luna.job", job.summary(), job.client_id)

    @staticmethod
    def _show(job):
        """Late `executed`: the pictures appear in the node as if it had just run."""
        views = job.views()
        if views and job.node_id and job.client_id:
            host.send("executed", {"node": job.node_id, "display_node": job.node_id,
                                   "prompt_id": job.prompt_id, "output": output_of(job)},
                      job.client_id)

    def _complete_history(self):
        self._history = [
            (job, until) for job, until in self._history
            if not host.add_to_history(job.prompt_id, job.node_id, output_of(job))
            and time.monotonic() < until]

    def _prune(self):
        ended = [job_id for job_id, job in self._watched.items() if job.ended.is_set()]
        for job_id in ended[:max(0, len(ended) - REMEMBERED)]:
            del self._watched[job_id]


def output_of(job):
    """A node's output as ComfyUI shows and remembers it."""
    return {"images": job.views(), "text": [f"Luna job {job.job_id}: {job.state}"]}
