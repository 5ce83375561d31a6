"""Decoders of other families through the whole of Luna: packed, five dimensions, RGBA."""

import numpy
import pytest
from files import DATA, read_safetensors, write_latent
from PIL import Image

DECODERS = DATA.parent / "decoders"


def reference(name):
    tensors = read_safetensors(DECODERS / "reference.safetensors")[0]
    return tensors[f"{name}.latent"], tensors[f"{name}.pixels"]


def bytes_of(pixels):
    """As ComfyUI saves [channels, H, W] in [-1, 1]: HWC, cut off."""
    unit = numpy.clip((pixels + numpy.float32(1)) / numpy.float32(2), 0, 1)
    return (numpy.float32(255) * unit).astype(numpy.uint8).transpose(1, 2, 0)


@pytest.mark.parametrize("name, mode", [("flux2", "RGB"), ("wan", "RGBA"), ("upscaler", "RGB")])
def test_end_to_end(home, name, mode):
    home.start(LUNA_VAE_ROOTS=str(DECODERS))
    latents, pixels = reference(name)
    file = write_latent(home.home / f"{name}.latent", latents)
    _, paths = home.submit_wait(file, vae=name)
    assert len(paths) == len(pixels)
    for path, wanted in zip(sorted(paths), pixels):
        with Image.open(path) as image:
            assert image.mode == mode
            got = numpy.asarray(image).astype(int)
        off = abs(got - bytes_of(wanted))
        assert off.max() <= 1 and (off > 0).mean() < 0.01  # values at an edge between two bytes


def test_several_that_fit_are_listed(home):
    home.start(LUNA_VAE_ROOTS=str(DECODERS))
    latents, _ = reference("qwen")
    job = home.submit(write_latent(home.home / "x.latent", latents), vae="auto", expect="failed")
    detail = home.wait_job(job, "failed")["detail"]
    assert "qwen" in detail and "wan" in detail and "flux2" not in detail, detail
