"""A producer's outbox: jobs that no broker took outlive their process, and come once."""

import subprocess
import sys

import comfyui_stand_in as comfyui
import outbox_producer
import pytest
import wire
from files import VAE, photograph
from luna import LIBRARY, Process, wait_for
from patience import patient


def start_producer(luna, name, *flags):
    env = {**luna.env, "LUNA_LIBRARY": str(LIBRARY), "LUNA_OUTBOX": str(luna.home / "outbox")}
    process = Process(name, [sys.executable, outbox_producer.__file__, str(luna.output), *flags],
                      env, luna.home)
    luna.processes.append(process)
    return process


def kept_jobs(process):
    """The ids it has printed so far; it must be alive."""
    assert process.popen.poll() is None, process.text()
    return [line for line in process.text().splitlines() if len(line) == 36]


def files(luna, folder="jobs"):
    return sorted((luna.home / "outbox" / folder).iterdir())


def test_a_killed_brokers_jobs_are_delivered_by_a_second_process(luna):
    first = start_producer(luna, "first")
    wait_for(lambda: len(kept_jobs(first)) >= 5, "five jobs are accepted")
    luna.broker.kill()
    before = len(kept_jobs(first))
    wait_for(lambda: len(kept_jobs(first)) >= before + 5, "five more are in the outbox")
    luna.start_broker()
    before = len(kept_jobs(first))
    wait_for(lambda: len(kept_jobs(first)) >= before + 5, "the broker is back in use")
    luna.broker.kill()
    before = len(kept_jobs(first))
    wait_for(lambda: len(kept_jobs(first)) >= before + 5, "and away again")
    first.kill()
    jobs = [line for line in first.text().splitlines() if len(line) == 36]
    left = files(luna)
    assert len(left) >= 5
    luna.start_broker()
    second = start_producer(luna, "second", "--deliver")
    second.ended = True
    assert second.popen.wait(patient(30)) == 0, second.text()
    assert not files(luna) and not files(luna, "refused") and not files(luna, "damaged")
    for job in jobs:
        luna.wait_job(luna.expect(job))
    #  What was sent and not printed any more, or printed and sent twice, is one job too.
    for info in luna.client.query("jobs").get("jobs", []):
        luna.expect(wire.id_text(info["id"]))
    accepted = [luna.job(path.name[21:57])["accepted_ms"] for path in left]
    assert accepted == sorted(accepted), "the outbox was delivered in another order"


def test_a_comfyui_without_broker_leaves_its_pictures_to_the_next(luna):
    luna.broker.terminate()
    env = {**luna.env, "LUNA_LIBRARY": str(LIBRARY), "LUNA_OUTBOX": str(luna.home / "outbox")}

    def comfy():
        done = subprocess.run(
            [sys.executable, comfyui.__file__, luna.output, photograph("chelsea"), VAE],
            env=env, capture_output=True, text=True, timeout=patient(30))
        assert done.returncode == 0, done
        luna.expect(done.stdout.strip())
        return done.stderr

    for count in (1, 2):
        said = comfy()
        assert len(files(luna)) == count
        assert said.count("Luna:") == 1 and "jobs are kept in" in said, said
    luna.start_broker()
    luna.start_decoder("two")
    comfy()
    assert not files(luna)
    for job in luna.expected:
        luna.wait_job(job)


@pytest.mark.parametrize("binding", ["libluna", "http"])
def test_two_comfyuis_with_one_outbox(home, binding):
    """The first one has it. What it left when it was killed is sent by the next one that gets
    the folder, and by no other; each job is done once."""
    home.start(LUNA_HTTP_LISTEN="127.0.0.1:0")
    url = home.http_url()
    home.broker.terminate()
    env = {**home.env, "LUNA_LIBRARY": str(LIBRARY), "LUNA_OUTBOX": str(home.home / "outbox"),
           **({"LUNA_HTTP": url} if binding == "http" else {})}

    def comfy(name, *flags):
        process = Process(name, [sys.executable, comfyui.__file__, str(home.output),
                                 photograph("chelsea"), VAE, *flags], env, home.home)
        home.processes.append(process)
        wait_for(lambda: kept_jobs(process), f"{name} has queued its job")
        home.expect(kept_jobs(process)[0])
        return process

    def waiting():
        return [path for path in home.home.glob("outbox*/**/*") if path.is_file()
                and path.name != "LOCK" and path.suffix != ".part" and path.parent.name != "tmp"]

    first = comfy("first", "--stay")
    (left,) = wait_for(waiting, "the first one's job is on the disk")
    second = comfy("second", "--stay")
    assert "no outbox" in second.text() and "in use by" in second.text()
    assert "no outbox" not in first.text()
    first.kill()
    home.start_broker(LUNA_HTTP_LISTEN=url.removeprefix("http://"))
    home.start_decoder("two")
    home.wait_job(kept_jobs(second)[0])
    assert waiting() == [left], "the second one meddled with a folder it does not have"
    third = comfy("third", "--stay")
    assert "no outbox" not in third.text()
    wait_for(lambda: not waiting(), "the third one sends what the first one left")
    for job in home.expected:
        home.wait_job(job)
    second.kill()
    third.kill()
