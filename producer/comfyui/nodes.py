"""The node "Luna Multi Saver (Daemon Async)".

It hands latents and settings to libluna and returns in about a millisecond; a daemon
decodes and saves them, on another GPU or another machine. Nothing of torch is imported:
the tensors come as they are, and only their address, shape and dtype are used.
"""

import json
import os

from .luna_client import INPUTS_MAX, Extra, text
from .session import session

AFFIXES = ("ORIG", "UPSCALED", "DETAILED", "FINAL", "IMAGE5")
FORMATS = ["png"]
DTYPES = ("float32", "float16", "bfloat16")


# ---- tensors --------------------------------------------------------------------------


def latent_tensor(latent, label):
    """The samples as a contiguous CPU tensor of a dtype and shape that Luna takes."""
    samples = latent.get("samples") if isinstance(latent, dict) else None
    if samples is None:
        raise ValueError(f"Luna: {label} is not a LATENT: it has no samples")
    if getattr(samples, "is_nested", False) or not hasattr(samples, "data_ptr"):
        raise ValueError(f"Luna: {label} holds nested latents (of a video or audio model); Luna "
                         "saves pictures. Take the picture part out of it first")
    shape = tuple(samples.shape)
    if len(shape) == 5 and shape[2] != 1:
        raise ValueError(f"Luna: {label} is a video latent of {shape[2]} frames "
                         f"{list(shape)}; Luna saves pictures. Use a video saver for it")
    if len(shape) not in (4, 5):
        raise ValueError(f"Luna: {label} has shape {list(shape)}, not [batch, channels, height, "
                         "width]")
    samples = samples.detach()
    if dtype_name(samples) == "float64":
        samples = samples.float()
    if dtype_name(samples) not in DTYPES:
        raise ValueError(f"Luna: {label} is {dtype_name(samples)}; Luna takes "
                         f"{', '.join(DTYPES)}")
    samples = samples.cpu()
    return samples if samples.is_contiguous() else samples.contiguous()


def dtype_name(tensor):
    return str(tensor.dtype).rsplit(".", 1)[-1]


def fill_latent(target, tensor, affix, file_format, png_compression):
    """Points `target` to the tensor's own memory: the tensor must outlive the submit."""
    target.data = tensor.data_ptr()
    target.bytes = tensor.numel() * tensor.element_size()
    target.dtype = text(dtype_name(tensor))
    target.dims = len(tensor.shape)
    for axis, size in enumerate(tensor.shape):
        target.shape[axis] = size
    target.affix = text(affix)
    target.format = text(file_format)
    target.png_compression = png_compression


# ---- what ComfyUI knows ---------------------------------------------------------------


def metadata_disabled():
    from comfy.cli_args import args

    return bool(args.disable_metadata)


def output_directory():
    import folder_paths

    return os.fsencode(os.path.abspath(folder_paths.get_output_directory()))


def current_prompt_id():
    """ComfyUI's id of the running prompt, None where it has no server (tests, scripts)."""
    try:
        from server import PromptServer

        return PromptServer.instance.last_prompt_id
    except (ImportError, AttributeError):
        return None


def check_interrupt():
    """Raises ComfyUI's own exception when the user pressed Cancel."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
    except ImportError:
        return
    throw_exception_if_processing_interrupted()


# ---- the job --------------------------------------------------------------------------


def fill_workflow(submission, prompt, extra_pnginfo):
    """Serialised once, exactly as ComfyUI's own saver does; bytes from here on."""
    extra_pnginfo = extra_pnginfo or {}
    if prompt is not None:
        submission.prompt = text(json.dumps(prompt))
    if "workflow" in extra_pnginfo:
        submission.workflow = text(json.dumps(extra_pnginfo["workflow"]))
    others = [(key, value) for key, value in extra_pnginfo.items() if key != "workflow"]
    extras = (Extra * len(others))(
        *[Extra(text(key), text(json.dumps(value))) for key, value in others])
    submission.extras = extras
    submission.extra_count = len(others)


def fill_settings(submission, settings):
    submission.priority = settings["priority"]
    submission.vae = text(settings["vae_name"].strip() or "auto")
    submission.output_dir = output_directory()
    submission.save_path = text(settings["save_path"])
    submission.filename = text(settings["filename"])
    submission.model_name = text(settings["model_name"])
    submission.filename_index = settings["filename_index"]
    submission.prompt_id = text(current_prompt_id())


def fill_inputs(submission, settings):
    """The connected latents in order; their tensors, to be kept until the submit is over."""
    tensors = []
    for number in range(1, INPUTS_MAX + 1):
        latent = settings.get(f"latent_{number}")
        if latent is None:
            continue
        tensor = latent_tensor(latent, f"latent_{number}")
        fill_latent(submission.inputs[len(tensors)], tensor,
                    settings.get(f"affix_{number}", AFFIXES[number - 1]),
                    settings.get(f"format_{number}", FORMATS[0]), settings["png_compression"])
        tensors.append(tensor)
    submission.input_count = len(tensors)
    return tensors


def input_types(number):
    """latent_N, affix_N, format_N: one row of the node."""
    return {
        f"latent_{number}": ("LATENT", {"tooltip": "The sampled latents, undecoded."}),
        f"affix_{number}": ("STRING", {
            "default": AFFIXES[number - 1],
            "tooltip": "Part of the names, and a folder of its own; empty for none."}),
        f"format_{number}": (FORMATS, {"default": FORMATS[0]}),
    }


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
        optional = {}
        for number in range(2, INPUTS_MAX + 1):
            optional.update(input_types(number))
        return {
            "required": {
                **input_types(1),
                "save_path": ("STRING", {
                    "default": "%model_name%",
                    "tooltip": "Folders below ComfyUI's output folder. Knows %model_path%, "
                               "%model_name%, %model_dir%, %index% and %time:YYYY-mm-dd%."}),
                "filename": ("STRING", {
                    "default": "luna_%time:YYYY-mm-dd_HHMMSS%",
                    "tooltip": "Name without ending; the same words. No file is ever "
                               "overwritten: a counter is added."}),
                "vae_name": ("STRING", {
                    "default": "auto",
                    "tooltip": "A VAE of the daemon by name, a file below its VAE folders, or "
                               "auto."}),
                "model_name": ("STRING", {"default": ""}),
                "filename_index": ("INT", {"default": 0, "min": 0, "max": 2**53 - 1}),
                "png_compression": ("INT", {
                    "default": 4, "min": 0, "max": 9,
                    "tooltip": "0 is fast and large, 9 slow and small; the picture is the same."}),
                "embed_workflow": ("BOOLEAN", {
                    "default": True,
                    "tooltip": "Off: nothing but the picture in the file."}),
                "custom_metadata": ("STRING", {"default": "", "multiline": True}),
                "priority": ("INT", {
                    "default": 5, "min": 0, "max": 9, "tooltip": "9 is most urgent."}),
            },
            "optional": optional,
            "hidden": {
                "prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO", "unique_id": "UNIQUE_ID"},
        }

    def submit(self, latent_1, embed_workflow=True, custom_metadata="", prompt=None,
               extra_pnginfo=None, unique_id=None, **settings):
        luna = session()
        submission = luna.client.new_submission()
        settings = {**self._defaults(), **settings, "latent_1": latent_1}
        fill_settings(submission, settings)
        tensors = fill_inputs(submission, settings)
        submission.embed_workflow = embed_workflow and not metadata_disabled()
        if submission.embed_workflow:
            submission.custom_metadata = text(custom_metadata or None)
            fill_workflow(submission, prompt, extra_pnginfo)
        job_id = luna.submit(submission, check_interrupt)
        del tensors  # borrowed by the submission until here
        return {"ui": {"text": [f"Luna job {job_id}"]}, "result": (latent_1, job_id)}

    @classmethod
    def _defaults(cls):
        required = cls.INPUT_TYPES()["required"]
        return {name: spec[1]["default"] for name, spec in required.items()
                if "default" in spec[1]}
