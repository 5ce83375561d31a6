"""Real photographs through the whole of Luna, held against pixels decoded in float64."""

import subprocess

import pytest
from files import (DATA, PHOTOGRAPHS, VAE, image_pixels, photograph, photograph_pixels, png_texts,
                   psnr, read_safetensors)
from PIL import Image


def check_picture(path, name):
    wanted = photograph_pixels(name)
    got = image_pixels(path)
    assert got.shape == wanted.shape
    assert psnr(got, wanted) >= 50  # 52.9 dB is what truncation to 8 bits leaves
    subprocess.run(["pngcheck", "-q", str(path)], check=True)


def check_texts(path, metadata):
    texts = png_texts(path)
    for key in ("prompt", "workflow"):
        assert texts[key] == metadata[key].encode()
    with Image.open(path) as image:
        for key in ("prompt", "workflow"):
            assert image.text[key].encode("latin-1") == metadata[key].encode()


def test_photographs_end_to_end(luna):
    for name in PHOTOGRAPHS:
        metadata = read_safetensors(photograph(name))[1]
        assert {"prompt", "workflow"} <= set(metadata)
        _, (path,) = luna.submit_wait(photograph(name), "--filename", name)
        assert path.name == f"{name}.png"
        check_picture(path, name)
        check_texts(path, metadata)


def test_no_embed_leaves_nothing_but_the_picture(luna):
    _, (path,) = luna.submit_wait(photograph("chelsea"), "--no-embed")
    check_picture(path, "chelsea")
    assert not png_texts(path)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_luna_vae_alone(home, name):
    out = home.home / "pixels.safetensors"
    done = home.run("luna-vae", "decode", "--model", DATA / f"{VAE}.safetensors", "--latents",
                    photograph(name), "--output", out)
    assert done.code == 0, done
    pixels = read_safetensors(out)[0]["pixels"][0]
    wanted = photograph_pixels(name)
    assert pixels.shape == wanted.shape
    assert pixels.min() >= 0 and pixels.max() <= 1
    assert psnr(pixels, wanted) >= 70
