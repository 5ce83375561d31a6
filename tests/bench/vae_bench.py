#!/usr/bin/python3
"""luna-vae beside PyTorch on this machine's CPU: one picture, the same weights, in one run.

A full-size SDXL decoder with seeded random weights is written to a file; each side decodes the
same latent in a process of its own. Needs a Python with torch and safetensors from PyPI.
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


def pytorch_side(folder, runs):
    """In a process of its own: times and the peak memory of it, as JSON, and the pixels."""
    decode = decoder(folder / "model.safetensors")
    z = load_file(folder / "latents.safetensors")["latents"]
    ms = []
    for _ in range(runs + 1):  # the first warms up
        begin = time.perf_counter()
        pixels = decode(z)
        ms.append(1e3 * (time.perf_counter() - begin))
    save_file({"pixels": pixels.contiguous()}, folder / "pytorch.safetensors")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"ms": statistics.median(ms[1:]), "mib": peak}))


def run_pytorch(folder, runs):
    command = [sys.executable, __file__, "--pytorch", folder, "--runs", str(runs)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def run_luna(folder, shape, runs):
    model = ["--model", folder / "model.safetensors", "--device", "cpu"]
    bench = [LUNA, "bench", *model, "--shape", f"1x{shape}", "--runs", str(runs), "--json"]
    result = json.loads(subprocess.run(bench, check=True, stdout=subprocess.PIPE).stdout)
    subprocess.run([LUNA, "decode", *model, "--latents", folder / "latents.safetensors", "--raw",
                    "--output", folder / "luna.safetensors"], check=True,
                   stdout=subprocess.DEVNULL)
    return {"ms": result["ms_per_image"], "mib": result["process_mib"],
            "backend": result["backend"]}


def distance(folder):
    """Decibels between the two pictures, brought to [0, 1]."""
    a, b = (load_file(folder / f"{side}.safetensors")["pixels"].double() / 2
            for side in ("luna", "pytorch"))
    return -10 * torch.log10(((a - b) ** 2).mean()).item()


def processor():
    text = Path("/proc/cpuinfo").read_text()
    name = next(line.split(":")[1].strip() for line in text.splitlines() if "model name" in line)
    return f"{len(os.sched_getaffinity(0))} cores of {name}"


def compare(folder, width, height, runs):
    write_inputs(folder, width, height)
    print(f"SDXL decoder, fp32, 1 x {width} x {height}, median of {runs}; {processor()}; "
          f"load {os.getloadavg()[0]:.1f}", flush=True)
    luna = run_luna(folder, f"{width}x{height}", runs)
    pytorch = run_pytorch(folder, runs)
    for name, side in ((f"luna-vae ({luna['backend']})", luna),
                       (f"PyTorch {torch.__version__}", pytorch)):
        print(f"{name:28} {side['ms']:9.0f} ms   process {side['mib']:6.0f} MiB")
    print(f"{'PyTorch to Luna':28} {pytorch['ms'] / luna['ms']:9.2f} times the time, "
          f"{pytorch['mib'] / luna['mib']:.2f} times the memory; "
          f"{distance(folder):.1f} dB between the pictures")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="512x512", help="WIDTHxHEIGHT in pixels (512x512)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pytorch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with torch.inference_mode():
        if options.pytorch:
            pytorch_side(options.pytorch, options.runs)
            return
        with tempfile.TemporaryDirectory() as folder:
            width, height = map(int, options.shape.split("x"))
            compare(Path(folder), width, height, options.runs)


if __name__ == "__main__":
    main()
