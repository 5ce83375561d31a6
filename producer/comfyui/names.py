"""The names of pictures that are decoded here: the same as the daemon's (decoder/sink/name.h).

    <save_path>/[_discarded/]<affix, if subdir>/<filename>_<affix>[_<index>].<ext>

The tests compare both, name by name.
"""

import re
import time

EXTENSIONS = {"png": "png", "webp": "webp", "jpeg": "jpg"}
TRIES = 99999
DISCARDED = "_discarded"
DEFAULT_FILENAME = "luna_%time:YYYY-mm-dd_HHMMSS%"
PART_BYTES = 254
SIDECAR_END = ".json"

_COUNTER = "\x01"  # stands for %counter% until a number is tried
_MODEL_ENDS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
_TIME = re.compile("YYYY|mm|dd|HH|MM|SS")
_REFUSED = re.compile('[\x00\x02-\x1f\x7f-\x9f<>:"|?*/\\\\]')
_UP = re.compile(r"\.{2,}[. ]*\Z")
_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9\u00b9\u00b2\u00b3])"
                     r" *(\.|\Z)", re.IGNORECASE)


class Name:
    """One picture's name: `folder` below the output folder, and the files to try in turn."""

    def __init__(self, settings, one, index, width, height, now, discarded=False):
        self._words = _Words(settings, index, width, height, now)
        affix = _flat(one.settings.get("affix") or "")
        folders = _folders(self._expand(settings.get("save_path") or ""))
        folders += [DISCARDED] if discarded else []
        folders += [_part(affix)] if one.settings.get("subdir", 1) and affix else []
        template = settings.get("filename") or ""
        filename = self._expand(template, counter=True) or self._expand(DEFAULT_FILENAME)
        *more, base = filename.split("/")
        self.folder = "/".join(folders + _folders("/".join(more)))
        numbered = one.shape[0] > 1 and "%batch%" not in template
        stem = base + (f"_{affix}" if affix else "") + (f"_{index}" if numbered else "")
        if _UP.match(base):
            raise ValueError('Luna: a template gives ".."; images stay below the output folder')
        self.stem = _part(stem)
        self.extension = EXTENSIONS[one.settings["format"]]
        behind = 7 + len(self.extension) + (len(SIDECAR_END) if settings.get("sidecar") else 0)
        if len(self.stem.encode()) + behind > PART_BYTES:
            raise ValueError(f"Luna: the file name {self.stem[:60]}... is too long")

    def candidate(self, k):
        """The k-th file name to try."""
        if _COUNTER in self.stem:
            return f"{self.stem.replace(_COUNTER, f'{k + 1:05}')}.{self.extension}"
        return f"{self.stem}.{self.extension}" if k == 0 else (
            f"{self.stem}_{k:05}.{self.extension}")

    def _expand(self, template, counter=False):
        text = self._words.fill(template, counter).replace("\\", "/").rstrip("/")
        if text.startswith("/") or re.match("[A-Za-z]:", text):
            raise ValueError(f'Luna: the template gives "{text[:100]}", a path from the root; '
                             "give one below the output folder")
        return text


def model_path(name):
    """The model's name with its folders, without its extension."""
    model = (name or "").replace("\\", "/").strip("/")
    ends = [end for end in _MODEL_ENDS if model.lower().endswith(end)]
    return model[:-len(ends[0])] if ends else model


class _Words:
    """What the words of the templates stand for."""

    def __init__(self, settings, index, width, height, now):
        path = model_path(settings.get("model_name"))
        self.plain = {
            "model_path": path, "model_name": path.rpartition("/")[2] or "UnknownModel",
            "model_dir": path.rpartition("/")[0], "index": str(settings.get("filename_index", 0)),
            "batch": str(index), "width": str(width), "height": str(height),
            "seed": settings.get("seed") or "UnknownSeed"}
        self.now = now

    def fill(self, template, counter):
        """Each word once: what it brings in is never read as a template again."""
        done, rest = "", template.replace(_COUNTER, "_")
        while rest:
            before, percent, after = rest.partition("%")
            word, end, behind = after.partition("%")
            value = self._value(word, counter) if end else None
            done += before
            if value is not None:
                done, rest = done + value, behind
            else:
                done, rest = done + percent, after
        return done

    def _value(self, word, counter):
        if word.startswith("time:") and word != "time:":
            return _time(word[len("time:"):], self.now)
        if word == "counter" and counter:
            return _COUNTER
        return self.plain.get(word)


def _time(form, now):
    parts = {"YYYY": "%Y", "mm": "%m", "dd": "%d", "HH": "%H", "MM": "%M", "SS": "%S"}
    return _TIME.sub(lambda match: time.strftime(parts[match.group(0)], now), form)


def _folders(path):
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if any(_UP.match(part) for part in parts):
        raise ValueError('Luna: a template gives ".."; images stay below the output folder')
    return [_part(part) for part in parts]


def _flat(affix):
    """An affix is one part: it makes no folders of its own."""
    flat = affix.replace("/", "_").replace("\\", "_")
    return "_" + flat[1:] if _UP.match(flat) else flat


def _part(part):
    """A name that Linux and Windows both take."""
    if part == ".":
        return ""
    part = _REFUSED.sub("_", part)
    if part.startswith("."):
        part = "_" + part[1:]
    bare = part.rstrip(". ")
    part = bare + "_" * (len(part) - len(bare))
    if len(part.encode()) > PART_BYTES - 1:
        raise ValueError(f"Luna: the name {part[:60]}... is too long")
    return "_" + part if _DEVICE.match(part) else part
