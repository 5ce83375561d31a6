"""The fallback: pictures decoded by ComfyUI's own VAE and saved as the daemon would.

Names, formats and texts are the daemon's (names.py; decoder/worker/metadata.h). Pixels are
truncated to bytes as ComfyUI and the daemon do. Runs on the executor's thread, where ComfyUI
may use its GPU; Pillow and NumPy are ComfyUI's own.
"""

import io
import json
import logging
import os
import re
import time

from .names import TRIES, Name

_KEYWORD = re.compile(r"(?! )(?!.* {2})[\x20-\x7e]{1,79}(?<! )\Z")
_EXIF_PROMPT, _EXIF_WORKFLOW = 0x0110, 0x010F  # Model and Make, as ComfyUI reads them back
_EXIF_USER_COMMENT, _EXIF_IFD = 0x9286, 0x8769
_JPEG_EXIF_BYTES = 65_000  # a segment ends at 64 KiB

_log = logging.getLogger("luna")


def save_here(job, vae, output_dir, check_interrupt):
    """Decodes and saves every image of the job; the paths, in order."""
    if job.settings.get("save_mode") == "database_store":
        _log.warning("Luna: the daemon is away: these pictures are saved, but not recorded in "
                     "the database")
    now = time.localtime()
    paths = []
    for one in job.inputs:
        for index, pixels in enumerate(_decode(vae, one.tensor)):
            check_interrupt()
            paths.append(_save(job, one, index, pixels, output_dir, now))
    return paths


def _decode(vae, samples):
    """uint8 [height, width, channels] of each image."""
    import numpy

    pictures = vae.decode(samples)
    if len(pictures.shape) == 5:  # of a video model: batch, frames, ...
        pictures = pictures.reshape(-1, *pictures.shape[-3:])
    for picture in pictures:
        values = 255.0 * picture.float().cpu().numpy()
        yield numpy.clip(numpy.nan_to_num(values), 0, 255).astype(numpy.uint8)


def _save(job, one, index, pixels, output_dir, now):
    height, width = pixels.shape[:2]
    discarded = rejects(job.settings, pixels)
    settings = {**job.settings, "seed": _seed(job.settings)}
    name = Name(settings, one, index, width, height, now, discarded)
    texts = texts_of(job, one, index, now) if job.settings.get("embed_workflow", 1) else {}
    folder = os.path.join(output_dir, name.folder)
    os.makedirs(folder, exist_ok=True)
    return _publish(folder, name, _encode(pixels, one.settings, texts))


# ---- the quality gate -------------------------------------------------------------------


def rejects(settings, pixels):
    """Whether the gate sorts the picture out (decoder/image/quality.h has the measures)."""
    gate = settings.get("quality_gate", "disabled")
    if gate == "disabled":
        return False
    import numpy

    luma = pixels[..., :3].astype(numpy.float64) @ numpy.array([0.299, 0.587, 0.114])
    variance = min(1.0, luma.var() / 3000)
    steps = [numpy.abs(numpy.diff(luma, axis=axis)) for axis in (0, 1)]
    edges = min(1.0, sum(step.mean() if step.size else 0.0 for step in steps) / 2 / 255 / 0.05)
    measures = {"variance": [variance], "edge_density": [edges], "both": [variance, edges]}
    return any(value < settings.get("min_quality", 0.3) for value in measures[gate])


# ---- texts ------------------------------------------------------------------------------


def texts_of(job, one, index, now):
    """{keyword: text}: what the daemon puts into this picture, in its order."""
    settings = job.settings
    texts = {"prompt": settings.get("prompt"), "workflow": settings.get("workflow"), **job.extras}
    if settings.get("metadata"):
        texts["generation_metadata"] = settings["metadata"]
        for key, value in json.loads(settings["metadata"]).items():
            plain = value if isinstance(value, str) else json.dumps(value)
            texts.setdefault(f"gen_{key}", plain)
    more = {"image_type": one.settings.get("affix"), "model_name": settings.get("model_name"),
            "custom_metadata": settings.get("custom_metadata"),
            "save_timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", now) + _offset(now),
            "batch_index": str(index) if one.shape[0] > 1 else ""}
    for key, value in more.items():
        texts.setdefault(key, value)
    return {key: value for key, value in texts.items() if value and _is_fit(key, value)}


def _is_fit(key, value):
    fit = _KEYWORD.match(key) and "\0" not in value
    if not fit:
        _log.warning("Luna: the metadata %.80s is left out: no picture can hold it", key)
    return fit


def _offset(now):
    minutes = now.tm_gmtoff // 60
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _seed(settings):
    metadata = json.loads(settings.get("metadata") or "{}")
    return str(metadata["seed"]) if "seed" in metadata else None


# ---- files ------------------------------------------------------------------------------


def _encode(pixels, settings, texts):
    from PIL import Image

    image, out = Image.fromarray(pixels), io.BytesIO()
    if settings["format"] == "png":
        image.save(out, "PNG", compress_level=settings["png_compression"],
                   pnginfo=_png_texts(texts))
    elif settings["format"] == "webp":
        image.save(out, "WEBP", quality=settings["lossy_quality"],
                   lossless=bool(settings["lossless_webp"]), exif=_exif(texts))
    else:
        image.convert("RGB").save(out, "JPEG", quality=settings["lossy_quality"],
                                  exif=_small_exif(texts))
    return out.getvalue()


def _png_texts(texts):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in texts.items():
        if value.isascii():
            info.add(b"tEXt", key.encode() + b"\0" + value.encode())
        else:
            info.add_itxt(key, value)
    return info


def _exif(texts):
    """ComfyUI's own entries: prompt and workflow where its page finds them."""
    from PIL import Image

    exif, notes = Image.Exif(), {}
    for key, value in texts.items():
        tag = {"prompt": _EXIF_PROMPT, "workflow": _EXIF_WORKFLOW}.get(key)
        if tag:
            exif[tag] = f"{key}:{value}"
        else:
            notes[key] = value
    if notes:
        comment = json.dumps(notes, ensure_ascii=False).encode("utf-16-be")
        exif.get_ifd(_EXIF_IFD)[_EXIF_USER_COMMENT] = b"UNICODE\0" + comment
    return exif.tobytes()


def _small_exif(texts):
    """What fits in a JPEG: everything, else the workflow, else the prompt, else nothing."""
    for kept in (texts, ("workflow",), ("prompt",)):
        exif = _exif({key: texts[key] for key in kept if key in texts})
        if len(exif) <= _JPEG_EXIF_BYTES:
            return exif
        _log.warning("Luna: a JPEG holds 64 KiB of metadata; some is left out")
    return b""


def _publish(folder, name, data):
    """Writes the file under the first name that is free; never over another."""
    part = os.path.join(folder, f".luna-{os.getpid()}-{time.monotonic_ns()}.part")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return _link(part, folder, name)
    finally:
        if os.path.exists(part):
            os.unlink(part)


def _link(part, folder, name):
    for k in range(TRIES):
        path = os.path.join(folder, name.candidate(k))
        try:
            if os.name == "nt":
                os.rename(part, path)  # which fails on Windows when the name is taken
            else:
                os.link(part, path)
            return path
        except FileExistsError:
            continue
    raise OSError(f"Luna: {folder} has no free name like {name.candidate(0)}")
