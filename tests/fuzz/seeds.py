"""The first inputs of every fuzz target, made from the project's own bytes.

seeds.py FOLDER writes FOLDER/<room>/<target>/<name> and dictionaries
FOLDER/<room>/<target>.dict. The same files come out every time.
"""
import os
import re
import sys
import zlib

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))


def text_of(*path):
    with open(os.path.join(ROOT, *path), "rb") as file:
        return file.read()


def wire_examples():
    """(type, bytes) of each example of proto/README.md, in its order."""
    page = text_of("proto", "README.md").decode()
    found = re.findall(r"### example: (\w+)\n\n```hex\n([0-9a-f\s]+)```", page)
    return [(name, bytes.fromhex("".join(digits.split()))) for name, digits in found]


def wire_keys():
    page = text_of("proto", "README.md").decode()
    keys = sorted(set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)))
    types = sorted({name for name, _ in wire_examples()})
    return keys, types


def noise(seed, count):
    """Bytes that look random and are always the same (xorshift64)."""
    state, out = seed * 0x9E3779B97F4A7C15 % 2**64 | 1, bytearray()
    for _ in range(count):
        state ^= state << 13 & (2**64 - 1)
        state ^= state >> 7
        state ^= state << 17 & (2**64 - 1)
        out.append(state >> 32 & 0xFF)
    return bytes(out)


class Folder:
    def __init__(self, base):
        self.base = base

    def seed(self, target, name, data):
        path = os.path.join(self.base, target, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)

    def words(self, target, words):
        path = os.path.join(self.base, target + ".dict")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            for word in words:
                file.write('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n')


def packed_text(word):
    return bytes([0xA0 + len(word)]) + word.encode() if len(word) < 32 else word.encode()


def proto(to):
    examples = wire_examples()
    keys, types = wire_keys()
    for number, (name, data) in enumerate(examples):
        to.seed("proto/codec", f"{number:02}-{name}", data)
    to.words("proto/codec", [packed_text(word) for word in keys + types])
    for number in range(len(types) + 8):
        to.seed("proto/message", f"{number:02}", bytes([number]) + noise(number, 400))
    for number in range(9):
        to.seed("proto/payload", f"{number}", bytes([number % 3]) + noise(number, 90 * number))


def job_examples():
    return [data for name, data in wire_examples() if name == "job"]


def safetensors_file(header, body):
    return len(header).to_bytes(8, "little") + header + body


def latents_header(name="latent_tensor", dtype="F16", shape=(1, 4, 1, 1), end=8, more=""):
    shape = ", ".join(str(size) for size in shape)
    entry = f'"{name}": {{"dtype": "{dtype}", "shape": [{shape}], "data_offsets": [0, {end}]}}'
    return ("{" + entry + more + "}").encode()


def common(to):
    texts = ['"abc"', '"\\u00e9\\ud83d\\ude00\\n"', '"caf\u00e9"', '"a\\\\b"', '"']
    for number, text in enumerate(texts):
        to.seed("common/json_text", f"read-{number}", b"\0" + text.encode())
        to.seed("common/json_text", f"write-{number}", b"\1" + text.encode())
    meta = ', "__metadata__": {"prompt": "{\\"3\\": 1}", "workflow": "{}"}'
    version = ', "latent_format_version_0": {"dtype": "F32", "shape": [0], "data_offsets": [8, 8]}'
    headers = [latents_header(), latents_header(more=meta), latents_header(more=version),
               latents_header("a", "F32", (1, 2), 8), latents_header("a", "I8", (8,), 8),
               latents_header("a", "XX", (), 8), b"{}"]
    for number, header in enumerate(headers):
        body = b"" if header == b"{}" else bytes(range(8))
        to.seed("common/safetensors", f"whole-{number}", b"\0" + safetensors_file(header, body))
        to.seed("common/safetensors", f"header-{number}", bytes([1 + 4 * len(body)]) + header)
    to.words("common/safetensors", [w.encode() for w in (
        "__metadata__", '"dtype"', '"shape"', '"data_offsets"', '"F64"', '"BF16"', '"F32"',
        "latent_tensor", "latent_format_version_0", "\\u0000", "18446744073709551615")])
    files = ["[log]\nlevel = debug\n", "[store]\ndir = %state%/x\n; note\n",
             "[output]\nroots = /a:/b:%output%\n", "[limits]\njobs=9\nbytes = 2 GiB\n",
             "[lease]\nwait = 5 min\nstrict = off\n", "[vae flux]\npath = /m/f\n",
             "[store]\ndir = " + "/long" * 50 + "\n", "[log]\nlevel = a ; b\n"]
    for number, text in enumerate(files):
        to.seed("common/config", f"file-{number}", b"\0" + text.encode())
    for number, text in enumerate(["%run%/a", "1 KiB", "99999999999999999999", "on", "/a:/b"]):
        to.seed("common/config", f"flag-{number}", b"\3" + bytes([number]) + text.encode())
    to.words("common/config", [w.encode() for w in (
        "[log]", "[store]", "[output]", "[limits]", "[lease]", "[vae ", "level", "dir", "roots",
        "jobs", "bytes", "wait", "strict", "%run%", "%state%", "%spool%", "%output%", "KiB",
        "MiB", "GiB", "min", "://")])


SETTINGS = re.findall(rb'OF_(?:JOB|INPUT)\("(\w+)"', text_of("broker", "http", "setting.c"))
JSON_JOB = b"""{"vae": "auto", "priority": 7, "timestamp": "2026-01-05T17:03:11.25+01:00",
 "prompt": {"3": {"seed": 18446744073709551615}}, "extra_pnginfo": {"workflow": {}, "n": [NaN]},
 "latents": [{"data": "ADwAvABAAAA=", "dtype": "float16", "shape": [1, 4, 1, 1], "affix": "A"}]}"""


def http(to):
    documents = [JSON_JOB, b"[]", b"{}", b"  [1, -0.5e3, true, null]", b'"a\\u00e9"',
                 b'{"a": {"b": [{"c": "d"}]}}', b"[NaN, -Infinity]", b"[" * 20 + b"]" * 20]
    for number, text in enumerate(documents):
        to.seed("http/json", f"{number}", text)
    values = [b"2026-01-05T17:03:11Z", b"2026-01-05T17:03:11.25+01:00", b"1767632591250",
              b"2026-99-05T17:03:11Z", b"18446744073709551615", b"0.25", b"1e400", b"true",
              b"torch.float16", b"F32", b'"0192f1c2-a5b0-7c3d-8e4f-5061728394a5"',
              b"ADwAvABAAAA=", b"QUJD\\nREVG", b"QR=="]
    for number, text in enumerate(values):
        to.seed("http/values", f"{number}", text)
    latents = safetensors_file(latents_header(), bytes(8))
    queries = [b"", b"\x01\x03vae\x04auto", b"\x01\x08priority\x019", b"\x02\x06tensor\x01a\x05shape\x01x"]
    for number, query in enumerate(queries):
        head = query if query else b"\0"
        to.seed("http/draft", f"json-{number}", b"\0" + head + JSON_JOB)
        to.seed("http/draft", f"latents-{number}", b"\1" + head + latents)
        for kind, job in enumerate(job_examples()):
            to.seed("http/draft", f"msgpack-{number}-{kind}", b"\2" + head + job)
    words = [b'"' + word + b'"' for word in SETTINGS] + SETTINGS
    to.words("http/draft", words + [b"NaN", b"null", b"\\u0000", b"bfloat16", b"database_store"])
    to.words("http/values", [b"torch.", b"bfloat16", b"2026-", b"T00:00:00", b"+01:00", b"=="])


def worker(to):
    for number, (name, data) in enumerate(wire_examples()):
        if name in ("work", "job"):
            to.seed("worker/work", f"raw-{number}", b"\0" + data)
        if name == "job":
            to.seed("worker/work", f"body-{number}", b"\1" + data)
    members = [b'{"seed": 18446744073709551615, "sampler": "eu\\u00e9ler", "x": [1, {"y": "]"}]}',
               b'{"a": "b", "a": "c", "d": {"e": 1}}', b"[1]", b'{"a":"\\"}', b'{"a" : 1 ,"b":2}']
    for number, text in enumerate(members):
        to.seed("worker/work", f"metadata-{number}", b"\2" + text)
    keys, types = wire_keys()
    to.words("worker/work", [packed_text(word) for word in keys + types])


def vae(to):
    for family in range(7):  # whole, once plain and once packed; then one tensor less
        to.seed("vae/model", f"whole-{family}", bytes([family, 0, 1, 1, 1, 0, 0]))
        to.seed("vae/model", f"packed-{family}", bytes([family, 0, 1, 1, 1, 0, 1]))
        to.seed("vae/model", f"less-{family}", bytes([family, 1, 0, 5, 1, 1, 0, 0]))


def sink(to):
    head = bytes([1, 0]) + bytes(4) + b"\x02" + (1790000000000).to_bytes(8, "little") + bytes([0xdc, 5])
    texts = [[b"FINAL", b"a\\b\\sdxl.safetensors", b"%model_dir%/x", b"luna_%time:YYYY-mm-dd%"],
             [b"", b"", b"../up", b"con"], [b"..", b"m", b"/root", b"%index%_%model_name%"],
             [b"x/y", b"caf\xc3\xa9.ckpt", b". /a./b ", b"a<b>c|d.. "]]
    texts += [[b"A", b"m", b"%width%", b"%counter%-%seed%-%batch%"], [b"", b"m", b"%counter%", b""],
              [b"", b"m", b"%date:yyyy-MM-dd%", b"%date:d.M.yy h:m:s%\x01"]]
    for number, parts in enumerate(texts):
        packed = b"".join(bytes([len(part)]) + part for part in [parts[0], b"123", *parts[1:]])
        to.seed("sink/name", f"{number}", head + packed)
    to.words("sink/name", [b"%model_path%", b"%model_name%", b"%model_dir%", b"%index%", b"%seed%",
                           b"%batch%", b"%width%", b"%height%", b"%counter%", b"%date:yyMdhms%",
                           b"%time:YYYYmmddHHMMSS%", b"..", b"CON", b"LPT1", b".safetensors"])


def png_chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def image(to):
    start = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", b"\0\0\0\1\0\0\0\1\x08\0\0\0\0")
    pixels = png_chunk(b"IDAT", zlib.compress(b"\0\0"))
    end = png_chunk(b"IEND", b"")
    files = [start + pixels + end, start + png_chunk(b"tEXt", b"prompt\0{}") + pixels + end,
             start + png_chunk(b"iTXt", b"a\0\0\0\0\0caf\xc3\xa9") + pixels + end,
             start + png_chunk(b"pHYs", bytes(9)) + png_chunk(b"tIME", bytes(7)) + pixels + end]
    texts = [b"\0", b"\1\x06prompt\x02{}", b"\2\x01a\x01b\x03c d\x05caf\xc3\xa9"]
    for number, file in enumerate(files):
        for way, text in enumerate(texts):
            to.seed("image/png", f"{number}-{way}", bytes([way % 2]) + text + file)
    webp = (b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0\0")
    jpeg = (b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xdb\0\x04ab\xff\xda\0\x04cd12\xff\xd9")
    for number, file in enumerate((webp, jpeg)):
        for way, text in enumerate(texts + [b"\1\0" + text[1:] for text in texts]):
            to.seed("image/embed", f"{number}-{way}", bytes([number]) + text + file)
    to.words("image/embed", [b"RIFF", b"WEBP", b"VP8L", b"VP8 ", b"VP8X", b"EXIF", b"XMP ", b"Exif",
                             b"prompt", b"workflow", b"parameters", b"\xff\xe1", b"\xff\xda"])
    to.words("image/png", [b"IHDR", b"IEND", b"IDAT", b"tEXt", b"iTXt", b"zTXt", b"pHYs", b"tIME"])


def broker(to):
    for number in range(40):
        to.seed("broker/scheduler", f"{number:02}", noise(1000 + number, 60 + 12 * number))
        to.seed("broker/frames", f"{number:02}", noise(3000 + number, 60 + 12 * number))


def store(to):
    to.seed("store/open", "as-closed", bytes(4))
    to.seed("store/open", "as-crashed", bytes([0, 1, 0, 0]))
    to.seed("store/open", "no-database", bytes([0, 7, 0, 0, 0]))
    for number in range(40):
        to.seed("store/open", f"{number:02}", noise(2000 + number, 80))


def producer(to):
    for number in range(20):
        to.seed("producer/outbox", f"{number:02}", noise(4000 + number, 8 + 8 * number))


def main():
    to = Folder(sys.argv[1])
    for make in (proto, common, http, vae, worker, sink, image, broker, store, producer):
        make(to)


main()
