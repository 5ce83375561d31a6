"""Everything is killed, again and again, while jobs flow; then the books must balance.

    soak.py [--kills N] [--minutes M] [--seed S] [--power]

A broker, two decoders on the CPU, a producer of the wire and one lunactl after another.
Every fraction of a second one of them is killed or stopped for a while, as the seed says.
After N kills or M minutes everything is let finish: each accepted job is completed once,
each picture is there once, whole and of the right pixels, and nothing else is there.
With --power the broker dies at steps to its disk, which then loses what was not synced.
"""

import argparse
import collections
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import msgpack
import numpy
import zmq
from faultfs import World  # first: it finds the modules of tests/system
import wire
from files import DATA, VAE, batch, sha256, write_latent
from luna import BIN, Process
from PIL import Image

RULES = {"LUNA_HTTP_LISTEN": "off", "LUNA_LEASE_TIME": "3s", "LUNA_LEASE_PING": "200ms",
         "LUNA_LEASE_ADOPT": "1s", "LUNA_LEASE_BACKOFF": "50ms",
         "LUNA_LEASE_LOST_LIMIT": "100000", "LUNA_LEASE_REFUSED_LIMIT": "100000",
         "LUNA_STORE_RESERVE": "0", "LUNA_VAE_ROOTS": str(DATA),
         "LUNA_DECODER_CPU_THREADS": "1", "OMP_NUM_THREADS": "1"}
BATCHES = 6
FINISH_S = 180
SIDE = ".luna"
STOPS = 0.25  # of the blows are SIGSTOP
VICTIMS = (("one", 3), ("two", 3), ("broker", 3), ("wire", 1), ("lunactl", 1))


def pixels_hash(path):
    with Image.open(path) as image:
        return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


class Books:
    """Who sent what, outside of the broker."""

    def __init__(self):
        self.sent = {}  # id: which batch
        self.accepted = set()
        self.completed = collections.Counter()  # by the events of every broker

    def read(self, path):
        for line in path.read_text().splitlines() if path.exists() else ():
            word, job_id, *rest = line.split()
            if word == "sent":
                self.sent[job_id] = int(rest[0])
            elif word == "accepted":
                self.accepted.add(job_id)
            else:
                raise AssertionError(f"the broker said {line}")


class Soak:
    def __init__(self, folder, seed, power=False):
        self.folder = Path(folder)
        self.random = random.Random(seed)
        self.power = power
        self.world = World(self.folder / "world")
        self.home = self.world.disk if power else self.folder / "home"
        self.output = self.folder / "output"
        self.endpoint = f"ipc://{self.home}/run/control"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LUNA_")}
        self.env = {**kept, **RULES, "LUNA_HOME": str(self.home),
                    "LUNA_OUTPUT_ROOTS": str(self.output)}
        self.books = Books()
        self.at_work = {}  # name: Process
        self.stopped = {}  # name: when it is to go on
        self.back = {}  # name: when it is to be started again
        self.starts = {}  # name: how often it has said that it is up, once it says so again
        self.blows = collections.Counter()
        self.faults = []
        self.lunactl_job = None
        self.context = zmq.Context()
        self.batches = self.make_batches()

    # ---- what is sent ----------------------------------------------------------------

    def make_batches(self):
        """1 to 3 small latents each; as wire inputs and as files for lunactl."""
        batches = [batch(1 + i % 3, 4 + i) + numpy.float16(i / 64) for i in range(BATCHES)]
        inputs = [wire.latent_input(latent, affix=f"a{i % 2}")
                  for i, latent in enumerate(batches)]
        (self.folder / "batches").write_bytes(msgpack.packb(inputs))
        for i, latent in enumerate(batches):
            write_latent(self.folder / f"{i}.latent", latent)
        return batches

    def start_lunactl(self):
        which = self.random.randrange(BATCHES)
        job_id = wire.id_text(wire.new_id())
        self.books.sent[job_id] = which
        self.lunactl_job = job_id
        return self.spawn("lunactl", [
            str(BIN / "lunactl"), "submit", "--latents", str(self.folder / f"{which}.latent"),
            "--affix", f"a{which % 2}", "--vae", VAE, "--output-dir", str(self.output),
            "--filename", f"s{self.random.randrange(20)}", "--job-id", job_id])

    def note_lunactl(self):
        """One has ended: 0 means accepted."""
        if self.at_work["lunactl"].popen.returncode == 0:
            self.books.accepted.add(self.lunactl_job)

    # ---- processes -------------------------------------------------------------------

    def spawn(self, name, argv, **env):
        self.at_work[name] = Process(name, argv, {**self.env, **env}, self.folder)
        return self.at_work[name]

    def start(self, name):
        if name == "broker":
            extra = {}
            if self.power:
                extra = self.world.env(f"kill@{self.random.randrange(60, 900)}")
            self.spawn(name, [str(BIN / "luna-broker")], **extra)
        elif name in ("one", "two"):
            log = self.folder / f"{name}.log"
            before = log.read_text(errors="replace") if log.exists() else ""
            self.starts[name] = before.count(" started ") + 1
            self.spawn(name, [str(BIN / "luna-decoder"), "--name", name, "--device", "cpu"])
        elif name == "wire":
            script = Path(__file__).resolve().parent / "soak_producer.py"
            self.spawn(name, [sys.executable, str(script), self.endpoint, str(self.folder),
                              "wire", str(self.output), VAE])
        else:
            self.start_lunactl()

    def ended(self, name):
        """It has ended by itself: lunactl and, under a plan, the broker may."""
        code = self.at_work[name].popen.returncode
        if name == "lunactl":
            self.note_lunactl()
            self.back[name] = time.monotonic() + self.random.uniform(0, 0.2)
        elif name == "broker" and self.power and code == -signal.SIGKILL:
            self.blows["power cut"] += 1
            for decoder in {"one", "two"} & set(self.at_work):  # of the same machine
                self.kill(decoder)
            self.world.cut(self.random.choice((0, self.random.randrange(1, 1 << 30))))
            self.back[name] = time.monotonic()
        else:
            last = self.at_work[name].text().strip().splitlines()[-1:]
            self.faults.append(f"{name} ended with {code}: {last}")
            self.back[name] = time.monotonic()
        del self.at_work[name]
        self.stopped.pop(name, None)

    def tend(self):
        """Starts what is due, lets go on what is due, notices who has ended."""
        now = time.monotonic()
        for name in [n for n, due in self.back.items() if due <= now]:
            del self.back[name]
            self.start(name)
        for name in [n for n, due in self.stopped.items() if due <= now]:
            del self.stopped[name]
            self.at_work[name].signal(signal.SIGCONT)
        for name in list(self.at_work):
            if name in self.at_work and self.at_work[name].popen.poll() is not None:
                self.ended(name)

    # ---- blows -----------------------------------------------------------------------

    def strike(self):
        names, weights = zip(*VICTIMS)
        name = self.random.choices(names, weights)[0]
        if name == "lunactl":
            self.catch_lunactl()
        if name not in self.at_work or self.at_work[name].popen.poll() is not None:
            return
        if self.random.random() < STOPS:
            self.stop_for_a_while(name)
        elif not (self.power and name == "broker"):
            self.kill(name)

    def catch_lunactl(self):
        """It lives for some milliseconds only."""
        if self.back.pop("lunactl", None) is not None:
            self.start("lunactl")
            time.sleep(self.random.uniform(0, 0.05))

    def stop_for_a_while(self, name):
        if name in self.stopped:
            return
        self.blows["stop"] += 1
        self.at_work[name].signal(signal.SIGSTOP)
        self.stopped[name] = time.monotonic() + self.random.choice((0.1, 0.5, 1.5, 5))

    def kill(self, name):
        self.blows[f"kill {name}"] += 1
        self.at_work[name].kill()
        if name == "lunactl":
            self.note_lunactl()
        del self.at_work[name]
        self.stopped.pop(name, None)
        self.back[name] = time.monotonic() + self.random.choice((0, 0, 0.3, 1))

    def kills(self):
        return sum(count for what, count in self.blows.items() if what != "stop")

    # ---- watching ----------------------------------------------------------------------

    def watch(self):
        self.events = self.context.socket(zmq.SUB)
        self.events.setsockopt(zmq.RECONNECT_IVL, 10)
        self.events.setsockopt(zmq.LINGER, 0)
        self.events.connect(f"ipc://{self.home}/run/events")
        self.events.subscribe("job/")

    def read_events(self, wait_ms):
        while self.events.poll(wait_ms):
            wait_ms = 0
            topic, body = self.events.recv_multipart()
            if wire.unpack(body)["kind"] == "completed":
                self.books.completed[topic.decode()[4:]] += 1

    # ---- the run -----------------------------------------------------------------------

    def run(self, kills, seconds):
        for name, _ in VICTIMS:
            self.start(name)
        self.watch()
        end = time.monotonic() + seconds
        next_blow = time.monotonic() + 1
        while time.monotonic() < end and self.kills() < kills:
            self.tend()
            self.read_events(10)
            if time.monotonic() >= next_blow:
                self.strike()
                next_blow = time.monotonic() + self.random.uniform(0.05, 0.7)

    def settle(self):
        """No more blows and no more jobs; who was stopped goes on, who is dead comes back."""
        for name in ("wire", "lunactl"):
            self.back.pop(name, None)
            if name in self.at_work:
                self.at_work.pop(name).kill()
                self.stopped.pop(name, None)
        self.power = False
        for name in self.stopped:
            self.stopped[name] = 0
        for name in self.back:
            self.back[name] = 0
        if "broker" in self.at_work:  # one that is sound to the end
            self.kill_planned_broker()
        self.tend()
        self.books.read(self.folder / "wire.ledger")

    def kill_planned_broker(self):
        self.at_work.pop("broker").kill()
        self.stopped.pop("broker", None)
        self.back["broker"] = 0

    def wait_for_the_end(self):
        end = time.monotonic() + FINISH_S
        with wire.Producer(self.endpoint, deadline_s=30) as client:
            while time.monotonic() < end:
                self.tend()
                self.read_events(100)
                status = client.query("status")["status"]
                if not status.get("pending") and not status.get("in_progress"):
                    return
        self.faults.append(f"not finished within {FINISH_S} s: {status}")

    def finish(self):
        self.settle()
        self.wait_for_the_end()
        self.restart_decoders()
        self.check()

    def restart_decoders(self):
        """Each start tidies up what the dead have left."""
        for name in ("one", "two"):
            if not self.is_up(name):
                return
            process = self.at_work.pop(name)
            if process.terminate(30) != 0:
                self.faults.append(f"{name} ended with {process.popen.returncode} on SIGTERM")
            self.start(name)
            if not self.is_up(name):
                return

    def is_up(self, name):
        """It has said so: before that a signal ends it as any program that is being loaded."""
        end = time.monotonic() + 20
        process = self.at_work[name]
        while process.text().count(" started ") < self.starts[name]:
            if time.monotonic() > end:
                self.faults.append(f"{name} does not start")
                return False
            time.sleep(0.05)
        return True

    # ---- the books ------------------------------------------------------------------------

    def check(self):
        with wire.Producer(self.endpoint, deadline_s=30) as client:
            known = {wire.id_text(info["id"]): info for info in
                     client.query("jobs", limit=10000)["jobs"]}
            recorded = {}
            for job_id in known:
                info = client.query("job", id=wire.id_bytes(job_id))["jobs"][0]
                self.check_job(job_id, info, recorded)
        self.note("accepted jobs lost", self.books.accepted - set(known))
        self.note("jobs that nobody sent", set(known) - set(self.books.sent))
        twice = {job for job, count in self.books.completed.items() if count > 1}
        self.note("jobs completed twice", twice)
        self.check_files(set(recorded))
        self.pictures = len(recorded)
        self.jobs = len(known)

    def note(self, what, which):
        if which:
            self.faults.append(f"{what}: {sorted(which)[:10]}")

    def check_job(self, job_id, info, recorded):
        files = info.get("files", [])
        keys = {(file["input"], file["index"]) for file in files}
        wanted = len(self.batches[self.books.sent.get(job_id, 0)])
        if info["state"] != "completed" or not len(files) == len(keys) == wanted:
            self.faults.append(f"job {job_id} is {info['state']} with images {sorted(keys)} of "
                               f"{wanted}: {info.get('error')} {info.get('detail')}")
        for file in files:
            self.check_picture(job_id, file, recorded)

    def check_picture(self, job_id, file, recorded):
        path = file["path"]
        if path in recorded:
            self.faults.append(f"{path} belongs to {recorded[path]} and to {job_id}")
        recorded[path] = job_id
        if not os.path.exists(path):
            self.faults.append(f"{path} is recorded and not there")
        elif sha256(path) != file["sha256"]:
            self.faults.append(f"{path} has another hash than recorded")
        else:
            self.check_pixels(self.books.sent.get(job_id), file)

    def check_pixels(self, which, file):
        """All pictures of one latent are equal."""
        hashes = self.__dict__.setdefault("hashes", {})
        found = pixels_hash(file["path"])
        if hashes.setdefault((which, file["index"]), found) != found:
            self.faults.append(f"{file['path']} shows something else")

    def check_files(self, recorded):
        files = {str(path) for path in self.output.rglob("*") if path.is_file()}
        pictures = {path for path in files if path.endswith(".png")}
        self.note("pictures nobody recorded", pictures - recorded)
        self.note("left behind", {path for path in files - pictures
                                  if f"/{SIDE}/" not in path or "." in Path(path).name})

    def report(self):
        blows = ", ".join(f"{what} {count}" for what, count in sorted(self.blows.items()))
        return (f"{self.kills()} kills ({blows}); {len(self.books.sent)} jobs sent, "
                f"{len(self.books.accepted)} accepted, {self.jobs} completed, "
                f"{self.pictures} pictures, {len(self.faults)} faults")

    def close(self):
        for process in self.at_work.values():
            process.kill()
        self.context.destroy(linger=0)


def soak(kills, seconds, seed, power=False):
    """The finished Soak; its `faults` are what is wrong."""
    folder = tempfile.mkdtemp(prefix="luna", dir="/tmp")
    run = Soak(folder, seed, power)
    try:
        run.run(kills, seconds)
        run.finish()
        if run.faults:
            for log in sorted(run.folder.glob("*.log")):
                print(f"---- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
        return run
    finally:
        run.close()
        if os.environ.get("LUNA_KEEP_HOME") != "1":
            shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--power", action="store_true")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # folders and processes go too
    print(f"seed {given.seed}", flush=True)
    run = soak(given.kills, given.minutes * 60, given.seed, given.power)
    for fault in run.faults:
        print(fault)
    print(run.report())
    return 1 if run.faults else 0


if __name__ == "__main__":
    sys.exit(main())
