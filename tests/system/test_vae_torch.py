"""luna-vae beside PyTorch, fp32 on the CPU, random weights: every family, every key style.

The architectures in vae_torch.py are ours; those of diffusers are a second opinion where it
is installed. To run these: a Python with torch and safetensors (and diffusers) from PyPI,
`python3 -m venv --system-site-packages V`, then `make system T=vae_torch PYTHON=V/bin/python`.
"""

import re
import subprocess
import sys

import numpy
import pytest
from files import psnr, read_safetensors, write_safetensors

WHY = "needs PyTorch and safetensors from PyPI"
torch = pytest.importorskip("torch", reason=WHY)
save_file = pytest.importorskip("safetensors.torch", reason=WHY).save_file
vae_torch = pytest.importorskip("vae_torch")

FLOOR_DB = 90


def latent(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def save(path, tensors):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
    return path


def decode(home, model, z, *options):
    out = home.home / "pixels.safetensors"
    given = write_safetensors(home.home / "latents.safetensors", {"z": z.numpy()})
    done = home.run("luna-vae", "decode", "--raw", "--model", model, "--latents", given,
                    "--output", out, *options)
    assert done.code == 0 and not done.err, done
    return read_safetensors(out)[0]["pixels"]


def check(home, tensors, z, wanted, name="model.safetensors", unit=False):
    """Distance on [0, 1]; the decoder's own range is [-1, 1] unless `unit`."""
    got = decode(home, save(home.home / name, tensors), z).astype(numpy.float64)
    wanted = wanted.detach().numpy().astype(numpy.float64)
    assert got.shape == wanted.shape
    distance = psnr(got, wanted) if unit else psnr((got + 1) / 2, (wanted + 1) / 2)
    print(f"{distance:.1f} dB")
    assert distance >= FLOOR_DB
    return distance


def prefixed(prefix, tensors):
    """In a whole checkpoint, beside what is not the decoder's."""
    others = {"model.diffusion_model.x.weight": torch.ones(3), f"{prefix}encoder.conv_in.weight":
              torch.ones(4, 4), "cond_stage_model.y": torch.ones(2)}
    return {**{prefix + name: tensor for name, tensor in tensors.items()}, **others}


KL = {
    "sd": dict(channels=4), "sd3-flux1": dict(channels=16, post_quant=None),
    "x4-upscaler": dict(channels=4, widths=(32, 64, 128)),
    "rgba": dict(channels=16, output=4), "wide": dict(channels=4, widths=(64, 64, 96, 160)),
}


@pytest.mark.parametrize("style", ["original", "diffusers", "old diffusers"])
@pytest.mark.parametrize("member", KL)
def test_kl(home, member, style):
    options = dict(KL[member])
    z = latent(2, options.pop("channels"), 5, 7)
    net = vae_torch.Net()
    wanted = vae_torch.kl(net, z, **options)
    levels = len(options.get("widths", range(4)))
    tensors = net.tensors if style == "original" else vae_torch.kl_diffusers(
        net.tensors, levels, old=style != "diffusers")
    check(home, tensors, z, wanted)


@pytest.mark.parametrize("prefix", ["first_stage_model.", "vae."])
@pytest.mark.parametrize("storage", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_kl_in_a_checkpoint(home, prefix, storage):
    net = vae_torch.Net(storage=getattr(torch, storage))
    z = latent(1, 4, 3, 9)
    wanted = vae_torch.kl(net, z)
    check(home, prefixed(prefix, net.tensors), z, wanted)


@pytest.mark.parametrize("size", [(1, 1), (1, 17), (9, 2)])
def test_kl_of_any_size(home, size):
    net, z = vae_torch.Net(), latent(1, 4, *size)
    check(home, net.tensors, z, vae_torch.kl(net, z))


@pytest.mark.parametrize("style", ["original", "diffusers"])
@pytest.mark.parametrize("widths", [(32, 64, 128, 128), (96, 192, 384, 384)])
def test_flux2(home, style, widths):
    net, z = vae_torch.Net(), latent(1, 128, 2, 3)
    wanted = vae_torch.flux2(net, z, widths)
    net.tensors["bn.num_batches_tracked"] = torch.tensor(7)
    tensors = net.tensors if style == "original" else vae_torch.kl_diffusers(net.tensors, 4)
    check(home, tensors, z, wanted)
    raw = latent(1, 32, 3, 5)
    check(home, tensors, raw, vae_torch.kl(net, raw, widths, "decoder.post_quant_conv"))


TAESD = {
    "taesd": dict(channels=4, scale=0.18215), "taesdxl": dict(channels=4, scale=0.13025),
    "taesd3": dict(channels=16, scale=1.5305, shift=0.0609),
    "taef1": dict(channels=16, scale=0.3611, shift=0.1159),
    "taef2": dict(channels=32, pooled=True),
}
TAESD_STYLES = {"sequential": ("", 0), "combined": ("taesd_decoder.", 0),
                "diffusers": ("decoder.layers.", 1)}


@pytest.mark.parametrize("style", TAESD_STYLES)
@pytest.mark.parametrize("member", TAESD)
def test_taesd(home, member, style):
    options = dict(TAESD[member])
    z = latent(2, options.pop("channels"), 6, 5)
    net = vae_torch.Net()
    wanted = vae_torch.taesd(net, z, **options)
    tensors = vae_torch.taesd_names(net.tensors, *TAESD_STYLES[style])
    name = {"diffusers": f"{member}/diffusion_pytorch_model.safetensors"}.get(
        style, f"{member}_decoder.safetensors")
    check(home, tensors, z, wanted, name, unit=True)


def test_taesd_scale_of_the_file(home):
    net, z = vae_torch.Net(), latent(1, 16, 4, 4)
    wanted = vae_torch.taesd(net, z, 0.3611, 0.1159)
    tensors = {**vae_torch.taesd_names(net.tensors, "taesd_decoder."),
               "vae_scale": torch.tensor(0.3611), "vae_shift": torch.tensor(0.1159)}
    check(home, tensors, z, wanted, "taesd3.safetensors", unit=True)


def test_taef2_packed(home):
    net, z = vae_torch.Net(), latent(1, 128, 3, 2)
    check(home, net.tensors, z, vae_torch.taesd(net, vae_torch.unpack(z), pooled=True), unit=True)


def test_taesana(home):
    net, z = vae_torch.Net(), latent(1, 32, 3, 2)
    wanted = vae_torch.taesd(net, z, 0.5, widths=(256, 128, 64, 64, 64, 64))
    model = save(home.home / "taesana.safetensors", net.tensors)
    got = decode(home, model, z, "--latent-scale", "0.5")
    assert psnr(got, wanted.numpy()) >= FLOOR_DB


def test_taesana_scale(home):
    net, z = vae_torch.Net(), latent(1, 32, 3, 2)
    wanted = vae_torch.taesd(net, z, 0.41407, widths=(256, 128, 64, 64, 64, 64))
    check(home, net.tensors, z, wanted, "model.safetensors", unit=True)


@pytest.mark.parametrize("output", [3, 4])
@pytest.mark.parametrize("style", ["original", "diffusers"])
def test_wan(home, style, output):
    net, z = vae_torch.Net(), latent(2, 16, 1, 5, 3)
    wanted = vae_torch.wan(net, z, output=output)
    tensors = net.tensors if style == "original" else vae_torch.wan_diffusers(net.tensors)
    check(home, tensors, z, wanted)
    check(home, prefixed("vae.", tensors), z[:, :, 0], wanted)


def test_wan_of_full_width(home):
    net, z = vae_torch.Net(), latent(1, 16, 1, 4, 4)
    check(home, net.tensors, z, vae_torch.wan(net, z, base=96))


# ---- diffusers -----------------------------------------------------------------------


def shake(model, seed=3):
    """Random weights that are not those of a fresh model: norms of ones hide mistakes."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            spread = 0.1 if value.ndim == 1 or "gamma" in name else value[0].numel() ** -0.5
            value += spread * torch.randn(value.shape, generator=random)
    return model.eval()


def decoder_of(model):
    return {name: tensor for name, tensor in model.state_dict().items()
            if name.startswith(("decoder.", "post_quant_conv.", "bn."))}


def diffusers():
    return pytest.importorskip("diffusers", reason="needs diffusers from PyPI")


@pytest.mark.parametrize("channels, post_quant", [(4, True), (16, False)])
def test_diffusers_kl(home, channels, post_quant):
    model = shake(diffusers().AutoencoderKL(
        latent_channels=channels, block_out_channels=(32, 64, 128, 128), layers_per_block=2,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        use_post_quant_conv=post_quant, use_quant_conv=post_quant))
    z = latent(2, channels, 6, 5)
    with torch.no_grad():
        wanted = model.decode(z).sample
    check(home, decoder_of(model), z, wanted)


@pytest.mark.parametrize("name", ["taesd", "taesd3"])
def test_diffusers_tiny(home, name):
    options = TAESD[name]
    model = shake(diffusers().AutoencoderTiny(latent_channels=options["channels"]))
    z = latent(1, options["channels"], 6, 5)
    with torch.no_grad():
        wanted = model.decode((z - options.get("shift", 0)) * options["scale"]).sample
    check(home, decoder_of(model), z, wanted / 2 + 0.5,
          f"{name}/diffusion_pytorch_model.safetensors", unit=True)


@pytest.mark.parametrize("kind", ["AutoencoderKLWan", "AutoencoderKLQwenImage"])
def test_diffusers_wan(home, kind):
    build = getattr(diffusers(), kind, None) or pytest.skip(f"this diffusers has no {kind}")
    model = shake(build(base_dim=32, dim_mult=[1, 2, 4, 4]))  # some take no tuple, their own default
    z = latent(1, 16, 1, 4, 6)
    with torch.no_grad():
        wanted = model.decode(z).sample[:, :, 0]
    # It clamps; where nothing was clamped the values must agree.
    got = decode(home, save(home.home / "m.safetensors", decoder_of(model)), z)
    assert psnr((numpy.clip(got, -1, 1) + 1) / 2, (wanted.numpy() + 1) / 2) >= FLOOR_DB
    assert (abs(wanted) < 1).float().mean() > 0.3


def test_diffusers_flux2(home):
    build = getattr(diffusers(), "AutoencoderKLFlux2", None) or pytest.skip("no FLUX.2 here")
    model = shake(build(block_out_channels=(32, 64, 128, 128)))
    with torch.no_grad():
        model.bn.running_mean.normal_()
        model.bn.running_var.uniform_(0.1, 2)
        z = latent(1, 32, 4, 6)
        wanted = model.decode(z).sample
    check(home, decoder_of(model), z, wanted)
    n, c, h, w = z.shape
    packed = z.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(
        n, 4 * c, h // 2, w // 2)
    deviation = torch.sqrt(model.bn.running_var + model.config.batch_norm_eps)
    normal = (packed - model.bn.running_mean.reshape(1, -1, 1, 1)) / deviation.reshape(1, -1, 1, 1)
    check(home, decoder_of(model), normal, wanted)


# ---- pickles -------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_the_advice_about_pickles_works(home, zipped):
    net, z = vae_torch.Net(), latent(1, 4, 2, 3)
    wanted = vae_torch.kl(net, z)
    layout = {"memory_format": torch.channels_last}
    net.tensors["decoder.conv_in.weight"] = net.tensors["decoder.conv_in.weight"].to(**layout)
    old, new = home.home / "old.ckpt", home.home / "new.safetensors"
    torch.save({"state_dict": net.tensors, "epoch": 3}, old,
               _use_new_zipfile_serialization=zipped)
    refused = home.run("luna-vae", "info", old)
    assert refused.code == 65 and refused.err.count("\n") == 1
    code = re.search(r'python3 -c "([^"]*)"', refused.err)[1]
    subprocess.run([sys.executable, "-c", code, old, new], check=True, capture_output=True)
    got = decode(home, new, z)
    assert psnr((got + 1) / 2, (wanted.numpy() + 1) / 2) >= FLOOR_DB
