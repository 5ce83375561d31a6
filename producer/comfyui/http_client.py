"""Luna over HTTP, where libluna is not: a ComfyUI on Windows, a daemon on another machine.

Nothing but the standard library. A thread sends the jobs in their order, and again under
their id until the daemon has answered; another one keeps an eye on the daemon, so that
available() never waits. The class has the methods of luna_client.Client.
"""

import collections
import ctypes
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
import uuid

from .http_outbox import Outbox, remove
from .luna_client import (RC_BUSY, RC_CANCELLED, RC_NOT_FOUND, RC_TIMEOUT, RC_UNAVAILABLE,
                          LunaError)
from .msgpack import pack

DEFAULT_URL = "http://127.0.0.1:19284"
QUEUE_BYTES = 256 << 20  # of jobs without a receipt in memory, as in libluna
LOOK_EVERY_S = 1.0
ANSWER_S = 30  # longest wait for the answer to a job
AGAIN_S = (0.2, 0.5, 1, 2, 5)  # waits before a job is sent again
REMEMBERED = 4096  # receipts
CLOSE_S = 0.5  # for a thread that waits for the daemon

_CODES = {"not_found": RC_NOT_FOUND, "busy": RC_BUSY, "timeout": RC_TIMEOUT,
          "cancelled": RC_CANCELLED, "unavailable": RC_UNAVAILABLE}
_OTHER = 24  # internal: the word says what it is
_BINARY = ("prompt", "workflow", "metadata")
_FLAGS = ("embed_workflow", "round_pixels", "sidecar", "parameters", "lossless_webp", "subdir")


def error(word, sentence):
    return LunaError(_CODES.get(word, _OTHER), word, sentence)


class Waiting:
    """A job without a receipt: its message, or the file that has it."""

    def __init__(self, job_id, message=None, path=None):
        self.job_id, self.message, self.path = job_id, message, path

    def read(self):
        if self.message is None:
            with open(self.path, "rb") as file:
                return file.read()
        return self.message


class Client:
    """One daemon by its URL; `outbox` is a folder for what it has not accepted, "" for none.
    LunaError "busy" when another process has the folder, OSError when it cannot be used."""

    binding = "http"

    def __init__(self, url=None, token=None, outbox=None):
        self.endpoint = (url or DEFAULT_URL).rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._outbox = Outbox(outbox) if outbox else None
        self._outbox_failed = False
        self._client_id = uuid.uuid4().bytes
        self._changed = threading.Condition()
        self._writing = threading.Lock()  # one thread at a time fills the outbox
        self._queue = collections.deque()
        self._bytes = 0
        self._receipts = collections.OrderedDict()  # id: None, or why it was refused
        self._taken_back = set()
        self._up = self._stopping = False
        self._told = self._news = lambda *_: None
        for job_id, path in self._outbox.jobs() if self._outbox else ():
            self._queue.append(Waiting(job_id, path=path))
        self._threads = [threading.Thread(target=run, name="luna-http", daemon=True)
                         for run in (self._send, self._look)]
        for thread in self._threads:
            thread.start()

    # ---- the daemon -------------------------------------------------------------------

    def _request(self, method, path, body=None, headers=(), timeout_s=2.0):
        request = urllib.request.Request(self.endpoint + path, data=body, method=method,
                                         headers={**self._headers, **dict(headers)})
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as failed:
            raise self._problem(failed) from None
        except (OSError, http.client.HTTPException, ValueError) as failed:
            reason = getattr(failed, "reason", failed)
            raise error("unavailable", f"no broker answers at {self.endpoint}: {reason}") from None

    @staticmethod
    def _problem(failed):
        try:
            problem = json.load(failed)
            return error(problem["error"], problem["detail"])
        except (ValueError, KeyError, TypeError):
            return error("protocol", f"{failed.url} answered {failed.code}; is it Luna's?")

    def available(self):
        """Whether the broker answers; never waits."""
        return self._up

    def wait_available(self, timeout_ms):
        with self._changed:
            if not self._changed.wait_for(lambda: self._up, timeout_ms / 1000):
                raise error("unavailable", f"no broker answers at {self.endpoint}")

    def _look(self):
        while not self._stopping:
            try:
                self._request("GET", "/healthz")
                self._set_up(True, "")
            except LunaError as failed:
                self._set_up(False, failed.sentence)
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, LOOK_EVERY_S)
            self._news()

    def _set_up(self, up, reason):
        with self._changed:
            was, self._up = self._up, up
            self._changed.notify_all()
        if was != up:
            self._told("back" if up else "away", reason or f"the broker at {self.endpoint} "
                       "answers", "")

    # ---- submitting -------------------------------------------------------------------

    def unsettled(self):
        with self._changed:
            return len(self._queue), self._bytes

    def submit_job(self, job):
        """Copies the job and queues it; its id. Its tensors may be freed afterwards."""
        job_id = str(uuid.uuid4())
        message = pack(self._wire_job(job, job_id))
        with self._changed:
            if self._bytes + len(message) > QUEUE_BYTES:
                raise error("busy", f"{self._bytes >> 20} MiB of jobs wait for {self.endpoint}; "
                            "the queue in memory is full")
            self._queue.append(Waiting(job_id, message))
            self._bytes += len(message)
            self._changed.notify_all()
        return job_id

    def _wire_job(self, job, job_id):
        now = time.time()
        return {"luna": 1, "type": "job", "id": uuid.UUID(job_id).bytes,
                "client": self._client_id, "created_ms": int(now * 1000),
                "utc_offset_min": time.localtime(now).tm_gmtoff // 60,
                **_wire_settings(job.settings),
                "extra": {key: value.encode() for key, value in job.extras.items()},
                "heatmaps": [self._wire_heatmaps(one) for one in job.heatmaps],
                "inputs": [self._wire_input(one) for one in job.inputs]}

    @staticmethod
    def _wire_input(one):
        memory = (ctypes.c_char * one.bytes).from_address(one.tensor.data_ptr())
        return {**_wire_settings(one.settings), "dtype": one.dtype, "shape": list(one.shape),
                "latent": memoryview(memory).cast("B")}

    @staticmethod
    def _wire_heatmaps(one):
        tokens = [{"text": text, "index": index} for text, index in one.tokens]
        return {"prompt": one.prompt, "variant": one.variant, "tokens": tokens,
                "shape": list(one.maps.shape), "maps": memoryview(one.maps).cast("B")}

    def _send(self):
        tries = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._queue)
                if self._stopping:
                    return
                job = self._queue[0]
            if self._sent(job):
                tries = 0
                continue
            self._keep()
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or job not in self._queue,
                                       AGAIN_S[min(tries, len(AGAIN_S) - 1)])
            tries += 1

    def _sent(self, job):
        """Whether the job needs no more sending."""
        kind = {"Content-Type": "application/msgpack", "Idempotency-Key": job.job_id}
        try:
            message = job.read()
        except OSError as failed:
            self._lost(job, error("io", f"the file {job.path} of the outbox cannot be read: "
                                  f"{failed}; the job is not sent"))
            return True
        try:
            self._request("POST", "/decode_and_save", message, kind, ANSWER_S)
            refused = None
        except LunaError as failed:
            if failed.word in ("unavailable", "busy", "timeout", "no_memory"):
                return False
            refused = failed
        self._settle(job, refused)
        return True

    def _lost(self, job, why):
        with self._changed:
            self._forget(job)
            self._receipts[job.job_id] = why
            self._changed.notify_all()
        self._told("lost", why.sentence, job.job_id)
        self._news()

    def _settle(self, job, refused):
        with self._changed:
            cancel = job.job_id in self._taken_back
            self._forget(job)
            self._receipts[job.job_id] = refused
            while len(self._receipts) > REMEMBERED:
                self._receipts.popitem(last=False)
            self._changed.notify_all()
        if job.path and refused:
            os.replace(job.path, job.path + ".refused")
            self._told("refused", f"{refused.sentence}; its latents are kept in "
                       f"{job.path}.refused", job.job_id)
        elif job.path:
            remove(job.path)
        if cancel and not refused:
            self._order(job.job_id, "cancel", 2000)
        self._news()

    def _forget(self, job):
        self._taken_back.discard(job.job_id)
        if job in self._queue:
            self._queue.remove(job)
            self._bytes -= len(job.message or b"")

    def wait_receipt(self, job_id, timeout_ms):
        """Returns when the job is accepted. LunaError: refused, or no receipt in that time."""
        with self._changed:
            self._changed.wait_for(lambda: job_id in self._receipts, timeout_ms / 1000)
            if job_id not in self._receipts:
                if any(job.job_id == job_id for job in self._queue):
                    raise error("timeout", f"job {job_id} has no receipt yet")
                raise error("not_found", f"this process has no job {job_id}")
            refused = self._receipts[job_id]
        if refused:
            raise refused

    # ---- the outbox -------------------------------------------------------------------

    def _keep(self):
        """Writes every job that waits in memory; how many could not be written."""
        with self._writing:
            with self._changed:
                waiting = [job for job in self._queue if job.message is not None]
            return sum(not (self._outbox and self._written(job)) for job in waiting)

    def _written(self, job):
        try:
            path = self._outbox.write(job.job_id, job.message)
        except OSError as problem:
            if not self._outbox_failed:  # told once
                self._told("outbox_failed", str(problem), "")
            self._outbox_failed = True
            return False
        self._outbox_failed = False
        with self._changed:
            self._bytes -= len(job.message)
            job.message, job.path = None, path
        return True

    # ---- questions and orders ---------------------------------------------------------

    def status(self, timeout_ms):
        answer = self._request("GET", "/queue_status", timeout_s=timeout_ms / 1000)
        return {**answer, "decoders": answer["decoders_ready"]}

    def decoders(self, timeout_ms):
        return self._request("GET", "/queue_status", timeout_s=timeout_ms / 1000)["decoders"]

    def jobs(self, limit, timeout_ms):
        """The newest jobs, without their files."""
        answer = self._request("GET", f"/v1/jobs?limit={limit}", timeout_s=timeout_ms / 1000)
        return [_plain_job(job) for job in answer["jobs"]]

    def job(self, job_id, timeout_ms):
        return _plain_job(self._request("GET", f"/v1/jobs/{job_id}", timeout_s=timeout_ms / 1000))

    def cancel(self, job_id, timeout_ms):
        with self._changed:
            for job in self._queue:
                if job.job_id == job_id:
                    return self._take_back(job)
        return self._order(job_id, "cancel", timeout_ms)

    def _take_back(self, job):
        """A job that is just being sent is cancelled after its receipt."""
        if job is self._queue[0] and self._up:
            self._taken_back.add(job.job_id)
            return
        self._forget(job)
        self._receipts[job.job_id] = error("cancelled", f"job {job.job_id} was cancelled")
        if job.path:
            remove(job.path)
        self._changed.notify_all()

    def retry(self, job_id, timeout_ms):
        self._order(job_id, "retry", timeout_ms)

    def _order(self, job_id, order, timeout_ms):
        self._request("POST", f"/v1/jobs/{job_id}/{order}", b"", timeout_s=timeout_ms / 1000)

    # ---- news -------------------------------------------------------------------------

    def notices(self, function):
        """Calls function(kind, reason, job_id) as libluna does, from a thread."""
        self._told = function

    def changes(self, function):
        """Calls function() when a job may have changed, from a thread."""
        self._news = function

    def close(self, linger_ms):
        """Waits for receipts at most linger_ms; how many jobs are nowhere but were here."""
        with self._changed:
            if self._up:
                self._changed.wait_for(lambda: not self._queue, linger_ms / 1000)
            self._stopping = True
            self._changed.notify_all()
        lost = self._keep()
        for thread in self._threads:
            thread.join(CLOSE_S)
        if self._outbox and not any(thread.is_alive() for thread in self._threads):
            self._outbox.close()  # else its jobs may be just being sent; the end frees it
        return lost


def _wire_settings(settings):
    """Names and types of luna.h as the wire has them."""
    wire = {}
    for name, value in settings.items():
        if value is None:
            continue
        if name in _BINARY:
            value = value.encode()
        elif name in _FLAGS:
            value = bool(value)
        elif isinstance(value, bytes):
            value = os.fsdecode(value)
        wire[name] = value
    return wire


def _plain_job(job):
    """The names of luna.h, with everything there."""
    texts = {name: job.get(name, "") for name in ("vae", "decoder", "error", "detail")}
    return {**job, **texts, "id": job["job_id"]}
