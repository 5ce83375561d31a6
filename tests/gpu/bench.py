"""Luna's KL decode beside PyTorch's, on one card in one run: time, memory, fidelity.

bench.py [--shapes 1x512,1x1024,16x1024,1x2048] [--modes eager,compile,max-autotune] [--skip-fidelity]

"device" is the decode alone, latents and pixels on the card, as for PyTorch; "whole" is luna_vae_decode with the latents'
way up, the conversion to bytes and their way down. Medians. Needs PyTorch and safetensors, and what `make gpu-programs` builds.
"""
import argparse
import json
import os
import re
import subprocess
import tempfile

import torch
from safetensors.torch import load_file, save_file

from kl_decoder import decoder_flops, seeded

BIN = os.environ.get("LUNA_BIN", "build/bin")
GPU = os.environ.get("LUNA_GPU_BIN", "build/gpu")


def median_ms(call, runs=7):
    for _ in range(3):
        call()
    times = []
    for _ in range(runs):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop))
    return sorted(times)[len(times) // 2]


class Quiet:
    """max-autotune prints a table for every kernel that it tries, to the process's error stream; shown when it fails."""

    def __enter__(self):
        self.log, self.error = tempfile.TemporaryFile(), os.dup(2)
        os.dup2(self.log.fileno(), 2)

    def __exit__(self, kind, *_):
        os.dup2(self.error, 2)
        os.close(self.error)
        if kind:
            self.log.seek(0)
            os.write(2, self.log.read())
        self.log.close()


def time_torch(mode, images, side):
    """Milliseconds an image and peak GiB; (None, None) when it does not fit."""
    with Quiet():
        return compile_and_time(mode, images, side)


def compile_and_time(mode, images, side):
    torch._dynamo.reset()
    torch.backends.cudnn.benchmark = mode != "eager"
    model = seeded(z_channels=4).cuda().to(torch.bfloat16)
    z = torch.randn(images, 4, side // 8, side // 8, device="cuda", dtype=torch.bfloat16)
    if mode != "eager":
        model = model.to(memory_format=torch.channels_last)
        z = z.to(memory_format=torch.channels_last)
        model = torch.compile(model, mode=None if mode == "compile" else mode, dynamic=False)
    try:
        with torch.inference_mode():
            model(z)
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            ms = median_ms(lambda: model(z))
        peak = torch.cuda.max_memory_allocated() / 2**30
    except torch.cuda.OutOfMemoryError:
        ms = peak = None
    del model, z
    torch.cuda.empty_cache()
    return (ms / images if ms else None), peak


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit("%s: %s" % (" ".join(command), done.stderr.strip()))
    return done.stdout


def time_luna(images, side):
    """Milliseconds an image on the device and as a whole, peak GiB."""
    graph = re.findall(r"one graph +([\d.]+) ms", run(GPU + "/profile", "sd", "%dx%d" % (side, side)))
    whole = json.loads(run(BIN + "/luna-vae", "bench", "--random", "sd", "--shape", "%dx%dx%d" % (images, side, side),
                           "--device", "cuda:0", "--json"))
    return float(graph[-1]), whole["ms_per_image"], whole["peak_mib"] / 1024


def product_tflops(side=8192):
    """What a plain matrix product reaches on this card: the floor of any decode, by its arithmetic."""
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.float16) for _ in range(2))
    return 2 * side**3 / median_ms(lambda: a @ b) / 1e9


def speed(shapes, modes):
    floor = product_tflops()
    print("a product of 8192 x 8192 matrices: %.0f TFLOP/s" % floor)
    print("| KL, ms an image | " + " | ".join("PyTorch %s, bf16" % m for m in modes) +
          " | Luna fp16, device | whole | times eager | TFLOP/s | of a product's | peak GiB: eager, Luna |")
    print("|---" * (len(modes) + 7) + "|")
    for shape in shapes:
        images, side = (int(n) for n in shape.split("x"))
        luna = time_luna(images, side)
        torch_ms = [time_torch(mode, images, side) for mode in modes]
        cells = ["%.1f" % ms if ms else "-" for ms, _ in torch_ms]
        ratio = torch_ms[0][0] / luna[0] if torch_ms[0][0] else float("nan")
        flop = decoder_flops(side, side)[0]
        tflops = flop / luna[0] / 1e9
        print("| %d x %d² | %s | **%.2f** | %.2f | %.2f | %.0f | %.0f %% | %.1f, %.2f |" %
              (images, side, " | ".join(cells), luna[0], luna[1], ratio, tflops, 100 * tflops / floor,
               torch_ms[0][1] or float("nan"), luna[2]), flush=True)


def psnr(a, b):
    return -10 * torch.log10((((a.double() - b.double()) / 2) ** 2).mean()).item()


def as_bytes(t):
    return ((t.double() + 1) / 2 * 255).clamp(0, 255).floor()


def distance(name, pixels, wanted):
    off = (as_bytes(pixels) - as_bytes(wanted)).abs()
    print("| %s | %.1f | %.1f %% | %d |" % (name, psnr(pixels, wanted), 100 * (off == 0).double().mean().item(), off.max().item()),
          flush=True)


def fidelity(side=512):
    torch.manual_seed(1)
    z = torch.randn(1, 4, side // 8, side // 8)
    model = seeded(z_channels=4)
    print("\n| from float64, %d² | PSNR, dB | bytes equal | largest difference |\n|---|---|---|---|" % side)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        save_file(model.state_dict(), folder + "/model.safetensors")
        save_file({"latents": z}, folder + "/latents.safetensors")
        wanted = seeded(z_channels=4).double().cuda()(z.double().cuda()).cpu()
        for precision in ("fp16", "bf16", "fp32"):
            run(BIN + "/luna-vae", "decode", "--model", folder + "/model.safetensors", "--latents", folder + "/latents.safetensors:latents",
                "--output", folder + "/out.safetensors", "--raw", "--device", "cuda:0", "--precision", precision)
            distance("Luna " + precision, load_file(folder + "/out.safetensors")["pixels"], wanted)
        for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
            pixels = seeded(z_channels=4).cuda().to(dtype)(z.cuda().to(dtype)).float().cpu()
            distance("PyTorch " + name, pixels, wanted)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="1x512,1x1024,16x1024,1x2048")
    parser.add_argument("--modes", default="eager,compile,max-autotune",
                        help="of PyTorch, eager first; each compiling one takes minutes")
    parser.add_argument("--skip-fidelity", action="store_true")
    options = parser.parse_args()
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__, "cuDNN", torch.backends.cudnn.version())
    if options.shapes:
        speed(options.shapes.split(","), options.modes.split(","))
    if not options.skip_fidelity:
        fidelity()


if __name__ == "__main__":
    main()
