"""libluna for Python: luna.h mirrored field for field, and a small class over it.

The standard library is all this needs. Calls into the library release the interpreter
lock, so that other threads run meanwhile. Texts with a NUL are refused here: C would
silently cut them off.
"""

import ctypes
import ctypes.util
import os
from ctypes import (CFUNCTYPE, POINTER, Structure, byref, c_char, c_char_p, c_double, c_int, c_int32,
                    c_size_t, c_uint32, c_uint64, c_void_p)

API_VERSION = 3
JOB_ID_BYTES = 37
INPUTS_MAX = 5
DIMS_MAX = 5

RC_OK = 0
RC_BUSY = 11
RC_TIMEOUT = 12
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
    ]


class Receipt(Structure):
    _fields_ = [
        ("error", c_int32),
        ("duplicate", c_int32),
        ("position", c_uint64),
        ("images", c_uint64),
        ("detail", c_char * 512),
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


# ---- the class ------------------------------------------------------------------------


def text(value):
    """A str (or bytes, for a path) as C wants it; None stays None."""
    if value is None:
        return None
    raw = value if isinstance(value, bytes) else value.encode("utf-8")
    if b"\0" in raw:
        raise ValueError("Luna: a setting contains a NUL character; remove it")
    return raw


class Client:
    """One connection to the broker, with its queue and threads in the background.

    Every method may be called from any thread; close() must be the last call. `outbox` is
    a folder for what the broker has not accepted; None leaves it to LUNA_OUTBOX.
    """

    def __init__(self, endpoint=None, name="comfyui", library=None, outbox=None):
        self._lib = library or load_library()
        self._callback = NoticeCallback()
        options = Options()
        self._lib.luna_options_init(byref(options))
        options.name = text(name)
        options.outbox_dir = text(outbox)
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

    def notices(self, function):
        """Calls function(kind, reason, job_id) for each notice, from a thread of the library."""
        def told(_context, notice):
            fields = (notice.contents.kind, notice.contents.reason, notice.contents.job_id)
            function(*[field.decode(errors="replace") for field in fields])
        former, self._callback = self._callback, NoticeCallback(told)
        self._check(self._lib.luna_notices(self._handle, self._callback, None))
        del former  # it may have been running until here

    def new_submission(self):
        submission = Submission()
        self._lib.luna_submission_init(byref(submission))
        return submission

    def submit(self, submission):
        """Copies the job and queues it; its id. What it points to may be freed afterwards."""
        job_id = ctypes.create_string_buffer(JOB_ID_BYTES)
        self._check(self._lib.luna_submit(self._handle, byref(submission), job_id))
        return job_id.value.decode()

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

    def close(self, linger_ms):
        """Waits for receipts at most linger_ms; how many jobs are nowhere but were here."""
        return self._lib.luna_client_destroy(byref(self._handle), linger_ms)
