"""The Stable Diffusion KL decoder as PyTorch users run it, and weights for it; needs torch, safetensors and numpy.

kl_torch.py weights FILE         writes seeded weights, SDXL's sizes and key names, float32
kl_torch.py time FILE W H RUNS   decodes one seeded latent; prints JSON: ms of each run, peak MiB
kl_torch.py decode FILE IN OUT   decodes the tensor `latents` of IN into `pixels` of OUT, float32
"""

import json
import resource
import sys
import time

import torch
import torch.nn.functional as functional
from safetensors.torch import load_file, save_file

WIDTHS = (512, 512, 256, 128)  # of the levels, from the latents to the picture
BLOCKS, GROUPS, LATENT_CHANNELS = 3, 32, 4


def shapes():
    """Key to shape, as in the checkpoints that ComfyUI loads."""
    out = {}

    def conv(name, c_out, c_in, kernel):
        out[name + ".weight"], out[name + ".bias"] = (c_out, c_in, kernel, kernel), (c_out,)

    def norm(name, channels):
        out[name + ".weight"] = out[name + ".bias"] = (channels,)

    def block(name, c_in, c_out):
        norm(name + ".norm1", c_in)
        conv(name + ".conv1", c_out, c_in, 3)
        norm(name + ".norm2", c_out)
        conv(name + ".conv2", c_out, c_out, 3)
        if c_in != c_out:
            conv(name + ".nin_shortcut", c_out, c_in, 1)

    width = WIDTHS[0]
    conv("post_quant_conv", LATENT_CHANNELS, LATENT_CHANNELS, 1)
    conv("decoder.conv_in", width, LATENT_CHANNELS, 3)
    block("decoder.mid.block_1", width, width)
    norm("decoder.mid.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        conv("decoder.mid.attn_1." + part, width, width, 1)
    block("decoder.mid.block_2", width, width)
    for level, c_out in enumerate(WIDTHS):
        name = f"decoder.up.{len(WIDTHS) - 1 - level}"
        for i in range(BLOCKS):
            block(f"{name}.block.{i}", width, c_out)
            width = c_out
        if level < len(WIDTHS) - 1:
            conv(name + ".upsample.conv", width, width, 3)
    norm("decoder.norm_out", width)
    conv("decoder.conv_out", 3, width, 3)
    return out


def weights(seed=7):
    torch.manual_seed(seed)
    out = {}
    for name, shape in shapes().items():
        values = torch.randn(shape)
        if "norm" in name:
            values = values * 0.1 + (1.0 if name.endswith("weight") else 0.0)
        elif name.endswith("bias"):
            values = values * 0.05
        else:
            values = values * (1.0 / values[0].numel()) ** 0.5
        out[name] = values
    out["decoder.conv_out.weight"] *= 0.4
    return out


def decode(w, z):
    def conv(name, x):
        weight = w[name + ".weight"]
        return functional.conv2d(x, weight, w[name + ".bias"], padding=weight.shape[-1] // 2)

    def norm(name, x):
        return functional.group_norm(x, GROUPS, w[name + ".weight"], w[name + ".bias"], 1e-6)

    def block(name, x):
        h = conv(name + ".conv1", functional.silu(norm(name + ".norm1", x)))
        h = conv(name + ".conv2", functional.silu(norm(name + ".norm2", h)))
        return h + (conv(name + ".nin_shortcut", x) if name + ".nin_shortcut.weight" in w else x)

    def attention(name, x):
        h = norm(name + ".norm", x)
        n, c, height, width = x.shape
        q, k, v = (conv(f"{name}.{p}", h).view(n, 1, c, -1).transpose(2, 3).contiguous() for p in "qkv")
        o = functional.scaled_dot_product_attention(q, k, v)
        return x + conv(name + ".proj_out", o.transpose(2, 3).reshape(n, c, height, width))

    x = conv("decoder.conv_in", conv("post_quant_conv", z))
    x = block("decoder.mid.block_1", x)
    x = attention("decoder.mid.attn_1", x)
    x = block("decoder.mid.block_2", x)
    for level in reversed(range(len(WIDTHS))):
        for i in range(BLOCKS):
            x = block(f"decoder.up.{level}.block.{i}", x)
        if level:
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = conv(f"decoder.up.{level}.upsample.conv", x)
    return conv("decoder.conv_out", functional.silu(norm("decoder.norm_out", x)))


def measure(path, width, height, runs):
    w = load_file(path)
    torch.manual_seed(1)
    z = torch.randn(1, LATENT_CHANNELS, height // 8, width // 8)
    ms = []
    for _ in range(runs + 1):  # the first warms up
        begin = time.perf_counter()
        decode(w, z)
        ms.append(1e3 * (time.perf_counter() - begin))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"ms": ms[1:], "process_mib": peak, "torch": torch.__version__,
                      "threads": torch.get_num_threads()}))


def main(command, path, *rest):
    with torch.inference_mode():
        if command == "weights":
            save_file(weights(), path)
        elif command == "time":
            measure(path, *map(int, rest))
        else:
            save_file({"pixels": decode(load_file(path), load_file(rest[0])["latents"])}, rest[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
