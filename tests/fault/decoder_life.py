"""The scripted life of a decoder: three pictures of two jobs, on a disk that goes wrong.

The broker is real and its disk is sound; the decoder's output folder is on the other one.
Both jobs want the same file name. After the fault a decoder without faults takes the
decoder's place, and every picture must be there once, whole, as the broker has it
recorded, and nothing else. In the part `again` it is the second decoder that meets the
fault, on what the first one left when it was killed.
"""

import contextlib
import os
import shutil
import signal
import tempfile

import wire
from faultfs import World
from files import DATA, VAE, batch, sha256
from ledger import ENDED, Broken
from luna import BIN, Process
from peers import Dead, Silent, wait
from PIL import Image

RULES = {"LUNA_HTTP_LISTEN": "off", "LUNA_LEASE_DISCONNECT_GRACE": "1ms",
         "LUNA_LEASE_BACKOFF": "1ms", "LUNA_LEASE_LOST_LIMIT": "50",
         "LUNA_VAE_ROOTS": str(DATA), "LUNA_DECODER_CPU_THREADS": "1", "OMP_NUM_THREADS": "1"}
SYSEXITS = (69, 70, 73, 74, 75)
START_S = 20.0
PATIENCE_S = {False: 15.0, True: 1.5}  # by whether the disk stays bad
SIDE = ".luna"  # the sink's own folder in a root


class Life:
    def __init__(self, folder, journal=False, patience_s=15.0):
        self.world = World(folder, journal)
        self.home = self.world.folder / "home"
        self.home.mkdir()
        self.output = self.world.disk / "out"
        self.patience_s = patience_s
        self.planned = self.disordered = False
        self.starts = 0
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LUNA_")}
        self.env = {**kept, **RULES, "LUNA_HOME": str(self.home),
                    "LUNA_OUTPUT_ROOTS": str(self.output)}
        self.broker = self.decoder = self.producer = None
        self.jobs = {}  # id: images
        self.recorded = {}  # path: sha256, as the broker has shown it

    # ---- processes -------------------------------------------------------------------

    def start_broker(self):
        self.broker = Process("broker", [str(BIN / "luna-broker")], self.env,
                              self.world.folder)
        endpoint = f"ipc://{self.home}/run/control"
        wait(self.broker, lambda _: os.path.exists(endpoint[6:]), START_S)
        self.producer = wire.Producer(endpoint)

    def start_decoder(self, plan=None):
        env = {**self.env, **self.world.env(plan)}
        self.starts += 1
        self.decoder = Process(f"decoder{self.starts}", [str(BIN / "luna-decoder"), "--name", "d",
                                           "--device", "cpu"], env, self.world.folder)
        self.planned = plan is not None and plan.split("@")[0] in ("kill", "torn")

    def close(self):
        if self.producer:
            self.producer.close()
        for process in (self.decoder, self.broker):
            if process:
                process.kill()

    def stop_decoder(self):
        code = self.decoder.terminate()
        if code == 0 or (code == -signal.SIGKILL and self.planned):
            return
        if code == -signal.SIGTERM and " started " not in self.decoder.text():
            return  # patience ended before it heard signals
        self.check_exit(code)

    def check_exit(self, code):
        """A decoder ends as planned, or, when it cannot start, with a reason."""
        text = self.decoder.text()
        last = text.strip().splitlines()[-1:] or [""]
        if not (" started " not in text and code in SYSEXITS and last[0].startswith("luna-decoder: ")):
            raise Broken("decoder exits", f"ended with {code}, its last words {last}")

    # ---- jobs --------------------------------------------------------------------------

    def submit(self, images):
        job = self.producer.submit(
            [wire.latent_input(batch(images, 4), affix="a")], vae=VAE, filename="pic",
            output_dir=str(self.output))
        assert job["status"] == "accepted", job
        self.jobs[job["id"]] = images

    def show(self, job_id):
        return self.producer.query("job", id=job_id)["jobs"][0]

    def note(self, info):
        """What the broker has shown as saved is saved for good."""
        for file in info.get("files", []):
            known = self.recorded.setdefault(file["path"], file["sha256"])
            if known != file["sha256"]:
                raise Broken("images doubled", f"{file} was recorded with hash {known}")

    def states(self):
        infos = [self.show(job_id) for job_id in self.jobs]
        for info in infos:
            self.note(info)
        return [info["state"] for info in infos]

    def until_ended(self, *states):
        wait(self.decoder, lambda _: all(s in states for s in self.states()) or
             self.pause(), self.patience_s)

    def pause(self):
        self.producer.socket.poll(5)

    # ---- what must hold -----------------------------------------------------------------

    def check_recorded(self):
        """A picture the broker has recorded is there, whole, whatever happened."""
        self.states()
        for path, digest in self.recorded.items():
            if not os.path.exists(path):
                raise Broken("images lost", f"{path} was recorded and is not there")
            if sha256(path) != digest:
                raise Broken("half files", f"{path} was recorded with another hash")

    def check_names(self):
        """Whatever has a picture's name is a whole picture."""
        for path in self.output.rglob("*.png"):
            try:
                with Image.open(path) as image:
                    image.load()
                    whole = image.size == (32, 32)
            except (OSError, SyntaxError, ValueError):
                whole = False
            if not whole:
                raise Broken("half files", f"{path} of {path.stat().st_size} bytes")

    def check_all(self):
        keys = set()
        for job_id, images in self.jobs.items():
            files = self.show(job_id)["files"]
            keys |= {(job_id, file["input"], file["index"]) for file in files}
            if len(files) != images:
                raise Broken("images doubled", f"{len(files)} of {images} images: {files}")
        there = {str(path) for path in self.output.rglob("*.png")}
        if there != set(self.recorded) or len(there) != len(keys):
            raise Broken("images doubled", f"files {there}, recorded {set(self.recorded)}")

    def check_leftovers(self):
        """Beside the pictures there are only their records and the sink's lock. Not asked after a cut on a disk
        without a journal: that can keep a temporary and lose its mark, by which it is
        found."""
        left = [path for path in self.output.rglob("*")
                if path.is_file() and path.suffix != ".png" and
                not (path.parent.parent.name == SIDE and path.suffix == "") and
                path != self.output / SIDE / "lock"]
        if left:
            raise Broken("leftovers", f"{left}")

    # ---- the life ----------------------------------------------------------------------

    def live(self, plan=None, dies_at=0):
        """With `dies_at` another decoder has died at that step before this one."""
        self.start_broker()
        self.submit(2)
        self.submit(1)
        if dies_at:
            self.start_decoder(f"kill@{dies_at}")
            with contextlib.suppress(Dead):
                self.until_ended("completed")
            self.world.kill(self.decoder)
        self.start_decoder(plan)
        try:
            self.until_ended("completed", "failed")
        except Dead:
            code = self.decoder.popen.wait(10)
            if code != -signal.SIGKILL or not self.planned:
                self.check_exit(code)
            return
        except Silent:
            if self.patience_s > 5:
                raise Broken("hangs", f"jobs are {self.states()}") from None
        self.stop_decoder()

    def inspect(self):
        self.patience_s = START_S
        self.world.kill(self.decoder)
        self.check_names()
        self.check_recorded()
        self.start_decoder()
        for job_id in self.jobs:
            if self.show(job_id)["state"] == "failed":
                self.producer.order("retry", job_id)
        try:
            wait(self.decoder, lambda _: " started " in self.decoder.text() or self.pause(),
                 START_S)
            self.until_ended(*ENDED)
        except (Dead, Silent) as end:
            raise Broken("hangs", f"{type(end).__name__}: {self.states()}") from None
        if set(self.states()) != {"completed"}:
            raise Broken("images lost", f"jobs are {self.states()}")
        self.check()
        self.stop_decoder()
        if not self.disordered:
            self.check_leftovers()

    def check(self):
        self.check_recorded()
        self.check_names()
        self.check_all()

    def text(self):
        return f"{self.broker.text()[-3000:]}\n{self.decoder.text()[-3000:]}"


def run(folder, part, plan, at, result):
    life = Life(folder, plan.journal, PATIENCE_S[plan.lasting])
    try:
        life.live(f"{plan.kind}@{at}", 1 + at * 37 % 105 if part == "again" else 0)
        result.struck = life.world.struck() or ""
        if plan.cut and plan.cut != "later":
            life.decoder.kill()
            life.world.cut(plan.seed(at))
            life.disordered = not plan.journal
        life.inspect()
        if plan.cut:
            life.world.cut(0)
            life.check()
    except Broken as broken:
        result.struck = result.struck or life.world.struck() or ""
        raise Broken(broken.kind, f"{broken}\n{life.text()}") from None
    finally:
        result.accepted = len(life.jobs)
        life.close()


def list_steps(plan):
    """The steps of each part, (call, file), under a plan that changes nothing."""
    found = {}
    for part, dies_at in (("alone", 0), ("again", 50)):
        folder = tempfile.mkdtemp(prefix="luna", dir="/tmp")
        life = Life(folder)
        try:
            life.live(plan, dies_at)
            found[part] = [step[:2] for step in life.world.steps()]
            life.inspect()
        finally:
            life.close()
            shutil.rmtree(folder)
    return found
