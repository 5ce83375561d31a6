"""What an operator can order: pause, drain, another order of jobs, another try, deadlines."""

import json
import shutil

import pytest
import wire
from files import DATA, VAE, batch, write_latent
from luna import wait_for


def latents(luna, count, size=16):
    return write_latent(luna.home / f"batch-{count}-{size}.latent", batch(count, size))


def order(luna, *words):
    """An order by lunactl that must succeed; its JSON."""
    done = luna.lunactl("--json", *words)
    assert done.code == 0 and not done.err, done
    return json.loads(done.out)


def states(luna):
    return {decoder["name"]: decoder["state"] for decoder in luna.decoder_list()}


def assert_waits(luna, job):
    """The broker has had every chance to start it: it answered after it had accepted it."""
    luna.wait_job(job, "pending")
    assert luna.lunactl("status").code == 0
    info = luna.job(job)
    assert info["state"] == "pending" and info.get("attempts", 0) == 0, info


# ---- pause ----------------------------------------------------------------------------


def test_pause_starts_nothing_and_resume_goes_on(luna):
    assert order(luna, "pause") == {"paused": True}
    assert luna.status()["paused"]
    job = luna.submit(latents(luna, 1))
    assert_waits(luna, job)
    assert luna.lunactl("status").out.startswith("PAUSED")
    order(luna, "resume")
    assert not luna.status().get("paused")
    luna.wait_job(job)


def test_a_pause_lets_running_jobs_end(luna):
    running = luna.submit(latents(luna, 12, 40))
    luna.wait_images(running)
    order(luna, "pause")
    waiting = luna.submit(latents(luna, 1))
    luna.wait_job(running)
    assert_waits(luna, waiting)
    order(luna, "resume")
    luna.wait_job(waiting)


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_pause_outlives_the_broker(luna, end):
    order(luna, "pause")
    job = luna.submit(latents(luna, 1))
    getattr(luna.broker, end)()
    luna.start_broker()
    assert luna.status()["paused"]
    wait_for(lambda: states(luna).get("one") == "ready", "the decoder is back")
    assert_waits(luna, job)
    order(luna, "resume")
    luna.wait_job(job)


def test_pausing_twice_is_one_pause(luna):
    order(luna, "pause")
    order(luna, "pause")
    order(luna, "resume")
    luna.submit_wait(latents(luna, 1))


# ---- drain ----------------------------------------------------------------------------


def test_one_of_two_decoders_is_drained(home):
    luna = home.start(decoders=2)
    assert order(luna, "drain", "one") == {"changed": 1}
    assert states(luna) == {"one": "draining", "two": "ready"}
    jobs = [luna.submit(latents(luna, 1)) for _ in range(4)]
    assert {luna.wait_job(job)["decoder"] for job in jobs} == {"two"}
    assert order(luna, "resume", "one") == {"changed": 1}
    wait_for(lambda: states(luna)["one"] == "ready", "its credit is back")
    order(luna, "drain", "two")
    last = luna.submit(latents(luna, 1))
    assert luna.wait_job(last)["decoder"] == "one"


def test_drain_waits_for_what_is_held(luna):
    job = luna.submit(latents(luna, 12, 40))
    luna.wait_images(job)
    done = luna.lunactl("drain", "one", "--wait")
    assert done.code == 0 and done.out == "1 decoder drained\n" and not done.err, done
    assert luna.job(job)["state"] == "completed"
    assert all(not decoder.get("running") for decoder in luna.decoder_list())
    assert states(luna) == {"one": "draining"}


def test_all_decoders_are_drained_and_resumed(home):
    luna = home.start(decoders=2)
    assert order(luna, "drain", "--wait") == {"changed": 2}
    job = luna.submit(latents(luna, 1))
    assert_waits(luna, job)
    assert set(states(luna).values()) == {"draining"}
    assert "draining" in luna.lunactl("decoders").out
    order(luna, "resume")
    luna.wait_job(job)
    wait_for(lambda: "draining" not in states(luna).values(), "their credit is back")


@pytest.mark.parametrize("command", ["drain", "resume"])
def test_an_unknown_decoder(luna, command):
    done = luna.lunactl(command, "nobody")
    assert done.code == 66 and "nobody" in done.err and not done.out, done
    luna.submit_wait(latents(luna, 1))


# ---- order of jobs --------------------------------------------------------------------


def taken_order(luna, count):
    """The ids in the order in which a decoder of one job is given them; all end as failed."""
    ids = []
    with wire.Decoder(luna.endpoint, "python", [VAE]) as decoder:
        for _ in range(count):
            work = decoder.take()
            ids.append(wire.id_text(work["id"]))
            decoder.report("failed", work, error="device", detail="only the order counts")
            luna.wait_job(ids[-1], "failed")
    return ids


def test_priority_and_next_reorder_the_queue(home):
    luna = home
    luna.start_broker()
    low, middle, high = (luna.submit(latents(luna, 1), "--priority", priority, expect="failed")
                         for priority in (1, 5, 9))
    assert order(luna, "priority", low, 9) == {"jobs": [low]}
    assert luna.job(low)["priority"] == 9
    assert order(luna, "next", middle) == {"jobs": [middle]}
    assert luna.job(middle)["next"]
    assert json.loads(luna.lunactl("--json", "show", middle).out)["next"] is True
    assert taken_order(luna, 3) == [middle, low, high]


def test_a_new_priority_outlives_the_broker(home):
    luna = home
    luna.start_broker()
    first, second, third = (luna.submit(latents(luna, 1), expect="failed") for _ in range(3))
    order(luna, "priority", first, 2)
    order(luna, "next", third)
    luna.broker.kill()
    luna.start_broker()
    assert taken_order(luna, 3) == [third, second, first]


def test_a_job_that_waits_no_more_has_no_order(luna):
    job, _ = luna.submit_wait(latents(luna, 1))
    for command in (["priority", job, "9"], ["next", job]):
        done = luna.lunactl(*command)
        assert done.code in (66, 73) and done.err.count("\n") == 1, done
    unknown = wire.id_text(wire.new_id())
    assert luna.lunactl("next", unknown).code == 66


def test_several_jobs_are_cancelled_at_once(home):
    luna = home
    luna.start_broker()
    jobs = [luna.submit(latents(luna, 1), expect="cancelled") for _ in range(3)]
    unknown = wire.id_text(wire.new_id())
    done = luna.lunactl("cancel", jobs[0], unknown, jobs[1], jobs[2][24:])
    assert done.code == 66 and unknown in done.err and done.err.count("\n") == 1, done
    assert done.out.split() == jobs


# ---- another try ----------------------------------------------------------------------


def test_every_failed_job_gets_another_try(home):
    luna = home
    vaes = luna.home / "vaes"
    vaes.mkdir()
    roots = {"LUNA_VAE_ROOTS": str(vaes)}
    luna.start(decoders=1, **roots)
    failed = [luna.submit(latents(luna, 1), expect="completed") for _ in range(3)]
    for job in failed:
        luna.wait_job(job, "failed")
    luna.decoders["one"].terminate()
    shutil.copy(DATA / f"{VAE}.safetensors", vaes)
    luna.start_decoder("one", **roots)
    done = luna.submit_wait(latents(luna, 1))[0]
    assert order(luna, "retry", "--failed") == {"changed": 3}
    for job in failed:
        assert luna.wait_job(job)["attempts"] == 2
    assert luna.job(done)["attempts"] == 1
    assert order(luna, "retry", "--failed") == {"changed": 0}


# ---- deadlines ------------------------------------------------------------------------


def test_a_waiting_job_fails_at_its_deadline(home):
    luna = home
    luna.start_broker()
    job = luna.submit(latents(luna, 1), "--deadline", "0.3", expect="failed")
    info = luna.wait_job(job, "failed")
    assert info["error"] == "timeout" and info["detail"], info
    assert info["deadline_ms"] - info["accepted_ms"] == 300
    done = luna.lunactl("wait", job)
    assert done.code == 75 and "timeout" in done.err, done
    luna.start_decoder()
    luna.submit_wait(latents(luna, 1))


def test_a_running_job_fails_at_its_deadline(luna):
    job = luna.submit(latents(luna, 40, 40), "--deadline", "1", expect="failed")
    info = luna.wait_job(job, "failed")
    assert info["error"] == "timeout" and len(info.get("files", [])) < 40, info
    luna.submit_wait(latents(luna, 1))


def test_a_deadline_in_time_changes_nothing(luna):
    job, _ = luna.submit_wait(latents(luna, 2), "--deadline", "600")
    shown = luna.lunactl("show", job)
    assert "deadline" in shown.out, shown


def test_a_deadline_outlives_the_broker(home):
    luna = home
    luna.start_broker()
    job = luna.submit(latents(luna, 1), "--deadline", "1", expect="failed")
    luna.broker.kill()
    luna.start_broker()
    assert luna.wait_job(job, "failed")["error"] == "timeout"


# ---- what is shown --------------------------------------------------------------------


def test_status_metrics_and_top_tell_of_work_done(luna):
    luna.submit_wait(latents(luna, 3))
    status = json.loads(luna.lunactl("--json", "status").out)
    assert status["images"] == 3 and status["completed"] == 1
    assert status["free_bytes"] > 0 and status["uptime_ms"] > 0
    assert not status["paused"] and status["alarm"] == ""
    metrics = luna.lunactl("metrics")
    assert metrics.code == 0 and "# TYPE luna_" in metrics.out, metrics
    assert json.loads(luna.lunactl("--json", "metrics").out)["text"].startswith("#")
    page = luna.lunactl("top")
    assert page.code == 0 and "accepting jobs" in page.out and "one" in page.out, page
    line = json.loads(luna.lunactl("--json", "top", "--once").out)
    assert line["status"]["completed"] == 1 and line["decoders"][0]["vae"] == VAE


def test_ids_may_be_shortened(luna):
    job, _ = luna.submit_wait(latents(luna, 1))
    for part in (job[:20], job[24:], job[24:].upper()):
        done = luna.lunactl("show", part)
        assert done.code == 0 and job in done.out, done
    other, _ = luna.submit_wait(latents(luna, 1))
    done = luna.lunactl("show", job[:8] if job[:8] == other[:8] else job[:4])
    assert done.code == 64, done


def test_wait_tells_in_lines_of_json(luna):
    done = luna.lunactl("--json", "submit", "--latents", latents(luna, 3), "--vae", VAE,
                        "--output-dir", luna.output, "--wait")
    assert done.code == 0 and not done.err, done
    lines = [json.loads(line) for line in done.out.splitlines()]
    job = luna.expect(lines[0]["id"])
    assert lines[0]["kind"] == "receipt" and lines[0]["status"] == "accepted"
    paths = [line["file"]["path"] for line in lines if line["kind"] == "image"]
    assert lines[-1]["kind"] == "job" and lines[-1]["state"] == "completed"
    assert sorted(paths) == sorted(file["path"] for file in lines[-1]["files"])
    assert len(paths) == 3 and {line["id"] for line in lines} == {job}
