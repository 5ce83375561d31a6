"""The first inputs of every fuzz target, made from the project's own bytes.

seeds.py FOLDER writes FOLDER/<room>/<target>/<name> and dictionaries
FOLDER/<room>/<target>.dict. The same files come out every time.
"""
import os
import re
import sys

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


def main():
    to = Folder(sys.argv[1])
    for make in (proto,):
        make(to)


main()
