"""A real ComfyUI from COMFYUI_DIR, with the methods of comfyui_stand_in.Host.

COMFYUI_PYTHON is a Python with its requirements; without a GPU it runs with --cpu.
"""

import json
import os
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from luna import _die_with_parent, wait_for
from websocket import WebSocket

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 180


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Host:
    real = True

    def __init__(self, folder, nodes, env, *flags):
        self.output, self.input = folder / "output", folder / "input"
        for made in (self.output, self.input, folder / "user", folder / "custom_nodes"):
            made.mkdir(exist_ok=True)
        for name, source in (("luna", ROOT / "producer" / "comfyui"), ("luna_test.py", nodes)):
            link = folder / "custom_nodes" / name
            if not link.exists():
                link.symlink_to(source)
        comfyui = Path(os.environ["COMFYUI_DIR"]).resolve()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.page = uuid.uuid4().hex
        self._events = []
        self.log = folder / "comfyui.log"
        tests = str(Path(__file__).resolve().parent)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [os.environ.get("COMFYUI_PYTHON", "python3"), comfyui / "main.py", "--cpu",
                 "--disable-api-nodes", "--base-directory", folder, "--database-url",
                 "sqlite:///:memory:", "--listen", "127.0.0.1", "--port", str(self.port),
                 *flags], cwd=comfyui, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**env, "PYTHONPATH": tests, "PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True, preexec_fn=_die_with_parent)
        wait_for(self._answers, lambda: f"ComfyUI answers:\n{self.log.read_text()[-3000:]}",
                 START_S)
        self._listen = threading.Thread(target=self._hear, daemon=True)
        self._socket = WebSocket(f"ws://127.0.0.1:{self.port}/ws?clientId={self.page}", 600)
        self._listen.start()

    def _answers(self):
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return self.ask("GET", "/system_stats")[0] == 200
        except OSError:
            return False

    def _hear(self):
        try:
            while True:
                message = self._socket.receive()
                self._events.append((message["type"], message["data"]))
        except (OSError, ValueError):
            pass

    def put(self, path, name):
        shutil.copy(path, self.input / name)

    def queue(self, prompt, extra=None):
        """The id of the prompt, or what is wrong with it."""
        status, answer = self.ask("POST", "/prompt", {
            "prompt": prompt, "client_id": self.page, "extra_data": {"extra_pnginfo": extra or {}}})
        return answer["prompt_id"] if status == 200 else (None, json.dumps(answer))

    def run(self, prompt, extra=None):
        """(id of the prompt, error or None), when it has ended."""
        prompt_id = self.queue(prompt, extra)
        if isinstance(prompt_id, tuple):
            return prompt_id
        return prompt_id, self.ended(prompt_id)

    def ended(self, prompt_id):
        entry = wait_for(lambda: self.ask("GET", f"/history/{prompt_id}")[1].get(prompt_id),
                         "the prompt ends", 120)
        errors = [data for kind, data in entry["status"]["messages"]
                  if kind in ("execution_error", "execution_interrupted")]
        started = [data["node"] for kind, data in list(self._events)
                   if kind == "executing" and data.get("prompt_id") == prompt_id and data["node"]]
        self.ran = started
        return errors[0].get("exception_message", "Interrupted") if errors else None

    def forget(self):
        """The next prompt runs every node, whatever ran before: ComfyUI forgets between two
        prompts, or after the next one, which is therefore this."""
        self.ask("POST", "/free", {"unload_models": True, "free_memory": True})
        self.run({"9": {"class_type": "LunaQueueStatus", "inputs": {}}})

    def interrupt(self):
        self.ask("POST", "/interrupt", {})

    def outputs(self, prompt_id):
        return self.ask("GET", f"/history/{prompt_id}")[1][prompt_id]["outputs"]

    def events(self, kind):
        return [data for event, data in list(self._events) if event == kind]

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method,
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                raw = answer.read()
                return answer.status, json.loads(raw) if raw else None
        except urllib.error.HTTPError as failed:
            raw = failed.read()
            return failed.code, json.loads(raw) if raw.startswith(b"{") else raw.decode()

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
