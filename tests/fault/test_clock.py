"""The wall clock jumps a day ahead or back: leases, waiting times and order do not mind."""

import time

import numpy
import pytest
import wire
from faultfs import Clock
from files import batch, write_latent
from luna import wait_for
from peers import Hand

DAY_S = 86400
LATENT = numpy.zeros((1, 4, 8, 8), dtype=numpy.float16)
IMAGE = {"input": 0, "index": 0, "path": "/out/a.png", "bytes": 1, "sha256": "0" * 64,
         "width": 8, "height": 8}


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path / "clock")


def submit(luna, **settings):
    receipt = luna.client.submit([wire.latent_input(LATENT)], vae="v", **settings)
    assert receipt["status"] == "accepted", receipt
    return wire.id_text(receipt["id"])


def is_now_at(luna, step_s):
    """The broker itself sees the step: the clock is really changed."""
    job = luna.job(submit(luna, priority=0))
    return abs(job["accepted_ms"] - job["created_ms"] - step_s * 1000) < 3600000


STEPS = pytest.mark.parametrize("step_s", (DAY_S, -DAY_S), ids=("ahead", "back"))


@STEPS
def test_a_running_job_keeps_its_lease(bare, clock, step_s):
    bare.start_broker(**clock.env(), LUNA_LEASE_TIME="30s", LUNA_LEASE_PING="50ms")
    job = submit(bare)
    with Hand(bare.endpoint, "one") as one:
        work = one.take()
        clock.step(step_s)
        for tick in range(20):  # two seconds of the broker's loop and more
            one.send("ping", running=1, ticks=tick)
            one.receive("pong")
            wait_for(lambda: bare.status(), "it goes on")
            one.socket.poll(100)
        clock.step(0)
        one.ping()
        assert bare.job(job)["state"] == "in_progress"
        one.report("done", work, images=[IMAGE])
        info = bare.wait_job(job)
    assert (info["attempts"], info.get("lost", 0)) == (1, 0)


@STEPS
def test_a_lease_ends_all_the_same(bare, clock, step_s):
    bare.start_broker(**clock.env(), LUNA_LEASE_TIME="600ms", LUNA_LEASE_PING="100ms")
    job = submit(bare)
    with Hand(bare.endpoint, "one") as one:
        one.take()
        clock.step(step_s)
        wait_for(lambda: bare.job(job).get("lost") == 1, "the silent decoder is given up")


@STEPS
def test_a_refused_job_comes_back_after_its_wait(bare, clock, step_s):
    bare.start_broker(**clock.env(), LUNA_LEASE_BACKOFF="300ms")
    job = submit(bare)
    with Hand(bare.endpoint, "one") as one:
        one.report("failed", one.take(), error="io", detail="once", retry=True)
        wait_for(lambda: bare.job(job).get("refused") == 1, "it is refused")
        clock.step(step_s)
        work = one.take()
        assert work["attempt"] == 2
        one.report("done", work, images=[IMAGE])
        bare.wait_job(job)


def take_all(luna, count):
    order = []
    with Hand(luna.endpoint, "one") as one:
        for _ in range(count):
            work = one.take()
            order.append(wire.id_text(work["id"]))
            one.report("done", work, images=[IMAGE])
    return order


@pytest.mark.parametrize("restart", (False, True), ids=("running", "restarted"))
def test_jobs_go_in_the_order_of_their_acceptance(bare, clock, restart):
    bare.start_broker(**clock.env())
    ids = []
    for step_s in (0, -DAY_S, DAY_S, 0, -DAY_S, 0):
        clock.step(step_s)
        if restart:
            bare.broker.kill()
            bare.start_broker(**clock.env())
        ids.append(submit(bare))
    assert take_all(bare, len(ids)) == ids


@STEPS
def test_the_step_is_seen(bare, clock, step_s):
    clock.step(step_s)
    bare.start_broker(**clock.env())
    assert is_now_at(bare, step_s)


@STEPS
def test_pictures_are_made_across_a_step(home, clock, step_s):
    """Broker and decoder on a clock that jumps in the middle of a job."""
    home.start_broker(**clock.env())
    home.start_decoder("one", **clock.env())
    job = home.submit(write_latent(home.home / "b.latent", batch(8, 24)))
    home.wait_images(job)
    clock.step(step_s)
    home.wait_images(job, 3)
    clock.step(0)
    home.wait_job(job)
    home.decoders["one"].terminate()
    clock.step(step_s)
    home.start_decoder("one", **clock.env())
    home.wait_job(home.submit(write_latent(home.home / "c.latent", batch(2))))


def test_an_old_result_is_forgotten(bare):
    bare.start_broker(LUNA_STORE_KEEP="1s")
    job = submit(bare)
    take_all(bare, 1)
    bare.wait_job(job)
    bare.broker.terminate()
    time.sleep(1.1)
    bare.start_broker(LUNA_STORE_KEEP="1s")
    wait_for(lambda: bare.job(job)["state"] == "unknown", "it is forgotten")


def test_a_fresh_result_is_not_forgotten(bare, clock):
    """The clock was a day ahead at one start of the broker, and is right again."""
    bare.start_broker(**clock.env(), LUNA_STORE_KEEP="1h")
    job = submit(bare)
    take_all(bare, 1)
    bare.wait_job(job)
    bare.broker.terminate()
    clock.step(DAY_S)
    bare.start_broker(**clock.env(), LUNA_STORE_KEEP="1h")
    other = submit(bare)
    take_all(bare, 1)
    bare.wait_job(other)
    bare.client.socket.poll(1000)  # some ticks of the broker's loop
    clock.step(0)
    assert bare.job(job)["state"] == "completed"
