"""Prompts with Luna's nodes in a ComfyUI: the stand-in, or with COMFYUI_DIR a real one too.

Real broker, real decoder. What is decoded in ComfyUI is compared with the daemon's files.
"""

import base64
import gzip
import json
import os
import re
import sys
import threading
import time
from pathlib import Path
from xml.etree import ElementTree

import comfyui_real
import comfyui_stand_in
import pytest
import readers
from files import DATA, VAE, batch, image_pixels, png_chunks, png_texts, write_latent
from luna import BIN, LIBRARY, wait_for
from PIL import Image

NODES = Path(__file__).resolve().parent / "comfyui_nodes.py"
KINDS = ["stand-in", *(["real"] if os.environ.get("COMFYUI_DIR") else [])]
BINDINGS = ["libluna", "http"]
WORKFLOW = {"nodes": [{"id": 1, "type": "LoadLatent"}], "version": 0.4}
QUICK = {"LUNA_LEASE_PING": "200ms"}  # a silent broker is noticed after three of them


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def make_host(home, kind, monkeypatch):
    """make_host(binding): a ComfyUI whose output folder the daemon may write in."""
    made = []

    def make(binding="libluna", **env):
        env = {"LUNA_HOME": str(home.home), "LUNA_TEST_BIN": str(BIN),
               "LUNA_TEST_VAE": str(DATA / f"{VAE}.safetensors"), **env}
        if binding == "libluna":
            env["LUNA_LIBRARY"] = str(LIBRARY)
        else:
            env["LUNA_HTTP"] = home.http_url()
        for name in [name for name in os.environ if name.startswith("LUNA_")]:
            monkeypatch.delenv(name)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        if kind == "real":
            host = comfyui_real.Host(home.home, NODES, dict(os.environ))
        else:
            host = comfyui_stand_in.Host(
                home.home, NODES,
                lambda name, module: monkeypatch.setitem(sys.modules, name, module))
        made.append(host)
        for number, name in enumerate(("chelsea", "coffee")):
            host.put(write_latent(home.home / "some.latent", batch(2)[number:number + 1]),
                     f"{name}.latent")
        return host
    yield make
    for host in made:
        host.close()


@pytest.fixture
def comfy(home, make_host):
    home.start(**QUICK)
    return make_host()


def graph(latent="chelsea", vae=True, **settings):
    """LoadLatent into the saver, whose `vae` is the test's."""
    saver = {"latent_1": ["1", 0], "vae_name": VAE, "format_1": "png", "save_path": "",
             "filename": "picture", "save_mode": "daemon", "quality_gate": "disabled",
             "min_quality_threshold": 0.3, **({"vae": ["2", 0]} if vae else {}), **settings}
    prompt = {"1": {"class_type": "LoadLatent", "inputs": {"latent": f"{latent}.latent"},
                    "_meta": {"title": "The latent"}},
              "3": {"class_type": "LunaMultiSaverAsync", "inputs": saver,
                    "_meta": {"title": "Saver"}}}
    if vae:
        prompt["2"] = {"class_type": "LunaTestVae", "inputs": {}}
    return prompt


def job_of(host, luna, prompt_id, state="completed"):
    """The id of the prompt's job, in the ledger."""
    told = host.outputs(prompt_id)["3"]["text"][0]
    return luna.expect(re.search(r"[0-9a-f-]{36}", told).group(0), state)


def paths(luna, job_id):
    return [Path(file["path"]) for file in luna.wait_job(job_id)["files"]]


def stop_broker(host, luna):
    luna.broker.terminate()
    wait_for(lambda: not host.ask("GET", "/luna/status")[1]["available"], "it is noticed")


def start_broker_again(luna, **env):
    """The decoder is then ended before the broker, which it would wait for."""
    luna.start_broker(**env)
    luna.processes.remove(luna.decoders["one"])
    luna.processes.append(luna.decoders["one"])


def seconds(function):
    begin = time.monotonic()
    function()
    return time.monotonic() - begin


# ---- the daemon is there ----------------------------------------------------------------


@pytest.mark.parametrize("binding", BINDINGS)
def test_the_page_is_told_of_the_decoders(home, make_host, binding):
    """The same by libluna and by HTTP."""
    home.start(LUNA_HTTP_LISTEN="127.0.0.1:0")
    host = make_host(binding)
    status = wait_for(lambda: [told for told in [host.ask("GET", "/luna/status")[1]]
                               if told["available"]], "the daemon answers")[0]
    (decoder,) = status["decoders"]
    assert decoder["name"] == "one" and VAE in decoder["vaes"]
    assert decoder["formats"][:3] == ["png", "webp", "jpeg"]


@pytest.mark.parametrize("binding", BINDINGS)
def test_a_picture_appears_in_page_and_history(home, make_host, binding):
    home.start(LUNA_HTTP_LISTEN="127.0.0.1:0")
    host = make_host(binding)
    prompt_id, error = host.run(graph(on_daemon_down="decode_here"), {"workflow": WORKFLOW})
    assert error is None
    assert "2" not in host.ran, "the VAE was loaded though the daemon is there"
    job_id = job_of(host, home, prompt_id)
    (path,) = paths(home, job_id)
    assert path == home.output / "ORIG" / "picture_ORIG.png"
    texts = png_texts(path)
    assert json.loads(texts["workflow"]) == WORKFLOW and b"LoadLatent" in texts["prompt"]
    shown = [{"filename": path.name, "subfolder": "ORIG", "type": "output"}]
    wait_for(lambda: host.outputs(prompt_id)["3"].get("images") == shown, "history has the file")
    late = wait_for(lambda: [data for data in host.events("executed")
                             if data["output"].get("images")], "the page is shown the file")
    assert late[0]["node"] == "3" and late[0]["output"]["images"] == shown
    states = wait_for(lambda: [told["state"] for told in host.events("luna.job")
                               if told["job_id"] == job_id and told["state"] == "completed"] and
                      [told["state"] for told in host.events("luna.job")], "the page is told")
    assert states[0] == "sending" and states[-1] == "completed"


def test_wait_mode_has_the_files_in_its_result(comfy, home):
    prompt_id, error = comfy.run(graph(mode="wait"))
    assert error is None
    assert comfy.outputs(prompt_id)["3"]["images"][0]["filename"] == "picture_ORIG.png"
    job_of(comfy, home, prompt_id)


def test_a_failed_job_in_wait_mode_fails_the_prompt(comfy, home):
    _, error = comfy.run(graph(mode="wait", vae_name="no_such_vae"))
    assert "no_such_vae" in error
    home.expect(re.search(r"job ([0-9a-f-]{36})", error).group(1), "failed")


def test_an_interrupt_cancels_a_waiting_job_and_leaves_detached_ones(comfy, home):
    comfy.run(graph())  # the VAE is loaded
    home.lunactl("pause")
    detached, _ = comfy.run(graph("coffee", filename="detached"))
    stop = threading.Timer(1.5, comfy.interrupt)
    stop.start()
    waited = {}

    def wait():
        waited["answer"] = comfy.run(graph(mode="wait", filename="waited"))
    took_s = seconds(wait)
    assert waited["answer"][1] and took_s < 30, waited
    (job_id,) = [told["job_id"] for told in comfy.events("luna.job")
                 if told["prompt_id"] == waited["answer"][0] and told["state"] == "sending"]
    home.wait_job(home.expect(job_id, "cancelled"), "cancelled")
    home.lunactl("resume")
    paths(home, job_of(comfy, home, detached))
    for prompt_id in {told["prompt_id"] for told in comfy.events("luna.job")}:
        for told in comfy.events("luna.job"):
            if told["prompt_id"] == prompt_id and told["job_id"] not in home.expected:
                home.expect(told["job_id"])


def test_a_failure_is_told_and_retried_from_the_page(comfy, home):
    prompt_id, error = comfy.run(graph(vae_name="later"))
    assert error is None
    job_id = job_of(comfy, home, prompt_id)
    failed = wait_for(lambda: [told for told in comfy.events("luna.job")
                               if told["state"] == "failed"], "the page is told")
    assert failed[0]["job_id"] == job_id and "later" in failed[0]["detail"]
    status, _ = comfy.ask("POST", f"/luna/jobs/{job_id}/retry")
    assert status == 200
    wait_for(lambda: [told["state"] for told in comfy.events("luna.job")].count("failed") == 2,
             "the second attempt is followed too")
    home.expect(job_id, "failed")


def test_the_page_asks_through_comfyui(comfy, home):
    prompt_id, _ = comfy.run(graph())
    job_id = job_of(comfy, home, prompt_id)
    home.wait_job(job_id)
    status, told = comfy.ask("GET", "/luna/status")
    assert status == 200 and told["available"] and told["decoders"][0]["name"] == "one"
    jobs = wait_for(lambda: [job for job in comfy.ask("GET", "/luna/jobs")[1]["jobs"]
                             if job["state"] == "completed"], "the job is listed")
    assert jobs[0]["job_id"] == job_id and jobs[0]["node"] == "3"
    assert comfy.ask("POST", f"/luna/jobs/{job_id}/explode")[0] == 404
    assert comfy.ask("POST", "/luna/jobs/..%2F..%2Fetc/cancel")[0] in (400, 404)


def test_the_jobs_of_a_prompt_are_cancelled_together(comfy, home):
    home.lunactl("pause")
    prompt_id, _ = comfy.run(graph())
    job_id = job_of(comfy, home, prompt_id, "cancelled")
    home.wait_job(job_id, "pending")
    status, told = comfy.ask("POST", f"/luna/prompts/{prompt_id}/cancel")
    assert status == 200 and told["cancelled"] == [job_id]
    home.wait_job(job_id, "cancelled")
    wait_for(lambda: [told for told in comfy.events("luna.job") if told["state"] == "cancelled"],
             "the page is told")
    home.lunactl("resume")


def test_templates_are_expanded_for_every_caller(comfy, home):
    settings = {"filename": "%date:yyyy%_%The latent.latent%_%Saver.priority%_%no.word%",
                "save_path": "%LoadLatent.latent%", "priority": 7}
    prompt_id, _ = comfy.run(graph(**settings), {"workflow": WORKFLOW})
    (path,) = paths(home, job_of(comfy, home, prompt_id))
    year = time.strftime("%Y")
    assert path.name == f"{year}_chelsea.latent_7_%no.word%_ORIG.png"
    assert path.parent.parent.name == "chelsea.latent"


def test_the_queue_as_values(comfy, home):
    prompt = {"5": {"class_type": "LunaQueueStatus", "inputs": {}}}
    prompt_id, error = comfy.run(prompt)
    assert error is None
    assert comfy.outputs(prompt_id)["5"]["text"] == ["0 waiting, 0 being decoded, 1 decoders"]


def test_a_saver_under_the_id_of_another_package(comfy, home):
    """That package is installed too. With a latent it is Luna's; with images that package's."""
    prompt = graph(filename="former")
    prompt["3"]["class_type"] = "LunaMultiSaver"
    prompt_id, error = comfy.run(prompt)
    assert error is None, error
    assert [path.name for path in paths(home, job_of(comfy, home, prompt_id))] == [
        "former_ORIG.png"]
    prompt["3"] = {"class_type": "LunaMultiSaver", "inputs": {"image_1": ["1", 0]}}
    prompt_id, error = comfy.run(prompt)
    assert error is None and comfy.outputs(prompt_id)["3"] == {"text": ["another package"]}


def test_an_input_that_is_not_to_be_saved(comfy, home):
    settings = {"latent_2": ["1", 0], "format_2": "no save", "affix_1": "", "subdir_1": False}
    prompt_id, error = comfy.run(graph(**settings))
    assert error is None
    assert [path.name for path in paths(home, job_of(comfy, home, prompt_id))] == ["picture.png"]
    _, error = comfy.run(graph(format_1="no save"))
    assert "nothing to save" in error


def texts_but_the_time(path):
    """The PNG's text chunks in their order, the time's without its value."""
    return [(kind, body if body[:15] != b"save_timestamp\0" else body[:15])
            for kind, body in png_chunks(path) if kind in ("tEXt", "iTXt")]


# ---- the daemon is not there --------------------------------------------------------------


def test_decoded_here_is_what_the_daemon_writes(comfy, home):
    settings = {"on_daemon_down": "decode_here", "filename": "%time:YYYY%/%model_name%:%index%. ",
                "model_name": "flux\\dev.safetensors", "save_path": "a/./%model_path%/",
                "affix_1": "CON", "custom_metadata": "caf\u00e9 \u6f22",
                "filename_index": 4}
    extra = {"workflow": WORKFLOW, "artist": {"name": "somebody"}}
    prompt_id, _ = comfy.run(graph(**settings), extra)
    (theirs,) = paths(home, job_of(comfy, home, prompt_id))
    stop_broker(comfy, home)
    comfy.forget()
    prompt_id, error = comfy.run(graph(**settings), extra)
    assert error is None and "2" in comfy.ran
    (shown,) = comfy.outputs(prompt_id)["3"]["images"]
    ours = home.output / shown["subfolder"] / shown["filename"]
    home.strangers.add(ours)
    assert ours.name == theirs.name.replace(".png", "_00001.png") and ours.parent == theirs.parent
    assert (image_pixels(ours) == image_pixels(theirs)).all()
    assert texts_but_the_time(ours) == texts_but_the_time(theirs)
    start_broker_again(home)


@pytest.mark.parametrize("name", ["png", "webp", "jpeg"])
@pytest.mark.parametrize("binding", BINDINGS)
def test_bits_and_texts_decoded_here(home, make_host, binding, name):
    """16 bits, the file beside and AUTOMATIC1111's text: the daemon's, and decoded here."""
    home.start(**QUICK, LUNA_HTTP_LISTEN="127.0.0.1:0")
    host = make_host(binding)
    prompt = graph(format_1=name, on_daemon_down="decode_here", sidecar=True, parameters=True,
                   quality_gate="both", png_bits=16 if name == "png" else 8, metadata=["4", 0])
    prompt["4"] = {"class_type": "LunaTestMetadata", "inputs": {}}
    prompt_id, error = host.run(prompt)
    assert error is None, error
    (theirs,) = paths(home, job_of(host, home, prompt_id))
    stop_broker(host, home)
    host.forget()
    prompt_id, error = host.run(prompt)
    assert error is None, error
    (shown,) = host.outputs(prompt_id)["3"]["images"]
    ours = home.output / shown["subfolder"] / shown["filename"]
    home.strangers |= {ours, *home.output.rglob("*.json")}
    texts, beside = ([{**found, "save_timestamp": ""} for found in map(read, (theirs, ours))]
                     for read in (readers.pillow, json_beside))
    assert texts[0] == texts[1] == beside[0] == beside[1]
    assert texts[0]["parameters"].endswith(
        "\nSteps: 4, Sampler: Euler a, Seed: 18446744073709551615, Size: 128x128, Version: ComfyUI")
    if name == "png":
        assert readers.rgb_of(ours) == readers.rgb_of(theirs)
        assert len(readers.rgb_of(ours)) == 128 * 128 * 3 * 2
    start_broker_again(home)


def json_beside(path):
    return json.loads(Path(f"{path}.json").read_text())


def texts_in_exif_and_xmp(path):
    """({tag: text}, {property: text}) by Pillow, without the time."""
    with Image.open(path) as image:
        exif = dict(image.getexif())
        packet = image.info.get("xmp") or [body for _, body in image.applist if b"xpacket" in body][0]
    whole = packet[packet.index(b"<x:"):packet.index(b"<?xpacket end")]
    return exif, {one.tag: one.text for one in ElementTree.fromstring(whole).iter()
                  if "luna" in one.tag and "time" not in one.tag}


@pytest.mark.parametrize("name", ["webp", "jpeg"])
def test_texts_of_webp_and_jpeg_decoded_here(comfy, home, name):
    settings = {"on_daemon_down": "decode_here", "format_1": name,
                "custom_metadata": "caf\u00e9 \u6f22 <&>"}
    extra = {"workflow": WORKFLOW, "artist": {"name": "somebody"}}
    prompt_id, _ = comfy.run(graph(**settings), extra)
    (theirs,) = paths(home, job_of(comfy, home, prompt_id))
    stop_broker(comfy, home)
    comfy.forget()
    prompt_id, _ = comfy.run(graph(**settings), extra)
    (shown,) = comfy.outputs(prompt_id)["3"]["images"]
    ours = home.output / shown["subfolder"] / shown["filename"]
    home.strangers.add(ours)
    assert texts_in_exif_and_xmp(ours) == texts_in_exif_and_xmp(theirs)
    start_broker_again(home)


def heatmaps_in(path):
    """{list: [members, the map's bytes among them]} of the PNG, or of the file beside a JPEG."""
    beside = Path(f"{path}.json")
    text = (json.loads(beside.read_text()) if beside.exists() else
            {key: value.decode() for key, value in png_texts(path).items()})["daam_heatmaps"]
    whole = json.loads(text)
    for maps in [maps for maps in whole.values() if isinstance(maps, list)]:
        for one in maps:
            one["heatmap"] = gzip.decompress(base64.b64decode(one["heatmap"]))
    return whole


@pytest.mark.parametrize("name", ["png", "jpeg"])
@pytest.mark.parametrize("binding", BINDINGS)
def test_heatmaps_come_with_the_picture(home, make_host, kind, binding, name):
    """From a sampler's node, by the daemon and decoded here: the same."""
    home.start(**QUICK, LUNA_HTTP_LISTEN="127.0.0.1:0")
    host = make_host(binding)
    prompt = graph(format_1=name, on_daemon_down="decode_here",
                   pos_heatmaps_original=["4", 0], neg_heatmaps_modified=["4", 0],
                   pos_tokens=["4", 1])
    prompt["4"] = {"class_type": "LunaTestHeatmaps", "inputs": {}}
    prompt_id, error = host.run(prompt)
    assert error is None, error
    (theirs,) = paths(home, job_of(host, home, prompt_id))
    stop_broker(host, home)
    host.forget()
    prompt_id, error = host.run(prompt)
    assert error is None, error
    (shown,) = host.outputs(prompt_id)["3"]["images"]
    ours = home.output / shown["subfolder"] / shown["filename"]
    home.strangers |= {ours, *home.output.rglob("*.json")}
    found = heatmaps_in(theirs)
    assert found == heatmaps_in(ours)
    (word,), both = found["positive"], found["negative_modified"]
    assert word["token_index"] == 1 and [one["token_index"] for one in both] == [0, 1]
    assert word["token"] == ("cat" if kind == "real" else "")
    assert word["heatmap"] == both[1]["heatmap"] and len(both[0]["heatmap"]) == 2 * 3 * 4
    assert Path(f"{theirs}.json").exists() == (name == "jpeg")
    start_broker_again(home)


@pytest.mark.parametrize("binding", BINDINGS)
def test_the_daemon_stops(home, make_host, binding):
    """Before, during and after a submission: in each mode nothing is lost and nothing waits;
    what was spooled outlives ComfyUI."""
    modes = ("decode_here", "spool", "fail")
    home.start(**QUICK, LUNA_HTTP_LISTEN="127.0.0.1:0")
    address = {**QUICK, "LUNA_HTTP_LISTEN": home.http_url().removeprefix("http://")}
    host = make_host(binding)
    home.lunactl("pause")
    during = [job_of(host, home, host.run(graph(filename=f"during_{mode}",
                                                on_daemon_down=mode))[0]) for mode in modes]
    for job_id in during:
        home.wait_job(job_id, "pending")
    stop_broker(host, home)
    before = {}
    for mode in modes:
        prompt = graph("coffee", vae=mode == "decode_here", on_daemon_down=mode, filename=mode)
        took_s = seconds(lambda: before.update({mode: host.run(prompt)}))
        print(f"{mode}, {binding}: {1000 * took_s:.0f} ms for a prompt without a daemon")
    decoded, spooled, failed = (before[mode] for mode in modes)
    assert "luna-broker" in failed[1] and failed[1].strip().count("\n") == 0
    (shown,) = host.outputs(decoded[0])["3"]["images"]
    assert shown["filename"] == "decode_here_ORIG.png" and "2" not in host.ran
    home.strangers.add(home.output / shown["subfolder"] / shown["filename"])
    assert "waits for the daemon" in host.outputs(spooled[0])["3"]["text"][0]
    waiting = job_of(host, home, spooled[0])
    wait_for(lambda: [path for path in home.home.glob("user/luna-outbox*/**/*")
                      if waiting in path.name and path.parent.name != "tmp"
                      and path.suffix != ".part"], "the job is on the disk")
    host.close()
    start_broker_again(home, **address)
    home.lunactl("resume")
    for mode, job_id in zip(modes, during):
        assert [path.name for path in paths(home, job_id)] == [f"during_{mode}_ORIG.png"]
    host = make_host(binding)
    assert [path.name for path in paths(home, waiting)] == ["spool_ORIG.png"]
    after, error = host.run(graph(filename="after"))
    assert error is None and paths(home, job_of(host, home, after))
