"""What others read out of a picture: Pillow, exiftool, and the rules of two programs.

Every reader gives {keyword: text}. Nothing of Luna's own code is used.
"""

import json
import re
import struct
import subprocess
import xml.etree.ElementTree
from pathlib import Path

from PIL import Image

NAMESPACE = "{urn:luna:image:1}"
XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"
USER_COMMENT = 0x9286
EXIF_IFD = 0x8769
# Of a comment in UTF-8, which the standard has no name for.
NO_CODING = "Invalid EXIF text encoding for UserComment"


# ---- Pillow ----------------------------------------------------------------------------


def _xmp_packet(image):
    if image.format == "WEBP":
        return image.info.get("xmp")
    for name, content in getattr(image, "applist", []):
        if name == "APP1" and content.startswith(XMP_MARK):
            return content[len(XMP_MARK):]
    return None


def _xmp_texts(packet):
    root = xml.etree.ElementTree.fromstring(packet)
    return {node.tag[len(NAMESPACE):]: node.text or "" for node in root.iter()
            if node.tag.startswith(NAMESPACE)}


def _comment(raw):
    assert raw[:8] == b"UNICODE\0", raw[:16]
    return raw[8:].decode("utf-16-be")


def _exif_texts(exif):
    texts = {}
    for tag, value in exif.items():
        if isinstance(value, str) and tag != USER_COMMENT:
            keyword, _, text = value.encode("latin-1").decode("utf-8").partition(":")
            assert keyword not in texts, keyword
            texts[keyword] = text
    comment = exif.get_ifd(EXIF_IFD).get(USER_COMMENT)
    if comment is not None:
        texts["parameters"] = _comment(comment)
    return texts


def pillow(path):
    with Image.open(path) as image:
        image.load()
        if image.format == "PNG":
            return {str(key): str(text) for key, text in image.text.items()}
        texts = _exif_texts(image.getexif())
        packet = _xmp_packet(image)
        noted = _xmp_texts(packet) if packet else {}
        assert not set(texts) & set(noted)
        return {**texts, **noted}


# ---- exiftool --------------------------------------------------------------------------


def _as_text(value):
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _plain_date(text):
    """exiftool writes every XMP text that looks like a date in its own way."""
    found = re.fullmatch(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d[-+]\d\d:\d\d)", text)
    return "{}-{}-{}T{}".format(*found.groups()) if found else text


def _exiftool_name(keyword):
    """How exiftool calls the text of a PNG or an XMP property that it does not know."""
    name = re.sub(r"[^-_a-zA-Z0-9]", "", keyword)
    return name[:1].upper() + name[1:]


class ExifTool:
    """Reads many files in one call."""

    def __init__(self, paths):
        listing = "\n".join(map(str, paths)).encode()
        done = subprocess.run(
            ["exiftool", "-j", "-n", "-G1", "-a", "-u", "-charset",
             "UTF8", "-@", "-"], input=listing,
            capture_output=True, check=True)
        rows = json.loads(done.stdout, parse_int=str, parse_float=str)
        self.rows = {row["SourceFile"]: row for row in rows}

    def complaints(self, path):
        return [value for key, value in self.rows[str(path)].items()
                if key.endswith((":Warning", ":Error"))]

    def texts(self, path, keywords):
        """`keywords` are those asked for: exiftool gives them names of its own."""
        row = self.rows[str(path)]
        assert not set(self.complaints(path)) - {NO_CODING}, row
        named = {_exiftool_name(keyword): keyword for keyword in keywords}
        texts = {}
        for key, value in row.items():
            group, _, name = key.partition(":")
            if group == "PNG" and name in named:
                texts[named[name]] = _as_text(value)
            elif group == "XMP-luna" and name in named:
                texts[named[name]] = _plain_date(_as_text(value))
            elif group == "IFD0" and ":" in _as_text(value) and name != "UserComment":
                keyword, _, text = _as_text(value).partition(":")
                texts[keyword] = text
            elif group == "ExifIFD" and name == "UserComment":
                texts["parameters"] = _as_text(value)
        return texts


# ---- the rules of programs that cannot run here ----------------------------------------


def comfyui_page_of_2025(path):
    """What ComfyUI's page of 2025 finds in a WebP: it forgets that odd chunks are padded."""
    raw, at, texts = Path(path).read_bytes(), 12, {}
    while at < len(raw):
        kind, size = raw[at:at + 4], struct.unpack("<I", raw[at + 4:at + 8])[0]
        if kind == b"EXIF":
            block = raw[at + 8:at + 8 + size]
            block = block[6:] if block[:6] == b"Exif\0\0" else block
            texts.update(_ifd0_strings(block))
        at += 8 + size
    return texts


def _ifd0_strings(block):
    order = "<" if block[:2] == b"II" else ">"
    start = struct.unpack(order + "I", block[4:8])[0]
    count = struct.unpack(order + "H", block[start:start + 2])[0]
    texts = {}
    for number in range(count):
        entry = block[start + 2 + 12 * number:start + 14 + 12 * number]
        _, kind, size, at = struct.unpack(order + "HHII", entry)
        if kind == 2:
            keyword, _, text = block[at:at + size - 1].decode("utf-8", "replace").partition(":")
            texts[keyword] = text
    return texts


def diffusion_toolkit_prompt(path):
    """The prompt that Diffusion Toolkit's scanner takes from a PNG or a JPEG; None for none."""
    raw = Path(path).read_bytes()
    if raw[:4] == b"\x89PNG":
        with Image.open(path) as image:
            return image.text.get("prompt")
    assert raw[:3] == b"\xFF\xD8\xFF" and raw[3] & 0xE0 == 0xE0, raw[:4]
    with Image.open(path) as image:
        comment = image.getexif().get(USER_COMMENT, "")
    if isinstance(comment, bytes):
        assert comment[:8] == b"ASCII\0\0\0", comment[:8]
        comment = comment[8:].decode("ascii")
    if not comment.startswith('{"prompt":'):
        return None
    return comment.encode("latin-1").decode()[len('{"prompt":'):-1]
