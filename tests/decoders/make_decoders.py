"""Writes the small decoders of the families and key styles that the other files do not have,
random weights, with their latents and pixels decoded in float64. Needs PyTorch and safetensors.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "system"))

import vae_torch  # noqa: E402


def random(*shape):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    return values.to(torch.float16)


def net(storage):
    return vae_torch.Net(len(str(storage)), storage, torch.float64)


def flux2():
    model, z = net(torch.float8_e4m3fn), random(1, 128, 3, 2)
    return z, vae_torch.flux2(model, z.double(), (32, 32, 32, 32)), model.tensors


def upscaler():
    model, z = net(torch.float8_e5m2), random(1, 4, 5, 9)
    pixels = vae_torch.kl(model, z.double(), (32, 32, 64))
    return z, pixels, vae_torch.kl_diffusers(model.tensors, 3, old=True)


def wan():
    model, z = net(torch.bfloat16), random(2, 16, 1, 6, 5)
    return z, vae_torch.wan(model, z.double(), base=4, output=4), model.tensors


def qwen():
    model, z = net(torch.float16), random(1, 16, 1, 4, 7)
    tensors = {}
    pixels = vae_torch.wan(model, z.double(), base=4)
    for name, tensor in vae_torch.wan_diffusers(model.tensors).items():
        tensors[f"vae.{name}"] = tensor
    return z, pixels, tensors


def taef1():
    model, z = net(torch.float16), random(1, 16, 5, 3)
    pixels = vae_torch.taesd(model, z.double(), 0.3611, 0.1159, (12, 12, 12, 12))
    return z, pixels, vae_torch.taesd_names(model.tensors, "decoder.layers.", 1)


def taesana():
    model, z = net(torch.float32), random(1, 32, 2, 2)
    return z, vae_torch.taesd(model, z.double(), 1.0, 0.0, (16, 8, 4, 4, 4, 4)), model.tensors


references = {}
for make in (flux2, upscaler, wan, qwen, taef1, taesana):
    name = f"{make.__name__}"
    latents, pixels, tensors = make()
    references[f"{name}.latent"] = latents
    references[f"{name}.pixels"] = pixels.float().contiguous()
    save_file({k: v.contiguous().clone() for k, v in tensors.items()},
              HERE / f"{name}.safetensors")
save_file(references, HERE / "reference.safetensors")
