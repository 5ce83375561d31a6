"""A full disk: nothing is lost, nothing half-written is left, and one command goes on."""

import contextlib
import shutil
import subprocess

import pytest
from files import photograph


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
                          capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def full_output(home):
    """A Luna whose output folder has room for nothing, and the file that fills it."""
    with small_disk(home.output, "1m"):
        home.start()
        filler = home.output / "filler"
        with contextlib.suppress(OSError), open(filler, "wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        assert shutil.disk_usage(home.output).free < 8192
        yield home, filler
        home.finish()


def test_full_output_disk(full_output):
    luna, filler = full_output
    job = luna.submit(photograph("astronaut"), expect="failed")
    info = luna.wait_job(job, "failed")
    assert info["error"] == "no_space", info
    assert str(luna.output) in info["detail"]
    luna.check_leftovers()
    filler.unlink()
    assert luna.lunactl("retry", job).code == 0
    luna.expect(job, "completed")
    luna.wait_job(job)


def test_full_spool_disk(home):
    """The broker refuses or asks to wait, and accepts again when there is room."""
    state = home.home / "state"
    with small_disk(state, "16m"):
        home.start(LUNA_STORE_RESERVE="1MiB")
        filler = state / "filler"
        with contextlib.suppress(OSError), open(filler, "wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        done = home.lunactl("status")
        assert done.code == 0, done
        import wire
        from files import photograph_latent
        with wire.Producer(home.endpoint) as producer:
            job_id = wire.new_id()
            receipt = producer.submit([wire.latent_input(photograph_latent("astronaut"))],
                                      id=job_id, vae="taef2_decoder",
                                      output_dir=str(home.output))
            assert receipt["status"] == "busy", receipt
            assert receipt["error"] in ("no_space", "busy") and receipt["retry_ms"] > 0, receipt
            filler.unlink()

            def accepted():
                return producer.submit([wire.latent_input(photograph_latent("astronaut"))],
                                       id=job_id, vae="taef2_decoder",
                                       output_dir=str(home.output))["status"] == "accepted"
            from luna import wait_for
            wait_for(accepted, "the broker accepts again")
        home.wait_job(home.expect(wire.id_text(job_id)))
        home.finish()
