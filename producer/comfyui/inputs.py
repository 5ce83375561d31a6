"""The inputs of the node "Luna Multi Saver (Daemon Async)": names, types, defaults, hints."""

from . import heatmaps, host
from .luna_client import INPUTS_MAX

AFFIXES = ("ORIG", "UPSCALED", "DETAILED", "FINAL", "IMAGE5")
NO_SAVE = "no save"
FORMATS = ["png", "webp", "jpeg", "avif", "jxl", NO_SAVE]
SAVE_MODES = ["daemon"]  # the wire has database_store too, which luna-decoder does not offer
QUALITY_GATES = ["disabled", "variance", "edge_density", "both"]
DECODE_HERE, SPOOL, FAIL = WHEN_DOWN = ["decode_here", "spool", "fail"]
DETACH, WAIT = MODES = ["detach", "wait"]

REQUIRED = {
    "vae_name": (None, {
        "default": "auto",
        "tooltip": "Which VAE the daemon decodes with: one it knows, or auto. A file of ComfyUI "
                   "works when its folder is one of the daemon's [vae] roots."}),
    "save_path": ("STRING", {
        "default": "",
        "tooltip": "Folders below the output folder, made when needed. Knows %model_path%, "
                   "%model_name%, %model_dir%, %index%, %seed%, %batch%, %width%, %height%, "
                   "%time:YYYY-mm-dd%, %date:yyyy-MM-dd% and %Node.widget%. Empty: the output "
                   "folder itself."}),
    "filename": ("STRING", {
        "default": "%time:YYYY_mm_dd.HH.MM.SS%_%model_name%",
        "tooltip": "Name without ending; the same words, and %counter%. The affix is added. No "
                   "file is ever overwritten: a counter is added."}),
    "save_mode": (SAVE_MODES, {
        "advanced": True, "default": "daemon", "tooltip": "daemon: files."}),
    "quality_gate": (QUALITY_GATES, {
        "default": "disabled",
        "tooltip": "Puts empty (variance) or blurred (edge_density) pictures into _discarded."}),
    "min_quality_threshold": ("FLOAT", {
        "advanced": True, "default": 0.3, "min": 0.0, "max": 1.0, "step": 0.05,
        "tooltip": "The quality gate's threshold."}),
}

COMMON = {
    "model_name": ("STRING", {
        "default": "",
        "tooltip": "For %model_name% and the metadata. Empty: the name in `metadata`."}),
    "png_compression": ("INT", {
        "advanced": True, "default": 4, "min": 0, "max": 9,
        "tooltip": "0 is fast and large, 9 slow and small; the picture is the same."}),
    "lossy_quality": ("INT", {
        "default": 90, "min": 70, "max": 100, "tooltip": "Of all but PNG."}),
    "lossless_webp": ("BOOLEAN", {
        "advanced": True, "default": False, "label_on": "Lossless", "label_off": "Lossy",
        "tooltip": "Of WebP and JPEG XL."}),
    "embed_workflow": ("BOOLEAN", {
        "default": True, "label_on": "Embed", "label_off": "Skip",
        "tooltip": "Skip: nothing but the picture in the file."}),
    "filename_index": ("INT", {
        "advanced": True, "default": 0, "min": 0, "max": 2**53 - 1, "tooltip": "For %index%."}),
    "custom_metadata": ("STRING", {
        "advanced": True, "default": "", "multiline": True,
        "tooltip": "Free text that is kept in the picture."}),
    "metadata": ("METADATA", {
        "tooltip": "Generation data (a dict) that is kept in the picture and the database."}),
    "priority": ("INT", {
        "advanced": True, "default": 5, "min": 0, "max": 9, "tooltip": "9 is most urgent."}),
    "mode": (MODES, {
        "default": DETACH,
        "tooltip": "detach: return at once. wait: until the files are saved, for scripts that "
                   "read them from the prompt's result."}),
    "on_daemon_down": (WHEN_DOWN, {
        "default": SPOOL,
        "tooltip": "spool: keep the job on this disk and send it when the daemon is back. "
                   "decode_here: use the connected VAE, now. fail: stop with an error."}),
    "vae": ("VAE", {
        "lazy": True,
        "tooltip": "Only for decode_here, and only loaded when the daemon is down."}),
}


HEATMAPS = {
    **{heatmaps.name_of(prompt, variant): ("HEATMAP,DAAM_HEATMAPS", {
        "tooltip": f"DAAM: where the model looked for the words of the {prompt} prompt. Kept in "
                   "the picture as daam_heatmaps."})
       for prompt, variant in heatmaps.SETS},
    **{f"{short}_tokens": ("TOKENS", {
        "tooltip": "The tokens of these heatmaps: they get their words, and the padding is left "
                   "out."}) for short in ("pos", "neg")},
}

# The last ones: a workflow has its widgets' values by their places, so new ones go behind all.
LAST = {
    "png_bits": ([8, 16], {
        "advanced": True, "default": 8,
        "tooltip": "Bits a channel, of PNG only. 16 keep what the VAE made beyond the 256 levels "
                   "of a picture, in files several times the size."}),
    "sidecar": ("BOOLEAN", {
        "advanced": True, "default": False, "label_on": "JSON", "label_off": "None",
        "tooltip": "JSON: a file NAME.json beside each picture NAME with all of its texts, also "
                   "where embed_workflow keeps them out of the picture."}),
    "parameters": ("BOOLEAN", {
        "advanced": True, "default": False, "label_on": "Add", "label_off": "None",
        "tooltip": "Add: also the text that AUTOMATIC1111 writes, for Civitai and indexers. It is "
                   "made of `metadata`, which must be connected."}),
}


def of_latent(number):
    """latent_N, affix_N, format_N, subdir_N: one row of the node. Newer pages fold the rows
    behind the first away."""
    folded = {"advanced": True} if number > 1 else {}
    return {
        f"latent_{number}": ("LATENT", {"tooltip": "Sampled latents, undecoded."}),
        f"affix_{number}": ("STRING", {
            "default": AFFIXES[number - 1], **folded,
            "tooltip": "Part of the names, and a folder of its own; empty for none."}),
        f"format_{number}": (FORMATS, {
            "default": "webp", **folded, "tooltip": "no save: this input is passed over."}),
        f"subdir_{number}": ("BOOLEAN", {
            "default": True, "label_on": "Subdir", "label_off": "Root", **folded,
            "tooltip": "Subdir: in a folder named after the affix."}),
    }


def input_types(daemon_vaes):
    """INPUT_TYPES of the node; `daemon_vaes` are the names that the daemon knows."""
    first = of_latent(1)
    latent_1 = {"latent_1": first.pop("latent_1")}
    optional = dict(first)
    for number in range(2, INPUTS_MAX + 1):
        optional.update(of_latent(number))
    names = list(dict.fromkeys(["auto", *daemon_vaes, *host.model_files()]))
    required = {**REQUIRED, "vae_name": (names, REQUIRED["vae_name"][1])}
    return {"required": {**latent_1, **required},
            "optional": {**optional, **COMMON, **HEATMAPS, **LAST},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO",
                       "unique_id": "UNIQUE_ID"}}


def defaults():
    """{name: default} of every widget."""
    types = {**REQUIRED, **COMMON, **LAST}
    for number in range(1, INPUTS_MAX + 1):
        types.update(of_latent(number))
    return {name: options["default"] for name, (_, options) in types.items()
            if "default" in options}


DEFAULTS = defaults()
