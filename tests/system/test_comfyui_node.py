"""The node "Luna Multi Saver (Daemon Async)" on real processes, ComfyUI itself stood in for."""

import base64
import gzip
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import comfyui_stand_in as comfyui
import numpy
import pytest
from files import (VAE, batch, image_pixels, photograph, photograph_latent, photograph_pixels,
                   png_texts, psnr)
from luna import LIBRARY, wait_for
from patience import patient
from PIL import Image

PROMPT = {"3": {"class_type": "KSampler", "inputs": {"seed": 18446744073709551615, "cfg": 7.5},
                "_meta": {"title": "Sampler \u2013 \u6708"},
                "is_changed": [float("nan")]}}  # ComfyUI adds it where IS_CHANGED is always true
WORKFLOW = {"nodes": [{"id": 3, "type": "KSampler"}], "version": 0.4, "extra": {"ds": [1.0, None]}}
PNG = {f"format_{n}": "png" for n in range(1, 6)}
HIDDEN = {"prompt": PROMPT, "extra_pnginfo": {"workflow": WORKFLOW}, "unique_id": "9"}


class Comfy:
    """The node package in a process that looks like ComfyUI."""

    def __init__(self, luna, package):
        self.luna = luna
        self.package = package
        self.cls = package.NODE_CLASS_MAPPINGS["LunaMultiSaverAsync"]

    def run(self, tensor, **settings):
        latent = {"samples": tensor}
        ui, (passed, job_id) = comfyui.run_node(
            self.package, {"latent_1": latent, "vae_name": VAE, **PNG, **HIDDEN, **settings})
        assert passed is latent
        assert job_id in ui["text"][0]
        return job_id

    def save(self, tensor, **settings):
        """The paths of the saved pictures, in order."""
        info = self.luna.wait_job(self.luna.expect(self.run(tensor, **settings)))
        files = sorted(info["files"], key=lambda file: (file["input"], file["index"]))
        return [Path(file["path"]) for file in files]


@pytest.fixture
def comfy(luna, monkeypatch):
    monkeypatch.setenv("LUNA_HOME", str(luna.home))
    monkeypatch.setenv("LUNA_LIBRARY", str(LIBRARY))
    for name, module in comfyui.modules(luna.output).items():
        monkeypatch.setitem(sys.modules, name, module)
    package = comfyui.load_package()
    yield Comfy(luna, package)
    sys.modules[f"{package.__name__}.session"]._close(os.getpid())
    for name in [name for name in sys.modules if name.startswith(package.__name__)]:
        del sys.modules[name]


def test_interface(comfy):
    cls = comfy.cls
    assert comfy.package.NODE_DISPLAY_NAME_MAPPINGS["LunaMultiSaverAsync"] == (
        "Luna Multi Saver (Daemon Async)")
    assert cls.CATEGORY == "Luna/Image" and cls.OUTPUT_NODE is True
    assert cls.RETURN_TYPES == ("LATENT", "STRING")
    types = cls.INPUT_TYPES()
    assert types["required"]["latent_1"][0] == "LATENT"
    assert {f"latent_{n}" for n in range(2, 6)} <= set(types["optional"])
    assert types["hidden"] == {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO",
                               "unique_id": "UNIQUE_ID"}
    assert "torch" not in sys.modules


def test_a_picture_with_its_workflow(comfy):
    (path,) = comfy.save(comfyui.Tensor(photograph_latent("astronaut")), filename="node",
                         save_path="", affix_1="", model_name="flux/dev.safetensors")
    assert path == comfy.luna.output / "node.png"
    texts = png_texts(path)
    assert texts["prompt"] == json.dumps(PROMPT).encode()
    assert texts["workflow"] == json.dumps(WORKFLOW).encode()
    assert psnr(image_pixels(path), photograph_pixels("astronaut")) >= 50


def test_other_pnginfo_keys_are_kept(comfy):
    extra = {"workflow": WORKFLOW, "artist": {"name": "somebody", "id": 2**63}}
    (path,) = comfy.save(comfyui.Tensor(batch(1)), extra_pnginfo=extra)
    assert png_texts(path)["artist"] == json.dumps(extra["artist"]).encode()


def test_dtypes_and_strides(comfy):
    latent = photograph_latent("chelsea")
    wanted = photograph_pixels("chelsea")
    turned = numpy.ascontiguousarray(latent.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not turned.flags.c_contiguous
    for tensor, least in ((comfyui.Tensor(latent), 50),
                          (comfyui.Tensor(latent.astype(numpy.float32)), 50),
                          (comfyui.Tensor(turned), 50),
                          (comfyui.Tensor(latent, device="cuda:0"), 50),
                          (comfyui.bfloat16(latent), 30)):
        (path,) = comfy.save(tensor)
        assert psnr(image_pixels(path), wanted) >= least, tensor.dtype


def test_five_inputs_and_a_picture_from_a_video_model(comfy):
    more = {f"latent_{n}": {"samples": comfyui.Tensor(batch(1, 8 + n))} for n in (2, 3, 5)}
    five_d = comfyui.Tensor(batch(2)[:, :, None])
    paths = comfy.save(five_d, affix_3="", filename="many", **more)
    assert [path.name for path in paths] == [
        "many_ORIG_0.png", "many_ORIG_1.png", "many_UPSCALED.png", "many.png", "many_IMAGE5.png"]


def test_metadata_can_be_left_out(comfy, monkeypatch):
    (path,) = comfy.save(comfyui.Tensor(batch(1)), embed_workflow=False)
    assert not png_texts(path)
    monkeypatch.setattr(sys.modules["comfy.cli_args"].args, "disable_metadata", True)
    (path,) = comfy.save(comfyui.Tensor(batch(1)), custom_metadata="secret")
    assert not png_texts(path)


@pytest.mark.parametrize("samples, words", [
    (comfyui.NestedTensor(), "nested"),
    (comfyui.Tensor(numpy.zeros((1, 16, 9, 4, 4), numpy.float32)), "video"),
    (comfyui.Tensor(numpy.zeros((16, 4, 4), numpy.float32)), "shape"),
    (comfyui.Tensor(numpy.zeros((1, 4, 4, 4), numpy.int64)), "int64"),
    (None, "LATENT")])
def test_refused_latents(comfy, samples, words):
    with pytest.raises(ValueError, match=words):
        comfy.run(samples)


def test_a_failure_is_in_comfyuis_log(comfy, caplog):
    job = comfy.luna.expect(comfy.run(comfyui.Tensor(batch(1)), vae_name="no_such_vae"), "failed")
    comfy.luna.wait_job(job, "failed")
    said = wait_for(lambda: [record.getMessage() for record in caplog.records
                             if job in record.getMessage()], "the log says it")
    assert len(said) == 1 and said[0].startswith(f"Luna: job {job} was not saved: failed "), said
    assert said[0].count(job) == said[0].count("unknown_vae") == 1, said
    assert "no_such_vae" in said[0]


NAMES = [
    {"save_path": "%model_path%", "model_name": "a\\b/c.CKPT"},
    {"save_path": "a%model_dir%/./x//y", "model_name": "/only.gguf/"},
    {"save_path": "%index%%index%/%unknown%", "filename_index": 2**40},
    {"filename": "50% of %index%", "affix_1": "..."},
    {"filename": "sub/dir\\name", "affix_1": "a/b", "subdir_1": False},
    {"filename": "com¹ .tar", "affix_1": ""},
    {"filename": "%model_name%", "model_name": "", "affix_1": "trailing. "},
    {"filename": ".hidden<>:|?*", "affix_1": "月", "save_path": "con/aux.txt"},
    {"filename": "%time:YYYY%%%time:x%", "affix_1": "%index%"}]
REFUSED = [{"save_path": "a/../b"}, {"filename": ".. /x"}, {"save_path": "/etc"},
           {"filename": "C:/x"}, {"filename": "x" * 300}]


def test_names_of_pictures_that_are_decoded_here(comfy):
    """names.py gives what the daemon gives, and refuses what it refuses."""
    for number, settings in enumerate(NAMES):
        same_names(comfy, {"filename": f"f{number}", **settings})
    for settings in REFUSED:
        both_refuse(comfy, settings)


def same_names(comfy, settings):
    nodes, names = (sys.modules[f"{comfy.package.__name__}.{name}"] for name in ("nodes", "names"))
    latent = {"samples": comfyui.Tensor(batch(2, 2))}
    settings = {**nodes.DEFAULTS, **PNG, "vae_name": VAE, **settings}
    theirs = comfy.save(latent["samples"], **settings)
    job = nodes.make_job({**settings, "latent_1": latent}, PROMPT, None)
    made = [names.Name(job.settings, job.inputs[0], index, 16, 16, time.localtime())
             for index in range(2)]
    ours = [comfy.luna.output / name.folder / name.candidate(0) for name in made]
    assert ours == theirs


def both_refuse(comfy, settings):
    nodes, names = (sys.modules[f"{comfy.package.__name__}.{name}"] for name in ("nodes", "names"))
    latent = {"samples": comfyui.Tensor(batch(1, 2))}
    settings = {**nodes.DEFAULTS, **PNG, "filename": "f", "vae_name": VAE, **settings}
    job_id = comfy.luna.expect(comfy.run(latent["samples"], **settings), "failed")
    comfy.luna.wait_job(job_id, "failed")
    job = nodes.make_job({**settings, "latent_1": latent}, PROMPT, None)
    with pytest.raises(ValueError, match="Luna: "):
        names.Name(job.settings, job.inputs[0], 0, 16, 16, time.localtime())


def encoded_here(comfy, name, **settings):
    """A grey picture by the node's own encoder, opened with Pillow."""
    here, nodes = (sys.modules[f"{comfy.package.__name__}.{name}"]
                   for name in ("decode_here", "nodes"))
    settings = {**nodes.DEFAULTS, **settings, "format_1": name,
                "latent_1": {"samples": comfyui.Tensor(batch(1, 2))}}
    job = nodes.make_job(settings, PROMPT, {"workflow": WORKFLOW, "artist": "<&>"})
    texts = here.picture_texts.texts_of(job, job.inputs[0], 0, time.localtime())
    data = here._encode(numpy.full((16, 24, 3), 99, numpy.uint8), job.inputs[0].settings, texts)
    return Image.open(io.BytesIO(data))


def luna_xmp(image):
    """{keyword: text} of the picture's XMP."""
    packet = image.info.get("xmp") or image.applist[-1][1]
    return {one.tag.removeprefix("{urn:luna:image:1}"): one.text
            for one in ElementTree.fromstring(packet[packet.index(b"<x:"):]).iter()}


@pytest.mark.parametrize("name", ["webp", "jpeg"])
def test_texts_of_webp_and_jpeg_that_are_encoded_here(comfy, name):
    image = encoded_here(comfy, name, metadata={"seed": 2**64 - 1, "positive": "café <b>"},
                         custom_metadata="a & b")
    exif = image.getexif()
    assert image.size == (24, 16)
    assert exif[0x0110] == f"prompt:{json.dumps(PROMPT)}"
    assert exif[0x010F] == f"workflow:{json.dumps(WORKFLOW)}"
    assert exif[0x010E] == 'artist:"<&>"'
    luna = luna_xmp(image)
    assert luna["gen_seed"] == str(2**64 - 1) and luna["gen_positive"] == "café <b>"
    assert luna["custom_metadata"] == "a & b" and luna["image_type"] == "ORIG"


@pytest.mark.parametrize("name", ["avif", "jxl"])
def test_newer_formats_encoded_here_where_pillow_writes_them(comfy, name):
    plugin = {"avif": "pillow_avif", "jxl": "pillow_jxl"}[name]
    Image.init()
    if name.upper() not in Image.SAVE and not importlib.util.find_spec(plugin):
        with pytest.raises(ValueError, match=f"writes no {name.upper()}"):
            encoded_here(comfy, name)
        return
    exif = encoded_here(comfy, name).getexif()
    assert exif[0x0110] == f"prompt:{json.dumps(PROMPT)}"
    assert exif[0x010F] == f"workflow:{json.dumps(WORKFLOW)}"


@pytest.mark.parametrize("size, kept", [(40_000, {0x0110, 0x010F, 0x010E}),
                                        (70_000, {0x0110, 0x010E})])
def test_a_jpeg_is_saved_however_large_its_workflow(comfy, monkeypatch, size, kept):
    monkeypatch.setitem(WORKFLOW, "note", "x" * size)
    exif = encoded_here(comfy, "jpeg", custom_metadata="y" * 80_000).getexif()
    assert kept <= set(exif) and (0x010F in exif) == (0x010F in kept)


# ---- killed while it decodes here -----------------------------------------------------------

# Encodes a picture in a process of its own; `os.link` is when its bytes are on the disk.
DYING = """
import os, signal, sys, time
sys.path.insert(0, {tests!r})
import comfyui_stand_in as comfyui
sys.modules.update(comfyui.modules({output!r}))
package = comfyui.load_package()
here = sys.modules[package.__name__ + ".decode_here"]
class Name:
    def candidate(self, k): return "picture.png"
def stop(*_):
    print("linked", flush=True)
    {then}
os.link = stop
here._publish({folder!r}, Name(), b"bytes", None)
"""


def in_the_middle(comfy, folder, then):
    """A process that has written its part."""
    script = DYING.format(tests=str(Path(__file__).parent), output=str(comfy.luna.output),
                          folder=str(folder), then=then)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE,
                               env={**os.environ, "LUNA_OUTBOX": ""})
    assert process.stdout.readline() == b"linked\n"
    return process


def parts_in(folder):
    return {path for path in folder.iterdir() if path.name.startswith(".luna-here-")}


def test_what_a_killed_one_left_goes_at_the_next_start(comfy):
    folder = comfy.luna.output / "a" / "b"
    folder.mkdir(parents=True)
    alive = in_the_middle(comfy, folder, "time.sleep(600)")
    living = parts_in(folder)
    dead = in_the_middle(comfy, folder, "os.kill(os.getpid(), signal.SIGKILL)")
    dead.communicate()
    (left,) = parts_in(folder) - living
    head, pid, number = left.name.removesuffix(".part").rsplit("-", 2)
    foreign = folder / f".luna-here-{'f' * 16}-{'0' * 16}-{pid}-{number}.part"
    own = folder / ".luna-here-mine.part"
    for path in (foreign, own):
        path.write_bytes(b"")
    parts = sys.modules[f"{comfy.package.__name__}.parts"]
    sys.modules[f"{comfy.package.__name__}.session"].start()
    wait_for(lambda: not left.exists(), "the dead one's file is gone")
    assert parts_in(folder) == {*living, foreign, own}
    alive.kill()
    alive.communicate()
    assert parts.sweep(comfy.luna.output) == 1
    assert parts_in(folder) == {foreign, own}
    for path in (foreign, own):
        path.unlink()


def test_of_an_earlier_start_of_this_machine_too(comfy, tmp_path, monkeypatch):
    parts = sys.modules[f"{comfy.package.__name__}.parts"]
    before = ("0123456789abcdef", parts._HERE[1])
    path = tmp_path / f".luna-here-{'-'.join(before)}-77-88.part"
    path.write_bytes(b"half")
    assert parts.sweep(tmp_path) == (parts._HERE[1] != "0")
    nowhere = tmp_path / ".luna-here-0-0-77-88.part"
    nowhere.write_bytes(b"half")
    monkeypatch.setattr(parts, "_HERE", ("0", "0"))
    assert parts.sweep(tmp_path) == 0 and nowhere.exists()


def test_a_sweep_before_the_lock_takes_nothing_away(comfy, tmp_path, monkeypatch):
    parts = sys.modules[f"{comfy.package.__name__}.parts"]
    lock, swept = parts._lock, []

    def late(file, flags=0):
        if not swept:
            swept.append(os.unlink(file.name))
        return lock(file, flags)
    monkeypatch.setattr(parts, "_lock", late)
    with parts.part(tmp_path, b"bytes") as path:
        assert swept and Path(path).read_bytes() == b"bytes"
    assert not list(tmp_path.iterdir())


# ---- heatmaps ---------------------------------------------------------------------------

RANDOM = numpy.random.default_rng(20261)


def steps_of_daam(images=2, tokens=77, size=(6, 4), steps=3, layers=(2, 3)):
    """As comfyui-daam gives them: [step]{image: {factor: [layer]}}."""
    def layer():
        return comfyui.Tensor(RANDOM.random((tokens, 1, *size), numpy.float32))
    return [{image: {factor: [layer() for _ in range(count)]
                     for factor, count in zip((1, 2), layers)}
             for image in range(images)} for _ in range(steps)]


def reduced(steps):
    """The same, written down: the mean over layers, summed over factors and steps."""
    return numpy.stack([sum(
        sum(layer.array[:, 0] for layer in layers) / numpy.float32(len(layers))
        for step in steps for layers in step[image].values()) for image in sorted(steps[0])])


CLIP = {"g": [[(49406, 1.0), (736, 1.0), (2368, 1.2), (49407, 1.0)] + [(0, 1.0)] * 73]}
WORDS = {736: "blue</w>", 2368: "cat</w>"}


def maps_of(text):
    """{list: {(token, index): (map, its other members)}} of a daam_heatmaps."""
    whole = json.loads(text)
    assert whole.pop("encoding") == "base64 of gzip of float32, little-endian, rows from the top"
    found = {}
    for name, maps in whole.items():
        for one in maps:
            data = gzip.decompress(base64.b64decode(one.pop("heatmap"), validate=True))
            array = numpy.frombuffer(data, "<f4").reshape(one["height"], one["width"])
            found.setdefault(name, {})[one.pop("token"), one.pop("token_index")] = array, one
    return found


def same_maps(found, wanted):
    assert [key for key in found] == [key for key in wanted]
    for key, (array, members) in found.items():
        assert array.tobytes() == wanted[key].astype(numpy.float32).tobytes(), key
        total = array.sum(dtype=float)
        near = {"max_attention": array.max(), "total_attention": total,
                "mean_attention": total / array.size}
        for name, value in near.items():
            assert members[name] == pytest.approx(float(value), rel=1e-6)
        left, top, width, height = members["bbox"]
        inside = array[top:top + height, left:left + width] >= array.max() / 2
        assert inside.sum() == (array >= array.max() / 2).sum()
        assert inside.any(0)[[0, -1]].all() and inside.any(1)[[0, -1]].all()
        assert members["coverage_area"] == pytest.approx(inside.sum() / array.size)


@pytest.mark.parametrize("form", ["png", "webp", "jpeg"])
def test_heatmaps_are_kept_to_the_bit(comfy, monkeypatch, form):
    host = sys.modules[f"{comfy.package.__name__}.host"]
    monkeypatch.setattr(host, "_clip_words", WORDS)
    steps, negative = steps_of_daam(), RANDOM.random((2, 3, 5), numpy.float32)
    paths = comfy.save(comfyui.Tensor(batch(2)), format_1=form, pos_heatmaps_original=steps,
                       pos_tokens=CLIP, neg_tokens=["ugly", "m\u0101"],
                       neg_heatmaps_modified=comfyui.Tensor(negative))
    for index, path in enumerate(paths):
        if form == "jpeg":
            text = json.loads(Path(f"{path}.json").read_text())["daam_heatmaps"]
            comfy.luna.strangers.add(Path(f"{path}.json"))
        elif form == "png":
            text = Image.open(path).text["daam_heatmaps"]
        else:
            text = luna_xmp(Image.open(path))["daam_heatmaps"]
        found = maps_of(text)
        assert list(found) == ["positive", "negative_modified"]
        wanted = reduced(steps)[index]
        same_maps(found["positive"], {("blue", 1): wanted[1], ("cat", 2): wanted[2]})
        same_maps(found["negative_modified"],
                  {("ugly", 0): negative[0], ("m\u0101", 1): negative[1]})


def heatmaps_of(comfy, **settings):
    """(the sets that the node sends, what it leaves out)."""
    nodes = sys.modules[f"{comfy.package.__name__}.nodes"]
    latent = {"samples": comfyui.Tensor(batch(1, 2))}
    job = nodes.make_job({**nodes.DEFAULTS, "latent_1": latent, **settings}, PROMPT, None)
    return job.heatmaps, job.left_out


def test_heatmaps_of_every_form(comfy):
    steps = steps_of_daam(images=1, tokens=2)
    whole = {"positive": steps, "negative": {"ugly": comfyui.Tensor(numpy.eye(4))},
             "pos_tokens": ["a", "b"], "neg_tokens": None}
    (positive, negative), left_out = heatmaps_of(comfy, pos_heatmaps_original=whole,
                                                 neg_heatmaps_original=whole)
    assert not left_out and positive.tokens == [("a", 0), ("b", 1)]
    assert (positive.maps == reduced(steps)).all() and positive.variant == "original"
    assert negative.tokens == [("ugly", 0)] and (negative.maps[0, 0] == numpy.eye(4)).all()
    (bare,), _ = heatmaps_of(comfy, neg_heatmaps_modified=steps)
    assert bare.tokens == [("", 0), ("", 1)] and bare.prompt == "negative"
    (other,), _ = heatmaps_of(comfy, pos_heatmaps_modified=steps, pos_tokens={
        "t5xxl": [[(3, 1.0), (1, 1.0)]]})
    assert other.tokens == [("", 0), ("", 1)]
    assert heatmaps_of(comfy, pos_heatmaps_original=[], neg_heatmaps_original=None) == ([], [])
    assert heatmaps_of(comfy, pos_heatmaps_original=steps, embed_workflow=False) == ([], [])


@pytest.mark.parametrize("value, words", [
    ("nonsense", "could not convert"), ([1], "no form that Luna knows"),
    (numpy.zeros((3, 3)), "their shape is"),
    ([{1: {1: [comfyui.Tensor(numpy.zeros((2, 1, 3, 3)))]}}], r"only the images \[1\]"),
    ([{0: {1: [comfyui.Tensor(numpy.zeros((2, 1, 3, n)))]}} for n in (3, 4)], "different sizes"),
    (numpy.zeros((1, 1025, 1, 1)), "at most 1024"), (numpy.zeros((1, 1, 1025)), "1024 a side"),
    (numpy.zeros((1, 33, 512, 512), numpy.float32), "33 MiB, at most 32 go")])
def test_no_picture_is_lost_over_its_heatmaps(comfy, value, words):
    """What cannot be kept is left out, and told in the node and in the log."""
    latent = {"samples": comfyui.Tensor(batch(1))}
    ui, (_, job_id) = comfyui.run_node(comfy.package, {
        "latent_1": latent, "vae_name": VAE, **PNG, **HIDDEN, "pos_heatmaps_original": value})
    comfy.luna.wait_job(comfy.luna.expect(job_id))
    (said,) = ui["text"][1:]
    assert re.search(rf"pos_heatmaps_original is left out: .*{words}", said), said


def test_the_example_has_every_widget(comfy):
    example = next((comfyui.PACKAGE / "example_workflows").glob("*.json"))
    (node,) = [node for node in json.loads(example.read_text())["nodes"]
               if node["type"] == "LunaMultiSaverAsync"]
    types = comfy.cls.INPUT_TYPES()
    widgets = [name for name, kind in {**types["required"], **types["optional"]}.items()
               if "default" in kind[1]]
    values = dict(zip(widgets, node["widgets_values"], strict=True))
    assert values["filename"] == "%time:YYYY_mm_dd.HH.MM.SS%_%model_name%"
    assert values["on_daemon_down"] == "spool" and values["priority"] == 5


def test_the_outbox_of_the_http_client_is_bounded(comfy, monkeypatch, tmp_path):
    http, outbox, nodes = (sys.modules[f"{comfy.package.__name__}.{name}"]
                           for name in ("http_client", "http_outbox", "nodes"))
    monkeypatch.setattr(outbox, "MAX_BYTES", 20_000)
    monkeypatch.setattr(http, "QUEUE_BYTES", 20_000)
    told = []
    client = http.Client("http://127.0.0.1:9", outbox=str(tmp_path / "outbox"))
    client.notices(lambda *notice: told.append(notice[0]))
    job = nodes.make_job({**nodes.DEFAULTS, **PNG, "latent_1": {
        "samples": comfyui.Tensor(batch(1, 12))}}, None, None)  # 9 KiB
    ids = [client.submit_job(job), client.submit_job(job)]
    wait_for(lambda: client.unsettled()[1] == 0, "both are on the disk")
    ids.append(client.submit_job(job))
    wait_for(lambda: "outbox_failed" in told, "the full outbox is told")
    ids.append(client.submit_job(job))
    with pytest.raises(http.LunaError, match="full") as full:
        client.submit_job(job)
    assert full.value.code == http.RC_BUSY and client.unsettled()[0] == 4
    client.cancel(ids[0], 0)
    assert client.close(0) == 1, "there was room for one more on the disk"
    assert told.count("outbox_failed") <= 2
    assert len(list((tmp_path / "outbox").glob("*.job"))) == 2


def test_an_outbox_has_one_http_client(comfy, tmp_path):
    """The folder is free again when the client is closed, and half a file goes then."""
    http = sys.modules[f"{comfy.package.__name__}.http_client"]
    folder = tmp_path / "outbox"
    first = http.Client("http://127.0.0.1:9", outbox=str(folder))
    (folder / "1.job.part").write_bytes(b"half")
    with pytest.raises(http.LunaError, match="in use by another process") as busy:
        http.Client("http://127.0.0.1:9", outbox=str(folder))
    assert busy.value.code == http.RC_BUSY and (folder / "1.job.part").exists()
    assert first.close(0) == 0
    http.Client("http://127.0.0.1:9", outbox=str(folder)).close(0)
    assert [path.name for path in folder.iterdir()] == ["LOCK"]


def test_a_file_that_is_gone_from_the_outbox_is_told(comfy, tmp_path):
    http, nodes = (sys.modules[f"{comfy.package.__name__}.{name}"]
                   for name in ("http_client", "nodes"))
    told = []
    client = http.Client("http://127.0.0.1:9", outbox=str(tmp_path / "outbox"))
    client.notices(lambda *notice: told.append(notice))
    job_id = client.submit_job(nodes.make_job({**nodes.DEFAULTS, "latent_1": {
        "samples": comfyui.Tensor(batch(1, 2))}}, None, None))
    (path,) = wait_for(lambda: list((tmp_path / "outbox").glob("*.job")), "it is on the disk")
    path.unlink()
    wait_for(lambda: client.unsettled()[0] == 0, "it is given up")
    assert ("lost", job_id) in [(kind, of) for kind, _, of in told]
    with pytest.raises(http.LunaError, match="not sent"):
        client.wait_receipt(job_id, 0)
    assert client.close(0) == 0


def test_without_the_library(comfy, monkeypatch):
    sys.modules[f"{comfy.package.__name__}.session"]._close(os.getpid())
    monkeypatch.setenv("LUNA_LIBRARY", "/nonexistent/libluna.so.0")
    with pytest.raises(RuntimeError, match="LUNA_LIBRARY"):
        comfy.run(comfyui.Tensor(batch(1)))


def test_a_comfyui_that_exits_at_once_loses_nothing(luna):
    done = subprocess.run(
        [sys.executable, comfyui.__file__, luna.output, photograph("chelsea"), VAE],
        env={**luna.env, "LUNA_LIBRARY": str(LIBRARY)}, capture_output=True, text=True, timeout=patient(30))
    assert done.returncode == 0, done
    luna.wait_job(luna.expect(done.stdout.strip()))
