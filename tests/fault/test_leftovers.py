"""Temporary files of decoders that died: whose job nobody comes back for they go when a decoder
starts; those of a decoder that lives stay."""

import contextlib
import os
import re
import signal
from pathlib import Path

import numpy
import wire
from decoder_life import Life
from files import VAE, batch
from luna import wait_for
from peers import Dead, wait


def until_dead(life):
    with contextlib.suppress(Dead):
        life.until_ended("completed")
    assert life.decoder.popen.wait(10) == -signal.SIGKILL


def steps_of_a_save(tmp_path):
    """The numbers of three steps: the part is created, synced, and named as the anchor."""
    life = Life(tmp_path / "listed")
    try:
        life.start_broker()
        life.submit(1)
        life.start_decoder()
        life.until_ended("completed")
        life.stop_decoder()
        steps = [step[:2] for step in life.world.steps()]
    finally:
        life.close()
    ends = (("create", ".part"), ("sync", ".part"), ("link", ".tmp"))
    return [next(number for number, (call, file) in enumerate(steps, 1)
                 if call == wanted and file.endswith(end)) for wanted, end in ends]


def test_a_cancelled_job_leaves_nothing_of_a_dead_decoder(tmp_path):
    for number, step in enumerate(steps_of_a_save(tmp_path)):
        life = Life(tmp_path / str(step))
        try:
            check_cancelled(life, step + 1, number)
        finally:
            life.close()


def check_cancelled(life, step, number):
    """It dies before `step`, which is behind one that made or filled a file."""
    life.start_broker()
    life.submit(1)
    life.start_decoder(f"kill@{step}")
    until_dead(life)
    left = [path.name for path in life.output.rglob(".luna-*")]
    assert len(left) == (2 if number == 2 else 1), left
    (job_id,) = life.jobs
    life.producer.order("cancel", job_id)
    wait(life.broker, lambda _: life.states() == ["cancelled"] or life.pause(), 20)
    life.start_decoder()
    wait(life.decoder, lambda _: " started " in life.decoder.text() or life.pause(), 20)
    life.check_leftovers()
    assert not list(life.output.rglob("*.png"))
    assert re.search(rf"swept removed={len(left)} ", life.decoder.text()), life.decoder.text()
    life.stop_decoder()


def parts_of(output):
    with contextlib.suppress(FileNotFoundError):
        return [entry.path for entry in os.scandir(output) if entry.name.endswith(".part")]
    return []


def stop(process):
    """Stopped, every thread of it: the signal alone returns before it has reached them."""
    process.signal(signal.SIGSTOP)
    wait_for(lambda: all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T"
                         for task in Path(f"/proc/{process.popen.pid}/task").iterdir()),
             "all threads have stopped")


def stopped_in_a_save(home, decoder):
    """Stops the decoder while it writes a picture; the file."""
    array = numpy.repeat(batch(1, 16), 60, 0)
    for _ in range(10):
        job_id = wire.new_id()
        home.client.submit([wire.latent_input(array, png_compression=0)], id=job_id, vae=VAE,
                           output_dir=str(home.output))
        job_id = home.expect(wire.id_text(job_id))
        while home.job(job_id)["state"] in ("pending", "in_progress"):
            for _ in range(2000):
                if not parts_of(home.output):
                    continue
                stop(decoder)
                if parts := parts_of(home.output):
                    return parts
                decoder.signal(signal.SIGCONT)
    raise AssertionError("the decoder was never met in a save")


def test_a_living_decoder_keeps_its_files(home):
    home.start()
    one = home.processes[-1]
    parts = stopped_in_a_save(home, one)
    two = home.start_decoder("two", ready=False)
    wait_for(lambda: " started " in two.text(), "the second decoder has started")
    assert parts_of(home.output) == parts
    assert "swept" not in two.text()
    one.signal(signal.SIGCONT)
