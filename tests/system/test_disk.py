"""A full disk: nothing is lost, nothing half-written is left, and one command goes on."""

import contextlib
import shutil
import subprocess

import pytest
import wire
from files import VAE, photograph, photograph_latent
from luna import wait_for


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
                          capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill_up(folder):
    """Takes all the room there is; the file to remove again."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(folder).free < 8192
    return filler


def test_full_output_disk(home):
    with small_disk(home.output, "1m"):
        home.start()
        filler = fill_up(home.output)
        job = home.submit(photograph("astronaut"), expect="failed")
        info = home.wait_job(job, "failed")
        assert info["error"] == "no_space", info
        assert str(home.output) in info["detail"]
        home.check_leftovers()
        filler.unlink()
        assert home.lunactl("retry", job).code == 0
        home.wait_job(home.expect(job))
        home.finish()


def test_full_spool_disk(home):
    """Not stored: `busy`, never `accepted`; and accepted when there is room again."""
    state = home.home / "state"
    with small_disk(state, "16m"):
        home.start_broker(LUNA_STORE_RESERVE="1MiB", LUNA_STORE_BALLAST="1MiB")
        watcher = wire.Subscriber(home.client, "status")
        assert watcher.next()[1]["status"]["accepting"] == "yes"
        filler = fill_up(state)
        wait_for(lambda: "reserve" in watcher.next()[1]["status"]["accepting"],
                 "an event tells that nothing is accepted")
        home.start_decoder("one")
        with wire.Producer(home.endpoint) as producer:
            job_id = wire.new_id()

            def submit():
                return producer.submit([wire.latent_input(photograph_latent("astronaut"))],
                                       id=job_id, vae=VAE, output_dir=str(home.output))
            receipt = submit()
            assert receipt["status"] == "busy" and receipt["retry_ms"] > 0, receipt
            assert receipt["error"] in ("no_space", "busy") and receipt["detail"], receipt
            assert "reserve" in home.status()["accepting"]
            filler.unlink()
            wait_for(lambda: submit()["status"] == "accepted", "the broker accepts again")
        home.wait_job(home.expect(wire.id_text(job_id)))
        home.finish()
