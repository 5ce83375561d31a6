#!/usr/bin/python3
"""Encoding beside Pillow at ComfyUI's settings: time and size per format and level, one run.

encode_bench.py PROGRAM [FORMAT ...]     only these

Three photographs and three drawings that are made here. Both sides take turns on each
picture; of several rounds the fastest counts, in CPU time, which other work on the machine
disturbs least. Then the same on all cores: how many times as many pictures in the same
wall time. AVIF and JPEG XL stand alone where Pillow does not write them: newer ones write
AVIF, the plugin pillow_jxl JPEG XL.
"""

import hashlib
import importlib.util
import io
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests" / "system")]

import numpy  # noqa: E402
from files import PHOTOGRAPHS, photograph_pixels  # noqa: E402
import PIL  # noqa: E402
from PIL import Image, ImageDraw  # noqa: E402

CORE_ROUNDS = 7
ROUNDS = int(os.environ.get("ROUNDS", 5))
CASES = ([("png", level, 0) for level in range(10)]
         + [("webp", quality, 0) for quality in (70, 80, 90, 100)] + [("webp", 90, 1)]
         + [("jpeg", quality, 0) for quality in (70, 80, 90, 95, 100)]
         + [("avif", quality, 0) for quality in (80, 90, 95)]
         + [("jxl", quality, 0) for quality in (80, 90, 95)] + [("jxl", 90, 1)])
DEFAULTS = (("png", 4, 0), ("webp", 90, 0), ("webp", 90, 1), ("jpeg", 90, 0), ("avif", 90, 0),
            ("jxl", 90, 0))
SLOW = ("avif", "jxl")
SLOW_ROUNDS = min(ROUNDS, 2)
# What gives about the same structural similarity as JPEG's of that number.
AVIF_QUALITY = {80: 62, 90: 80, 95: 89}
CORES = len(os.sched_getaffinity(0))


# ---- pictures --------------------------------------------------------------------------


def photographs():
    for name in PHOTOGRAPHS:
        pixels = (photograph_pixels(name) * 255).astype(numpy.uint8)
        yield Image.fromarray(numpy.ascontiguousarray(pixels.transpose(1, 2, 0)))


def drawing(seed):
    """Flat areas, lines, circles and writing, as in comics, diagrams and screenshots."""
    rng = random.Random(seed)
    image = Image.new("RGB", (768, 768), "white")
    draw = ImageDraw.Draw(image)

    def point():
        return rng.randrange(768), rng.randrange(768)

    def colour():
        return tuple(rng.randrange(0, 256, 51) for _ in range(3))
    for _ in range(30):
        draw.polygon([point() for _ in range(4)], fill=colour(), outline="black")
    for _ in range(40):
        x, y = point()
        radius = rng.randrange(5, 90)
        draw.ellipse((x, y, x + radius, y + radius), fill=colour(), outline="black", width=2)
        draw.line((*point(), *point()), fill=colour(), width=rng.randrange(1, 6))
        draw.text(point(), "the quick brown fox jumps over the lazy dog", fill="black")
    return image


# ---- both sides ------------------------------------------------------------------------


def pillow_save(image, case):
    form, value, lossless = case
    out = io.BytesIO()
    if form == "png":
        image.save(out, "PNG", compress_level=value)
    elif form == "webp":
        image.save(out, "WEBP", quality=80 if lossless else value, lossless=bool(lossless))
    elif form in SLOW and form.upper() not in Image.SAVE:
        return 0
    elif form == "avif":
        image.save(out, "AVIF", quality=AVIF_QUALITY[value])
    elif form == "jxl":
        image.save(out, "JXL", quality=value, lossless=bool(lossless))
    else:
        image.save(out, "JPEG", quality=value)
    return out.tell()


class Ours:
    """The encoder's program, at work on one picture."""

    def __init__(self, program, image, folder):
        raw = Path(folder) / "raw"
        raw.write_bytes(image.tobytes())
        self.process = subprocess.Popen([program, str(raw), *map(str, image.size)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def save(self, case, threads=1, rounds=1):
        """(CPU ms, bytes, wall ms)"""
        self.process.stdin.write(" ".join(map(str, (*case, threads, rounds))) + "\n")
        self.process.stdin.flush()
        cpu_ms, wall_ms, size = self.process.stdout.readline().split()
        return float(cpu_ms), int(size), float(wall_ms)

    def close(self):
        self.process.stdin.close()
        if self.process.wait() != 0:
            raise SystemExit("the encoder failed")


def measure(program, images, folder, cases):
    """{case: [our ms, our bytes, Pillow's ms, Pillow's bytes]}, sums over the pictures."""
    sums = {case: [0.0, 0, 0.0, 0] for case in cases}
    for image in images:
        ours = Ours(program, image, folder)
        for case in cases:
            best, theirs = [], []
            for _ in range(SLOW_ROUNDS if case[0] in SLOW else ROUNDS):
                best.append(ours.save(case))
                begin = time.process_time()
                size = pillow_save(image, case)
                theirs.append(((time.process_time() - begin) * 1e3, size))
            for at, value in enumerate((*min(best)[:2], *min(theirs))):
                sums[case][at] += value
        ours.close()
    return sums


def hash_ms(threads):
    """Wall time of as much hashing on each of the threads: what the machine has to give."""
    data, begin = bytes(1 << 20), time.perf_counter()
    workers = [threading.Thread(target=lambda: [hashlib.sha256(data) for _ in range(150)])
               for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return (time.perf_counter() - begin) * 1e3


def measure_cores(program, image, folder, cases):
    """{case: (gain of encoding, gain of hashing)}: done on all cores in the time that one
    takes for one; both by turns, for other work and shared cores take their part of each."""
    ours = Ours(program, image, folder)
    gains = {}
    for case in (case for case in DEFAULTS if case in cases):
        rounds = max(1, int(300 / ours.save(case)[0]))
        times = [(ours.save(case, 1, rounds)[2], ours.save(case, CORES, rounds)[2],
                  hash_ms(1), hash_ms(CORES)) for _ in range(CORE_ROUNDS)]
        one, every, hash_one, hash_every = (statistics.median(way) for way in zip(*times))
        gains[case] = CORES * one / every, CORES * hash_one / hash_every
    ours.close()
    return gains


# ---- the run ---------------------------------------------------------------------------


def label(case):
    form, value, lossless = case
    return f"{form} {'lossless' if lossless else value}" + (" *" if case in DEFAULTS else "")


def print_table(title, sums, images):
    megapixels = sum(image.width * image.height for image in images) / 1e6
    print(f"\n{title}, {megapixels:.2f} megapixels; * default"
          f"\n{'':16}{'ms/MP':>9}{'Pillow':>9}{'times':>8}{'KiB':>9}{'Pillow':>9}{'times':>8}")
    for case, (ms, size, their_ms, their_size) in sums.items():
        ours = f"{label(case):16}{ms / megapixels:9.1f}", f"{size / 1024:9.0f}"
        if their_size == 0:
            print(f"{ours[0]}{'-':>9}{'-':>8}{ours[1]}{'-':>9}{'-':>8}")
            continue
        print(f"{ours[0]}{their_ms / megapixels:9.1f}{their_ms / ms:8.2f}"
              f"{ours[1]}{their_size / 1024:9.0f}{their_size / size:8.2f}")


def main():
    program, *only = sys.argv[1:]
    cases = [case for case in CASES if not only or case[0] in only]
    Image.init()
    if importlib.util.find_spec("pillow_jxl"):
        importlib.import_module("pillow_jxl")
    print(f"Pillow {PIL.__version__}")
    pictures = {"photographs": list(photographs()), "drawings": [drawing(n) for n in range(3)]}
    with tempfile.TemporaryDirectory() as folder:
        for title, images in pictures.items():
            print_table(title, measure(program, images, folder, cases), images)
        gains = measure_cores(program, pictures["photographs"][0], folder, cases)
    print(f"\n{CORES} cores for one (hashing on the same cores meanwhile): " + ", ".join(
        f"{label(case).rstrip(' *')} {gain:.2f} ({hashing:.2f})"
        for case, (gain, hashing) in gains.items()))


if __name__ == "__main__":
    main()
