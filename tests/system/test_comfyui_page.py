"""Luna's JavaScript in the page of a real ComfyUI, in a headless Chromium.

Runs where COMFYUI_DIR points to a ComfyUI and Chromium is installed; with
LUNA_PICTURES=DIR it leaves pictures of the page there.
"""

import json
import os
from pathlib import Path

import browser
import comfyui_real
import pytest
from files import DATA, VAE, photograph
from luna import BIN, LIBRARY, wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
NODES = Path(__file__).resolve().parent / "comfyui_nodes.py"

pytestmark = pytest.mark.skipif(
    not os.environ.get("COMFYUI_DIR") or not browser.PROGRAM,
    reason="needs COMFYUI_DIR and Chromium")

# A saver that is fed by a LoadLatent, set as the test wants it.
MAKE_GRAPH = """(async (settings) => {
    const app = window.app;
    app.graph.clear();
    const load = LiteGraph.createNode("LoadLatent");
    const save = LiteGraph.createNode("LunaMultiSaverAsync");
    app.graph.add(load); app.graph.add(save);
    load.pos = [60, 120]; save.pos = [420, 60];
    load.connect(0, save, 0);
    for (const widget of [...load.widgets, ...save.widgets])
        if (widget.name in settings) widget.value = settings[widget.name];
    app.canvas.ds.scale = 0.6; app.canvas.ds.offset = [460, 40];
    app.graph.setDirtyCanvas(true, true);
    return save.id;
})"""
KINDS = {"jxl": ""}  # what Chromium says of a file that it has no type for
BADGE = "document.querySelector('.luna-badge')"


@pytest.fixture
def page(home, monkeypatch):
    for name in [name for name in os.environ if name.startswith("LUNA_")]:
        if name not in ("LUNA_BIN", "LUNA_PICTURES"):
            monkeypatch.delenv(name)
    env = {**os.environ, "LUNA_HOME": str(home.home), "LUNA_LIBRARY": str(LIBRARY),
           "LUNA_TEST_BIN": str(BIN), "LUNA_TEST_VAE": str(DATA / f"{VAE}.safetensors")}
    home.start()
    host = comfyui_real.Host(home.home, NODES, env)
    host.put(photograph("chelsea"), "chelsea.latent")
    host.ask("POST", "/settings/Comfy.TutorialCompleted", True)  # no dialog of a first visit
    opened = browser.Page(host.url)
    try:
        opened.host = host
        opened.wait("window.app?.graph && window.LiteGraph?.registered_node_types"
                    "?.LunaMultiSaverAsync ? 1 : 0", "the page is ready", 120)
        opened.wait("document.getElementById('splash-loader') ? 0 : 1", "nothing covers it")
        yield opened
    finally:
        opened.close()
        host.close()


def keep_picture(page, name):
    folder = os.environ.get("LUNA_PICTURES")
    if folder:
        page.picture(Path(folder) / name)


def queue(page, **settings):
    settings = {"latent": "chelsea.latent", "vae_name": VAE, "format_1": "png", **settings}
    page.run(f"{MAKE_GRAPH}({json.dumps(settings)})")
    page.run("window.app.queuePrompt(0, 1)")


def expect_all(page, home, state="completed"):
    for job in page.host.ask("GET", "/luna/jobs")[1]["jobs"]:
        home.expect(job["job_id"], home.expected.get(job["job_id"], state))


def test_badge_pictures_tab_and_toast(page, home):
    queue(page, filename="chelsea")
    page.wait(f"{BADGE}?.dataset.state === 'completed'", "the badge says that it is saved")
    assert page.run(f"{BADGE}.textContent").startswith("saved 1")
    page.wait("window.app.graph.findNodesByType('LunaMultiSaverAsync')[0].imgs?.length === 1",
              "the picture appears in the node")
    assert "luna_status" not in json.dumps(page.run(
        "window.app.graphToPrompt().then((made) => made.output)"))
    page.run("document.querySelector('.luna-tab-button').click()")
    page.wait("document.querySelectorAll('.luna-tab .luna-job').length === 1",
              "the sidebar lists the job")
    page.wait("document.querySelector('.luna-tab .luna-job img')?.complete", "with its picture")
    page.wait("document.querySelector('.luna-tab').textContent.includes('1 completed')",
              "and the queue")
    assert "writes png, webp, jpeg" in page.run("document.querySelector('.luna-tab').textContent")
    page.run("new Promise((done) => setTimeout(done, 1000))")  # the canvas is drawn
    keep_picture(page, "saved.png")
    expect_all(page, home)
    queue(page, vae_name="no_such_vae")
    page.wait("document.querySelector('.luna-toast.luna-error')", "a message tells the failure")
    page.wait(f"{BADGE}?.dataset.state === 'failed'", "the badge tells it too")
    keep_picture(page, "failed.png")
    expect_all(page, home, "failed")
    page.run("[...document.querySelectorAll('.luna-toast.luna-error button')]"
             ".find((one) => one.textContent === 'Retry').click()")
    page.wait("document.querySelector('.luna-toast.luna-error')", "the second attempt fails too")


def test_cancel_from_the_node(page, home):
    home.lunactl("pause")
    queue(page)
    page.wait(f"{BADGE}?.dataset.state === 'pending'", "the badge says that it waits")
    page.run(f"[...{BADGE}.querySelectorAll('button')]"
             ".find((one) => one.textContent === 'Cancel').click()")
    page.wait(f"{BADGE}?.dataset.state === 'cancelled'", "the badge says that it is cancelled")
    expect_all(page, home, "cancelled")
    home.lunactl("resume")


@pytest.mark.parametrize("name, settings", [
    ("png", {}), ("webp", {}), ("webp", {"lossless_webp": True}), ("jpeg", {}), ("avif", {}),
    ("jxl", {}), ("jxl", {"lossless_webp": True})],
    ids=["png", "webp", "lossless-webp", "jpeg", "avif", "jxl", "lossless-jxl"])
def test_a_dropped_picture_restores_the_workflow(page, home, request, name, settings):
    path = saved_picture(page, home, format_1=name, **settings)
    page.run("window.app.graph.clear(); document.getElementById('luna-toasts')?.remove()")
    page.drop(path, KINDS.get(name, f"image/{name}"))
    page.wait("window.app.graph.findNodesByType('LunaMultiSaverAsync').length === 1",
              "the workflow is back")
    assert page.run("window.app.graph.findNodesByType('LunaMultiSaverAsync')[0].widgets"
                    ".find((one) => one.name === 'filename').value") == "dropped"
    keep_picture(page, f"dropped-{request.node.callspec.id}.png")


def test_what_the_page_restores_without_luna(page, home):
    """Luna's part is off, and every file of this kind was handled when it is looked at."""
    page.run("window.app.extensionManager.setting.set('Luna.RestoreFromJpeg', false)")
    restored = {}
    for name in ("png", "jpeg", "webp", "jxl", "avif"):
        path = saved_picture(page, home, format_1=name)
        page.run("window.app.graph.clear()")
        page.hand(path, KINDS.get(name, f"image/{name}"))
        restored[name] = page.run("window.app.graph.nodes.length") == 2
    assert restored == {"png": True, "jpeg": False, "webp": True, "jxl": False, "avif": True}


# The graph of MAKE_GRAPH with the saver under another id, its first input under another name.
RELOAD = """(async (input) => {
    const made = window.app.graph.serialize();
    for (const node of made.nodes) {
        if (node.type !== "LunaMultiSaverAsync") continue;
        node.type = "LunaMultiSaver";
        node.inputs.find((one) => one.name === "latent_1").name = input;
    }
    window.app.graph.clear();
    await window.app.loadGraphData(made);
    return window.app.graph.nodes.map((node) => node.type).sort();
})"""


def test_a_saver_under_the_id_of_another_package(page):
    """With a latent it is Luna's, with its settings; with images it is left alone."""
    page.run(f"{MAKE_GRAPH}({json.dumps({'filename': 'former'})})")
    assert page.run(f"{RELOAD}('latent_1')") == ["LoadLatent", "LunaMultiSaverAsync"]
    assert page.run("window.app.graph.findNodesByType('LunaMultiSaverAsync')[0].widgets"
                    ".find((one) => one.name === 'filename').value") == "former"
    assert page.run(f"{RELOAD}('image_1')") == ["LoadLatent", "LunaMultiSaver"]


def test_the_example_has_every_input(page):
    (example,) = (ROOT / "producer" / "comfyui" / "example_workflows").glob("*.json")
    page.run(f"window.app.loadGraphData({example.read_text()})")
    page.wait("window.app.graph.findNodesByType('LunaMultiSaverAsync').length === 1", "it is there")
    names = page.run("window.app.graph.findNodesByType('LunaMultiSaverAsync')[0].inputs"
                     ".map((input) => input.name)")
    info = page.host.ask("GET", "/object_info/LunaMultiSaverAsync")[1]["LunaMultiSaverAsync"]
    assert set(info["input"]["required"]) | set(info["input"]["optional"]) == set(names)


VALUES = """(async (workflow) => {
    await window.app.loadGraphData(workflow);
    const made = await window.app.graphToPrompt();
    return Object.values(made.output).find(
        (node) => node.class_type === "LunaMultiSaverAsync").inputs;
})"""
LATER = {"png_bits": 8, "sidecar": False, "parameters": False}  # the widgets that came last


def test_a_workflow_with_fewer_widgets_loads_as_before(page):
    """What it has stays where it was, what it lacks has its default."""
    (example,) = (ROOT / "producer" / "comfyui" / "example_workflows").glob("*.json")
    workflow = json.loads(example.read_text())
    (saver,) = [node for node in workflow["nodes"] if node["type"] == "LunaMultiSaverAsync"]
    saver["inputs"] = [one for one in saver["inputs"] if one["name"] not in LATER]
    del saver["widgets_values"][-len(LATER):]
    saver["widgets_values"][-3:] = [7, "wait", "fail"]
    inputs = page.run(f"{VALUES}({json.dumps(workflow)})")
    found = {name: inputs[name] for name in ("priority", "mode", "on_daemon_down", *LATER)}
    assert found == {"priority": 7, "mode": "wait", "on_daemon_down": "fail", **LATER}


def test_new_widgets_and_what_is_not_offered(page, home):
    """16 is a number in the page, too; a save mode that nobody offers is told at once."""
    path = Path(saved_picture(page, home, format_1="png", png_bits=16))
    assert path.read_bytes()[24] == 16
    page.run(f"{MAKE_GRAPH}({json.dumps({'vae_name': VAE, 'save_mode': 'database_store'})})")
    prompt = page.run("window.app.graphToPrompt().then((made) => made.output)")
    _, error = page.host.run(prompt)
    assert "save_mode: 'database_store' not in ['daemon']" in error


def test_a_dropped_latent_restores_its_workflow(page):
    page.run("window.app.graph.clear()")
    page.drop(photograph("chelsea"), "")
    page.wait("window.app.graph.nodes.length > 0", "the workflow is back")
    keep_picture(page, "dropped-latent.png")


def saved_picture(page, home, **settings):
    """A picture saved by the daemon."""
    known = known_jobs(page)
    queue(page, filename="dropped", **settings)
    (job_id,) = wait_for(lambda: known_jobs(page) - known, "the job is listed")
    home.expect(job_id)
    return home.wait_job(job_id)["files"][0]["path"]


def known_jobs(page):
    return {job["job_id"] for job in page.host.ask("GET", "/luna/jobs")[1]["jobs"]}
