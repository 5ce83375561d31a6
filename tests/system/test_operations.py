"""Running a broker: limits and credit, settings read again, metrics, the queue rebuilt."""

import os
import re
import signal
import urllib.request

import numpy as np
import pytest
import wire
from files import VAE, batch
from luna import wait_for


def small_job(producer, luna, **settings):
    return producer.submit([wire.latent_input(batch(1))], vae=VAE,
                           output_dir=str(luna.output), **settings)


# ---- limits and credit ----------------------------------------------------------------


def test_a_client_over_its_limit_is_busy_and_gets_a_grant(home):
    home.start_broker(LUNA_LIMITS_MAX_CLIENT_JOBS="3")
    with wire.Producer(home.endpoint, "greedy") as greedy, \
            wire.Producer(home.endpoint, "modest") as modest:
        assert not greedy.welcome.get("offer_first")
        receipts = [small_job(greedy, home) for _ in range(3)]
        assert [r["status"] for r in receipts] == ["accepted"] * 3
        assert not receipts[0].get("offer_first") and receipts[2]["offer_first"]
        job_id = wire.new_id()
        greedy.send("offer", id=job_id, client=greedy.instance, bytes=1000)
        busy = greedy.receive("receipt", id=job_id)
        assert busy["status"] == "busy" and busy["retry_ms"] > 0, busy
        assert "max_client_jobs" in busy["detail"]
        # The others are not held up by it.
        other = small_job(modest, home)
        assert other["status"] == "accepted"
        for receipt in [*receipts, other]:
            home.expect(wire.id_text(receipt["id"]))
        home.start_decoder()
        greedy.receive("grant", deadline_s=60)
        greedy.send("offer", id=job_id, client=greedy.instance, bytes=1000)
        assert greedy.receive("receipt", id=job_id)["status"] == "send"
        assert small_job(greedy, home, id=job_id)["status"] == "accepted"
        home.expect(wire.id_text(job_id))
    home.finish()


def test_bytes_of_a_client_are_limited_too(home):
    home.start_broker(LUNA_LIMITS_MAX_CLIENT_BYTES="64KiB")
    with wire.Producer(home.endpoint) as producer:
        large = [wire.latent_input(np.zeros((1, 32, 40, 40), np.float32))]
        first = producer.submit(large, vae=VAE, output_dir=str(home.output))
        assert first["status"] == "accepted", "one job is always taken"
        second = producer.submit(large, vae=VAE, output_dir=str(home.output))
        assert second["status"] == "busy" and "max_client_bytes" in second["detail"]
    home.expect(wire.id_text(first["id"]))
    home.start_decoder()
    home.finish()


def test_an_offer_of_a_known_or_too_large_job(home):
    home.start()
    with wire.Producer(home.endpoint) as producer:
        known = small_job(producer, home)
        producer.send("offer", id=known["id"], client=producer.instance, bytes=1000)
        answer = producer.receive("receipt", id=known["id"])
        # Finished by now, or still active: then it is known without a look at the store.
        assert answer["status"] in ("accepted", "send")
        job_id = wire.new_id()
        producer.send("offer", id=job_id, client=producer.instance, bytes=1 << 40)
        answer = producer.receive("receipt", id=job_id)
        assert answer["status"] == "refused" and answer["error"] == "too_large"
    home.expect(wire.id_text(known["id"]))
    home.finish()


# ---- settings read again --------------------------------------------------------------


def test_sighup_takes_what_may_change(home):
    config = home.home / "luna.conf"
    config.write_text("[limits]\nmax_client_jobs = 2\n")
    home.start_broker()
    with wire.Producer(home.endpoint) as producer:
        receipts = [small_job(producer, home) for _ in range(2)]
        assert small_job(producer, home)["status"] == "busy"
        config.write_text("[limits]\nmax_client_jobs = 3\nmax_job_bytes = 1MiB\n")
        os.kill(home.broker.pid, signal.SIGHUP)
        wait_for(lambda: "reload_incomplete" in home.broker.text(), "the log names the rest")
        assert "[limits] max_job_bytes" in home.broker.text()
        receipts.append(small_job(producer, home))
        assert receipts[2]["status"] == "accepted"
        for receipt in receipts:
            home.expect(wire.id_text(receipt["id"]))
        config.write_text("[limits]\nno_such_key = 3\n")
        os.kill(home.broker.pid, signal.SIGHUP)
        wait_for(lambda: "reload_refused" in home.broker.text(), "wrong settings are refused")
        assert "luna.conf:2" in home.broker.text()
        assert small_job(producer, home)["status"] == "busy", "the settings stay"
        config.unlink()
    home.start_decoder()
    home.finish()


# ---- metrics --------------------------------------------------------------------------


def parse(page):
    """{series: value}; every line must be a comment or a sample."""
    samples = {}
    for line in page.splitlines():
        if line.startswith("# "):
            assert re.fullmatch(r"# (HELP|TYPE) [a-z_]+ .+", line), line
            continue
        match = re.fullmatch(r'([a-z_]+(?:\{[^}]*\})?) (\S+)', line)
        assert match, line
        assert match[1] not in samples, f"twice: {line}"
        samples[match[1]] = float(match[2])
    return samples


def test_metrics_count_what_happens(home):
    home.start(LUNA_HTTP_LISTEN="127.0.0.1:0")
    with wire.Producer(home.endpoint) as producer:
        receipt = producer.submit([wire.latent_input(batch(3))], vae=VAE,
                                  output_dir=str(home.output))
        job_id = home.expect(wire.id_text(receipt["id"]))
        home.wait_job(job_id)
        page = producer.query("metrics")["text"]
    with urllib.request.urlopen(home.http_url() + "/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        served = response.read().decode()
    for samples in (parse(page), parse(served)):
        assert samples["luna_jobs_accepted_total"] == 1
        assert samples["luna_images_total"] == 3
        assert samples['luna_jobs_ended_total{state="completed"}'] == 1
        assert samples["luna_accept_seconds_count"] == 1
        assert samples["luna_job_seconds_count"] == 1
        assert samples['luna_job_seconds_bucket{le="+Inf"}'] == 1
        assert samples["luna_image_decode_seconds_count"] == 3
        assert samples['luna_store_seconds_count{kind="put"}'] == 1
        assert samples['luna_jobs_pending{priority="5"}'] == 0
        assert samples['luna_decoder_images_total{decoder="one",state="ready"}'] == 3
        assert samples["luna_accepting"] == 1 and samples["luna_paused"] == 0
        assert samples["process_resident_memory_bytes"] > 1 << 20
    home.finish()


# ---- the queue rebuilt from the spool -------------------------------------------------


@pytest.mark.parametrize("damage", ["gone", "garbage", "sound"])
def test_recover_rebuilds_the_queue_from_the_spool(home, damage):
    home.start_broker()
    with wire.Producer(home.endpoint) as producer:
        jobs = [home.expect(wire.id_text(small_job(producer, home)["id"])) for _ in range(3)]
    assert home.broker.terminate() == 0
    home.close_client()
    database = home.home / "state" / "luna.db"
    assert database.exists()
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    if damage == "gone":
        database.unlink()
    if damage == "garbage":
        database.write_bytes(os.urandom(100_000))
        refused = home.run("luna-broker")
        assert refused.code == 74 and "--recover" in refused.err, refused
        assert refused.err.count("\n") >= 1
    done = home.run("luna-broker", "--recover")
    assert done.code == 0 and "3 jobs" in done.out, done
    home.start()
    for job in jobs:
        home.wait_job(job)
    home.finish()
