"""libluna for Python: luna.h mirrored field for field, and a small class over it.

The standard library is all this needs. Calls into the library release the interpreter
lock, so that other threads run meanwhile. Texts with a NUL are refused here: C would
silently cut them off.
"""

import ctypes
import ctypes.util
import os
from ctypes import (CFUNCTYPE, POINTER, Structure, byref, c_char, c_char_p, c_double, c_int,
                    c_int32, c_size_t, c_uint32, c_uint64, c_void_p)

API_VERSION = 5
JOB_ID_BYTES = 37
INPUTS_MAX = 5
DIMS_MAX = 5
TOKENS_MAX = 1024
OUTBOX_AFTER_MS = 200  # then a job without a receipt is written; ComfyUI may be killed any time

RC_OK = 0
RC_BAD_REQUEST = 2
RC_NOT_FOUND = 9
RC_BUSY = 11
RC_TIMEOUT = 12
RC_CANCELLED = 13
RC_UNAVAILABLE = 14

_USUAL_PATHS = (
    "/usr/local/lib/libluna.so.0",
    "/usr/lib/x86_64-linux-gnu/libluna.so.0",
    "/usr/lib/aarch64-linux-gnu/libluna.so.0",
    "/usr/lib/libluna.so.0",
    # A source tree whose producer/comfyui is linked into custom_nodes.
    os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../build/lib/libluna.so.0"),
)


class LunaError(RuntimeError):
    """An error of Luna: `code` is a luna_rc, `word` its name, `sentence` what happened."""

    def __init__(self, code, word, sentence):
        super().__init__(f"Luna: {sentence} ({word})" if sentence else f"Luna: {word}")
        self.code = code
        self.word = word
        self.sentence = sentence or word


class LibraryMissing(RuntimeError):
    """libluna cannot be loaded; the text says where it was looked for and what to do."""


# ---- luna.h ---------------------------------------------------------------------------


class Options(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("queue_bytes", c_uint64),
        ("pool_bytes", c_uint64),
        ("warm_bytes", c_uint64),
        ("receipt_timeout_ms", c_int32),
        ("receipt_timeout_max_ms", c_int32),
        ("outbox_dir", c_char_p),
        ("outbox_bytes", c_uint64),
        ("outbox_after_ms", c_int32),
    ]


class Latent(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("bytes", c_uint64),
        ("dtype", c_char_p),
        ("dims", c_uint32),
        ("shape", c_uint64 * DIMS_MAX),
        ("affix", c_char_p),
        ("format", c_char_p),
        ("png_compression", c_uint32),
        ("lossy_quality", c_uint32),
        ("lossless_webp", c_int32),
        ("subdir", c_int32),
        ("png_bits", c_uint32),
    ]


class Extra(Structure):
    _fields_ = [("key", c_char_p), ("value", c_char_p)]


class Token(Structure):
    _fields_ = [("text", c_char_p), ("index", c_uint32)]


class Heatmaps(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("prompt", c_char_p),
        ("variant", c_char_p),
        ("tokens", POINTER(Token)),
        ("token_count", c_uint32),
        ("images", c_uint32),
        ("height", c_uint32),
        ("width", c_uint32),
    ]


class Submission(Structure):
    _fields_ = [
        ("job_id", c_char_p),
        ("priority", c_uint32),
        ("deadline_ms", c_uint64),
        ("vae", c_char_p),
        ("output_dir", c_char_p),
        ("save_path", c_char_p),
        ("filename", c_char_p),
        ("model_name", c_char_p),
        ("filename_index", c_uint64),
        ("save_mode", c_char_p),
        ("quality_gate", c_char_p),
        ("min_quality", c_double),
        ("embed_workflow", c_int32),
        ("round_pixels", c_int32),
        ("custom_metadata", c_char_p),
        ("prompt_id", c_char_p),
        ("prompt", c_char_p),
        ("workflow", c_char_p),
        ("metadata", c_char_p),
        ("extras", POINTER(Extra)),
        ("extra_count", c_uint32),
        ("input_count", c_uint32),
        ("inputs", Latent * INPUTS_MAX),
        ("sidecar", c_int32),
        ("parameters", c_int32),
        ("heatmaps", POINTER(Heatmaps)),
        ("heatmap_count", c_uint32),
    ]


class Receipt(Structure):
    _fields_ = [
        ("error", c_int32),
        ("duplicate", c_int32),
        ("position", c_uint64),
        ("images", c_uint64),
        ("detail", c_char * 512),
    ]


class Status(Structure):
    _fields_ = [
        ("pending", c_uint64),
        ("in_progress", c_uint64),
        ("completed", c_uint64),
        ("failed", c_uint64),
        ("cancelled", c_uint64),
        ("queued_bytes", c_uint64),
        ("oldest_ms", c_uint64),
        ("decoders", c_uint64),
        ("accepting", c_char_p),
        ("version", c_char_p),
        ("paused", c_int32),
        ("images", c_uint64),
        ("free_bytes", c_uint64),
        ("uptime_ms", c_uint64),
        ("alarm", c_char_p),
    ]


class Image(Structure):
    _fields_ = [
        ("input", c_uint64),
        ("index", c_uint64),
        ("path", c_char_p),
        ("bytes", c_uint64),
        ("sha256", c_char_p),
        ("width", c_uint64),
        ("height", c_uint64),
        ("decode_ms", c_double),
        ("encode_ms", c_double),
        ("write_ms", c_double),
        ("note", c_char_p),
    ]


class JobInfo(Structure):
    _fields_ = [
        ("id", c_char_p),
        ("state", c_char_p),
        ("priority", c_uint64),
        ("position", c_uint64),
        ("images", c_uint64),
        ("images_done", c_uint64),
        ("bytes", c_uint64),
        ("attempts", c_uint64),
        ("lost", c_uint64),
        ("refused", c_uint64),
        ("created_ms", c_uint64),
        ("accepted_ms", c_uint64),
        ("started_ms", c_uint64),
        ("finished_ms", c_uint64),
        ("vae", c_char_p),
        ("decoder", c_char_p),
        ("error", c_char_p),
        ("detail", c_char_p),
        ("files", POINTER(Image)),
        ("file_count", c_size_t),
        ("deadline_ms", c_uint64),
        ("next", c_int32),
        ("vae_name", c_char_p),
        ("vae_path", c_char_p),
        ("vae_sha256", c_char_p),
    ]


class Decoder(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("state", c_char_p),
        ("device", c_char_p),
        ("version", c_char_p),
        ("host", c_char_p),
        ("pid", c_uint64),
        ("running", c_uint64),
        ("credit_jobs", c_uint64),
        ("images_done", c_uint64),
        ("jobs_done", c_uint64),
        ("jobs_failed", c_uint64),
        ("seen_ms", c_uint64),
        ("vaes", POINTER(c_char_p)),
        ("vae_count", c_size_t),
        ("vae", c_char_p),
        ("formats", c_char_p),
    ]


class Answer(Structure):
    _fields_ = [
        ("status", POINTER(Status)),
        ("jobs", POINTER(JobInfo)),
        ("job_count", c_size_t),
        ("decoders", POINTER(Decoder)),
        ("decoder_count", c_size_t),
        ("text", c_char_p),
    ]


class Event(Structure):
    _fields_ = [
        ("seq", c_uint64),
        ("time_ms", c_uint64),
        ("kind", c_char_p),
        ("content", POINTER(Answer)),
    ]


class Notice(Structure):
    _fields_ = [
        ("kind", c_char_p),
        ("reason", c_char_p),
        ("job_id", c_char_p),
        ("retry_ms", c_uint64),
        ("jobs", c_uint64),
        ("bytes", c_uint64),
        ("kept", c_uint64),
    ]


NoticeCallback = CFUNCTYPE(None, c_void_p, POINTER(Notice))
EventCallback = CFUNCTYPE(None, c_void_p, POINTER(Event))

_SIGNATURES = {
    "luna_rc_name": (c_char_p, [c_int]),
    "luna_last_error": (c_char_p, []),
    "luna_version": (c_char_p, []),
    "luna_api_version": (c_int, []),
    "luna_options_init": (None, [POINTER(Options)]),
    "luna_client_new": (c_int, [c_char_p, POINTER(Options), POINTER(c_void_p)]),
    "luna_client_destroy": (c_size_t, [POINTER(c_void_p), c_int32]),
    "luna_available": (c_int, [c_void_p]),
    "luna_wait_available": (c_int, [c_void_p, c_int32]),
    "luna_endpoint": (c_char_p, [c_void_p]),
    "luna_unsettled": (None, [c_void_p, POINTER(c_size_t), POINTER(c_uint64)]),
    "luna_submission_init": (None, [POINTER(Submission)]),
    "luna_submit": (c_int, [c_void_p, POINTER(Submission), c_char_p]),
    "luna_notices": (c_int, [c_void_p, NoticeCallback, c_void_p]),
    "luna_wait_kept": (c_int, [c_void_p, c_char_p, c_int32]),
    "luna_wait_receipt": (c_int, [c_void_p, c_char_p, c_int32, POINTER(Receipt)]),
    "luna_wait_job": (c_int, [c_void_p, c_char_p, c_int32, c_void_p, c_void_p]),
    "luna_events": (c_int, [c_void_p, EventCallback, c_void_p]),
    "luna_query_status": (c_int, [c_void_p, c_int32, POINTER(POINTER(Answer))]),
    "luna_query_jobs": (c_int, [c_void_p, c_char_p, c_uint64, c_int32,
                                POINTER(POINTER(Answer))]),
    "luna_query_job": (c_int, [c_void_p, c_char_p, c_int32, POINTER(POINTER(Answer))]),
    "luna_query_decoders": (c_int, [c_void_p, c_int32, POINTER(POINTER(Answer))]),
    "luna_answer_free": (None, [POINTER(POINTER(Answer))]),
    "luna_cancel": (c_int, [c_void_p, c_char_p, c_int32]),
    "luna_retry": (c_int, [c_void_p, c_char_p, c_int32]),
}


# ---- the library ----------------------------------------------------------------------


def _candidates():
    """Where the library may be, best first. LUNA_LIBRARY is an order, not a hint."""
    named = os.environ.get("LUNA_LIBRARY")
    if named:
        return [named]
    found = ctypes.util.find_library("luna")
    return ([found] if found else []) + [path for path in _USUAL_PATHS if os.path.exists(path)]


def _open():
    tried = []
    for path in _candidates():
        try:
            return ctypes.CDLL(path), path
        except OSError as error:
            tried.append(str(error))
    reason = "; ".join(tried) or "it is not installed"
    raise LibraryMissing(
        f"Luna: cannot load libluna ({reason}). Install Luna on this machine (make install), "
        "or set the environment variable LUNA_LIBRARY to the path of libluna.so.0.")


def load_library():
    """The loaded library with its functions declared. LibraryMissing if it is not usable."""
    library, path = _open()
    try:
        library.luna_api_version.restype = c_int
        version = library.luna_api_version()
        if version != API_VERSION:
            raise LibraryMissing(
                f"Luna: {path} speaks version {version} of its interface and this node package "
                f"version {API_VERSION}; update the older of the two.")
        for name, (restype, argtypes) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype = restype
            function.argtypes = argtypes
    except AttributeError as error:
        raise LibraryMissing(f"Luna: {path} is not Luna's library: {error}") from None
    return library


# ---- plain values from structs -----------------------------------------------------------


def _plain(struct):
    """Numbers and texts of a struct as a dict; pointers to lists are left out."""
    values = {}
    for name, kind in struct._fields_:
        value = getattr(struct, name)
        if kind is c_char_p:
            values[name] = value.decode(errors="replace") if value else ""
        elif isinstance(value, (int, float)):
            values[name] = value
    return values


def _plain_job(job):
    values = _plain(job)
    del values["file_count"]
    values["files"] = [_plain(job.files[i]) for i in range(job.file_count)]
    return values


def _plain_decoder(decoder):
    values = _plain(decoder)
    del values["vae_count"]
    values["vaes"] = [decoder.vaes[i].decode(errors="replace") for i in range(decoder.vae_count)]
    values["formats"] = values["formats"].split()
    return values


# ---- the class ------------------------------------------------------------------------


def text(value):
    """A str (or bytes, for a path) as C wants it; None stays None."""
    if value is None:
        return None
    raw = value if isinstance(value, bytes) else value.encode("utf-8")
    if b"\0" in raw:
        raise ValueError("Luna: a setting contains a NUL character; remove it")
    return raw


def _assign(struct, values):
    for name, value in values.items():
        plain = value is None or isinstance(value, (str, bytes))
        setattr(struct, name, text(value) if plain else value)


def _heatmaps(one):
    """The struct of a set (heatmaps.py), whose memory it borrows."""
    tokens = (Token * len(one.tokens))(*[Token(text(word) or None, index)
                                         for word, index in one.tokens])
    images, count, height, width = one.maps.shape
    return Heatmaps(one.maps.ctypes.data, text(one.prompt), text(one.variant), tokens, count,
                    images, height, width)


class Client:
    """One connection to the broker, with its queue and threads in the background.

    Every method may be called from any thread; close() must be the last call. `outbox` is
    a folder for what the broker has not accepted; None leaves it to LUNA_OUTBOX, "" is
    none. Questions return plain dicts with the names of luna.h.
    """

    binding = "libluna"

    def __init__(self, endpoint=None, name="comfyui", library=None, outbox=None):
        self._lib = library or load_library()
        self._notice, self._event = NoticeCallback(), EventCallback()
        options = Options()
        self._lib.luna_options_init(byref(options))
        options.name = text(name)
        options.outbox_dir = text(outbox)
        options.outbox_after_ms = OUTBOX_AFTER_MS
        self._handle = c_void_p()
        self._check(self._lib.luna_client_new(text(endpoint), byref(options),
                                              byref(self._handle)))

    def _check(self, code):
        if code != RC_OK:
            word = self._lib.luna_rc_name(code).decode()
            raise LunaError(code, word, self._lib.luna_last_error().decode(errors="replace"))

    @property
    def endpoint(self):
        return self._lib.luna_endpoint(self._handle).decode(errors="replace")

    def available(self):
        """Whether the broker answers; never waits."""
        return bool(self._lib.luna_available(self._handle))

    def wait_available(self, timeout_ms):
        self._check(self._lib.luna_wait_available(self._handle, timeout_ms))

    def unsettled(self):
        """Jobs, and their bytes, that the broker has neither accepted nor refused yet."""
        jobs, size = c_size_t(), c_uint64()
        self._lib.luna_unsettled(self._handle, byref(jobs), byref(size))
        return jobs.value, size.value

    # ---- submitting -------------------------------------------------------------------

    def new_submission(self):
        submission = Submission()
        self._lib.luna_submission_init(byref(submission))
        return submission

    def submit(self, submission):
        """Copies the job and queues it; its id. What it points to may be freed afterwards."""
        job_id = ctypes.create_string_buffer(JOB_ID_BYTES)
        self._check(self._lib.luna_submit(self._handle, byref(submission), job_id))
        return job_id.value.decode()

    def submit_job(self, job):
        """The same for a Job (job.py), whose tensors are borrowed for the call."""
        submission = self.new_submission()
        _assign(submission, job.settings)
        extras = (Extra * len(job.extras))(*[Extra(text(key), text(value))
                                             for key, value in job.extras.items()])
        submission.extras, submission.extra_count = extras, len(extras)
        for latent, one in zip(submission.inputs, job.inputs):
            _assign(latent, one.settings)
            latent.data, latent.bytes = one.tensor.data_ptr(), one.bytes
            latent.dtype, latent.dims = text(one.dtype), len(one.shape)
            latent.shape[:len(one.shape)] = one.shape
        submission.input_count = len(job.inputs)
        sets = (Heatmaps * len(job.heatmaps))(*map(_heatmaps, job.heatmaps))
        submission.heatmaps, submission.heatmap_count = sets, len(sets)
        return self.submit(submission)

    def wait_receipt(self, job_id, timeout_ms):
        """The receipt of an accepted job. LunaError: refused, or no receipt in that time."""
        receipt = Receipt()
        self._check(self._lib.luna_wait_receipt(self._handle, text(job_id), timeout_ms,
                                                byref(receipt)))
        return receipt

    def wait_kept(self, job_id, timeout_ms):
        """Returns when the job is on a disk: in the outbox, or accepted. LunaError: else."""
        self._check(self._lib.luna_wait_kept(self._handle, text(job_id), timeout_ms))

    def wait_job(self, job_id, timeout_ms):
        """Returns when the job is completed. LunaError: it failed, or takes longer."""
        self._check(self._lib.luna_wait_job(self._handle, text(job_id), timeout_ms, None, None))

    # ---- questions and orders -----------------------------------------------------------

    def _ask(self, question, *arguments):
        answer = POINTER(Answer)()
        self._check(getattr(self._lib, question)(self._handle, *arguments, byref(answer)))
        try:
            content = answer.contents
            return {"status": _plain(content.status.contents) if content.status else None,
                    "jobs": [_plain_job(content.jobs[i]) for i in range(content.job_count)],
                    "decoders": [_plain_decoder(content.decoders[i])
                                 for i in range(content.decoder_count)]}
        finally:
            self._lib.luna_answer_free(byref(answer))

    def status(self, timeout_ms):
        return self._ask("luna_query_status", timeout_ms)["status"]

    def decoders(self, timeout_ms):
        return self._ask("luna_query_decoders", timeout_ms)["decoders"]

    def jobs(self, limit, timeout_ms):
        """The newest jobs, without their files."""
        return self._ask("luna_query_jobs", None, limit, timeout_ms)["jobs"]

    def job(self, job_id, timeout_ms):
        return self._ask("luna_query_job", text(job_id), timeout_ms)["jobs"][0]

    def cancel(self, job_id, timeout_ms):
        self._check(self._lib.luna_cancel(self._handle, text(job_id), timeout_ms))

    def retry(self, job_id, timeout_ms):
        self._check(self._lib.luna_retry(self._handle, text(job_id), timeout_ms))

    # ---- news ---------------------------------------------------------------------------

    def notices(self, function):
        """Calls function(kind, reason, job_id) for each notice, from a thread of the library."""
        def told(_context, notice):
            fields = (notice.contents.kind, notice.contents.reason, notice.contents.job_id)
            function(*[field.decode(errors="replace") for field in fields])
        former, self._notice = self._notice, NoticeCallback(told)
        self._check(self._lib.luna_notices(self._handle, self._notice, None))
        del former  # it may have been running until here

    def changes(self, function):
        """Calls function() when a job may have changed, from a thread of the library."""
        former, self._event = self._event, EventCallback(lambda _context, _event: function())
        self._check(self._lib.luna_events(self._handle, self._event, None))
        del former

    def close(self, linger_ms):
        """Waits for receipts at most linger_ms; how many jobs are nowhere but were here."""
        return self._lib.luna_client_destroy(byref(self._handle), linger_ms)
