"""Every decoder Luna knows, written down in PyTorch, with random weights.

A `Net` makes a parameter when a layer first asks for it, so that running an architecture
gives its file as well. Names are the original ones; `rename` makes those of diffusers.
"""

import re

import torch
from torch.nn import functional as F


class Net:
    """Layers by name. `storage` is the dtype of the file: values are rounded to it."""

    def __init__(self, seed=0, storage=torch.float32, compute=torch.float32):
        self.tensors = {}
        self.storage = storage
        self.compute = compute
        self.random = torch.Generator().manual_seed(seed)

    def param(self, name, shape, spread, centre=0.0):
        if name not in self.tensors:
            values = centre + spread * torch.randn(shape, generator=self.random)
            self.tensors[name] = values.to(self.storage)
        return self.tensors[name].to(self.compute)

    def conv(self, x, name, to, size=3, bias=True):
        fan = x.shape[1] * size * size
        weight = self.param(f"{name}.weight", (to, x.shape[1], size, size), fan ** -0.5)
        offset = self.param(f"{name}.bias", (to,), 0.05) if bias else None
        return F.conv2d(x, weight, offset, padding=size // 2)

    def group_norm(self, x, name, groups=32, eps=1e-6):
        weight = self.param(f"{name}.weight", x.shape[1:2], 0.1, 1.0)
        return F.group_norm(x, groups, weight, self.param(f"{name}.bias", x.shape[1:2], 0.1), eps)

    def causal_conv(self, x, name, to, size=3):
        """Of [N, C, T, H, W]: zeros before the first frame, none behind the last."""
        shape = (to, x.shape[1], size, size, size)
        weight = self.param(f"{name}.weight", shape, (x.shape[1] * size * size) ** -0.5)
        side = size // 2
        x = F.pad(x, (side, side, side, side, size - 1, 0))
        return F.conv3d(x, weight, self.param(f"{name}.bias", (to,), 0.05))

    def rms_norm(self, x, name, shape):
        gamma = self.param(f"{name}.gamma", (x.shape[1], *shape), 0.1, 1.0)
        gamma = gamma.reshape(1, -1, *[1] * (x.ndim - 2))
        return F.normalize(x, dim=1) * x.shape[1] ** 0.5 * gamma


def attend(q, k, v):
    """One head over the pixels of [N, C, H, W]."""
    flat = [t.flatten(2).transpose(1, 2) for t in (q, k, v)]
    return F.scaled_dot_product_attention(*flat).transpose(1, 2).reshape(q.shape)


def unpack(x):
    """[N, 4c, H, W] to [N, c, 2H, 2W]."""
    n, c, h, w = x.shape
    return x.reshape(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h,
                                                                              2 * w)


def double(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


# ---- KL ------------------------------------------------------------------------------


def _kl_block(net, x, name, to):
    y = net.conv(F.silu(net.group_norm(x, f"{name}.norm1")), f"{name}.conv1", to)
    y = net.conv(F.silu(net.group_norm(y, f"{name}.norm2")), f"{name}.conv2", to)
    return (net.conv(x, f"{name}.nin_shortcut", to, 1) if x.shape[1] != to else x) + y


def _kl_attention(net, x, name):
    y = net.group_norm(x, f"{name}.norm")
    q, k, v = (net.conv(y, f"{name}.{which}", x.shape[1], 1) for which in "qkv")
    return x + net.conv(attend(q, k, v), f"{name}.proj_out", x.shape[1], 1)


def kl(net, z, widths=(32, 64, 128, 128), post_quant="post_quant_conv", output=3):
    """`widths` from the picture's side."""
    x = net.conv(z, post_quant, z.shape[1], 1) if post_quant else z
    x = net.conv(x, "decoder.conv_in", widths[-1])
    x = _kl_block(net, x, "decoder.mid.block_1", widths[-1])
    x = _kl_attention(net, x, "decoder.mid.attn_1")
    x = _kl_block(net, x, "decoder.mid.block_2", widths[-1])
    for level in reversed(range(len(widths))):
        for i in range(3):
            x = _kl_block(net, x, f"decoder.up.{level}.block.{i}", widths[level])
        if level:
            x = net.conv(double(x), f"decoder.up.{level}.upsample.conv", widths[level])
    return net.conv(F.silu(net.group_norm(x, "decoder.norm_out")), "decoder.conv_out", output)


def flux2(net, z, widths, post_quant="decoder.post_quant_conv"):
    """Of packed latents, standardised by a batch norm."""
    channels = z.shape[1:2]
    mean = net.param("bn.running_mean", channels, 0.5).reshape(1, -1, 1, 1)
    if "bn.running_var" not in net.tensors:
        drawn = torch.rand(channels, generator=net.random) * 2
        net.tensors["bn.running_var"] = drawn.to(net.storage)
    variance = net.tensors["bn.running_var"].to(net.compute).reshape(1, -1, 1, 1)
    return kl(net, unpack(z * torch.sqrt(variance + 1e-4) + mean), widths, post_quant)


def kl_diffusers(tensors, levels, old=False):
    """Names of diffusers; its attention weights are matrices."""
    attention = ("query", "key", "value", "proj_attn") if old else ("to_q", "to_k", "to_v",
                                                                    "to_out.0")
    rules = [(r"^decoder\.post_quant", "post_quant"),
             (r"mid\.block_(\d)", lambda m: f"mid_block.resnets.{int(m[1]) - 1}"),
             (r"up\.(\d)\.block", lambda m: f"up_blocks.{levels - 1 - int(m[1])}.resnets"),
             (r"up\.(\d)\.upsample",
              lambda m: f"up_blocks.{levels - 1 - int(m[1])}.upsamplers.0"),
             (r"nin_shortcut", "conv_shortcut"), (r"norm_out", "conv_norm_out"),
             (r"mid\.attn_1\.norm", "mid_block.attentions.0.group_norm"),
             (r"mid\.attn_1\.(q|k|v|proj_out)\.",
              lambda m: "mid_block.attentions.0."
              f"{attention[('q', 'k', 'v', 'proj_out').index(m[1])]}.")]
    renamed = rename(tensors, rules)
    return {name: t[:, :, 0, 0] if "attentions" in name and t.ndim == 4 else t
            for name, t in renamed.items()}


def rename(tensors, rules):
    out = {}
    for name, tensor in tensors.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        out[name] = tensor
    return out


# ---- TAESD ---------------------------------------------------------------------------


def _tiny_block(net, x, name, to):
    y = F.relu(net.conv(x, f"{name}.conv.0", to))
    y = net.conv(F.relu(net.conv(y, f"{name}.conv.2", to)), f"{name}.conv.4", to)
    return F.relu(y + (net.conv(x, f"{name}.skip", to, 1, False) if x.shape[1] != to else x))


def _tiny_pool(net, x, name):
    y = net.group_norm(net.conv(x, f"{name}.pool.0", 256, 1, False), f"{name}.pool.1", 4, 1e-5)
    return x + net.conv(F.relu(y), f"{name}.pool.3", x.shape[1], 1, False)


def taesd(net, z, scale=1.0, shift=0.0, widths=(64, 64, 64, 64), pooled=False, output=3):
    """One width a stage and one for what follows."""
    x = torch.tanh((z - shift) * scale / 3) * 3
    x = F.relu(net.conv(x, "1", widths[0]))
    layer = 3
    for stage, width in enumerate(widths[:-1]):
        for i in range(3):
            if pooled and stage == 0:
                x = _tiny_pool(net, x, str(layer + i))
            x = _tiny_block(net, x, str(layer + i), width)
        x = net.conv(double(x), str(layer + 4), widths[stage + 1], bias=False)
        layer += 5
    return net.conv(_tiny_block(net, x, str(layer), widths[-1]), str(layer + 1), output)


def taesd_names(tensors, prefix, less=0):
    return {prefix + re.sub(r"^\d+", lambda m: str(int(m[0]) - less), name): tensor
            for name, tensor in tensors.items()}


# ---- Wan -----------------------------------------------------------------------------


def _wan_block(net, x, name, to):
    cube = (1, 1, 1)
    y = F.silu(net.rms_norm(x, f"{name}.residual.0", cube))
    y = F.silu(net.rms_norm(net.causal_conv(y, f"{name}.residual.2", to), f"{name}.residual.3",
                            cube))
    y = net.causal_conv(y, f"{name}.residual.6", to)
    return y + (net.causal_conv(x, f"{name}.shortcut", to, 1) if x.shape[1] != to else x)


def _wan_attention(net, x, name):
    frame = net.rms_norm(x[:, :, 0], f"{name}.norm", (1, 1))
    q, k, v = net.conv(frame, f"{name}.to_qkv", 3 * x.shape[1], 1).chunk(3, 1)
    return x + net.conv(attend(q, k, v), f"{name}.proj", x.shape[1], 1)[:, :, None]


def wan(net, z, base=16, output=3):
    """Of [N, C, 1, H, W], by convolutions in time."""
    widths = [4 * base, 4 * base, 2 * base, base]
    x = net.causal_conv(z, "conv2", z.shape[1], 1)
    x = net.causal_conv(x, "decoder.conv1", widths[0])
    x = _wan_block(net, x, "decoder.middle.0", widths[0])
    x = _wan_attention(net, x, "decoder.middle.1")
    x = _wan_block(net, x, "decoder.middle.2", widths[0])
    for stage, width in enumerate(widths):
        for i in range(3):
            x = _wan_block(net, x, f"decoder.upsamples.{4 * stage + i}", width)
        if stage < 3:
            name = f"decoder.upsamples.{4 * stage + 3}"
            x = net.conv(double(x[:, :, 0]), f"{name}.resample.1", width // 2)[:, :, None]
        if stage < 2:  # does nothing to a first frame
            net.param(f"{name}.time_conv.weight", (2 * width, width, 3, 1, 1), 1.0)
            net.param(f"{name}.time_conv.bias", (2 * width,), 1.0)
    x = F.silu(net.rms_norm(x, "decoder.head.0", (1, 1, 1)))
    return net.causal_conv(x, "decoder.head.2", output)[:, :, 0]


def wan_diffusers(tensors):
    def upsample(match):
        stage, i = divmod(int(match[1]), 4)
        return f"up_blocks.{stage}." + ("upsamplers.0" if i == 3 else f"resnets.{i}")
    rules = [(r"^conv2", "post_quant_conv"), (r"decoder\.conv1\.", "decoder.conv_in."),
             (r"middle\.1", "mid_block.attentions.0"),
             (r"middle\.([02])", lambda m: f"mid_block.resnets.{int(m[1]) // 2}"),
             (r"upsamples\.(\d+)", upsample), (r"head\.0", "norm_out"), (r"head\.2", "conv_out"),
             (r"residual\.0", "norm1"), (r"residual\.2", "conv1"), (r"residual\.3", "norm2"),
             (r"residual\.6", "conv2"), (r"\.shortcut", ".conv_shortcut")]
    return rename(tensors, rules)
