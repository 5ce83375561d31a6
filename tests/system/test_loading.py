"""A VAE that is slow to load: jobs for the others go on, and whatever happens to its own.

Opening the file `slow.safetensors` waits at a gate (preload/gate.c) for as long as a test
looks. The decoder has one credit: what goes on goes on beyond the job that waits.
"""

import shutil
import signal

import pytest
from files import DATA, VAE, batch, photograph, write_latent
from luna import BIN, wait_for
from patience import SANITIZER, patient

GATE = BIN.parent / "test" / "gate.so"

pytestmark = pytest.mark.skipif(
    SANITIZER is not None or not GATE.exists(),
    reason="a preloaded library and a sanitizer do not go together")


class Gate:
    def __init__(self, luna):
        self.path = luna.home / "gate"
        self.mark = luna.home / "gate.at-gate"
        self.path.touch()
        self.env = {"LD_PRELOAD": str(GATE), "GATE": str(self.path),
                    "GATE_FILE": "slow.safetensors"}

    def wait(self):
        wait_for(self.mark.exists, "the load of the slow VAE has begun")

    def open(self):
        self.path.unlink()


@pytest.fixture
def models(home):
    folder = home.home / "models"
    folder.mkdir()
    shutil.copy(DATA / f"{VAE}.safetensors", folder / f"{VAE}.safetensors")
    shutil.copy(DATA / f"{VAE}.safetensors", folder / "slow.safetensors")
    return folder


@pytest.fixture
def gate(home, models):
    """A broker, and a decoder that stands at the gate when it loads `slow`."""
    gate = Gate(home)
    home.start_broker()
    start(home, gate, models)
    yield gate
    gate.path.unlink(missing_ok=True)


def start(luna, gate, models, name="one", **env):
    return luna.start_decoder(name, LUNA_VAE_ROOTS=str(models), LUNA_DECODER_CREDIT_JOBS="1",
                              **gate.env, **env)


def small(luna):
    return write_latent(luna.home / "small.latent", batch(1, 8))


def load_slow(luna, gate):
    """The id of a job whose VAE is being loaded from now on."""
    luna.submit_wait(small(luna))  # the other VAE is in memory
    job = luna.submit(small(luna), vae="slow")
    gate.wait()
    return job


def test_others_go_on_meanwhile(home, gate):
    slow = load_slow(home, gate)
    for _ in range(3):
        home.submit_wait(small(home))
    assert home.job(slow)["state"] == "in_progress"
    gate.open()
    home.wait_job(slow)
    assert home.job(slow)["attempts"] == 1


def test_jobs_for_a_vae_that_loads_wait_for_it_together(home, gate):
    waiting = [load_slow(home, gate), home.submit(small(home), vae="slow")]
    home.submit_wait(small(home), "--priority", "9")
    gate.open()
    first, second = (home.wait_job(job) for job in waiting)
    assert first["finished_ms"] <= second["finished_ms"]
    assert home.decoders["one"].text().count("vae_loaded") == 2


def test_a_job_is_cancelled_while_its_vae_loads(home, gate):
    slow = load_slow(home, gate)
    assert home.lunactl("cancel", slow).code == 0
    home.expect(slow, "cancelled")
    home.wait_job(slow, "cancelled")
    home.submit_wait(small(home))
    gate.open()
    home.submit_wait(small(home), vae="slow")


def test_a_drain_lets_the_load_and_its_job_end(home, gate):
    slow = load_slow(home, gate)
    assert home.lunactl("drain", "one").code == 0
    wait_for(lambda: home.decoder_list()[0]["state"] == "draining", "the decoder drains")
    later = home.submit(small(home))
    gate.open()
    home.wait_job(slow)
    assert home.job(later)["state"] == "pending"
    assert home.lunactl("resume", "one").code == 0
    home.wait_job(later)


def test_a_stop_gives_the_job_back_at_once(home, gate, models):
    slow = load_slow(home, gate)
    decoder = home.decoders["one"]
    decoder.ended = True
    decoder.signal(signal.SIGTERM)
    wait_for(lambda: home.job(slow)["state"] == "pending", "the job is given back")
    gate.open()
    assert decoder.popen.wait(patient(20)) == 0
    start(home, gate, models, "two")
    assert not home.wait_job(slow).get("refused")


def test_a_killed_decoder_loses_nothing(home, gate, models):
    slow = load_slow(home, gate)
    home.decoders["one"].kill()
    gate.open()
    start(home, gate, models, "two")
    home.wait_job(slow)


def test_a_file_that_cannot_be_loaded_fails_its_jobs_only(home, gate, models):
    slow = load_slow(home, gate)
    home.submit_wait(small(home))
    with open(models / "slow.safetensors", "r+b") as file:
        file.truncate(5000)
    gate.open()
    home.expect(slow, "failed")
    info = home.wait_job(slow, "failed")
    assert info["error"] == "bad_model" and "slow.safetensors" in info["detail"], info
    home.submit_wait(small(home))


def test_room_for_one_vae_is_kept(home, models):
    """With one VAE in memory at a time, jobs for two end all the same, one by one."""
    home.start_broker()
    home.start_decoder(LUNA_VAE_ROOTS=str(models), LUNA_VAE_KEEP="1")
    jobs = [home.submit(small(home), vae=vae) for vae in (VAE, "slow", VAE, "slow")]
    for job in jobs:
        home.wait_job(job)
    loads = [line.split()[1] for line in home.decoders["one"].text().splitlines()
             if "vae_loaded" in line or "vae_unloaded" in line]
    assert len(loads) >= 3
    assert all("unloaded" in b for a, b in zip(loads, loads[1:]) if "vae_loaded" in a), loads


def test_auto_reads_headers_only(home, models):
    """`auto` asks both files what they take; the one that does not fit is not loaded."""
    shutil.copy(DATA / "kl_small_z16.safetensors", models / "slow.safetensors")
    gate = Gate(home)
    gate.open()
    home.start_broker()
    start(home, gate, models)
    home.submit_wait(photograph("chelsea"), vae="auto")
    log = home.decoders["one"].text()
    assert log.count("vae_loaded") == 1 and f"vae=\"{VAE}\"" in log
