"""luna-vae by itself: what it says, what it writes, and how it refuses."""

import ctypes
import json
import mmap
import struct

import numpy
import pytest
from files import DATA, VAE, photograph, read_safetensors, reference, write_safetensors

MODEL = DATA / f"{VAE}.safetensors"


def refused(done, code, *words):
    assert done.code == code, done
    assert done.err.count("\n") == 1 and not done.out, done
    for word in words:
        assert word in done.err, done


def decode(home, latents, *options, model=MODEL):
    out = home.home / "pixels.safetensors"
    done = home.run("luna-vae", "decode", "--model", model, "--latents", latents, "--output", out,
                    *options)
    assert done.code == 0 and not done.err and "bytes read of" in done.out, done
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


def checkpoint(path, model, around_bytes):
    """The model's tensors as a checkpoint's first stage, between two others of that size,
    which are holes in the file. Returns how many bytes there are in it but for the holes."""
    raw = model.read_bytes()
    (header_bytes,) = struct.unpack("<Q", raw[:8])
    old, new, at = json.loads(raw[8:8 + header_bytes]), {}, around_bytes
    old.pop("__metadata__", None)
    whole = {"dtype": "U8", "shape": [around_bytes]}
    new["model.diffusion_model.a"] = {**whole, "data_offsets": [0, at]}
    for name, entry in old.items():
        begin, end = (around_bytes + offset for offset in entry["data_offsets"])
        new[f"first_stage_model.{name}"] = {**entry, "data_offsets": [begin, end]}
        at = max(at, end)
    new["model.diffusion_model.b"] = {**whole, "data_offsets": [at, at + around_bytes]}
    text = json.dumps(new).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.seek(around_bytes, 1)
        file.write(raw[8 + header_bytes:])
        file.truncate(file.tell() + around_bytes)
    return 8 + len(text) + len(raw) - 8 - header_bytes


def cached_bytes(path):
    """How much of a file is in memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    pages = ctypes.create_string_buffer(size // mmap.PAGESIZE + 1)
    assert libc.mincore(start, size, pages) == 0
    libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(size))
    return sum(page & 1 for page in pages.raw) * mmap.PAGESIZE


def test_of_a_checkpoint_only_the_decoder_is_read(home):
    model, file = DATA / "kl_small_z4.safetensors", home.home / "checkpoint.safetensors"
    few = numpy.random.default_rng(2).standard_normal((1, 4, 3, 5)).astype(numpy.float32)
    latents = write_safetensors(home.home / "few.safetensors", {"z": few})
    present = checkpoint(file, model, 3 << 30)
    info = json.loads(home.run("luna-vae", "info", file, "--json").out)
    assert info["file_bytes"] == file.stat().st_size and info["read_bytes"] == present
    assert file.stat().st_size > 6e9
    assert (decode(home, latents, model=file) == decode(home, latents, model=model)).all()
    assert cached_bytes(file) < present + (64 << 20)  # the system reads ahead


@pytest.mark.parametrize("family, shape", [("taesd", "2x64x128"), ("sdxl", "2x8x16")])
def test_bench_of_a_random_model(home, family, shape):
    done = home.run("luna-vae", "bench", "--random", family, "--shape", shape, "--runs", "2",
                    "--json")
    result = json.loads(done.out)
    assert result["images"] == 2 and result["runs"] == 2
    assert result["ms_per_image"] > 0 and result["gflops"] > 0 and result["peak_mib"] > 5
    assert result["first_ms"] > 0 and result["second_ms"] > 0 and result["before_ms"] == 0


def test_bench_of_a_decoder_at_work(home):
    done = home.run("luna-vae", "bench", "--random", "taesd", "--before", "1x16x16", "--shape", "1x24x8", "--runs", "1", "--json")
    result = json.loads(done.out)
    assert (result["images"], result["width"], result["height"]) == (1, 24, 8)
    assert result["before_ms"] > 0 and result["plan_ms"] > 0
    done = home.run("luna-vae", "bench", "--random", "taesd", "--shape", "1x8x8", "--runs", "1")
    assert "before that: device " in done.out
    done = home.run("luna-vae", "bench", "--random", "taesd", "--before", "1x7x8", "--shape", "1x8x8")
    assert done.code == 64 and "multiples of 8" in done.err


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


def test_layers_of_another_architecture_are_named(home):
    tensors = read_safetensors(DATA / "kl_small_z4.safetensors")[0]
    for name, known in (("encoder.conv_in.weight", True), ("model_ema.decay", True),
                        ("decoder.up.0.attn.0.q.weight", False)):
        more = {**tensors, name: numpy.zeros((2, 2), numpy.float16)}
        file = write_safetensors(home.home / "more.safetensors", more)
        done = home.run("luna-vae", "info", file)
        assert (done.code == 0) == known, done
        if not known:
            refused(done, 65, f"'{name}' belongs to no decoder Luna knows")


def test_a_tower_of_upsamplings_is_refused(home):
    def ones(*shape):
        return numpy.ones(shape, numpy.float16)

    def conv(name, *kernel):
        return {f"{name}.weight": ones(1, 1, *kernel), f"{name}.bias": ones(1)}

    tensors = {**conv("conv2", 1, 1, 1), **conv("decoder.conv1", 3, 3, 3),
               "decoder.middle.1.norm.gamma": ones(1), "decoder.head.0.gamma": ones(1),
               "decoder.middle.1.to_qkv.weight": ones(3, 1, 1, 1),
               "decoder.middle.1.to_qkv.bias": ones(3), **conv("decoder.middle.1.proj", 1, 1),
               "decoder.head.2.weight": ones(3, 1, 3, 3, 3), "decoder.head.2.bias": ones(3)}
    for block in ("decoder.middle.0", "decoder.middle.2"):
        for part in (0, 3):
            tensors[f"{block}.residual.{part}.gamma"] = ones(1)
        tensors |= conv(f"{block}.residual.2", 3, 3, 3) | conv(f"{block}.residual.6", 3, 3, 3)
    for count, code in ((7, 0), (8, 65), (70, 65)):
        for i in range(count):
            tensors |= conv(f"decoder.upsamples.{i}.resample.1", 3, 3)
        done = home.run("luna-vae", "info", write_safetensors(home.home / "t.safetensors", tensors))
        assert done.code == code and (code == 0 or f"{count} times" in done.err), done


@pytest.mark.parametrize("cut", [0, 7, 100, 5000, -1])
def test_a_cut_model_is_bad_data(home, cut):
    file = home.home / "cut.safetensors"
    file.write_bytes(MODEL.read_bytes()[:cut])
    refused(home.run("luna-vae", "info", file), 65, "cut.safetensors")
