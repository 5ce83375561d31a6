"""Command lines: exit codes, one line on stderr, and a broker that is not there."""

import os
import subprocess

import pytest
from files import VAE, batch, photograph
from luna import BIN, LIBRARY, ROOT
from patience import patient

PROGRAMS = ("luna-broker", "luna-decoder", "lunactl", "luna-vae")


@pytest.mark.parametrize("program", PROGRAMS)
def test_unknown_option(home, program):
    done = home.run(program, "--no-such-option")
    assert done.code == 64, done
    assert done.err.count("\n") == 1 and "--no-such-option" in done.err, done
    assert not done.out


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_and_version(home, program):
    done = home.run(program, "--help")
    assert done.code == 0 and program in done.out and not done.err, done
    done = home.run(program, "--version")
    assert done.code == 0 and done.out.strip(), done


@pytest.mark.parametrize("program", PROGRAMS)
def test_output_that_cannot_be_written(home, program):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([BIN / program, "--help"], stdout=full, stderr=subprocess.PIPE,
                              timeout=patient(30))
    assert done.returncode == 74, done
    assert done.stderr.count(b"\n") == 1 and program.encode() in done.stderr, done


@pytest.mark.parametrize("program, setting, value", [
    ("luna-broker", "LUNA_HTTP_LISTEN", "nonsense"),
    ("luna-broker", "LUNA_HTTP_LISTEN", "0.0.0.0:0"),
    ("luna-broker", "LUNA_BROKER_CONTROL", "tcp://*:1"),
    ("luna-decoder", "LUNA_DECODER_BROKER", "nonsense"),
    ("luna-decoder", "LUNA_DECODER_DEVICE", "gpu")])
def test_a_wrong_setting_is_found_by_check_config(home, program, setting, value):
    done = home.run(program, "--check-config", **{setting: value})
    assert done.code == 78, done
    assert done.err.count("\n") == 1 and value in done.err and not done.out, done


@pytest.mark.parametrize("program", ["luna-broker", "luna-decoder"])
def test_an_unknown_key_names_file_and_line(home, program):
    section = "output" if program == "luna-decoder" else "http"
    (home.home / "luna.conf").write_text(f"[{section}]\nno_such_key = 1\n")
    done = home.run(program)
    assert done.code == 78, done
    assert "luna.conf:2" in done.err and "no_such_key" in done.err, done


def test_print_config_loads_again(home):
    printed = home.run("luna-broker", "--print-config")
    assert printed.code == 0 and printed.out, printed
    (home.home / "again.conf").write_text(printed.out)
    done = home.run("luna-broker", "--config", home.home / "again.conf", "--check-config")
    assert done.code == 0, done


def test_a_second_broker_is_refused(luna):
    done = luna.run("luna-broker")
    assert done.code not in (0, -6, -11), done
    assert done.err.strip(), done
    luna.submit_wait(photograph("chelsea"))


def test_a_home_too_long_for_sockets(home):
    deep = home.home / ("d" * 120)
    deep.mkdir()
    done = home.run("luna-broker", LUNA_HOME=str(deep))
    assert done.code == 78 and "107" in done.err, done


@pytest.mark.parametrize("command", [["status"], ["jobs"], ["decoders"]])
def test_no_broker(home, command):
    done = home.lunactl(*command)
    assert done.code == 69, done
    assert done.err.count("\n") == 1 and not done.out, done


def test_submit_without_a_broker(home):
    done = home.lunactl("submit", "--latents", photograph("chelsea"), "--vae", VAE,
                        "--output-dir", home.output)
    assert done.code == 69, done


def test_unknown_job(luna):
    done = luna.lunactl("show", "0192f1c2-a5b0-7c3d-8e4f-5061728394a5")
    assert done.code != 0 and "0192f1c2-a5b0-7c3d-8e4f-5061728394a5" in done.err, done
    done = luna.lunactl("show", "not-an-id")
    assert done.code == 64, done


def load_client(luna, monkeypatch):
    """libluna through the node package's binding, on this Luna's broker."""
    monkeypatch.setenv("LUNA_HOME", str(luna.home))
    monkeypatch.setenv("LUNA_LIBRARY", str(LIBRARY))
    monkeypatch.syspath_prepend(str(ROOT / "producer" / "comfyui"))
    import luna_client
    return luna_client


def fill(submission, array, luna):
    submission.vae = VAE.encode()
    submission.output_dir = os.fsencode(luna.output)
    submission.input_count = 1
    latent = submission.inputs[0]
    latent.data = array.ctypes.data
    latent.bytes = array.nbytes
    latent.dtype = b"float16"
    latent.dims = array.ndim
    for axis, size in enumerate(array.shape):
        latent.shape[axis] = size


def test_libluna_waits_for_a_broker_that_starts_later(home, monkeypatch):
    luna_client = load_client(home, monkeypatch)
    client = luna_client.Client()
    try:
        submission = client.new_submission()
        array = batch(2)
        fill(submission, array, home)
        job = client.submit(submission)
        array[:] = 0  # the job has its own copy
        assert not client.available()
        assert client.unsettled()[0] == 1
        with pytest.raises(luna_client.LunaError) as refusal:
            client.wait_receipt(job, 50)
        assert refusal.value.word in ("unavailable", "timeout")
        home.start()
        receipt = client.wait_receipt(job, 20_000)
        assert (receipt.error, receipt.images) == (0, 2)
        home.expect(job)
        client.wait_job(job, 20_000)
        assert client.unsettled()[0] == 0
    finally:
        assert client.close(0) == 0


def test_libluna_survives_a_broker_restart(luna, monkeypatch):
    luna_client = load_client(luna, monkeypatch)
    client = luna_client.Client()
    try:
        client.wait_available(10_000)
        luna.broker.kill()
        submission = client.new_submission()
        array = batch(1)
        fill(submission, array, luna)
        jobs = [client.submit(submission) for _ in range(3)]
        luna.start_broker()
        for job in jobs:
            client.wait_receipt(job, 20_000)
            luna.expect(job)
            client.wait_job(job, 20_000)
    finally:
        assert client.close(0) == 0


def test_a_job_that_libluna_refuses(home, monkeypatch):
    luna_client = load_client(home, monkeypatch)
    client = luna_client.Client()
    try:
        submission = client.new_submission()
        array = batch(1)
        fill(submission, array, home)
        submission.inputs[0].bytes -= 2
        with pytest.raises(luna_client.LunaError) as refusal:
            client.submit(submission)
        assert refusal.value.word == "bad_latent"
    finally:
        assert client.close(0) == 0
