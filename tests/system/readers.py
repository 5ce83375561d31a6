"""What others read out of a picture: Pillow, libvips, exiftool, and the rules of programs.

Every reader gives {keyword: text}. Nothing of Luna's own code is used.
"""

import contextlib
import ctypes
import ctypes.util
import functools
import importlib.util
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
        if image.format in ("AVIF", "JXL"):
            return _joined(image.info.get("exif") or b"", image.info.get("xmp") or b"")
        texts = _exif_texts(image.getexif())
        packet = _xmp_packet(image)
        noted = _xmp_texts(packet) if packet else {}
        assert not set(texts) & set(noted)
        return {**texts, **noted}


# ---- libvips, which has AVIF's items from libheif, and libjxl ------------------------------


@functools.cache
def _libvips():
    library = ctypes.CDLL("libvips.so.42")
    library.vips_image_new_from_file.restype = ctypes.c_void_p
    library.vips_image_write_to_memory.restype = ctypes.c_void_p
    library.vips_init(b"readers")
    return library


def libvips_writes(form):
    operation = {"avif": b"heifsave", "jxl": b"jxlsave"}[form]
    return bool(_libvips().vips_type_find(b"VipsOperation", operation))


@contextlib.contextmanager
def _vips_image(path):
    image = ctypes.c_void_p(_libvips().vips_image_new_from_file(str(path).encode(), None))
    assert image, path
    yield image
    ctypes.CDLL("libgobject-2.0.so.0").g_object_unref(image)


def size_of(path):
    """(width, height)"""
    if Path(path).suffix not in (".avif", ".jxl"):
        with Image.open(path) as image:
            return image.size
    with _vips_image(path) as image:
        return _libvips().vips_image_get_width(image), _libvips().vips_image_get_height(image)


def rgb_of(path):
    """The bytes of a picture without alpha, row by row."""
    size = ctypes.c_size_t()
    with _vips_image(path) as image:
        assert _libvips().vips_image_get_bands(image) == 3
        data = ctypes.c_void_p(_libvips().vips_image_write_to_memory(image, ctypes.byref(size)))
        pixels = ctypes.string_at(data, size.value)
    ctypes.CDLL("libglib-2.0.so.0").g_free(data)
    return pixels


def _blob(image, name):
    data, size = ctypes.c_void_p(), ctypes.c_size_t()
    if not _libvips().vips_image_get_typeof(image, name):
        return b""
    _libvips().vips_image_get_blob(image, name, ctypes.byref(data), ctypes.byref(size))
    return ctypes.string_at(data, size.value)


def _vips_blocks(path):
    with _vips_image(path) as image:
        return _blob(image, b"exif-data"), _blob(image, b"heif-mime-1")


_JXL_BOX, _JXL_ENDED = 0x4000, (0, 1, 2)  # done, an error, cut off


def _jxl_boxes(path):
    """[(type, bytes)] of a JPEG XL, as libjxl finds them."""
    jxl = ctypes.CDLL(ctypes.util.find_library("jxl"))
    jxl.JxlDecoderCreate.restype = ctypes.c_void_p
    jxl.JxlDecoderReleaseBoxBuffer.restype = ctypes.c_size_t
    decoder = ctypes.c_void_p(jxl.JxlDecoderCreate(None))
    raw, found = Path(path).read_bytes(), []
    room = ctypes.create_string_buffer(len(raw))

    def keep():
        left = jxl.JxlDecoderReleaseBoxBuffer(decoder)
        if found:
            found[-1] = found[-1], room.raw[:len(raw) - left]
    jxl.JxlDecoderSubscribeEvents(decoder, _JXL_BOX)
    jxl.JxlDecoderSetInput(decoder, raw, ctypes.c_size_t(len(raw)))
    jxl.JxlDecoderCloseInput(decoder)
    while (status := jxl.JxlDecoderProcessInput(decoder)) not in _JXL_ENDED:
        assert status == _JXL_BOX, status
        keep()
        name = ctypes.create_string_buffer(4)
        jxl.JxlDecoderGetBoxType(decoder, name, 0)
        found.append(name.raw)
        jxl.JxlDecoderSetBoxBuffer(decoder, room, ctypes.c_size_t(len(raw)))
    keep()
    assert status == 0, (path, status)
    jxl.JxlDecoderDestroy(decoder)
    return found


def _jxl_blocks(path):
    found = dict(_jxl_boxes(path))
    block = found.get(b"Exif", bytes(4))
    assert block[:4] == bytes(4)
    return block[4:], found.get(b"xml ", b"")


def libraries(path):
    """What the libraries that other programs open AVIF and JPEG XL with find in them."""
    return _joined(*(_jxl_blocks if path.endswith(".jxl") else _vips_blocks)(path))


def _joined(block, packet):
    exif = Image.Exif()
    exif.load(block)
    texts, noted = _exif_texts(exif) if block else {}, _xmp_texts(packet) if packet else {}
    assert not set(texts) & set(noted)
    return {**texts, **noted}


def pillow_reads(path):
    """Whether this Pillow, or a plugin that is installed, opens such a file."""
    plugin = {".avif": "pillow_avif", ".jxl": "pillow_jxl"}.get(Path(path).suffix)
    if plugin and importlib.util.find_spec(plugin):
        importlib.import_module(plugin)
    return not plugin or Path(path).suffix in Image.registered_extensions()


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


def _boxes(raw, at, end):
    while at + 8 <= end:
        size, kind = struct.unpack(">I4s", raw[at:at + 8])
        if size == 0:
            return
        yield kind, at + 8, at + size
        at += size


def _box(raw, at, end, wanted):
    return next((start, stop) for kind, start, stop in _boxes(raw, at, end) if kind == wanted)


def comfyui_page_avif(path):
    """What ComfyUI's page finds in an AVIF: the first Exif item, in one piece, at an absolute
    offset."""
    raw = Path(path).read_bytes()
    assert raw[4:12] == b"ftypavif"
    start, end = _box(raw, 0, len(raw), b"meta")
    items, items_end = _box(raw, start + 4, end, b"iinf")
    assert raw[items] == 0
    item = next(struct.unpack(">H", raw[at + 4:at + 6])[0]
                for kind, at, _ in _boxes(raw, items + 6, items_end)
                if kind == b"infe" and raw[at] == 2 and raw[at + 8:at + 12] == b"Exif")
    at, _ = _box(raw, start + 4, end, b"iloc")
    version, (sizes, count) = raw[at], struct.unpack(">HH", raw[at + 4:at + 8])
    assert sizes == 0x4400 and version < 2
    at += 8
    for _ in range(count):
        number, = struct.unpack(">H", raw[at:at + 2])
        at += 4 + 2 * (version == 1)
        extents, = struct.unpack(">H", raw[at:at + 2])
        if number == item:
            offset, size = struct.unpack(">II", raw[at + 2:at + 10])
            block = raw[offset:offset + size]
            return _ifd0_strings(block[block.index(b"MM\0*"):])
        at += 2 + 8 * extents
    raise AssertionError("the item is nowhere")


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
