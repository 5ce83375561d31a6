#!/usr/bin/python3
"""luna-vae beside PyTorch on this machine's CPU: one picture, the same weights, in one run.

A full-size SDXL decoder with seeded random weights is written to a file; the sides take turns,
each in a process of its own that decodes the same latent twice, the first time to warm up.
Beside the time that passed stands the processors' own, which other work on the machine changes
little; Luna's is half of all that its process took. Needs a Python with torch and safetensors from PyPI.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "system"))

try:
    import torch
    import vae_torch
    from safetensors.torch import load_file, save_file
except ImportError as error:
    sys.exit(f"bench-vae: skipped, {error}: make bench-vae PYTHON=... names one that has torch")

LUNA = Path(os.environ["LUNA_BIN"]) / "luna-vae"
WIDTHS = (128, 256, 512, 512)


def decoder(path):
    net = vae_torch.Net()
    net.tensors.update(load_file(path))
    return lambda z: vae_torch.kl(net, z, WIDTHS)


def write_inputs(folder, width, height):
    torch.manual_seed(1)
    net = vae_torch.Net(7)
    vae_torch.kl(net, torch.randn(1, 4, 2, 2), WIDTHS)
    save_file(net.tensors, folder / "model.safetensors")
    save_file({"latents": torch.randn(1, 4, height // 8, width // 8)},
              folder / "latents.safetensors")


def pytorch_side(folder):
    """In a process of its own: the time and the peak memory of it, as JSON, and the pixels."""
    decode = decoder(folder / "model.safetensors")
    z = load_file(folder / "latents.safetensors")["latents"]
    decode(z)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    pixels = decode(z)
    ms, cpu_s = 1e3 * (time.perf_counter() - begin), time.process_time() - begin_cpu
    save_file({"pixels": pixels.contiguous()}, folder / "pytorch.safetensors")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"ms": ms, "cpu_s": cpu_s, "mib": peak}))


def output_of(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def run_pytorch(folder):
    return json.loads(output_of(sys.executable, __file__, "--pytorch", folder))


def children_cpu_s():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_luna(folder, shape):
    before_s = children_cpu_s()
    result = json.loads(output_of(LUNA, "bench", "--model", folder / "model.safetensors",
                                  "--device", "cpu", "--shape", f"1x{shape}", "--runs", "1",
                                  "--json"))
    return {"ms": result["ms_per_image"], "cpu_s": (children_cpu_s() - before_s) / 2,
            "mib": result["process_mib"]}


def distance(folder):
    """Decibels between the two pictures, brought to [0, 1]."""
    output_of(LUNA, "decode", "--model", folder / "model.safetensors", "--device", "cpu",
              "--latents", folder / "latents.safetensors", "--raw",
              "--output", folder / "luna.safetensors")
    a, b = (load_file(folder / f"{side}.safetensors")["pixels"].double() / 2
            for side in ("luna", "pytorch"))
    return -10 * torch.log10(((a - b) ** 2).mean()).item()


def processor():
    text = Path("/proc/cpuinfo").read_text()
    name = next(line.split(":")[1].strip() for line in text.splitlines() if "model name" in line)
    return f"{len(os.sched_getaffinity(0))} cores of {name}"


def compare(folder, shape, rounds):
    write_inputs(folder, *map(int, shape.split("x")))
    print(f"SDXL decoder, fp32, 1 x {shape}; {processor()}", flush=True)
    ratios, cpu_ratios = [], []
    for _ in range(rounds):
        luna, pytorch = run_luna(folder, shape), run_pytorch(folder)
        ratios.append(pytorch["ms"] / luna["ms"])
        cpu_ratios.append(pytorch["cpu_s"] / luna["cpu_s"])
        for name, side in (("luna-vae", luna), (f"PyTorch {torch.__version__}", pytorch)):
            print(f"{name:22} {side['ms']:6.0f} ms, {side['cpu_s']:5.2f} s of processors, "
                  f"{side['mib']:5.0f} MiB; load {os.getloadavg()[0]:.1f}", flush=True)
    print(f"PyTorch takes {statistics.median(ratios):.2f} times as long and "
          f"{statistics.median(cpu_ratios):.2f} times the processors (medians); "
          f"{distance(folder):.1f} dB between the pictures")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="512x512", help="WIDTHxHEIGHT in pixels (512x512)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pytorch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with torch.inference_mode():
        if options.pytorch:
            pytorch_side(options.pytorch)
            return
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), options.shape, options.rounds)


if __name__ == "__main__":
    main()
