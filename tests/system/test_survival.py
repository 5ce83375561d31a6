"""Whatever dies, no accepted job is lost and every image is saved exactly once."""

import signal

from files import batch, write_latent
from luna import wait_for

LEASE = {"LUNA_LEASE_TIME": "4s", "LUNA_LEASE_PING": "200ms"}


def latents(luna, count, size=16):
    return write_latent(luna.home / "batch.latent", batch(count, size))


def kill_in_the_middle(luna, job):
    """SIGKILLs decoder `one` after its first saved image and before its last."""
    luna.wait_images(job)
    luna.decoders["one"].kill()
    assert luna.job(job)["state"] != "completed", "too fast to be killed in the middle"


def test_a_second_decoder_finishes_a_killed_ones_batch(luna):
    job = luna.submit(latents(luna, 12, 40))
    luna.wait_images(job)
    luna.start_decoder("two")
    kill_in_the_middle(luna, job)
    info = luna.wait_job(job)
    assert (info["attempts"], info["lost"]) == (2, 1)
    assert len(info["files"]) == 12
    assert info["decoder"] == "two"


def test_a_restarted_decoder_finishes_its_own_batch(luna):
    job = luna.submit(latents(luna, 12, 40))
    kill_in_the_middle(luna, job)
    luna.start_decoder("one", ready=False)
    info = luna.wait_job(job)
    assert (info["attempts"], info["lost"]) == (2, 1)
    assert len(info["files"]) == 12


def test_a_hung_decoder_that_wakes_up_changes_nothing(home):
    luna = home.start(decoders=1, **LEASE)
    job = luna.submit(latents(luna, 12, 40))
    luna.wait_images(job)
    hung = luna.decoders["one"]
    hung.signal(signal.SIGSTOP)
    luna.start_decoder("two")
    info = luna.wait_job(job)
    assert (info["attempts"], info["lost"]) == (2, 1)
    hung.signal(signal.SIGCONT)
    wait_for(lambda: luna._is_ready(hung), "the woken decoder is back")
    again = luna.submit(latents(luna, 2))
    luna.wait_job(again)


def test_a_killed_broker_comes_back_with_every_job(luna):
    running = luna.submit(latents(luna, 12, 40))
    waiting = [luna.submit(latents(luna, 1)) for _ in range(4)]
    luna.wait_images(running)
    luna.broker.kill()
    luna.start_broker()
    for job in (running, *waiting):
        luna.wait_job(job)
    assert len(luna.job(running)["files"]) == 12


def test_everything_killed_at_once(luna):
    running = luna.submit(latents(luna, 8, 40))
    waiting = luna.submit(latents(luna, 2))
    luna.wait_images(running)
    for process in luna.processes:
        process.kill()
    luna.start(LUNA_LEASE_ADOPT="500ms")  # nobody is left to claim the running one
    for job in (running, waiting):
        luna.wait_job(job)


def test_sigterm_gives_the_running_job_back(luna):
    job = luna.submit(latents(luna, 12, 40))
    luna.wait_images(job)
    assert luna.decoders["one"].terminate() == 0
    assert luna.broker.terminate() == 0
    luna.start()
    info = luna.wait_job(job)
    assert info.get("lost", 0) == 0
    assert len(info["files"]) == 12


def test_sigterm_without_work(luna):
    assert luna.broker.terminate() == 0
    assert luna.decoders["one"].terminate() == 0


def test_one_kill_after_another(home):
    """Broker and decoders die in turn, each time while pictures are being made."""
    rules = {"LUNA_LEASE_ADOPT": "500ms", "LUNA_LEASE_LOST_LIMIT": "20"}
    luna = home.start(decoders=2, **rules)
    jobs = [luna.submit(latents(luna, 4, 32)) for _ in range(6)]

    def saved():
        return sum(luna.job(job).get("images_done", 0) for job in jobs)

    for victim in ("one", "broker", "two", "broker", "one"):
        before = saved()
        wait_for(lambda: saved() > before or saved() == 24, "another image is saved")
        if victim == "broker":
            luna.broker.kill()
            luna.start_broker(**rules)
        else:
            luna.decoders[victim].kill()
            luna.start_decoder(victim, ready=False)
    for job in jobs:
        assert len(luna.wait_job(job)["files"]) == 4
