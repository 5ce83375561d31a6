"""Attention heatmaps (DAAM): reduced to one map a token here, before the job leaves.

What samplers give is one map for every step, layer and token, gigabytes of them; what the
daemon takes is [images, tokens, height, width] in float32, with the tokens' texts. Read are

    HEATMAP of comfyui-daam   [step]{image: {factor: [layer (tokens, 1, height, width)]}}: the
                              mean over the layers of a factor, summed over factors and steps
    DAAM_HEATMAPS             {"positive", "negative", "pos_tokens", "neg_tokens"} of such, or
                              of {tag: map}
    a tensor                  [tokens, height, width] or [images, tokens, height, width]

and TOKENS, either texts or what CLIP's tokenizer makes of a prompt, of which the words are
kept and the padding is not. NumPy is ComfyUI's own.
"""

import logging

from . import host
from .luna_client import TOKENS_MAX

IMAGE_BYTES = 32 << 20  # of one image in all sets: the wire's limit
JOB_BYTES = 128 << 20  # of all images: half of what a broker takes by default
TEXT_BYTES = 1024
SIDE = 1024

SETS = [(prompt, variant) for variant in ("original", "modified")
        for prompt in ("positive", "negative")]
_SHORT = {"positive": "pos", "negative": "neg"}
_START, _END = 49406, 49407  # of CLIP's vocabulary
_CLIP = ("l", "g")

_log = logging.getLogger("luna")


class Heatmaps:
    """One set: `maps` [N, T, H, W] float32, contiguous; `tokens` are T (text, index)."""

    def __init__(self, prompt, variant, tokens, maps):
        self.prompt, self.variant, self.tokens, self.maps = prompt, variant, tokens, maps


def name_of(prompt, variant):
    """The node's input of a set: pos_heatmaps_original and so on."""
    return f"{_SHORT[prompt]}_heatmaps_{variant}"


def collect(settings):
    """(the connected sets as Heatmaps, what was left out: sentences). No picture is lost over
    its heatmaps: what cannot be read, or is too large, is left out."""
    found, left_out = [], []
    for prompt, variant in SETS:
        value = settings.get(name_of(prompt, variant))
        if value is None:
            continue
        try:
            made = _set(prompt, variant, value, settings.get(f"{_SHORT[prompt]}_tokens"))
            found += [made] if made and _fits(found + [made]) else []
        except (ValueError, TypeError, KeyError, AttributeError, IndexError,
                RuntimeError) as error:
            why = error if isinstance(error, ValueError) else (
                f"it has no form that Luna knows ({type(error).__name__}: {error})")
            left_out.append(f"{name_of(prompt, variant)} is left out: {why}")
            _log.warning("Luna: %s", left_out[-1])
    return found, left_out


def _fits(sets):
    if max(sets[-1].maps.shape[2:]) > SIDE:
        raise ValueError(f"its maps have the size {list(sets[-1].maps.shape[2:])}, at most "
                         f"{SIDE} a side go")
    of_image = sum(one.maps[0].nbytes for one in sets)
    of_job = sum(one.maps.nbytes for one in sets)
    for count, limit, what in ((of_image, IMAGE_BYTES, "an image"), (of_job, JOB_BYTES, "a job")):
        if count > limit:
            raise ValueError(f"the heatmaps of {what} would have {count >> 20} MiB, at most "
                             f"{limit >> 20} go")
    return True


def _set(prompt, variant, value, tokens):
    if isinstance(value, dict) and not {"positive", "negative"}.isdisjoint(value):
        if tokens is None:
            tokens = value.get(f"{_SHORT[prompt]}_tokens")
        value = value.get(prompt)
    if isinstance(value, dict):
        tokens = list(value) if tokens is None else tokens
        value = _stack([_array(one) for one in value.values()])
    maps = _maps(value)
    if maps is None:
        return None
    words = _words(tokens, maps.shape[1])
    if len(words) != maps.shape[1]:
        maps = maps[:, [index for _, index in words]]
    if not words:
        return None
    import numpy

    return Heatmaps(prompt, variant, words, numpy.ascontiguousarray(maps, numpy.float32))


# ---- maps -------------------------------------------------------------------------------


def _array(tensor):
    """float32, on the CPU."""
    import numpy

    if hasattr(tensor, "detach"):
        tensor = tensor.detach().float().cpu().numpy()
    return numpy.asarray(tensor, numpy.float32)


def _stack(arrays):
    import numpy

    if len({array.shape for array in arrays}) > 1:
        raise ValueError("they are of different sizes: "
                         f"{sorted({array.shape for array in arrays})}")
    return numpy.stack(arrays) if arrays else None


def _maps(value):
    """[N, T, H, W], or None where there is nothing."""
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return None
    maps = _reduced(value) if isinstance(value, (list, tuple)) else _array(value)
    if maps is not None and maps.ndim == 3:
        maps = maps[None]
    if maps is not None and (maps.ndim != 4 or 0 in maps.shape):
        raise ValueError(f"their shape is {list(maps.shape)}; Luna takes [tokens, "
                         "height, width] or [images, tokens, height, width]")
    return maps


def _reduced(steps):
    images = {}
    for step in steps:
        for image, factors in step.items():
            for layers in factors.values():
                _add(images, image, layers)
    if sorted(images) != list(range(len(images))):
        raise ValueError(f"of the batch there are only the images {sorted(images)}")
    return _stack([images[image] for image in sorted(images)])


def _add(images, image, layers):
    """Adds the mean of the layers to the image's sum; each map is read once."""
    if not layers:
        return
    total = _array(layers[0]).copy()
    for layer in layers[1:]:
        total += _same(_array(layer), total)
    total /= len(layers)
    total = total.reshape(total.shape[0], *total.shape[-2:])
    if image in images:
        images[image] += _same(total, images[image])
    else:
        images[image] = total


def _same(array, other):
    if array.shape != other.shape:
        _stack([array, other])
    return array


# ---- tokens -----------------------------------------------------------------------------


def _words(tokens, count):
    """(text, index) of the maps to keep, in their order."""
    if isinstance(tokens, dict):
        words = _words_of_clip(tokens, count)
    elif tokens:
        words = [(str(text), index) for index, text in enumerate(tokens)]
        if len(words) != count:
            raise ValueError(f"there are {len(words)} tokens and {count} maps")
    else:
        words = [("", index) for index in range(count)]
    if len(words) > TOKENS_MAX:
        raise ValueError(f"they are of {len(words)} tokens; at most {TOKENS_MAX} go")
    return [(_short(text), index) for text, index in words]


def _short(text):
    """A text that the wire takes."""
    text = text.replace("\0", " ").encode(errors="replace")
    return text[:TEXT_BYTES].decode(errors="ignore")


def _words_of_clip(tokens, count):
    """What stands between the start and the first end of each chunk of 77; all where the
    tokens are of another encoder."""
    for name in _CLIP:
        chunks = tokens.get(name)
        if chunks and sum(map(len, chunks)) == count:
            break
    else:
        return [("", index) for index in range(count)]
    words, first = [], 0
    for chunk in chunks:
        ids = [token[0] if isinstance(token[0], int) else None for token in chunk]
        end = ids.index(_END, 1) if _END in ids[1:] else len(ids)
        words += [(host.clip_word(ids[at]), first + at)
                  for at in range(int(ids[0] == _START), end)]
        first += len(chunk)
    return words
