"""The node in a real ComfyUI beside VAEDecode and SaveImage: same latents, same VAE, one run.

Needs COMFYUI_DIR, and COMFYUI_PYTHON with its requirements; runs with --cpu. The VAE is a
TAESD decoder with random weights, which both sides load from one file; ComfyUI and the decoder
compute with one thread each. The sampler is a node that sleeps, as a GPU's does for the CPU.
"""

import argparse
import math
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tests" / "system"))

import comfyui_real  # noqa: E402
import numpy  # noqa: E402
from files import write_latent, write_safetensors  # noqa: E402
from luna import LIBRARY, Luna, wait_for  # noqa: E402

ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # a core for ComfyUI, another one for the decoder
NODES = ROOT / "tests" / "system" / "comfyui_nodes.py"
LONG_S = 600
ROUNDS = 5  # of so many prompts, for the node alone


def random_taesd(path):
    """A TAESD decoder of random weights, under the keys that ComfyUI's VAE has."""
    random, tensors = numpy.random.default_rng(1), {}

    def conv(name, out, into, bias=True):
        scale = (2 / (9 * into)) ** 0.5
        tensors[f"taesd_decoder.{name}.weight"] = (
            scale * random.standard_normal((out, into, 3, 3))).astype(numpy.float32)
        if bias:
            tensors[f"taesd_decoder.{name}.bias"] = numpy.zeros(out, numpy.float32)
    conv("1", 64, 4)
    for first in (3, 8, 13, 18):
        for block in range(first, first + (1 if first == 18 else 3)):
            for part in (0, 2, 4):
                conv(f"{block}.conv.{part}", 64, 64)
        if first != 18:
            conv(str(first + 4), 64, 64, bias=False)
    conv("19", 3, 64)
    write_safetensors(path, tensors)


def with_luna(number, seconds=None):
    save = {"latent_1": ["1", 0], "vae_name": "random", "format_1": "png", "save_path": "",
            "filename": "luna", "save_mode": "daemon", "quality_gate": "disabled",
            "min_quality_threshold": 0.3, "filename_index": number}
    return graph({"3": {"class_type": "LunaMultiSaverAsync", "inputs": save}}, "3", number, seconds)


def with_comfyui(number, seconds=None):
    """VAEDecode is given a new latent each time, or ComfyUI would remember its picture."""
    nodes = {"3": {"class_type": "VAEDecode", "inputs": {"samples": ["1", 0], "vae": ["2", 0]}},
             "2": {"class_type": "VAELoader", "inputs": {"vae_name": "random.safetensors"}},
             "5": {"class_type": "SaveImage", "inputs": {"images": ["3", 0],
                                                         "filename_prefix": f"c{number}"}}}
    return graph(nodes, "3", number, seconds)


def graph(nodes, user, number, seconds):
    load = {"1": {"class_type": "LoadLatent", "inputs": {"latent": "batch.latent"}},
            "4": {"class_type": "LunaTestSampler", "inputs": {
                "latent": ["1", 0], "seed": number, "seconds": seconds or 0.0}}}
    for name in ("latent_1", "samples"):
        if name in nodes[user]["inputs"]:
            nodes[user]["inputs"][name] = ["4", 0]
    return {**load, **nodes}


def run_all(host, prompts):
    """Queues them all; seconds until the last has ended."""
    begin = time.monotonic()
    ids = [host.queue(prompt) for prompt in prompts]
    for prompt_id in ids:
        error = host.ended(prompt_id)
        assert error is None, error
    return ids, time.monotonic() - begin


def node_times_ms(host, ids, nodes):
    """For each prompt the time from the executor's turning to one of these nodes until it
    turns to the next thing, by its own clock."""
    spent, now = dict.fromkeys(ids, 0.0), None
    for at, kind, prompt_id, node in host.ask("GET", "/luna_test/clock")[1]:
        if now:
            spent[now[0]] += at - now[1]
        wanted = kind == "executing" and node in nodes and prompt_id in spent
        now = (prompt_id, at) if wanted else None
    return [1000 * seconds for seconds in spent.values()]


def row(label, times, base=None):
    times = sorted(times)
    p99 = times[math.ceil(0.99 * len(times)) - 1]
    median = statistics.median(times)
    ratio = f"{median / base:9.0f}" if base else "        1"
    print(f"{label:46}{median:11.2f}{p99:11.2f}{ratio}")
    return median


def all_saved(host, luna):
    def nothing_left():
        status = luna.status()  # the wire leaves out what is 0
        return not status.get("pending") and not status.get("in_progress")
    wait_for(nothing_left, "every job is saved", LONG_S)


def measure_node(host, luna, count):
    run_all(host, [with_luna(1_000), with_comfyui(1_000)])  # models are loaded
    all_saved(host, luna)
    luna.lunactl("pause")
    elsewhere = []
    for first in range(0, ROUNDS * count, count):
        ids, _ = run_all(host, [with_luna(n) for n in range(first, first + count)])
        elsewhere += node_times_ms(host, ids, ("3",))
        for job in host.ask("GET", "/luna/jobs")[1]["jobs"][:count]:
            host.ask("POST", f"/luna/jobs/{job['job_id']}/cancel")
    luna.lunactl("resume")
    all_saved(host, luna)
    ids, _ = run_all(host, [with_luna(n) for n in range(2_000, 2_000 + count)])
    beside = node_times_ms(host, ids, ("3",))
    all_saved(host, luna)
    ids, _ = run_all(host, [with_comfyui(n) for n in range(count)])
    blocking = node_times_ms(host, ids, ("3", "5"))
    print(f"{'in the executor, a prompt, ms':46}{'median':>11}{'p99':>11}{'times':>9}")
    base = row("Luna's node, the decoder elsewhere (paused)", elsewhere)
    row("Luna's node, the decoder on the same cores", beside, base)
    row("VAEDecode and SaveImage", blocking, base)
    return min(blocking) / 1000


def measure_overlap(host, luna, count, sampling_s):
    begin = time.monotonic()
    run_all(host, [with_luna(n, sampling_s) for n in range(5_000, 5_000 + count)])
    free_s = time.monotonic() - begin
    all_saved(host, luna)
    luna_s = time.monotonic() - begin
    _, blocking_s = run_all(host, [with_comfyui(n, sampling_s)
                                   for n in range(5_000, 5_000 + count)])
    begin = time.monotonic()
    run_all(host, [with_luna(9_999, 0.0)])
    all_saved(host, luna)
    tail_s = time.monotonic() - begin
    ideal_s = count * sampling_s + tail_s
    print(f"\n{count} batches, sampling of {sampling_s:.2f} s each{'':12}{'total, s':>9}"
          f"{'of ideal':>10}")
    for label, took_s in (("ideal: sampling and one tail", ideal_s),
                          ("Luna, all files saved", luna_s),
                          ("Luna, ComfyUI is free again", free_s),
                          ("VAEDecode and SaveImage", blocking_s)):
        print(f"{label:46}{took_s:9.2f}{took_s / ideal_s:10.2f}")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--batches", type=int, default=10)
    options.add_argument("--images", type=int, default=2, help="of a batch")
    options.add_argument("--sampling-s", type=float, help="1.2 times the decode, unless given")
    options.add_argument("--side", type=int, default=256, help="of an image, pixels")
    chosen = options.parse_args()
    if not os.environ.get("COMFYUI_DIR"):
        sys.exit("bench-comfyui: set COMFYUI_DIR to a ComfyUI, and COMFYUI_PYTHON to a Python "
                 "that has its requirements")
    luna = Luna()
    host = None
    try:
        models = luna.home / "models" / "vae"
        models.mkdir(parents=True)
        random_taesd(models / "random.safetensors")
        luna.env["LUNA_VAE_ROOTS"] = str(models)
        luna.start(**ONE_THREAD)
        host = comfyui_real.Host(luna.home, NODES, {
            **os.environ, **ONE_THREAD, "LUNA_TEST_CLOCK": "1", "LUNA_HOME": str(luna.home),
            "LUNA_LIBRARY": str(LIBRARY)})
        side = chosen.side // 8
        array = numpy.random.default_rng(2).standard_normal(
            (chosen.images, 4, side, side), numpy.float32)
        host.put(write_latent(luna.home / "made.latent", array), "batch.latent")
        print(f"{chosen.batches} batches of {chosen.images} images of {chosen.side} pixels a side")
        blocking_s = measure_node(host, luna, chosen.batches)
        measure_overlap(host, luna, chosen.batches,
                        chosen.sampling_s or max(0.2, 1.2 * blocking_s))
    except BaseException:
        print(luna.logs()[-6000:], file=sys.stderr)
        raise
    finally:
        if host:
            host.close()
        luna.remove()


if __name__ == "__main__":
    main()
