"""The nodes. "Luna Multi Saver (Daemon Async)" hands latents and settings to the daemon and
returns in about a millisecond; the daemon decodes and saves them, on another GPU or another
machine. "Luna Queue Status" tells how busy it is.
"""

import json
import logging
import os

from . import heatmaps, host, parameters
from .decode_here import save_here
from .follower import output_of
from .inputs import (DECODE_HERE, DEFAULTS, FAIL, NO_SAVE, WAIT,
                     input_types)
from .job import Input, Job
from .latents import latent_tensor
from .luna_client import INPUTS_MAX, RC_BAD_REQUEST, RC_UNAVAILABLE, LunaError
from .session import running, session
from .words import expand

AWAY_WAIT_S = 30  # how long `wait` goes on while no broker answers
_STEP_S = 0.2
_ASK_MS = 2000

_log = logging.getLogger("luna")


# ---- the job ----------------------------------------------------------------------------


def make_job(settings, prompt, extra_pnginfo, sends_here=True):
    """The connected latents and the settings as a Job. ValueError names what is wrong."""
    inputs = [_input(settings, number) for number in range(1, INPUTS_MAX + 1)
              if settings.get(f"latent_{number}") is not None
              and settings[f"format_{number}"] != NO_SAVE]
    if not inputs:
        raise ValueError(f'Luna: every connected latent has the format "{NO_SAVE}"; there is '
                         "nothing to save")
    _check_bits(settings, inputs)
    extra_pnginfo = extra_pnginfo or {}
    allowed = not host.metadata_disabled()
    embed, beside = (bool(settings[name] and allowed) for name in ("embed_workflow", "sidecar"))
    workflow = extra_pnginfo.get("workflow")
    fields = _fields(settings, prompt, workflow)
    fields["embed_workflow"], fields["sidecar"] = int(embed), int(beside)
    fields["output_dir"] = _output_dir(sends_here)
    extras = {}
    if embed or beside:
        fields.update(_texts(settings, prompt, workflow))
        extras = {key: json.dumps(value) for key, value in extra_pnginfo.items()
                  if key != "workflow"}
    job = Job(fields, extras, inputs)
    if embed or beside:
        _add_heatmaps(job, settings)
        _add_parameters(job, settings)
    return job


def _check_bits(settings, inputs):
    """16 bits without a PNG would be 8 and nobody would know."""
    forms = sorted({one.settings["format"] for one in inputs})
    if settings["png_bits"] == 16 and "png" not in forms:
        raise ValueError(f"Luna: png_bits 16 is for PNG only, and the format here is "
                         f"{' and '.join(forms)}, which has 8; choose png, or png_bits 8")


def _add_heatmaps(job, settings):
    """A JPEG's own room is too small for them: they go into a file beside it then."""
    job.heatmaps, left_out = heatmaps.collect(settings)
    job.left_out += left_out
    if job.heatmaps and any(one.settings["format"] == "jpeg" for one in job.inputs):
        job.settings["sidecar"] = 1


def _add_parameters(job, settings):
    """The daemon makes the text; whether there will be one is told here."""
    job.settings["parameters"] = int(settings["parameters"])
    if settings["parameters"] and not parameters.text_of(job.settings["metadata"], 0, 0):
        job.left_out.append("parameters is left out: it is made of `metadata`, and what is "
                            "connected there has no prompt, steps, seed or sampler")
        _log.warning("Luna: %s", job.left_out[-1])


def _input(settings, number):
    tensor = latent_tensor(settings[f"latent_{number}"], f"latent_{number}")
    form = settings[f"format_{number}"]
    return Input(tensor, affix=settings[f"affix_{number}"], format=form,
                 subdir=int(settings[f"subdir_{number}"]),
                 png_compression=settings["png_compression"],
                 lossy_quality=settings["lossy_quality"],
                 lossless_webp=int(settings["lossless_webp"]),
                 png_bits=settings["png_bits"] if form == "png" else 8)


def _fields(settings, prompt, workflow):
    metadata = settings.get("metadata")
    known = metadata if isinstance(metadata, dict) else {}
    model = settings["model_name"] or known.get("model_name") or known.get("model") or ""
    return {"priority": settings["priority"],
            "vae": settings["vae_name"].strip().replace("\\", "/") or "auto",
            "save_path": expand(settings["save_path"], prompt, workflow),
            "filename": expand(settings["filename"], prompt, workflow),
            "model_name": str(model), "filename_index": settings["filename_index"],
            "save_mode": settings["save_mode"], "quality_gate": settings["quality_gate"],
            "min_quality": float(settings["min_quality_threshold"]),
            "prompt_id": host.current_prompt()[0],
            "metadata": json.dumps(metadata) if metadata else None}


def _texts(settings, prompt, workflow):
    """Serialised once, exactly as ComfyUI's own saver does; bytes from here on."""
    return {"prompt": json.dumps(prompt) if prompt is not None else None,
            "workflow": json.dumps(workflow) if workflow is not None else None,
            "custom_metadata": settings["custom_metadata"] or None}


def _output_dir(sends_here):
    """A daemon on another machine has folders of its own: LUNA_OUTPUT_DIR, or its first root."""
    named = os.environ.get("LUNA_OUTPUT_DIR")
    if named:
        return named
    return os.fsencode(host.output_directory()) if sends_here and os.name == "posix" else None


# ---- the saver --------------------------------------------------------------------------


class LunaMultiSaver:
    CATEGORY = "Luna/Image"
    DESCRIPTION = ("Hands latents to the Luna daemon, which decodes and saves them elsewhere. "
                   "The next sampling starts at once.")
    FUNCTION = "submit"
    OUTPUT_NODE = True
    RETURN_TYPES = ("LATENT", "STRING")
    RETURN_NAMES = ("latent", "job_id")
    SEARCH_ALIASES = ["save image", "luna", "async save", "vae decode"]

    @classmethod
    def INPUT_TYPES(cls):
        here = running()
        return input_types(here.follower.vaes() if here else [])

    @classmethod
    def VALIDATE_INPUTS(cls, vae_name):
        """Any name: what the daemon knows today may be another tomorrow."""
        return True

    def check_lazy_status(self, on_daemon_down=DEFAULTS["on_daemon_down"], **inputs):
        """The VAE is wanted only where it will be used."""
        wanted = on_daemon_down == DECODE_HERE and "vae" in inputs and inputs["vae"] is None
        return ["vae"] if wanted and not session().available() else []

    def submit(self, latent_1, prompt=None, extra_pnginfo=None, unique_id=None, vae=None,
               **settings):
        settings = {**DEFAULTS, **settings, "latent_1": latent_1}
        luna = session()
        job = make_job(settings, prompt, extra_pnginfo, luna.sends_here)
        up, when_down = luna.available(), settings["on_daemon_down"]
        if not up and when_down == FAIL:
            raise LunaError(RC_UNAVAILABLE, "unavailable",
                            f"no broker answers at {luna.client.endpoint}; start luna-broker, or "
                            "choose another on_daemon_down")
        if not up and when_down == DECODE_HERE and vae is not None:
            return {"ui": _told(job, _decoded_here(job, vae)), "result": (latent_1, "")}
        job_id = luna.submit(job, host.check_interrupt)
        watched = luna.follower.watch(job_id, job.images, unique_id, *host.current_prompt())
        ui = {"text": [f"Luna job {job_id}"]}
        if not up:
            ui = {"text": [_waits_for_the_daemon(luna, job_id, when_down)]}
        elif settings["mode"] == WAIT:
            ui = _waited(luna, watched)
        return {"ui": _told(job, ui), "result": (latent_1, job_id)}


def _told(job, ui):
    """The node's output, with what could not be kept of the job."""
    return {**ui, "text": [*ui.get("text", []), *job.left_out]} if job.left_out else ui


def _decoded_here(job, vae):
    paths = save_here(job, vae, host.output_directory(), host.check_interrupt)
    _log.warning("Luna: the daemon is down; %d pictures were decoded here", len(paths))
    return {"images": [view for view in map(host.view_of, paths) if view],
            "text": [f"The Luna daemon is down; decoded here: {len(paths)}"]}


def _waits_for_the_daemon(luna, job_id, when_down):
    why = " (no vae is connected for decode_here)" if when_down == DECODE_HERE else ""
    where = f"in {luna.outbox}" if luna.outbox else "in ComfyUI's memory only: set LUNA_OUTBOX"
    _log.log(logging.INFO if luna.outbox else logging.WARNING,  # the outbox tells of itself
             "Luna: the daemon is down%s; job %s waits %s", why, job_id, where)
    return f"Luna job {job_id} waits for the daemon {where}"


def _waited(luna, watched):
    """Until the job has ended; its output. An interrupt cancels the job."""
    bar, away_s = host.progress_bar(watched.images), 0.0
    while not watched.ended.wait(_STEP_S):
        try:
            host.check_interrupt()
        except BaseException:
            _cancel(luna, watched.job_id)
            raise
        if bar:
            bar.update_absolute(watched.images_done)
        away_s = 0.0 if luna.client.available() else away_s + _STEP_S
        if away_s > AWAY_WAIT_S:
            raise LunaError(RC_UNAVAILABLE, "unavailable",
                            f"the broker went away {AWAY_WAIT_S} s ago; job {watched.job_id} goes "
                            "on when it is back")
    if watched.state != "completed":
        raise LunaError(RC_BAD_REQUEST, watched.error or watched.state,
                        f"job {watched.job_id} was not saved: {watched.detail or watched.state}")
    return output_of(watched)


def _cancel(luna, job_id):
    try:
        luna.client.cancel(job_id, _ASK_MS)
    except LunaError as error:
        _log.warning("%s", error)


# ---- the queue as values ------------------------------------------------------------------


class LunaQueueStatus:
    CATEGORY = "Luna/Image"
    DESCRIPTION = "How busy the Luna daemon is, as values for the workflow."
    FUNCTION = "ask"
    RETURN_TYPES = ("INT", "INT", "FLOAT", "INT", "BOOLEAN")
    RETURN_NAMES = ("pending", "in_progress", "oldest_s", "decoders", "available")
    OUTPUT_NODE = True
    SEARCH_ALIASES = ["luna", "queue depth"]

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {},
                "optional": {"after": ("STRING", {
                    "forceInput": True,
                    "tooltip": "A job id: asked when that job has been handed over."})}}

    @classmethod
    def IS_CHANGED(cls, **_inputs):
        return float("nan")

    def ask(self, after=None):
        client, status = session().client, {}
        if session().available():
            try:
                status = client.status(_ASK_MS)
            except LunaError as error:
                _log.warning("%s", error)
        values = (status.get("pending", 0), status.get("in_progress", 0),
                  status.get("oldest_ms", 0) / 1000, status.get("decoders", 0), bool(status))
        told = (f"{values[0]} waiting, {values[1]} being decoded, {values[3]} decoders"
                if status else f"no broker answers at {client.endpoint}")
        return {"ui": {"text": [told]}, "result": values}
