#!/usr/bin/python3
"""Luna beside its alternative, in one run: how long does handing over a batch hold ComfyUI?

1. luna_submit of 4 MiB (float32 [16, 4, 128, 128]), measured around the C call only, while
   a decoder works; and from before the call to the receipt: the job is then on disk.
2. The same latents as JSON with base64, by HTTP POST to a server that throws them away
   (Python's http.server, a process of its own): serialising included, as a node would.
   Once more with the JSON made beforehand: the transport alone.
3. Three photographs end to end: pictures a second, and where the time goes.

Everything is local. The run ends by itself in less than a minute.
"""

import base64
import ctypes
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests" / "system"), str(ROOT / "producer" / "comfyui")]

import luna_client  # noqa: E402
import numpy  # noqa: E402
from files import PHOTOGRAPHS, VAE, batch, photograph_latent  # noqa: E402
from luna import LIBRARY, Luna  # noqa: E402

SUBMITS = 60
POSTS = 20
PAUSE_S = 0.02  # between submits, as a sampler leaves them; nothing waits for it to be over
PICTURE_ROUNDS = 4
BUSY_JOBS = 40

SINK = """
import http.server
class Sink(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Sink)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Times:
    """Milliseconds of one way of doing it."""

    def __init__(self, label):
        self.label = label
        self.ms = []

    def add(self, begin_ns):
        self.ms.append((time.perf_counter_ns() - begin_ns) / 1e6)

    @property
    def median(self):
        return statistics.median(self.ms)

    @property
    def p95(self):
        return sorted(self.ms)[int(0.95 * (len(self.ms) - 1) + 0.5)]


def new_job(client, luna, array, vae):
    """A submission that points to `array`, which must live as long."""
    job = client.new_submission()
    job.vae = vae.encode()
    job.output_dir = os.fsencode(luna.output)
    job.input_count = 1
    latent = job.inputs[0]
    latent.data = array.ctypes.data
    latent.bytes = array.nbytes
    latent.dtype = str(array.dtype).encode()
    latent.dims = array.ndim
    for axis, size in enumerate(array.shape):
        latent.shape[axis] = size
    return job


# ---- 1: luna ---------------------------------------------------------------------------


def keep_decoder_busy(client, luna):
    """Pictures enough for the whole measurement: the decoder must not idle meanwhile."""
    array = batch(8, 64)
    return [client.submit(new_job(client, luna, array, VAE)) for _ in range(BUSY_JOBS)]


def measure_submit(client, luna, array):
    """The C call, and submit to receipt, of jobs that nobody decodes while it is measured."""
    call, durable = Times("luna_submit (the call)"), Times("submit to receipt (on disk)")
    job = new_job(client, luna, array, "nobody_has_this_vae")
    job.priority = 0
    handle, room = client._handle, ctypes.create_string_buffer(luna_client.JOB_ID_BYTES)
    reference = ctypes.byref(job)
    submit, ids = client._lib.luna_submit, []
    for _ in range(SUBMITS):
        begin = time.perf_counter_ns()
        code = submit(handle, reference, room)
        call.add(begin)
        client._check(code)
        ids.append(room.value.decode())
        client.wait_receipt(ids[-1], 20_000)
        durable.add(begin)
        time.sleep(PAUSE_S)
    return call, durable


# ---- 2: JSON over HTTP -----------------------------------------------------------------


def json_body(array):
    return json.dumps({"vae": VAE, "latents": [{
        "data": base64.b64encode(array.tobytes()).decode(), "dtype": str(array.dtype),
        "shape": list(array.shape)}]}).encode()


def post(connection, body):
    connection.request("POST", "/", body, {"Content-Type": "application/json"})
    connection.getresponse().read()


def measure_http(array):
    whole, ready = Times("HTTP POST, JSON and base64"), Times("HTTP POST, JSON made before")
    server = subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(server.stdout.readline()))
        made = json_body(array)
        post(connection, made)
        for _ in range(POSTS):
            begin = time.perf_counter_ns()
            post(connection, json_body(array))
            whole.add(begin)
            begin = time.perf_counter_ns()
            post(connection, made)
            ready.add(begin)
            time.sleep(PAUSE_S)
        connection.close()
    finally:
        server.kill()
        server.wait()
    return whole, ready


# ---- 3: pictures -----------------------------------------------------------------------


def measure_pictures(client, luna):
    """(seconds, the images' records) of the photographs, submitted one after the other."""
    arrays = [photograph_latent(name) for name in PHOTOGRAPHS]
    begin = time.perf_counter()
    ids = [client.submit(new_job(client, luna, array, VAE))
           for _ in range(PICTURE_ROUNDS) for array in arrays]
    for job_id in ids:
        client.wait_job(job_id, 30_000)
    seconds = time.perf_counter() - begin
    return seconds, [file for job_id in ids for file in luna.job(job_id)["files"]]


# ---- the run ---------------------------------------------------------------------------


def print_table(rows, base):
    print(f"{'4 MiB of latents, ms':34}{'median':>9}{'p95':>9}{'times':>9}")
    for row in rows:
        print(f"{row.label:34}{row.median:9.3f}{row.p95:9.3f}{row.median / base.median:9.1f}")


def print_pictures(seconds, files):
    pixels = sum(file["width"] * file["height"] for file in files)
    print(f"\n{len(files)} photographs end to end: {len(files) / seconds:.2f} pictures/s, "
          f"{pixels / seconds / 1e6:.2f} megapixels/s")
    for stage in ("decode", "encode", "write"):
        print(f"  {stage:8}{statistics.mean(file[f'{stage}_ms'] for file in files):9.1f} ms each")


def run(luna):
    os.environ["LUNA_HOME"] = str(luna.home)
    os.environ["LUNA_LIBRARY"] = str(LIBRARY)
    luna.start()
    client = luna_client.Client(name="bench")
    client.wait_available(10_000)
    array = numpy.random.default_rng(1).standard_normal((16, 4, 128, 128), numpy.float32)
    pictures = measure_pictures(client, luna)
    busy = keep_decoder_busy(client, luna)
    for job_id in busy:
        client.wait_receipt(job_id, 20_000)
    call, durable = measure_submit(client, luna, array)
    whole, ready = measure_http(array)
    working = luna.job(busy[-1])["state"] != "completed"
    print_table((call, durable, ready, whole), call)
    print(f"a decoder {'worked' if working else 'had finished its jobs before the end'} meanwhile; "
          f"{SUBMITS} submits, {POSTS} posts")
    print_pictures(*pictures)
    client.close(0)


def main():
    luna = Luna()
    try:
        run(luna)
    except BaseException:
        print(luna.logs(), file=sys.stderr)
        raise
    finally:
        luna.remove()


if __name__ == "__main__":
    main()
