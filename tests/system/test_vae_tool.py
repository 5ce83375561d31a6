"""luna-vae by itself: what it says, what it writes, and how it refuses."""

import json

import numpy
import pytest
from files import DATA, VAE, photograph, read_safetensors, reference, write_safetensors

MODEL = DATA / f"{VAE}.safetensors"


def refused(done, code, *words):
    assert done.code == code, done
    assert done.err.count("\n") == 1 and not done.out, done
    for word in words:
        assert word in done.err, done


def decode(home, latents, *options):
    out = home.home / "pixels.safetensors"
    done = home.run("luna-vae", "decode", "--model", MODEL, "--latents", latents, "--output", out,
                    *options)
    assert done.code == 0 and not done.err, done
    (pixels,) = read_safetensors(out)[0].values()
    return pixels


def test_info_as_json(home):
    done = home.run("luna-vae", "info", MODEL, "--json")
    info = json.loads(done.out)
    assert (info["family"], info["latent_channels"], info["packed_channels"]) == ("taesd", 32, 128)
    assert info["parameters"] == 1338499 and info["spatial_factor"] == 8


def test_raw_is_the_clamped_before_clamping(home):
    raw, clamped = decode(home, photograph("chelsea"), "--raw"), decode(home, photograph("chelsea"))
    assert raw.dtype == numpy.float32 and raw.shape == clamped.shape == (1, 3, 296, 448)
    assert raw.min() < 0 or raw.max() > 1
    assert abs(raw.clip(0, 1) - clamped).max() < 1e-6


def test_a_batch_is_its_images(home):
    rng = numpy.random.default_rng(1)
    batch = rng.standard_normal((3, 32, 5, 7)).astype(numpy.float32)
    file = write_safetensors(home.home / "in.safetensors", {"x": batch, "one": batch[1:2]})
    assert (decode(home, f"{file}:x")[1:2] == decode(home, f"{file}:one")).all()


def test_old_latents_are_scaled(home):
    latent = reference("chelsea.latent")[:, :, :4, :4].astype(numpy.float32)
    old = write_safetensors(home.home / "old.latent",
                            {"latent_tensor": latent * numpy.float32(0.18215)})
    new = write_safetensors(home.home / "new.safetensors", {"x": latent})
    assert abs(decode(home, old) - decode(home, new)).max() < 1e-4


def test_bench_of_a_random_model(home):
    done = home.run("luna-vae", "bench", "--random", "taesd", "--shape", "2x64x128", "--runs", "2",
                    "--json")
    result = json.loads(done.out)
    assert result["images"] == 2 and result["runs"] == 2
    assert result["ms_per_image"] > 0 and result["gflops"] > 0 and result["peak_mib"] > 5


def test_refusals_leave_no_file(home):
    nan = reference("chelsea.latent")[:, :, :2, :2].copy()
    nan[0, 3, 1, 0] = numpy.nan
    files = {
        "nan": write_safetensors(home.home / "nan.safetensors", {"x": nan}),
        "four": write_safetensors(home.home / "four.safetensors", {"x": nan[:, :4]}),
    }
    folder = home.home / "out"
    folder.mkdir()

    def run(latents, *options, model=MODEL):
        return home.run("luna-vae", "decode", "--model", model, "--latents", latents, "--output",
                        folder / "o.safetensors", *options)

    refused(run(files["nan"]), 65, "NaN or infinity: 1 times", "channel 3, row 1, column 0")
    refused(run(files["four"]), 65, "4 channels", "32")
    refused(run(home.home / "absent"), 66, "absent")
    refused(run(f"{files['nan']}:y"), 66, "'y'")
    refused(run(photograph("chelsea"), model=photograph("chelsea")), 65, "not a VAE decoder")
    refused(run(photograph("chelsea"), "--memory-limit", "1M"), 75, "448 x 296", "1048576")
    refused(run(photograph("chelsea"), "--precision", "fp16"), 65, "fp16")
    refused(run(photograph("chelsea"), "--device", "cuda:99"), 69, "cuda:99")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("cut", [0, 7, 100, 5000, -1])
def test_a_cut_model_is_bad_data(home, cut):
    file = home.home / "cut.safetensors"
    file.write_bytes(MODEL.read_bytes()[:cut])
    refused(home.run("luna-vae", "info", file), 65, "cut.safetensors")
