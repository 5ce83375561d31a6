"""The ledger: what the broker was told and what it answered, kept outside of it.

Whatever was answered must hold after any number of deaths and restarts. The ledger knows
each job as its producer and its decoder saw it, and says of what the broker shows
afterwards whether it is possible.
"""

import wire

ACTIVE = ("pending", "in_progress")
ENDED = ("completed", "failed", "cancelled")


class Broken(AssertionError):
    """Something that must hold does not; `kind` is the column it counts in."""

    def __init__(self, kind, text):
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Job:
    def __init__(self, name, inputs, images):
        self.name = name
        self.id = wire.new_id()
        self.inputs = inputs
        self.images = images
        self.body = None  # the message, once it was sent
        self.accepted = False
        self.attempts = 0  # the latest that reached a decoder
        self.reported = {}  # (input, index): the image as a decoder reported it
        self.recorded = set()  # keys the broker has shown
        self.seen = None  # the latest state that was shown or answered
        self.cancel_asked = False
        self.retry_asked = False
        self.may_have_ended = False  # something was said that can have ended it
        self.may_be_forgotten = False
        self.forgotten = False

    def report(self, key, image):
        self.reported.setdefault(key, image)

    def __repr__(self):
        return f"{self.name} ({wire.id_text(self.id)})"


def _fail(kind, job, what):
    raise Broken(kind, f"job {job}: {what}")


def look(job, info):
    """The broker shows `info` of the job, or None when it does not know it."""
    if info is None:
        _look_at_nothing(job)
        return
    state = info["state"]
    if job.body is None:
        _fail("unknown jobs", job, f"is {state} and was never sent")
    if job.forgotten:
        _fail("undone", job, f"was forgotten and is {state} again")
    if state not in ACTIVE + ENDED:
        _fail("undone", job, f"has the state {state}")
    _look_at_end(job, state)
    _look_at_images(job, info)
    if info.get("attempts", 0) < job.attempts:
        _fail("undone", job, f"attempt {job.attempts} was sent, {info} knows fewer")
    job.seen = state


def _look_at_nothing(job):
    if job.may_be_forgotten and (job.may_have_ended or job.seen in ENDED):
        job.forgotten = True
    elif job.accepted:
        _fail("accepted jobs lost", job, "was accepted and is not known")


def _look_at_end(job, state):
    if job.seen == "completed" and state != "completed":
        _fail("undone", job, f"was completed and is {state}")
    if job.seen == "cancelled" and state != "cancelled":
        _fail("undone", job, f"was cancelled and is {state}")
    if job.seen == "failed" and state != "failed" and not job.retry_asked:
        _fail("undone", job, f"was failed and is {state}")
    if state == "cancelled" and not job.cancel_asked:
        _fail("undone", job, "is cancelled and nobody asked for it")


def _look_at_images(job, info):
    files = info.get("files", [])
    keys = [(file["input"], file["index"]) for file in files]
    count = info.get("images_done", 0)  # of an active job it may be ahead of the record
    right = count >= len(keys) if info["state"] in ACTIVE else count == len(keys)
    if len(set(keys)) != len(keys) or not right:
        _fail("images doubled", job, f"lists its images as {keys}, {info}")
    for key, file in zip(keys, files):
        wanted = job.reported.get(key)
        if wanted is None or any(file[k] != v for k, v in wanted.items()):
            _fail("images doubled", job, f"has image {file}, reported was {wanted}")
    if not job.recorded <= set(keys):
        _fail("undone", job, f"had the images {job.recorded}, now {keys}")
    if info["state"] == "completed" and len(keys) != job.images:
        _fail("undone", job, f"is completed with {len(keys)} of {job.images} images")
    job.recorded |= set(keys)
