"""The fallback: pictures decoded by ComfyUI's own VAE and saved as the daemon would.

Names, formats and texts are the daemon's (names.py, picture_texts.py). Pixels are
truncated to bytes (with png_bits 16 to two) as ComfyUI and the daemon do. Runs on the
executor's thread, where ComfyUI may use its GPU; Pillow and NumPy are ComfyUI's own.
"""

import importlib
import io
import json
import logging
import os
import time

from . import parts
from . import picture_texts
from . import png16
from .names import SIDECAR_END, TRIES, Name

_log = logging.getLogger("luna")


def save_here(job, vae, output_dir, check_interrupt):
    """Decodes and saves every image of the job; the paths, in order."""
    now = time.localtime()
    paths = []
    for one in job.inputs:
        for index, pixels in enumerate(_decode(vae, one.tensor, one.settings["png_bits"])):
            check_interrupt()
            paths.append(_save(job, one, index, pixels, output_dir, now))
    return paths


def _decode(vae, samples, bits):
    """uint8 or uint16 [height, width, channels] of each image."""
    import numpy

    pictures = vae.decode(samples)
    if len(pictures.shape) == 5:  # of a video model: batch, frames, ...
        pictures = pictures.reshape(-1, *pictures.shape[-3:])
    for picture in pictures:
        top = (1 << bits) - 1
        values = float(top) * picture.float().cpu().numpy()
        yield numpy.clip(numpy.nan_to_num(values), 0, top).astype(f"uint{bits}")


def _seed(settings):
    metadata = json.loads(settings.get("metadata") or "{}")
    return str(metadata["seed"]) if "seed" in metadata else None


def _save(job, one, index, pixels, output_dir, now):
    height, width = pixels.shape[:2]
    discarded = rejects(job.settings, pixels)
    settings = {**job.settings, "seed": _seed(job.settings)}
    name = Name(settings, one, index, width, height, now, discarded)
    embed, beside = job.settings.get("embed_workflow", 1), job.settings.get("sidecar")
    size = (width, height)
    texts = picture_texts.texts_of(job, one, index, size, now) if embed or beside else {}
    folder = os.path.join(output_dir, name.folder)
    os.makedirs(folder, exist_ok=True)
    data = _encode(pixels, one.settings, texts if embed else {})
    return _publish(folder, name, data, picture_texts.sidecar(texts) if beside else None)


# ---- the quality gate -------------------------------------------------------------------


def rejects(settings, pixels):
    """Whether the gate sorts the picture out (decoder/image/quality.h has the measures). Of 16
    bits the upper 8 count."""
    gate = settings.get("quality_gate", "disabled")
    if gate == "disabled":
        return False
    import numpy

    pixels = pixels >> 8 * (pixels.itemsize - 1)
    luma = pixels[..., :3].astype(numpy.float64) @ numpy.array([0.299, 0.587, 0.114])
    variance = min(1.0, luma.var() / 3000)
    steps = [numpy.abs(numpy.diff(luma, axis=axis)) for axis in (0, 1)]
    edges = min(1.0, sum(step.mean() if step.size else 0.0 for step in steps) / 2 / 255 / 0.05)
    measures = {"variance": [variance], "edge_density": [edges], "both": [variance, edges]}
    return any(value < settings.get("min_quality", 0.3) for value in measures[gate])


# ---- files ------------------------------------------------------------------------------


def _encode(pixels, settings, texts):
    from PIL import Image

    if pixels.itemsize == 2:
        return png16.encode(pixels, settings["png_compression"], picture_texts.png_chunks(texts))
    image, out = Image.fromarray(pixels), io.BytesIO()
    if settings["format"] == "png":
        image.save(out, "PNG", compress_level=settings["png_compression"],
                   pnginfo=picture_texts.for_png(texts))
    elif settings["format"] == "webp":
        image.save(out, "WEBP", quality=settings["lossy_quality"],
                   lossless=bool(settings["lossless_webp"]), **picture_texts.for_webp(texts))
    elif settings["format"] in ("avif", "jxl"):
        _encode_newer(image, out, settings, texts)
    else:
        image.convert("RGB").save(out, "JPEG", quality=settings["lossy_quality"],
                                  **picture_texts.for_jpeg(texts))
    return out.getvalue()


def _encode_newer(image, out, settings, texts):
    """Newer Pillows write AVIF; JPEG XL, and AVIF in older ones, are plugins."""
    from PIL import Image

    form, plugin = {"avif": ("AVIF", "pillow_avif"), "jxl": ("JXL", "pillow_jxl")}[
        settings["format"]]
    Image.init()
    if form not in Image.SAVE:
        try:
            importlib.import_module(plugin)
        except ImportError:
            raise ValueError(f"Luna: this ComfyUI's Pillow writes no {form}; install "
                             f"{plugin.replace('_', '-')}-plugin, or choose webp") from None
    lossless = {"lossless": True} if form == "JXL" and settings["lossless_webp"] else {}
    image.save(out, form, quality=settings["lossy_quality"], **lossless,
               **picture_texts.for_webp(texts))


def _publish(folder, name, data, beside):
    """Writes the file under the first name that is free, and what comes beside it; never over
    another."""
    with parts.part(folder, data) as part:
        path = _link(part, folder, name, beside)
    if beside is not None:
        with parts.part(folder, beside) as part:
            _give_name(part, path + SIDECAR_END)
    return path


def _link(part, folder, name, beside):
    for k in range(TRIES):
        path = os.path.join(folder, name.candidate(k))
        if beside is not None and os.path.lexists(path + SIDECAR_END):
            continue
        try:
            _give_name(part, path)
            return path
        except FileExistsError:
            continue
    raise OSError(f"Luna: {folder} has no free name like {name.candidate(0)}")


def _give_name(part, path):
    """FileExistsError when there is a file of this name."""
    if os.name == "nt":
        os.rename(part, path)  # which fails on Windows when the name is taken
    else:
        os.link(part, path)
