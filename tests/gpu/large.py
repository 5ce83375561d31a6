"""A picture that takes more memory than a card of 16 GB has, in a limit: large.py [SIDE] [LIMIT].

Decodes one random latent of SIDE x SIDE pixels (4096) in fp16 within LIMIT (14G) and in fp32 without one, and prints how far
apart they are, over all and along the borders of the strips in which memory is saved. Needs PyTorch and safetensors.
"""
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

from kl_decoder import seeded

VAE = os.environ.get("LUNA_BIN", "build/bin") + "/luna-vae"
STRIPS = 32


def decode(folder, name, *more):
    subprocess.run([VAE, "decode", "--model", folder + "/model.safetensors", "--latents", folder + "/latents.safetensors:latents",
                    "--output", "%s/%s.safetensors" % (folder, name), "--raw", "--device", "cuda:0", *more],
                   check=True)
    return load_file("%s/%s.safetensors" % (folder, name))["pixels"]


def psnr(off):
    return -10 * torch.log10(((off.double() / 2) ** 2).mean()).item()


def main():
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 4096
    limit = sys.argv[2] if len(sys.argv) > 2 else "14G"
    torch.manual_seed(2)
    with tempfile.TemporaryDirectory() as folder:
        save_file(seeded(z_channels=4).state_dict(), folder + "/model.safetensors")
        save_file({"latents": torch.randn(1, 4, side // 8, side // 8)}, folder + "/latents.safetensors")
        off = decode(folder, "fp16", "--precision", "fp16", "--memory-limit", limit)
        off -= decode(folder, "fp32", "--precision", "fp32")
    strip = side // STRIPS
    borders = torch.cat([off[:, :, at - 1:at + 1] for at in range(strip, side, strip)], dim=2)
    print("%d x %d within %s, from fp32: %.1f dB over all, %.1f dB along the borders of strips, largest difference %.4f"
          % (side, side, limit, psnr(off), psnr(borders), off.abs().max().item()))


if __name__ == "__main__":
    main()
