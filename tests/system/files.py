"""Files that the tests read and make: safetensors, PNG chunks, pixels, fidelity."""

import hashlib
import json
import struct
from pathlib import Path

import numpy
from PIL import Image

DATA = Path(__file__).resolve().parent.parent / "data"
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea")
VAE = "taef2_decoder"

_DTYPES = {"F16": numpy.float16, "F32": numpy.float32, "BF16": numpy.uint16}
_NAMES = {numpy.dtype(numpy.float16): "F16", numpy.dtype(numpy.float32): "F32"}


def read_safetensors(path):
    """({name: array}, metadata)"""
    raw = Path(path).read_bytes()
    (header_bytes,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + header_bytes])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + header_bytes + offset for offset in entry["data_offsets"])
        flat = numpy.frombuffer(raw[begin:end], _DTYPES[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return tensors, metadata


def write_safetensors(path, tensors, metadata=None):
    header, body = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, array in tensors.items():
        raw = numpy.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape),
                        "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + body)
    return Path(path)


def write_latent(path, array, metadata=None):
    """A .latent as today's ComfyUI writes it."""
    return write_safetensors(path, {"latent_tensor": array,
                                    "latent_format_version_0": numpy.zeros(0, numpy.float32)},
                             metadata)


def photograph(name):
    return DATA / f"{name}.latent"


def reference(name):
    return read_safetensors(DATA / "taef2_reference.safetensors")[0][name]


def photograph_latent(name):
    """[1, 32, H / 8, W / 8], unpacked, where astronaut.latent is packed."""
    return reference(f"{name}.latent")


def photograph_pixels(name):
    """[3, H, W] in [0, 1], decoded in float64."""
    return reference(f"{name}.pixels")[0]


def batch(count, size=16):
    """`count` different cuts of a photograph's latent: float16 [count, 32, size, size]."""
    whole = photograph_latent("astronaut")[0]
    turned = [numpy.roll(whole, (7 * i, 3 * i), (1, 2)) for i in range(count)]
    return numpy.stack([latent[:, :size, :size] for latent in turned])


def psnr(got, wanted):
    """dB for values in [0, 1]."""
    error = numpy.mean((numpy.asarray(got, numpy.float64) - wanted) ** 2)
    return numpy.inf if error == 0 else -10 * numpy.log10(error)


def image_pixels(path):
    """[3, H, W] in [0, 1]."""
    with Image.open(path) as image:
        return numpy.asarray(image.convert("RGB"), numpy.float64).transpose(2, 0, 1) / 255


def png_chunks(path):
    """[(type, bytes)] by our own reading of the format."""
    raw = Path(path).read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n", f"{path} is not a PNG"
    chunks, at = [], 8
    while at < len(raw):
        size, kind = struct.unpack(">I4s", raw[at:at + 8])
        chunks.append((kind.decode("ascii"), raw[at + 8:at + 8 + size]))
        at += 12 + size
    return chunks


def png_texts(path):
    """{keyword: bytes} of the tEXt chunks; a keyword that stands twice is an error."""
    texts = {}
    for kind, body in png_chunks(path):
        if kind != "tEXt":
            continue
        keyword, _, value = body.partition(b"\0")
        assert keyword.decode() not in texts, f"{path} has two {keyword} chunks"
        texts[keyword.decode()] = value
    return texts


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
