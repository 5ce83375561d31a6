"""Batches, names, queues and ids."""

import json
import re

import wire
from files import (VAE, batch, image_pixels, photograph, photograph_pixels, psnr,
                   write_latent)
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
