"""A GPU that is chosen, tested, short of memory or failing; without one, by a stand-in.

The stand-in (tests/plugin/faulty.c) is a backend plugin as luna-cuda.so is one, that decodes on the CPU and fails as its
environment says; the programs are the ones that are installed.
"""

import os

import pytest
from files import batch, write_latent
from luna import BIN, wait_for

PLUGIN = BIN.parent / "test" / "luna-faulty.so"
CARDS = ("GPU-8f3a2b10-0000-4000-8000-000000000001", "GPU-8f3a2b10-0000-4000-8000-000000000002",
         "GPU-11e5c9d7-0000-4000-8000-000000000003")
DRIVER = os.pathsep.join(filter(None, (str(PLUGIN.parent / "driver"), os.environ.get("LD_LIBRARY_PATH"))))
GPU = {"LUNA_CUDA_PLUGIN": str(PLUGIN), "LD_LIBRARY_PATH": DRIVER, "LUNA_FAULTY_CARDS": ",".join(CARDS),
       "LUNA_DECODER_DEVICE": "cuda:0"}
DEVICE_FAILED = 69

pytestmark = pytest.mark.skipif(not PLUGIN.exists(), reason="make faulty builds the stand-in")


def start_gpu(luna, name="gpu", ready=True, device="cuda:0", **env):
    """A decoder on the stand-in."""
    decoder = luna._start(name, "luna-decoder", "--name", name, "--device", device, **{**GPU, **env})
    luna.decoders[name] = decoder
    if ready:
        wait_for(lambda: luna._alive(decoder) and luna._is_ready(decoder), f"decoder {name} is ready")
    return decoder


def wait_end(decoder, code):
    """Until it has ended by itself, with this exit status."""
    wait_for(lambda: decoder.popen.poll() is not None, lambda: f"the decoder ends:\n{decoder.text()}")
    decoder.ended = True
    assert decoder.popen.returncode == code, decoder.text()


def latents(luna, count, size=8):
    return write_latent(luna.home / f"batch{count}.latent", batch(count, size))


# ---- which card ---------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda:2", "cuda:GPU-11e5c9d7-0000-4000-8000-000000000003", "cuda:GPU-11",
                                    "cuda:gpu-11E5"])
def test_a_card_by_number_by_uuid_and_by_its_beginning(home, device):
    home.start_broker()
    decoder = start_gpu(home, device=device)
    assert 'device=cuda:2 card="Stand-in" uuid=GPU-11e5c9d7' in decoder.text()
    assert home.decoder_list()[0]["device"] == "cuda:2"


@pytest.mark.parametrize("device, says", [("cuda:3", "no GPU has this number"), ("cuda:GPU-9", "no GPU has a UUID"),
                                          ("cuda:GPU-8f3a", "several GPUs")])
def test_a_card_that_is_not_there_is_answered_with_those_that_are(home, device, says):
    for program, *args in (("luna-decoder", "--check-config", "--device", device),
                           ("luna-vae", "selftest", "--device", device)):
        done = home.run(program, *args, **GPU)
        assert done.code == 69, done
        assert says in done.err and all(uuid in done.err for uuid in CARDS), done.err
        assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("device", ["cuda", "cuda:", "cuda:GPU-", "cuda:GPU-xyz", "cuda:-1", "gpu"])
def test_a_word_that_is_no_device(home, device):
    done = home.run("luna-decoder", "--check-config", "--device", device, **GPU)
    assert done.code == 78 and "cuda:GPU-UUID" in done.err, done
    done = home.run("luna-vae", "selftest", "--device", device, **GPU)
    assert done.code == 64 and "cuda:GPU-UUID" in done.err, done


def test_an_instance_of_a_divided_card_is_the_one_that_cuda_shows(home):
    one = {**GPU, "LUNA_FAULTY_CARDS": "GPU-8f3a2b10-0000-4000-8000-000000000001"}
    word = "MIG-3c7d0000-0000-4000-8000-00000000000a"
    assert home.run("luna-vae", "selftest", "--device", f"cuda:{word}", **one).code == 0
    done = home.run("luna-vae", "selftest", "--device", f"cuda:{word}", CUDA_VISIBLE_DEVICES="0", **one)
    assert done.code == 69 and "CUDA_VISIBLE_DEVICES is set to '0'" in done.err, done


def test_auto_says_why_it_is_the_cpu(home):
    home.start_broker()
    decoder = home.start_decoder("one", ready=False)
    decoder.terminate()
    auto = home._start("auto", "luna-decoder", "--name", "auto", "--device", "auto",
                       LUNA_CUDA_PLUGIN=str(home.home / "none.so"))
    home.decoders["auto"] = auto
    wait_for(lambda: home._alive(auto) and home._is_ready(auto), "the decoder is ready")
    assert auto.text().count("no_gpu") == 1 and 'next="the CPU decodes"' in auto.text()


@pytest.mark.parametrize("env, name", [({}, "-cpu"), (GPU, "-cuda:0")])
def test_a_decoder_without_a_name_is_called_after_what_auto_found(home, env, name):
    home.start_broker()
    nothing = {} if env else {"LUNA_CUDA_PLUGIN": str(home.home / "none.so")}
    auto = home._start("auto", "luna-decoder", **{**env, **nothing, "LUNA_DECODER_DEVICE": "auto"})
    wait_for(lambda: home._alive(auto) and home._is_ready(auto), "the decoder is ready")
    assert home.decoder_list()[0]["name"].endswith(name)


# ---- the self-test ------------------------------------------------------------------------


@pytest.mark.parametrize("fault, says", [("wrong", "dB from the right ones"), ("unsteady", "other pixels each time"),
                                         ("device", "illegal memory access")])
def test_a_card_that_decodes_wrongly_gets_no_work(home, fault, says):
    home.start_broker()
    decoder = start_gpu(home, ready=False, LUNA_FAULTY_SELFTEST=fault)
    wait_end(decoder, DEVICE_FAILED)
    last = decoder.text().splitlines()[-1]
    assert last.startswith("luna-decoder: the self-test on cuda:0 failed: ") and says in last
    assert home.decoder_list() == []


def test_the_self_test_is_told_with_its_figures(home):
    home.start_broker()
    decoder = start_gpu(home)
    assert "device_tested device=cuda:0 distance_db=" in decoder.text()
    done = home.run("luna-vae", "selftest", "--device", "cuda:0", **GPU)
    assert done.code == 0 and "dB from plain C" in done.out


def test_a_card_that_is_full_is_waited_for(home):
    home.start_broker()
    decoder = start_gpu(home, ready=False, LUNA_FAULTY_SELFTEST="full")
    wait_for(lambda: "device_full" in decoder.text(), "the decoder says that it waits")
    assert "310 of its 16303 MiB are free" in decoder.text()
    assert home.decoder_list() == []
    assert decoder.terminate() == 0


# ---- memory -------------------------------------------------------------------------------


def card_memory(luna, free, total=16 << 30):
    """What a card has, now; the decoder's environment."""
    path = luna.home / "memory"
    (luna.home / "memory.new").write_text(f"{free},{total}")
    (luna.home / "memory.new").rename(path)
    return {"LUNA_FAULTY_MEMORY": str(path)}


def test_the_limit_is_what_is_free_less_a_reserve(home):
    home.start_broker()
    free, total = 8 << 30, 16 << 30
    decoder = start_gpu(home, **card_memory(home, free))
    assert f"memory device=cuda:0 limit={free - (1 << 30)} " in decoder.text()
    decoder.terminate()
    decoder = start_gpu(home, "other", LUNA_DECODER_MEMORY_LIMIT="3GiB", **card_memory(home, free))
    assert f'limit={3 << 30} by="memory_limit" free={free} total={total}' in decoder.text()


def test_the_limit_grows_when_others_leave_the_card(home):
    home.start_broker(LUNA_LEASE_REFUSED_LIMIT="100")
    decoder = start_gpu(home, **card_memory(home, 8 << 30))
    card_memory(home, 4096)
    job = home.submit(latents(home, 1))
    wait_for(lambda: home.job(job).get("refused", 0) >= 1, "there is no room for it")
    assert "the limit is 3072" in decoder.text()
    card_memory(home, 8 << 30)
    home.wait_job(job)


def test_memory_that_is_taken_meanwhile_costs_speed_and_no_picture(home):
    home.start_broker()
    decoder = start_gpu(home, LUNA_FAULTY_BATCH_MAX="1")
    info = home.wait_job(home.submit(latents(home, 5)))
    assert len(info["files"]) == 5 and info.get("refused", 0) == 0
    assert decoder.text().count("memory_short") == 1
    assert "one image at a time" in decoder.text()


def test_no_memory_at_all_fails_the_job_with_the_numbers(home):
    home.start_broker(LUNA_LEASE_REFUSED_LIMIT="2")
    start_gpu(home, LUNA_FAULTY_BATCH_MAX="-1")
    info = home.wait_job(home.submit(latents(home, 2), expect="failed"), "failed")
    assert info["error"] == "no_memory" and "310 of its 16303 MiB are free" in info["detail"]
    assert (info["refused"], info.get("lost", 0)) == (2, 0)


# ---- a device that fails at work ------------------------------------------------------------


def test_a_failing_device_gives_its_jobs_back(home):
    """The one in hand counts as lost to a decoder that died, those that wait do not count; what was saved stays."""
    home.start_broker()
    decoder = start_gpu(home, LUNA_FAULTY_DEVICE_AT="4")
    first = home.submit(latents(home, 6))
    second = home.submit(latents(home, 2))
    wait_end(decoder, DEVICE_FAILED)
    assert "illegal memory access" in decoder.text()
    assert 'stopped exit=69 reason="the device failed"' in decoder.text()
    info = home.job(first)
    assert (info["state"], info["images_done"], info["lost"], info.get("refused", 0)) == ("pending", 3, 1, 0)
    assert home.job(second)["state"] == "pending"
    home.start_decoder("two")
    assert len(home.wait_job(first)["files"]) == 6
    info = home.wait_job(second)
    assert (info.get("lost", 0), info.get("refused", 0)) == (0, 0)


def test_the_restarted_decoder_goes_on_at_the_first_missing_picture(home):
    home.start_broker()
    job = home.submit(latents(home, 5))
    for _ in range(2):
        wait_end(start_gpu(home, ready=False, LUNA_FAULTY_DEVICE_AT="3"), DEVICE_FAILED)
    start_gpu(home, "last", LUNA_FAULTY_DEVICE_AT="3")
    info = home.wait_job(job)
    assert (info["attempts"], info["lost"], info.get("refused", 0)) == (3, 2, 0)


def test_a_job_that_breaks_every_device_is_given_up(home):
    home.start_broker(LUNA_LEASE_LOST_LIMIT="3")
    job = home.submit(latents(home, 2), expect="failed")
    for _ in range(3):
        wait_end(start_gpu(home, ready=False, LUNA_FAULTY_DEVICE_AT="1"), DEVICE_FAILED)
    info = home.wait_job(job, "failed")
    assert info["error"] == "device" and "illegal memory access" in info["detail"]
    assert (info["lost"], info.get("refused", 0)) == (3, 0)


def test_a_card_that_is_gone_is_a_device_that_failed(home):
    """Not a decoder without a device, which would refuse one job after another; and `auto` does not become the CPU."""
    home.start_broker()
    decoder = start_gpu(home, device="auto", LUNA_FAULTY_GONE_AT="1")
    home.wait_job(home.submit(latents(home, 1)))
    other = home.submit(write_latent(home.home / "four.latent", batch(1, 8)[:, :4].copy()), vae="kl_small_z4")
    wait_end(decoder, DEVICE_FAILED)
    info = home.job(other)
    assert (info["state"], info["lost"], info.get("refused", 0)) == ("pending", 1, 0)
    home.start_decoder("two")
    home.wait_job(other)


def test_a_device_that_hangs_is_one_that_failed(home):
    home.start_broker()
    decoder = start_gpu(home, LUNA_FAULTY_HANG_AT="2", LUNA_DECODER_HANG_TIMEOUT="2s")
    job = home.submit(latents(home, 3))
    wait_end(decoder, DEVICE_FAILED)
    assert "decode_hangs device=cuda:0" in decoder.text()
    home.start_decoder("two")
    info = home.wait_job(job)
    assert (info["attempts"], info["lost"], info.get("refused", 0)) == (2, 1, 0)
