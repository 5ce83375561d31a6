"""A headless Chromium through its DevTools protocol; the standard library only."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from luna import _die_with_parent, wait_for
from websocket import WebSocket

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    def __init__(self, url, width=1500, height=950):
        self._folder = tempfile.mkdtemp(prefix="luna-browser", dir="/tmp")
        self._process = subprocess.Popen(
            [PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--remote-debugging-port=0", "--remote-allow-origins=*", "--no-first-run",
             f"--user-data-dir={self._folder}", f"--window-size={width},{height}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=_die_with_parent)
        port_file = Path(self._folder, "DevToolsActivePort")
        wait_for(lambda: port_file.exists() and port_file.read_text().count("\n"),
                 "Chromium starts", 60)
        port = port_file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            target = [one for one in json.load(answer) if one["type"] == "page"][0]
        self._socket = WebSocket(target["webSocketDebuggerUrl"], 120)
        self._number = 0
        self.messages = []  # of the console
        self.call("Runtime.enable")
        self.call("Page.enable")
        self.call("Page.navigate", url=url)

    def call(self, method, **parameters):
        self._number += 1
        self._socket.send({"id": self._number, "method": method, "params": parameters})
        while True:
            answer = self._socket.receive()
            if answer.get("method") == "Runtime.consoleAPICalled":
                self.messages.append(" ".join(str(one.get("value", one.get("description")))
                                              for one in answer["params"]["args"]))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script):
        """The value of an expression of JavaScript; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True,
                           returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script, what, deadline_s=60):
        return wait_for(lambda: self.run(f"!!({script})"),
                        lambda: f"{what}; console: {self.messages[-20:]}", deadline_s)

    def drop(self, path, kind):
        """Drops a file on the page."""
        self.run(f"""(() => {{
            const transfer = new DataTransfer();
            transfer.items.add({self._file(path, kind)});
            const event = new DragEvent("drop", {{dataTransfer: transfer, bubbles: true,
                                                  cancelable: true}});
            document.querySelector("canvas").dispatchEvent(event);
        }})()""")

    def hand(self, path, kind):
        """What a drop does, until ComfyUI is done with the file."""
        self.run(f"window.app.handleFile({self._file(path, kind)})")

    @staticmethod
    def _file(path, kind):
        data = base64.b64encode(Path(path).read_bytes()).decode()
        return (f"new File([Uint8Array.from(atob({json.dumps(data)}), (c) => c.charCodeAt(0))], "
                f"{json.dumps(Path(path).name)}, {{type: {json.dumps(kind)}}})")

    def picture(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def close(self):
        self._socket.close()
        os.killpg(self._process.pid, 9)
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
