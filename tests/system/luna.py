"""A private Luna: real processes in one temporary folder, and the ledger at the end.

Nothing here sleeps for synchronisation: `wait_for` asks a condition again and again, with
a deadline. At the end every accepted job must have ended as the test expects, every image
of a completed job must exist exactly once, and nothing else may be there.
"""

import collections
import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import readers
import wire
from files import DATA, VAE, sha256
from patience import patient

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(os.environ.get("LUNA_BIN", ROOT / "build" / "bin")).resolve()
# A library under a sanitizer cannot be loaded into Python: its tests then take the plain one.
LIBRARY = Path(os.environ.get("LUNA_TEST_LIBRARY", BIN.parent / "lib" / "libluna.so.0"))
DEADLINE_S = 30
IMAGES = (".png", ".webp", ".jpg", ".jpeg", ".avif", ".jxl")
_LIBC = ctypes.CDLL(None)

Result = collections.namedtuple("Result", "code out err")


def wait_for(condition, what, deadline_s=DEADLINE_S):
    """The condition's first true value; AssertionError with `what` at the deadline."""
    deadline_s = patient(deadline_s)
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"within {deadline_s} s: {what() if callable(what) else what}")
        time.sleep(0.01)


def _die_with_parent():
    _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a killed pytest leaves nothing behind


class Process:
    """A program in its own process group, its output in a file."""

    def __init__(self, name, argv, env, folder):
        self.name = name
        self.log = folder / f"{name}.log"
        self.ended = False  # the test ended it, or knows that it ended
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log,
                                          stderr=log, start_new_session=True,
                                          preexec_fn=_die_with_parent)
        self.pid = self.popen.pid

    def signal(self, number):
        os.killpg(self.pid, number)

    def kill(self):
        """SIGKILL, and its end."""
        self.ended = True
        if self.popen.poll() is None:
            self.signal(signal.SIGKILL)
        return self.popen.wait(patient(10))

    def terminate(self, deadline_s=20):
        """SIGTERM; the exit status."""
        self.ended = True
        deadline_s = patient(deadline_s)
        self.signal(signal.SIGTERM)
        try:
            return self.popen.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {deadline_s} s of SIGTERM")

    def text(self):
        return self.log.read_text(errors="replace")


class Luna:
    def __init__(self):
        self.home = Path(tempfile.mkdtemp(prefix="luna", dir="/tmp"))
        self.output = self.home / "output"
        self.endpoint = f"ipc://{self.home}/run/control"
        self.processes = []
        self.broker = None
        self.decoders = {}
        self.expected = {}  # job id: the state it must end in
        self.strangers = set()  # images in the output folder that are not Luna's
        self.finished = False
        self._client = None
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LUNA_")}
        self.env = {**kept, "LUNA_HOME": str(self.home), "LUNA_HTTP_LISTEN": "off",
                    "LUNA_OUTPUT_ROOTS": str(self.output), "LUNA_VAE_ROOTS": str(DATA),
                    "LUNA_LEASE_BACKOFF": "50ms"}

    # ---- processes --------------------------------------------------------------------

    def _start(self, name, program, *args, **env):
        process = Process(name, [str(BIN / program), *args], {**self.env, **env}, self.home)
        self.processes.append(process)
        return process

    def start_broker(self, **env):
        self.close_client()
        self.broker = self._start("broker", "luna-broker", **env)
        wait_for(lambda: self._alive(self.broker) and self.status(), "the broker answers")
        return self.broker

    def start_decoder(self, name="one", ready=True, **env):
        decoder = self._start(name, "luna-decoder", "--name", name, "--device", "cpu", **env)
        self.decoders[name] = decoder
        if ready:
            wait_for(lambda: self._alive(decoder) and self._is_ready(decoder),
                     f"decoder {name} is ready")
        return decoder

    def start(self, decoders=1, **env):
        self.start_broker(**env)
        for name in ("one", "two", "three")[:decoders]:
            self.start_decoder(name, **env)
        return self

    def _alive(self, process):
        assert process.popen.poll() is None, (
            f"{process.name} ended with {process.popen.returncode}:\n{process.text()}")
        return True

    def _is_ready(self, decoder):
        return any(d.get("pid") == decoder.pid and d["state"] in ("ready", "busy")
                   for d in self.decoder_list())

    def http_url(self):
        """http://127.0.0.1:PORT, from the broker's log."""
        def found():
            return re.search(r"127\.0\.0\.1:([1-9]\d+)", self.broker.text())
        return f"http://127.0.0.1:{wait_for(found, 'the broker logs its HTTP address').group(1)}"

    # ---- questions ----------------------------------------------------------------------

    @property
    def client(self):
        if self._client is None:
            self._client = wire.Producer(self.endpoint, "ledger")
        return self._client

    def close_client(self):
        if self._client is not None:
            self._client.close()
            self._client = None

    def status(self):
        return self.client.query("status")["status"]

    def decoder_list(self):
        return self.client.query("decoders").get("decoders", [])

    def job(self, job_id):
        """The broker's record; of a job that is still on its way to it: `unknown`."""
        answer = self.client.query("job", id=wire.id_bytes(job_id))
        if answer.get("error") == "not_found":
            return {"state": "unknown"}
        assert "error" not in answer, f"job {job_id}: {answer}"
        return answer["jobs"][0]

    def wait_job(self, job_id, state="completed", deadline_s=DEADLINE_S):
        ends = ("completed", "failed", "cancelled")

        def ended():
            info = self.job(job_id)
            assert info["state"] == state or info["state"] not in ends, f"job ended as {info}"
            return info if info["state"] == state else None
        return wait_for(ended, lambda: f"job is {state}, it is {self.job(job_id)}", deadline_s)

    def wait_images(self, job_id, count=1, deadline_s=DEADLINE_S):
        """Until so many images of the job are saved; the job must not have ended by then."""
        return wait_for(lambda: self.job(job_id).get("images_done", 0) >= count,
                        f"{count} images are saved", deadline_s)

    # ---- lunactl ------------------------------------------------------------------------

    def run(self, program, *args, deadline_s=60, **env):
        done = subprocess.run([str(BIN / program), *map(str, args)], env={**self.env, **env},
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=patient(deadline_s))
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def lunactl(self, *args, **kwargs):
        return self.run("lunactl", *args, **kwargs)

    def expect(self, job_id, state="completed"):
        """The ledger's entry; returns the id."""
        self.expected[job_id] = state
        return job_id

    def submit(self, latents, *options, vae=VAE, expect="completed"):
        """lunactl submit without --wait; the job id."""
        done = self.lunactl("submit", "--latents", latents, "--vae", vae, "--output-dir",
                            self.output, *options)
        assert done.code == 0, done
        return self.expect(done.out.split()[0], expect)

    def submit_wait(self, latents, *options, vae=VAE):
        """lunactl submit --wait; (job id, paths of the saved files)."""
        done = self.lunactl("submit", "--latents", latents, "--vae", vae, "--output-dir",
                            self.output, "--wait", *options)
        assert done.code == 0, done
        job_id, *paths = done.out.splitlines()
        return self.expect(job_id), [Path(path) for path in paths]

    # ---- the ledger ---------------------------------------------------------------------

    def check_ledger(self):
        if not self.expected and self.broker is None:
            return
        if self.broker is None or self.broker.popen.poll() is not None:
            self.start_broker()
        recorded = self._recorded()
        known = {wire.id_text(info["id"]) for info in self.client.query("jobs", limit=10000).get("jobs", [])}
        assert known == set(self.expected), f"jobs nobody submitted: {known ^ set(self.expected)}"
        for _ in range(50):  # a job that ended early has its last picture a moment later
            if self._pictures() == set(recorded):
                return
            time.sleep(0.1)
            recorded = self._recorded()
        difference = self._pictures() ^ set(recorded)
        assert not difference, f"files and records differ: {difference}"

    def _recorded(self):
        recorded = {}
        for job_id, state in self.expected.items():
            info = self.wait_job(job_id, state)
            self._check_job(job_id, info, recorded)
        return recorded

    def _pictures(self):
        there = {str(path) for path in self.output.rglob("*") if path.suffix in IMAGES}
        return there - {str(path) for path in self.strangers}

    def _check_job(self, job_id, info, recorded):
        files = info.get("files", [])
        keys = {(file["input"], file["index"]) for file in files}
        assert len(keys) == len(files), f"job {job_id} lists an image twice"
        if info["state"] == "completed":
            assert len(files) == info["images"] == info["images_done"], info
        for file in files:
            path = file["path"]
            assert path not in recorded, f"{path} belongs to {recorded[path]} and {job_id}"
            recorded[path] = job_id
            assert os.path.getsize(path) == file["bytes"], path
            assert sha256(path) == file["sha256"], path
            assert readers.size_of(path) == (file["width"], file["height"]), path

    def check_leftovers(self):
        left = [str(path) for path in self.output.rglob("*")
                if path.is_file() and path.suffix in (".tmp", ".part", ".try")]
        assert not left, f"left in the output folder: {left}"

    # ---- the end ------------------------------------------------------------------------

    def finish(self):
        """The ledger, then SIGTERM for all: each must end with 0. A second call is none."""
        if self.finished:
            return
        self.finished = True
        for process in self.processes:
            if not process.ended:
                self._alive(process)
        self.check_ledger()
        self.close_client()
        for process in reversed(self.processes):
            if not process.ended:
                code = process.terminate()
                assert code == 0, f"{process.name} ended with {code} on SIGTERM"
        self.check_leftovers()

    def logs(self):
        return "\n".join(f"---- {log.name}\n{log.read_text(errors='replace')[-6000:]}"
                         for log in sorted(self.home.glob("*.log")))

    def remove(self):
        self.close_client()
        for process in self.processes:
            process.kill()
        if os.environ.get("LUNA_KEEP_HOME") != "1":
            shutil.rmtree(self.home, ignore_errors=True)
