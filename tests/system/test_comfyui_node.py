"""The node "Luna Multi Saver (Daemon Async)" on real processes, ComfyUI itself stood in for."""

import importlib.util
import io
import json
import os
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
        self.cls = package.NODE_CLASS_MAPPINGS["LunaMultiSaver"]

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
    assert comfy.package.NODE_DISPLAY_NAME_MAPPINGS["LunaMultiSaver"] == (
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


@pytest.mark.parametrize("name", ["webp", "jpeg"])
def test_texts_of_webp_and_jpeg_that_are_encoded_here(comfy, name):
    image = encoded_here(comfy, name, metadata={"seed": 2**64 - 1, "positive": "café <b>"},
                         custom_metadata="a & b")
    exif = image.getexif()
    assert image.size == (24, 16)
    assert exif[0x0110] == f"prompt:{json.dumps(PROMPT)}"
    assert exif[0x010F] == f"workflow:{json.dumps(WORKFLOW)}"
    assert exif[0x010E] == 'artist:"<&>"'
    packet = image.info.get("xmp") or image.applist[-1][1]
    luna = {one.tag.removeprefix("{urn:luna:image:1}"): one.text
            for one in ElementTree.fromstring(packet[packet.index(b"<x:"):]).iter()}
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


def test_the_example_has_every_widget(comfy):
    example = next((comfyui.PACKAGE / "example_workflows").glob("*.json"))
    (node,) = [node for node in json.loads(example.read_text())["nodes"]
               if node["type"] == "LunaMultiSaver"]
    types = comfy.cls.INPUT_TYPES()
    widgets = [name for name, kind in {**types["required"], **types["optional"]}.items()
               if "default" in kind[1]]
    values = dict(zip(widgets, node["widgets_values"], strict=True))
    assert values["filename"] == "%time:YYYY_mm_dd.HH.MM.SS%_%model_name%"
    assert values["on_daemon_down"] == "spool" and values["priority"] == 5


def test_the_outbox_of_the_http_client_is_bounded(comfy, monkeypatch, tmp_path):
    http, nodes = (sys.modules[f"{comfy.package.__name__}.{name}"]
                   for name in ("http_client", "nodes"))
    monkeypatch.setattr(http, "OUTBOX_BYTES", 20_000)
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
    assert len(list((tmp_path / "outbox").iterdir())) == 2


def test_without_the_library(comfy, monkeypatch):
    sys.modules[f"{comfy.package.__name__}.session"]._close(os.getpid())
    monkeypatch.setenv("LUNA_LIBRARY", "/nonexistent/libluna.so.0")
    with pytest.raises(RuntimeError, match="LUNA_LIBRARY"):
        comfy.run(comfyui.Tensor(batch(1)))


def test_a_comfyui_that_exits_at_once_loses_nothing(luna):
    done = subprocess.run(
        [sys.executable, comfyui.__file__, luna.output, photograph("chelsea"), VAE],
        env={**luna.env, "LUNA_LIBRARY": str(LIBRARY)}, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done
    luna.wait_job(luna.expect(done.stdout.strip()))
