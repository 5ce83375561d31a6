"""Batches, names, queues and ids."""

import json
import re
import struct

import wire
from files import (DATA, VAE, batch, image_pixels, photograph, photograph_pixels, psnr,
                   sha256, write_latent)
from luna import wait_for


def latents(luna, count, size=16, name="batch.latent"):
    return write_latent(luna.home / name, batch(count, size))


def test_batch_names(luna):
    _, paths = luna.submit_wait(latents(luna, 5), "--filename", "shot", "--affix", "ORIG",
                                "--save-path", "set/%model_name%", "--model-name",
                                "xl/base.safetensors")
    folder = luna.output / "set" / "base" / "ORIG"
    assert {path.parent for path in paths} == {folder}
    assert len(set(paths)) == 5
    assert all(re.fullmatch(r"shot_ORIG_\d+\.png", path.name) for path in paths), paths


def test_the_same_name_twice_overwrites_nothing(luna):
    file = latents(luna, 1)
    _, (first,) = luna.submit_wait(file, "--filename", "same")
    before = first.read_bytes()
    _, (second,) = luna.submit_wait(file, "--filename", "same")
    assert first != second
    assert first.read_bytes() == before
    assert (image_pixels(first) == image_pixels(second)).all()


def test_a_stranger_with_the_name_is_left_alone(luna):
    stranger = luna.output / "mine.png"
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_bytes(b"not Luna's")
    luna.strangers.add(stranger)
    _, (path,) = luna.submit_wait(latents(luna, 1), "--filename", "mine")
    assert path != stranger
    assert stranger.read_bytes() == b"not Luna's"


def test_several_inputs_in_one_job(luna):
    first, second = latents(luna, 2, 16, "a.latent"), latents(luna, 1, 24, "b.latent")
    done = luna.lunactl("submit", "--latents", first, "--affix", "A", "--latents", second,
                        "--affix", "B", "--vae", "taef2_decoder", "--output-dir", luna.output,
                        "--wait")
    assert done.code == 0, done
    luna.expect(done.out.split()[0])
    sizes = {(f["input"], f["index"]): (f["width"], f["height"])
             for f in luna.job(done.out.split()[0])["files"]}
    assert sizes == {(0, 0): (128, 128), (0, 1): (128, 128), (1, 0): (192, 192)}


def test_two_decoders_share_a_queue(home):
    luna = home.start(decoders=2)
    file = latents(luna, 2, 24)
    jobs = [luna.submit(file) for _ in range(8)]
    for job in jobs:
        luna.wait_job(job)
    assert {luna.job(job)["decoder"] for job in jobs} == {"one", "two"}


def test_the_same_id_twice_is_one_job(luna):
    job_id = wire.id_text(wire.new_id())
    file = latents(luna, 1)
    assert luna.submit(file, "--job-id", job_id) == job_id
    luna.wait_job(job_id)
    assert luna.submit(file, "--job-id", job_id) == job_id
    assert len(luna.job(job_id)["files"]) == 1


def test_urgent_jobs_go_first(home):
    luna = home
    luna.start_broker()
    file = latents(luna, 1)
    for priority in (1, 5, 9):
        luna.submit(file, "--priority", priority, "--filename", f"p{priority}")
    luna.start_decoder()
    infos = [luna.wait_job(job) for job in luna.expected]
    started = {info["priority"]: info["started_ms"] for info in infos}
    assert started[9] <= started[5] <= started[1]


def test_cancel_of_a_waiting_job(home):
    luna = home
    luna.start_broker()
    job = luna.submit(latents(luna, 1), expect="cancelled")
    done = luna.lunactl("cancel", job)
    assert done.code == 0, done
    luna.wait_job(job, "cancelled")
    luna.start_decoder()
    kept = luna.submit(latents(luna, 1))
    luna.wait_job(kept)


def test_cancel_of_a_running_job(luna):
    job = luna.submit(latents(luna, 12, 40), expect="cancelled")
    luna.wait_images(job)
    assert luna.lunactl("cancel", job).code == 0
    info = luna.wait_job(job, "cancelled")
    assert 1 <= len(info["files"]) < 12
    wait_for(lambda: all(d.get("running", 0) == 0 for d in luna.decoder_list()),
             "the decoder has dropped the job")
    files = luna.job(job)["files"]
    assert len(files) < 12


def test_lunactl_shows_what_the_wire_says(luna):
    job, paths = luna.submit_wait(latents(luna, 2))
    shown = json.loads(luna.lunactl("--json", "show", job).out)
    text = json.dumps(shown)
    assert job in text and "completed" in text and all(str(path) in text for path in paths)
    for command in (["status"], ["jobs"], ["decoders"], ["jobs", "--state", "completed"]):
        done = luna.lunactl("--json", *command)
        assert done.code == 0, done
        json.loads(done.out)
        plain = luna.lunactl(*command)
        assert plain.code == 0 and plain.out, plain
    assert luna.lunactl("wait", job).code == 0


def test_auto_finds_the_only_vae_that_fits(luna):
    """Packed and unpacked latents; the model root also holds a file that is no VAE."""
    for name in ("astronaut", "coffee"):
        job, (path,) = luna.submit_wait(photograph(name), vae="auto")
        assert luna.job(job)["vae"] in ("auto", VAE)
        assert psnr(image_pixels(path), photograph_pixels(name)) >= 50


# ---- which VAE it was --------------------------------------------------------------------


def test_the_record_names_the_vae_and_its_file(luna):
    job, _ = luna.submit_wait(photograph("chelsea"), vae="auto")
    file = DATA / f"{VAE}.safetensors"
    info = luna.job(job)
    told = [info[key] for key in ("vae", "vae_name", "vae_path", "vae_sha256")]
    assert told == ["auto", VAE, str(file), sha256(file)]
    shown = luna.lunactl("show", job).out
    assert sha256(file) in shown and str(file) in shown and f"decoded with  {VAE}\n" in shown


def test_the_hash_of_a_large_file_is_kept(home):
    """A checkpoint, nearly all of it not the decoder's, is read whole for it once."""
    folder = home.home / "models"
    folder.mkdir()
    checkpoint = folder / "checkpoint.safetensors"
    write_checkpoint(checkpoint, 96 << 20)
    cache = home.home / "cache" / "vae-sha256"
    home.start_broker()
    for name in ("one", "two"):
        decoder = home.start_decoder(name, LUNA_VAE_ROOTS=str(folder))
        job, _ = home.submit_wait(photograph("chelsea"), vae="checkpoint")
        assert home.job(job)["vae_sha256"] == sha256(checkpoint)
        assert cache.read_text().split()[0] == sha256(checkpoint)
        assert decoder.text().count("vae_hashed") == (1 if name == "one" else 0)
        assert decoder.terminate() == 0


def write_checkpoint(path, other_bytes):
    """The tests' VAE behind a tensor of so many zeros, which the file leaves to the disk."""
    raw = (DATA / f"{VAE}.safetensors").read_bytes()
    (header_bytes,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + header_bytes])
    for entry in header.values():
        if "data_offsets" in entry:
            entry["data_offsets"] = [offset + other_bytes for offset in entry["data_offsets"]]
    header["model.weight"] = {"dtype": "U8", "shape": [other_bytes], "data_offsets": [0, other_bytes]}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.seek(other_bytes, 1)
        file.write(raw[8 + header_bytes:])
