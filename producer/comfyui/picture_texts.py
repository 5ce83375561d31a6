"""The texts of a picture that is decoded here, and where each format keeps them.

Which: decoder/worker/metadata.h. Where: as the daemon's files have them.
    PNG    each in a tEXt chunk, or iTXt where it is not ASCII
    WebP   EXIF as ComfyUI reads it back: "keyword:text" in Model for the prompt, in Make for
           the workflow, in the tags below for the other JSON; `parameters` in the UserComment;
           the other texts in XMP
    JPEG   the same, and the prompt once more as {"prompt":...} in a UserComment of IFD0;
           what does not fit into 64 KiB is left out
"""

import base64
import gzip
import json
import logging
import re
import time

from . import parameters
from .names import model_path

_KEYWORD = re.compile(r"(?! )(?!.* {2})[\x20-\x7e]{1,79}(?<! )\Z")
_MODEL, _MAKE, _COMMENT, _EXIF_IFD = 0x0110, 0x010F, 0x9286, 0x8769
_FURTHER = (0x010E, 0x010D, *range(0xFE80, 0x10000))
_SEGMENT_BYTES = 65_000  # a JPEG's end at 64 KiB
_XML_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*\\Z")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_XMP_HEAD = ('<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
             '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
             '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
             '<rdf:Description rdf:about="" xmlns:luna="urn:luna:image:1">\n')
_XMP_TAIL = "</rdf:Description>\n</rdf:RDF>\n</x:xmpmeta>\n"
_XMP_END = '<?xpacket end="r"?>'
_XMP_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0"

_log = logging.getLogger("luna")


HEATMAPS = "daam_heatmaps"  # the largest text, left out first where room is short
PARAMETERS = "parameters"  # AUTOMATIC1111's


class Texts(dict):
    """{keyword: text}; `graphs` are the keywords of ComfyUI's own JSON."""

    graphs = frozenset()


# ---- which ------------------------------------------------------------------------------


def texts_of(job, one, index, size, now):
    """What the daemon puts into this picture of (width, height), in its order."""
    settings = job.settings
    texts = Texts(prompt=settings.get("prompt"), workflow=settings.get("workflow"), **job.extras)
    texts.graphs = set(texts) - {PARAMETERS}
    if settings.get("parameters"):
        texts.setdefault(PARAMETERS, parameters.text_of(settings.get("metadata"), *size))
    if settings.get("metadata"):
        texts["generation_metadata"] = settings["metadata"]
        for key, value in json.loads(settings["metadata"]).items():
            plain = value if isinstance(value, str) else json.dumps(value)
            texts.setdefault(f"gen_{key}", plain)
    path = model_path(settings.get("model_name"))
    more = {"image_type": one.settings.get("affix"), "model_name": path.rpartition("/")[2],
            "model_path": path, "custom_metadata": settings.get("custom_metadata"),
            "save_timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", now) + _offset(now),
            "batch_index": str(index), HEATMAPS: heatmaps_text(job.heatmaps, index)}
    for key, value in more.items():
        texts.setdefault(key, value)
    for key in [key for key, value in texts.items() if not value or not _is_fit(key, value)]:
        del texts[key]
    return texts


def _is_fit(key, value):
    fit = _KEYWORD.match(key) and "\0" not in value
    if not fit:
        _log.warning("Luna: the metadata %.80s is left out: no picture can hold it", key)
    return fit


def _offset(now):
    minutes = now.tm_gmtoff // 60
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


# ---- heatmaps ---------------------------------------------------------------------------


def heatmaps_text(sets, index):
    """The image's heatmaps as decoder/worker/heatmaps.h writes them; None for none."""
    lists = {one.prompt + ("_modified" if one.variant == "modified" else ""):
             _list_of(one, one.maps[0 if len(one.maps) == 1 else index])
             for one in sets if len(one.maps) == 1 or index < len(one.maps)}
    encoding = "base64 of gzip of float32, little-endian, rows from the top"
    return json.dumps({"encoding": encoding, **lists}, ensure_ascii=False) if lists else None


def _list_of(one, maps):
    import numpy

    finite = [bool(numpy.isfinite(values).all()) for values in maps]
    if not all(finite):
        _log.warning("Luna: heatmaps that hold a NaN or an infinity are left out: %s",
                     [token for token, fit in zip(one.tokens, finite) if not fit])
    return [_map_of(token, values) for token, values, fit in zip(one.tokens, maps, finite) if fit]


def _map_of(token, values):
    import numpy

    height, width = values.shape
    covered = numpy.argwhere((values >= values.max() / 2) & (values.max() > 0))
    (top, left), (bottom, right) = ((covered.min(0), covered.max(0) + 1) if len(covered)
                                    else ((0, 0), (0, 0)))
    return {"token": token[0], "token_index": token[1], "width": width, "height": height,
            "max_attention": _nine(values.max()), "mean_attention": _nine(values.mean(dtype=float)),
            "total_attention": _nine(values.sum(dtype=float)),
            "coverage_area": _nine(len(covered) / values.size),
            "bbox": [int(left), int(top), int(right - left), int(bottom - top)],
            "heatmap": base64.b64encode(gzip.compress(values.tobytes(), 6, mtime=0)).decode()}


def _nine(value):
    """A number of nine digits, as the daemon writes it."""
    return float(f"{value:.9g}")


# ---- the file beside a picture ------------------------------------------------------------


def sidecar(texts):
    """What luna_metadata_json makes of them."""
    members = [f"  {json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
               for key, value in texts.items()]
    return ("{\n" + ",\n".join(members) + "\n}\n" if members else "{ }\n").encode()


# ---- PNG --------------------------------------------------------------------------------


def png_chunks(texts):
    """[(kind, bytes)]; an iTXt is not compressed and names no language."""
    return [(b"tEXt", key.encode() + b"\0" + value.encode()) if value.isascii() else
            (b"iTXt", key.encode() + bytes(5) + value.encode()) for key, value in texts.items()]


def for_png(texts):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for kind, body in png_chunks(texts):
        info.add(kind, body)
    return info


# ---- WebP and JPEG ------------------------------------------------------------------------


def for_webp(texts):
    """Arguments of Pillow's save()."""
    if not texts:
        return {}
    return {"exif": _exif(_graphs(texts), texts.get(PARAMETERS)), "xmp": _xmp(_notes(texts))}


def for_jpeg(texts):
    """The same. The first of these that fits: all, without the copy of the prompt, without the
    prompt, without the workflow, without both, with nothing but `parameters`, without it too."""
    if not texts:
        return {}
    graphs, notes, comment = _graphs(texts), _notes(texts), texts.get(PARAMETERS)
    exif = _exif(graphs, comment, copy=True)
    for left_out in ((), ("prompt",), ("workflow",), ("prompt", "workflow"), tuple(graphs),
                     (*graphs, PARAMETERS)):
        if len(exif) <= _SEGMENT_BYTES:
            break
        exif = _exif({key: value for key, value in graphs.items() if key not in left_out},
                     None if PARAMETERS in left_out else comment)
        if left_out:
            _log.warning("Luna: a JPEG holds 64 KiB of metadata; left out: %s", left_out)
    while len(_xmp(notes)) > _SEGMENT_BYTES:
        longest = max(notes, key=lambda key: (key == HEATMAPS, key == "generation_metadata",
                                              len(notes[key])))
        _log.warning("Luna: a JPEG holds 64 KiB of metadata; left out: %s", longest)
        del notes[longest]
    packet = _XMP_IN_JPEG + _xmp(notes)
    return {"exif": exif, "extra": b"\xff\xe1" + (len(packet) + 2).to_bytes(2, "big") + packet}


def _graphs(texts):
    return {key: value for key, value in texts.items() if key in texts.graphs}


def _notes(texts):
    """Those of the others that XML can hold."""
    notes = {key: value for key, value in texts.items()
             if key not in texts.graphs and key != PARAMETERS}
    for key in [key for key, value in notes.items()
                if not _XML_NAME.match(key) or _NOT_XML.search(value)]:
        _log.warning("Luna: the metadata %.80s is left out: XMP cannot hold it", key)
        del notes[key]
    return notes


def _exif(graphs, comment=None, copy=False):
    from PIL import Image

    exif, further = Image.Exif(), iter(_FURTHER)
    tags = {"prompt": _MODEL, "workflow": _MAKE}
    for key, value in graphs.items():
        exif[tags.get(key) or next(further)] = f"{key}:{value}"
    if copy and "prompt" in graphs:
        exif[_COMMENT] = b"ASCII\0\0\0" + f'{{"prompt":{graphs["prompt"]}}}'.encode()
    if comment:
        exif[_EXIF_IFD] = {_COMMENT: b"UNICODE\0" + comment.encode("utf-16-be")}
    return exif.tobytes()


def _xmp(notes):
    escapes = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#xD;"}
    properties = "".join(f"<luna:{key}>{value.translate(str.maketrans(escapes))}</luna:{key}>\n"
                         for key, value in notes.items())
    packet = (_XMP_HEAD + properties + _XMP_TAIL).encode()
    return packet + b"\n" * ((len(packet) + len(_XMP_END)) & 1) + _XMP_END.encode()
