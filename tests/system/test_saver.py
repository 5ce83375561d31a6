"""Files as others read them: every text of many generated jobs, in every format, by two
readers that are not ours; what is sorted out; who may read the files.

LUNA_METADATA_SETS sets how many jobs are generated.
"""

import json
import os
import random
import signal
import stat
import subprocess
import urllib.request

import numpy
import pytest
import readers
import wire
from files import DATA, VAE, batch, photograph, read_safetensors
from luna import wait_for
from PIL import Image

SETS = int(os.environ.get("LUNA_METADATA_SETS", 25))
CREATED_MS = 1763930096789
TIMESTAMP = "2025-11-23T20:34:56+00:00"
FORMATS = ({"format": "png", "affix": "PNG"}, {"format": "webp", "affix": "LOSSY"},
           {"format": "webp", "affix": "EXACT", "lossless_webp": True},
           {"format": "jpeg", "affix": "JPEG"})
NEWER = [form for form in ({"format": "avif", "affix": "AVIF"}, {"format": "jxl", "affix": "JXL"},
                           {"format": "jxl", "affix": "EXACT_JXL", "lossless_webp": True})
         if readers.libvips_writes(form["format"])]
WORDS = ('a "quoted" cat', "line\nbreak", "tab\there", "café", "漢字 and ひらがな", "🐈‍⬛ 😀",
         "back\\slash", "100% <lora:x:0.8> & <b>", "it's", "(masterpiece:1.2)", "naïve ‘quotes’",
         "\u2028", "x" * 300, "{curly} [brackets]", "a: b: c", "é" * 40)


# ---- generated jobs ----------------------------------------------------------------------


class Generated:
    """A job's texts, and what must be read back."""

    def __init__(self, number):
        self.rng = random.Random(number)
        self.ascii = number % 2 == 0
        self.expected = {}
        self.settings = {"created_ms": CREATED_MS, "filename": f"set{number}",
                         "model_name": "sub\\dir/modèl.safetensors" if number % 3 else "m.ckpt"}
        self.add_graph(number)
        self.add_metadata()
        self.add_rest(number)

    def words(self, most):
        return ", ".join(self.rng.choice(WORDS) for _ in range(self.rng.randint(1, most)))

    def dump(self, value):
        return json.dumps(value, ensure_ascii=self.ascii)

    def node(self):
        return {"class_type": "KSampler", "inputs": {
            "seed": self.rng.getrandbits(64), "text": self.words(4), "cfg": self.rng.random() * 20,
            "model": ["4", 0], "nothing": None, "on": self.rng.random() < 0.5}}

    def add_graph(self, number):
        nodes = {str(i): self.node() for i in range(self.rng.randint(1, 12))}
        graph = {"nodes": [self.node() for _ in range(self.rng.randint(0, 20))], "version": 0.4}
        if number % 10 == 7:
            graph["large"] = "w" * 2_000_000
        self.settings["prompt"] = self.dump(nodes).encode()
        self.settings["workflow"] = self.dump(graph).encode()
        extra = {f"key_{i}": self.dump(self.words(2)) for i in range(self.rng.randint(0, 4))}
        self.settings["extra"] = {key: text.encode() for key, text in extra.items()}
        self.expected.update(prompt=self.settings["prompt"].decode(),
                             workflow=self.settings["workflow"].decode(), **extra)

    def add_metadata(self):
        members = {"positive": self.words(6), "negative": self.words(3),
                   "seed": self.rng.getrandbits(64), "steps": self.rng.randint(1, 99),
                   "cfg": round(self.rng.random() * 10, 2), "denoise": 1.0, "loras": "",
                   "on": True, "off": False, "list": [1, {"a": "b"}], "odd.key-1": "x",
                   **{f"own_{i}": self.words(2) for i in range(self.rng.randint(0, 8))}}
        text = self.dump(members)
        self.settings["metadata"] = text.encode()
        self.expected["generation_metadata"] = text
        for key, value in members.items():
            self.expected[f"gen_{key}"] = value if isinstance(value, str) else self.dump(value)

    def add_rest(self, number):
        custom = self.words(3) + ("\x07bell" if number % 5 == 0 else "")
        self.settings["custom_metadata"] = custom
        path = self.settings["model_name"].replace("\\", "/").rsplit(".", 1)[0]
        self.expected.update(custom_metadata=custom, save_timestamp=TIMESTAMP, batch_index="0",
                             model_path=path, model_name=path.rsplit("/", 1)[-1])
        if number % 4 == 1:
            self.settings["extra"]["parameters"] = self.words(3).encode()
            self.expected["parameters"] = self.settings["extra"]["parameters"].decode()

    def texts(self, affix):
        return {key: text for key, text in {**self.expected, "image_type": affix}.items() if text}


def submit(luna, inputs, **settings):
    job_id = wire.new_id()
    receipt = luna.client.submit(inputs, id=job_id, vae=VAE, output_dir=str(luna.output),
                                 **settings)
    assert receipt["status"] == "accepted", receipt
    return luna.expect(wire.id_text(job_id))


def left_out(file):
    _, _, listed = file.get("note", "").partition("64 KiB: ")
    return set(listed.split(", ")) - {""}


def check_libraries(path, wanted):
    """Pillow, and for the newer formats the library that others open them with; Pillow reads
    those where it has a plugin, of JPEG XL only the EXIF."""
    if path.endswith((".avif", ".jxl")):
        check_texts(readers.libraries(path), wanted)
    if readers.pillow_reads(path):
        got = readers.pillow(path)
        check_texts(got, {key: text for key, text in wanted.items()
                          if key in got or not path.endswith(".jxl")})


def check_texts(got, wanted):
    got.pop("jfif", None)
    assert got == wanted, {key for key in wanted if got.get(key) != wanted[key]}


def check_exiftool(tool, path, wanted):
    got = tool.texts(path, wanted)
    assert got == wanted, [(key, got.get(key), wanted.get(key)) for key in {**got, **wanted}
                           if got.get(key) != wanted.get(key)]


def check_programs(path, wanted, affix):
    if affix in ("LOSSY", "EXACT"):
        page = readers.comfyui_page_of_2025(path)
        assert (page["prompt"], page["workflow"]) == (wanted["prompt"], wanted["workflow"])
    elif affix == "AVIF":
        page = readers.comfyui_page_avif(path)
        assert (page["prompt"], page["workflow"]) == (wanted["prompt"], wanted["workflow"])
    elif affix == "PNG":
        assert readers.diffusion_toolkit_prompt(path) == wanted["prompt"]


@pytest.mark.parametrize("forms", (FORMATS, NEWER), ids=("usual", "newer"))
def test_every_text_is_read_back_by_two_readers(luna, forms):
    array = batch(1, 4)
    jobs = []
    for number in range(SETS):
        generated = Generated(number)
        inputs = [wire.latent_input(array, **form) for form in forms]
        jobs.append((generated, submit(luna, inputs, **generated.settings)))
    files = [(generated, file) for generated, job_id in jobs
             for file in luna.wait_job(job_id, deadline_s=120)["files"]]
    assert len(files) == len(forms) * SETS
    tool = readers.ExifTool(file["path"] for _, file in files)
    shortened = 0
    for generated, file in files:
        affix = forms[file["input"]]["affix"]
        gone = left_out(file)
        shortened += bool(gone)
        assert not gone or affix == "JPEG"
        wanted = {key: text for key, text in generated.texts(affix).items() if key not in gone}
        check_libraries(file["path"], wanted)
        check_exiftool(tool, file["path"], wanted)
        check_programs(file["path"], wanted, affix)
    assert shortened < SETS / 2
    check_tools([file["path"] for _, file in files])


def check_tools(paths):
    png = [path for path in paths if path.endswith(".png")]
    webp = [path for path in paths if path.endswith(".webp")]
    if png:
        subprocess.run(["pngcheck", "-q", *png], check=True)
    for path in webp:
        done = subprocess.run(["webpinfo", "-quiet", path], capture_output=True, check=True)
        assert b"rror" not in done.stdout.replace(b"No error", b""), (path, done.stdout)


def test_webpmux_takes_the_blocks_out(luna, tmp_path):
    generated = Generated(3)
    job_id = submit(luna, [wire.latent_input(batch(1, 4), format="webp", affix="A")],
                    **generated.settings)
    (file,) = luna.wait_job(job_id)["files"]
    for name, needle in (("exif", b"workflow:" + generated.settings["workflow"]),
                         ("xmp", b"<luna:gen_steps>")):
        out = tmp_path / name
        subprocess.run(["webpmux", "-get", name, file["path"], "-o", str(out)], check=True,
                       capture_output=True)
        assert needle in out.read_bytes()


@pytest.mark.parametrize("forms", (FORMATS, NEWER), ids=("usual", "newer"))
def test_no_embed_leaves_nothing_but_the_picture(luna, forms):
    inputs = [wire.latent_input(batch(1, 4), **form) for form in forms]
    job_id = submit(luna, inputs, embed_workflow=False, **Generated(5).settings)
    files = luna.wait_job(job_id)["files"]
    tool = readers.ExifTool(file["path"] for file in files)
    for file in files:
        assert (readers.pillow if forms is FORMATS else readers.libraries)(file["path"]) == {}
        groups = {key.partition(":")[0] for key in tool.rows[file["path"]]}
        assert not groups & {"IFD0", "ExifIFD", "XMP-luna", "XMP-x"}, groups


def test_jpeg_for_diffusion_toolkit_and_civitai(luna):
    metadata = {"positive": "a café 😀", "negative": "dog", "steps": 20, "cfg": 7.5,
                "sampler_name": "euler", "seed": 2**64 - 1, "model_name": "m"}
    job_id = submit(luna, [wire.latent_input(batch(1, 4), **form) for form in FORMATS],
                    prompt=b'{"3": {"text": "\xc3\xa9"}}', parameters=True,
                    metadata=json.dumps(metadata).encode())
    wanted = ("a café 😀\nNegative prompt: dog\nSteps: 20, Sampler: Euler, CFG scale: 7.5, "
              "Seed: 18446744073709551615, Size: 32x32, Model: m, Version: ComfyUI")
    files = luna.wait_job(job_id)["files"]
    tool = readers.ExifTool(file["path"] for file in files)
    for file in files:
        assert readers.pillow(file["path"])["parameters"] == wanted
        assert tool.texts(file["path"], ["parameters"])["parameters"] == wanted
        if file["path"].endswith((".png", ".jpg")):
            assert readers.diffusion_toolkit_prompt(file["path"]) == '{"3": {"text": "é"}}'


@pytest.mark.parametrize("form, missing", (("avif", "heif module"), ("jxl", "jxl module")))
def test_a_format_that_is_not_installed_is_refused(home, form, missing):
    """libvips looks for its modules below VIPSHOME."""
    home.start(VIPSHOME=str(home.home))
    job_id = submit(home, [wire.latent_input(batch(1, 4), affix="A"),
                           wire.latent_input(batch(1, 4), format=form, affix="B")])
    job = home.wait_job(home.expect(job_id, "failed"), "failed")
    assert job["error"] == "unsupported" and missing in job["detail"], job
    assert job["attempts"] == 1 and not job.get("files")


WITHOUT = {"VIPSHOME": "/nonexistent"}  # a decoder whose libvips has no modules


@pytest.mark.skipif(not NEWER, reason="needs the modules of libvips for AVIF or JPEG XL")
def test_a_job_goes_to_a_decoder_that_writes_its_formats(home):
    """The other one would take it, for it has room, and keeps getting what it can write."""
    home.start_broker()
    home.start_decoder("without", **WITHOUT)
    home.start_decoder("with")
    new = [submit(home, [wire.latent_input(batch(1, 4)), wire.latent_input(batch(1, 4), **form)])
           for form in NEWER for _ in range(4)]
    old = [submit(home, [wire.latent_input(batch(1, 4))]) for _ in range(4)]
    jobs = [home.wait_job(job_id) for job_id in new]
    assert {(job["decoder"], job["attempts"]) for job in jobs} == {("with", 1)}
    for job_id in old:
        home.wait_job(job_id)


def test_the_formats_of_a_decoder_are_shown(home):
    """As its libvips has them; one that does not say is given any."""
    home.start_broker(LUNA_HTTP_LISTEN="127.0.0.1:0")
    home.start_decoder("with")
    home.start_decoder("without", **WITHOUT)
    plain = ["png", "webp", "jpeg"]
    formats = {"with": plain + [name for name in ("avif", "jxl")
                                if readers.libvips_writes(name)], "without": plain,
               "silent": ["png", "webp", "jpeg", "avif", "jxl"]}
    with wire.Decoder(home.endpoint, "silent", ["v"], credit_jobs=0):
        with urllib.request.urlopen(home.http_url() + "/queue_status") as answer:
            told = json.load(answer)["decoders"]
        for decoders in (told, json.loads(home.lunactl("--json", "decoders").out)):
            assert {one["name"]: one["formats"] for one in decoders} == formats
        rows = {row.split()[0]: row for row in home.lunactl("decoders").out.splitlines()}
    for name, words in formats.items():
        assert " ".join(words) in rows[name]
    assert "avif" not in rows["without"] and "FORMATS" in rows["DECODER"]


@pytest.mark.skipif(not NEWER, reason="needs the modules of libvips for AVIF or JPEG XL")
def test_a_lost_decoder_that_writes_the_format_is_waited_for(home):
    form = NEWER[0]
    home.start_broker()
    home.start_decoder("without", **WITHOUT)
    home.start_decoder("with").terminate()
    job_id = submit(home, [wire.latent_input(batch(1, 4), **form)])
    plain = submit(home, [wire.latent_input(batch(1, 4))])
    assert home.wait_job(plain)["decoder"] == "without"
    assert home.job(job_id)["state"] == "pending" and not home.job(job_id).get("attempts")
    home.start_decoder("with")
    job = home.wait_job(job_id)
    assert (job["decoder"], job["attempts"]) == ("with", 1)


@pytest.mark.skipif(not NEWER, reason="needs the modules of libvips for AVIF or JPEG XL")
def test_a_restarted_broker_knows_the_formats(home):
    home.start_broker()
    home.start_decoder("without", **WITHOUT)
    home.start_decoder("with")
    home.lunactl("pause")
    job_ids = [submit(home, [wire.latent_input(batch(1, 4), **NEWER[0])]) for _ in range(4)]
    home.broker.kill()
    home.start_broker()
    wait_for(lambda: len([d for d in home.decoder_list() if d["state"] == "ready"]) == 2,
             "both decoders are back")
    home.lunactl("resume")
    for job_id in job_ids:
        job = home.wait_job(job_id)
        assert (job["decoder"], job["attempts"]) == ("with", 1)


@pytest.mark.skipif(not NEWER, reason="needs the modules of libvips for AVIF or JPEG XL")
def test_the_first_decoder_back_after_a_restart_is_not_the_only_one(home):
    patient = {"LUNA_LEASE_REFUSED_LIMIT": "1000", "LUNA_LEASE_BACKOFF": "100ms",
               "LUNA_LEASE_ADOPT": "10min"}
    home.start_broker(**patient)
    home.start_decoder("without", **WITHOUT)
    home.start_decoder("with")
    home.lunactl("pause")
    job_id = submit(home, [wire.latent_input(batch(1, 4), **NEWER[0])])
    home.broker.kill()
    home.decoders["with"].signal(signal.SIGSTOP)
    home.start_broker(**patient)
    home.lunactl("resume")
    wait_for(lambda: home.job(job_id).get("attempts"), "the other one is asked")
    home.decoders["with"].signal(signal.SIGCONT)
    assert home.wait_job(job_id)["decoder"] == "with"


# ---- what is sorted out, and beside ------------------------------------------------------


def test_the_gate_and_the_sidecar(luna):
    flat = numpy.zeros((1, 32, 4, 4), numpy.float16)
    array = numpy.concatenate([batch(1, 4), flat])
    job_id, paths = luna.submit_wait(latent_file(luna, array), "--quality-gate", "variance",
                                     "--min-quality", "0.02", "--sidecar", "--format", "webp",
                                     "--affix", "X", "--filename", "%batch%-%width%")
    assert paths == [luna.output / "X" / "0-32_X.webp",
                     luna.output / "_discarded" / "X" / "1-32_X.webp"]
    files = luna.job(job_id)["files"]
    assert "note" not in files[0] and files[1]["note"].startswith("discarded: its variance is ")
    shown = json.loads(luna.lunactl("--json", "show", job_id).out)
    assert [file["note"] for file in shown["files"]] == ["", files[1]["note"]]
    for path in paths:
        beside = json.loads((path.parent / (path.name + ".json")).read_text())
        assert beside == readers.pillow(path)


def latent_file(luna, array):
    from files import write_latent
    return write_latent(luna.home / "two.latent", array, {"prompt": '{"a": "é"}'})


def test_modes_of_files_and_folders(home):
    home.start(LUNA_OUTPUT_FILE_MODE="0640", LUNA_OUTPUT_FOLDER_MODE="02750")
    _, (path,) = home.submit_wait(latent_file(home, batch(1, 4)), "--save-path", "deep")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o2750


@pytest.mark.parametrize("setting, value", (("FILE_MODE", "rw"), ("OWNER", "nobody-of-that-name"),
                                            ("GROUP", "-1"), ("FOLDER_MODE", "77777")))
def test_settings_that_cannot_be(home, setting, value):
    done = home.run("luna-decoder", "--check-config", **{f"LUNA_OUTPUT_{setting}": value})
    assert done.code == 78 and f"[output] {setting.lower()}" in done.err, done


def test_sixteen_bits(luna, tmp_path):
    """The decoder's own floats, truncated to 65536 levels."""
    _, (path,) = luna.submit_wait(photograph("chelsea"), "--png-bits", "16")
    done = luna.run("luna-vae", "decode", "--model", DATA / f"{VAE}.safetensors", "--latents",
                    photograph("chelsea"), "--output", tmp_path / "out", "--device", "cpu")
    assert done.code == 0, done
    pixels = read_safetensors(tmp_path / "out")[0]["pixels"][0].transpose(1, 2, 0)
    got = numpy.frombuffer(readers.rgb_of(path), numpy.uint16).reshape(pixels.shape)
    assert numpy.array_equal(got, (pixels * 65535).astype(numpy.uint16))
    assert path.read_bytes()[24] == 16 and len(numpy.unique(got)) > 10000


def assert_newer(luna, wanted):
    job_id = submit(luna, [wire.latent_input(batch(1, 16), **form) for form in NEWER])
    for file in luna.wait_job(job_id)["files"]:
        raw = numpy.frombuffer(readers.rgb_of(file["path"]), numpy.uint8)
        error = numpy.mean((raw.reshape(wanted.shape) - wanted) ** 2)
        assert error < 60 and (error == 0) == ("lossless_webp" in NEWER[file["input"]]), error


def test_pictures_are_what_was_decoded(luna):
    """Lossless formats give the same pixels; the lossy ones are close."""
    job_id = submit(luna, [wire.latent_input(batch(1, 16), **form) for form in FORMATS])
    pixels = {}
    for file in luna.wait_job(job_id)["files"]:
        with Image.open(file["path"]) as image:
            pixels[file["input"]] = numpy.asarray(image.convert("RGB"), numpy.float64)
    assert numpy.array_equal(pixels[0], pixels[2])
    assert_newer(luna, pixels[0])
    for lossy in (1, 3):
        error = numpy.mean((pixels[0] - pixels[lossy]) ** 2)
        assert 0 < error < 60, error  # 30 dB: a quality of 90 leaves more than that
