"""The HTTP interface by curl: every kind of body, the questions, the refusals."""

import base64
import json
import subprocess

import pytest
import wire
from files import (DATA, PHOTOGRAPHS, VAE, batch, image_pixels, photograph, photograph_latent,
                   photograph_pixels, png_texts, psnr, read_safetensors, sha256)
from luna import wait_for

PROMPT = '{"3": {"class_type": "KSampler", "inputs": {"seed": 18446744073709551615}}}'


class Reply:
    def __init__(self, raw):
        head, _, self.body = raw.rpartition(b"\r\n\r\n")
        lines = head.split(b"\r\n\r\n")[-1].decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        pairs = (line.partition(":") for line in lines[1:])
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:500]!r}"


def curl(url, *args, data=None, kind=None):
    options = list(args)
    if kind:
        options += ["-H", f"Content-Type: {kind}", "-H", "Expect:"]
    if data is not None:
        options += ["--data-binary", "@-"]
    done = subprocess.run(["curl", "-sS", "-i", "--max-time", "20", *options, url], input=data,
                          capture_output=True, check=True)
    return Reply(done.stdout)


@pytest.fixture
def web(home):
    home.start(LUNA_HTTP_LISTEN="127.0.0.1:0")
    return home, home.http_url()


def json_body(luna, array, **settings):
    latents = [{"data": base64.b64encode(array.tobytes()).decode(), "dtype": str(array.dtype),
                "shape": list(array.shape)}]
    return json.dumps({"vae": VAE, "output_dir": str(luna.output), **settings,
                       "latents": latents}).encode()


def accepted(luna, reply, images):
    """The job id of a 202."""
    assert reply.status == 202, reply
    body = reply.json()
    assert body["status"] == "queued" and body["images"] == images, body
    assert isinstance(body["position"], int), body
    assert reply.headers["location"] == f"/v1/jobs/{body['job_id']}"
    return luna.expect(body["job_id"])


def problem(reply, status, word):
    assert reply.status == status, reply
    assert reply.headers["content-type"].startswith("application/problem+json"), reply
    body = reply.json()
    assert body["error"] == word and body["status"] == status and body["detail"], body
    return body


def test_json_body(web):
    luna, url = web
    reply = curl(f"{url}/decode_and_save", kind="application/json",
                 data=json_body(luna, photograph_latent("coffee"), filename="by_http",
                                prompt=PROMPT, workflow={"nodes": []}))
    job = accepted(luna, reply, 1)
    info = luna.wait_job(job)
    path = info["files"][0]["path"]
    assert psnr(image_pixels(path), photograph_pixels("coffee")) >= 50
    texts = png_texts(path)
    assert texts["prompt"] == PROMPT.encode()
    assert json.loads(texts["workflow"]) == {"nodes": []}
    shown = curl(f"{url}/v1/jobs/{job}")
    assert shown.status == 200, shown
    assert shown.json()["state"] == "completed" and path in shown.body.decode()
    file = DATA / f"{VAE}.safetensors"
    told = {key: shown.json()[key] for key in ("vae", "vae_name", "vae_path", "vae_sha256")}
    assert told == {"vae": VAE, "vae_name": VAE, "vae_path": str(file), "vae_sha256": sha256(file)}


def test_latent_file_body(web):
    luna, url = web
    for name in PHOTOGRAPHS:
        query = f"vae={VAE}&output_dir={luna.output}&filename={name}&priority=7"
        reply = curl(f"{url}/decode_and_save?{query}", kind="application/octet-stream",
                     data=photograph(name).read_bytes())
        info = luna.wait_job(accepted(luna, reply, 1))
        assert info["priority"] == 7
        path = info["files"][0]["path"]
        assert psnr(image_pixels(path), photograph_pixels(name)) >= 50
        metadata = read_safetensors(photograph(name))[1]
        assert png_texts(path)["workflow"] == metadata["workflow"].encode()


def test_msgpack_body(web):
    luna, url = web
    with wire.Producer(luna.endpoint) as producer:
        body = producer.job([wire.latent_input(batch(3))], vae=VAE, output_dir=str(luna.output))
    reply = curl(f"{url}/decode_and_save", kind="application/msgpack", data=body)
    luna.wait_job(accepted(luna, reply, 3))


def test_idempotency_key(web):
    luna, url = web
    body = json_body(luna, batch(1))
    key = "0192f1c2-a5b0-7c3d-8e4f-5061728394a5"
    replies = [curl(f"{url}/decode_and_save", "-H", f"Idempotency-Key: {key}", data=body,
                    kind="application/json") for _ in range(2)]
    assert [accepted(luna, reply, 1) for reply in replies] == [key, key]
    luna.wait_job(key)


def test_questions(web):
    luna, url = web
    job, _ = luna.submit_wait(photograph("chelsea"))
    queue = curl(f"{url}/queue_status")
    assert queue.status == 200, queue
    text = queue.json()
    assert text["completed"] == 1 and text["failed"] == 0 and "one" in json.dumps(text)
    assert curl(f"{url}/healthz").status == 200
    assert curl(f"{url}/readyz").status == 200
    assert curl(f"{url}/version").status == 200
    jobs = curl(f"{url}/v1/jobs?state=completed")
    assert job in jobs.body.decode()
    assert job not in curl(f"{url}/v1/jobs?state=failed").body.decode()


def test_not_ready_without_a_decoder(home):
    home.start_broker(LUNA_HTTP_LISTEN="127.0.0.1:0")
    url = home.http_url()
    assert curl(f"{url}/healthz").status == 200
    assert curl(f"{url}/readyz").status == 503
    home.start_decoder()
    wait_for(lambda: curl(f"{url}/readyz").status == 200, "readyz turns 200")


def test_cancel(home):
    home.start_broker(LUNA_HTTP_LISTEN="127.0.0.1:0")
    url = home.http_url()
    job = accepted(home, curl(f"{url}/decode_and_save", kind="application/json",
                              data=json_body(home, batch(1))), 1)
    home.expect(job, "cancelled")
    assert curl(f"{url}/v1/jobs/{job}/cancel", "-X", "POST").status in (200, 202)
    home.wait_job(job, "cancelled")


def test_retry(web):
    luna, url = web
    taken = luna.output / "taken"
    taken.parent.mkdir(exist_ok=True)
    taken.write_text("a file where the folder should be")
    job = accepted(luna, curl(f"{url}/decode_and_save", kind="application/json",
                              data=json_body(luna, batch(1), save_path="taken")), 1)
    luna.wait_job(job, "failed")
    taken.unlink()
    assert curl(f"{url}/v1/jobs/{job}/retry", "-X", "POST").status in (200, 202)
    luna.wait_job(job)
    problem(curl(f"{url}/v1/jobs/{job}/retry", "-X", "POST"), 400, "bad_request")


def test_bad_base64(web):
    luna, url = web
    body = json_body(luna, batch(1)).replace(b'"data": "', b'"data": "*not*base64*')
    problem(curl(f"{url}/decode_and_save", kind="application/json", data=body), 400,
            "bad_request")


def test_bad_latents(web):
    luna, url = web
    body = json_body(luna, batch(1)).replace(b"[1, 32, 16, 16]", b"[2, 32, 16, 16]")
    problem(curl(f"{url}/decode_and_save", kind="application/json", data=body), 422,
            "bad_latent")


def test_wrong_requests(web):
    _, url = web
    problem(curl(f"{url}/decode_and_save", kind="application/json", data=b"{"), 400,
            "bad_request")
    problem(curl(f"{url}/decode_and_save", kind="application/json", data=b"[" * 100_000), 400,
            "bad_request")
    problem(curl(f"{url}/decode_and_save", kind="image/png", data=b"x"), 415, "unsupported")
    problem(curl(f"{url}/nowhere"), 404, "not_found")
    problem(curl(f"{url}/v1/jobs/0192f1c2-a5b0-7c3d-8e4f-5061728394a5"), 404, "not_found")
    assert curl(f"{url}/decode_and_save").status == 405
    # A web page somewhere else must not reach a loopback service.
    assert curl(f"{url}/queue_status", "-H", "Host: evil.example").status in (400, 403, 421)
    assert curl(f"{url}/queue_status", "-H", "Origin: http://evil.example").status == 403
    assert curl(f"{url}/healthz").status == 200
