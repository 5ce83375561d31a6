"""A producer, a subscriber and a decoder written from proto/README.md alone."""

import hashlib
import re

import msgpack
import pytest
import wire
from files import VAE, batch
from luna import ROOT, wait_for
from PIL import Image

PING = {"LUNA_LEASE_PING": "100ms"}


@pytest.fixture
def producer(home):
    home.start()
    with wire.Producer(home.endpoint, "from text") as peer:
        yield home, peer


def submit(luna, producer, count=1, **settings):
    """An accepted job's id bytes and its receipt."""
    settings = {"vae": VAE, "output_dir": str(luna.output), **settings}
    receipt = producer.submit([wire.latent_input(batch(count))], **settings)
    assert receipt["status"] == "accepted", receipt
    luna.expect(wire.id_text(receipt["id"]))
    return receipt["id"], receipt


# ---- the page itself ------------------------------------------------------------------


def test_examples_of_the_page_are_messages():
    page = (ROOT / "proto" / "README.md").read_text()
    examples = re.findall(r"### example: (\w+)\n\n```hex\n([0-9a-f\s]+)```", page)
    assert len(examples) >= 15
    for kind, text in examples:
        raw = bytes.fromhex(text)
        message = wire.unpack(raw)
        assert message["type"] == kind
        assert msgpack.packb(message) == raw


# ---- producer -------------------------------------------------------------------------


def test_welcome_and_pong(producer):
    luna, peer = producer
    welcome = peer.welcome
    assert len(welcome["epoch"]) == 16
    assert welcome["intake"].startswith("ipc://") and welcome["events"].startswith("ipc://")
    assert welcome["ping_ms"] > 0 and welcome["max_job_bytes"] > 0
    pong = peer.ping()
    assert pong["epoch"] == welcome["epoch"] and pong["order"] == "run"


def test_job_receipt_and_query(producer):
    luna, peer = producer
    job_id, receipt = submit(luna, peer, 3, filename="wire", priority=8)
    assert receipt["images"] == 3 and not receipt.get("duplicate")
    info = luna.wait_job(wire.id_text(job_id))
    assert info["id"] == job_id and info["priority"] == 8 and info["vae"] == VAE
    assert info["created_ms"] <= info["accepted_ms"] + 1000
    assert info["accepted_ms"] <= info["started_ms"] <= info["finished_ms"]
    for file in info["files"]:
        assert min(file["decode_ms"], file["encode_ms"], file["write_ms"]) >= 0
    listed = peer.query("jobs", state="completed", limit=10)["jobs"]
    assert [entry["id"] for entry in listed] == [job_id]
    status = peer.query("status")["status"]
    assert status["completed"] == 1 and status["decoders"] == 1 and status["accepting"] == "yes"
    (decoder,) = peer.query("decoders")["decoders"]
    assert decoder["name"] == "one" and {"name": VAE} in decoder["vaes"]


def test_the_same_job_again_is_a_duplicate(producer):
    luna, peer = producer
    job = peer.job([wire.latent_input(batch(1))], id=wire.new_id(), vae=VAE,
                   output_dir=str(luna.output))
    job_id = wire.unpack(job)["id"]
    luna.expect(wire.id_text(job_id))
    peer.push(job)
    first = peer.receive("receipt", id=job_id)
    peer.push(job)
    second = peer.receive("receipt", id=job_id)
    assert first["status"] == second["status"] == "accepted"
    assert second["duplicate"] and second["images"] == 1
    luna.wait_job(wire.id_text(job_id))
    peer.push(job)
    assert peer.receive("receipt", id=job_id)["duplicate"]


def test_unknown_keys_are_passed_over(producer):
    luna, peer = producer
    submit(luna, peer, a_key_of_tomorrow={"deep": [1, 2.5, None, b"x"]})


@pytest.mark.parametrize("change, word, named", [
    ({"priority": 10}, "bad_request", "priority"),
    ({"priority": "high"}, "bad_request", "priority"),
    ({"vae": None}, "bad_request", "vae"),
    ({"inputs": []}, "bad_request", "latents"),
    ({"filename": "x" * 5000}, "bad_request", "filename"),
    ({"save_path": "nul\0nul"}, "bad_request", "save_path"),
    ({"luna": 2}, "unsupported", ""),
])
def test_refused_with_the_fields_name(producer, change, word, named):
    _, peer = producer
    job_id = wire.new_id()
    fields = wire.unpack(peer.job([wire.latent_input(batch(1))], id=job_id, vae=VAE))
    fields.update(change)
    peer.push(msgpack.packb({k: v for k, v in fields.items() if v is not None}))
    receipt = peer.receive("receipt", id=job_id)
    assert receipt["status"] == "refused" and receipt["error"] in (word, "too_large"), receipt
    assert named in receipt["detail"], receipt


@pytest.mark.parametrize("change", [
    {"shape": [1, 32, 16, 17]}, {"shape": [0, 32, 16, 16]}, {"shape": [2**20] * 4},
    {"shape": [32, 16, 16]}, {"dtype": "float32"}, {"dtype": "int8"}, {"latent": b""},
    {"format": "bmp"}])
def test_refused_latents(producer, change):
    _, peer = producer
    entry = {**wire.latent_input(batch(1)), **change}
    receipt = peer.submit([entry], vae=VAE)
    assert receipt["status"] == "refused", receipt
    assert receipt["error"] in ("bad_latent", "bad_request", "unsupported", "too_large"), receipt
    assert receipt["detail"], receipt


def test_hostile_bytes_change_nothing(producer):
    luna, peer = producer
    whole = peer.job([wire.latent_input(batch(1))], vae=VAE)
    hostile = [b"", b"\xc1", b"\xdf\xff\xff\xff\xff", b"\x91" * 100_000, whole[:50], whole[:-1],
               msgpack.packb({"luna": 1, "type": "job"}), msgpack.packb({"type": "job"}),
               msgpack.packb({"luna": 1, "type": 7}), msgpack.packb([1, 2, 3])]
    for frame in hostile:
        peer.push(frame)
        peer.socket.send(frame)
        peer.socket.send_multipart([b"", frame, frame])
    for kind in ("work", "done", "failed", "progress", "credit", "ready", "welcome", "event"):
        peer.send(kind, id=wire.new_id(), attempt=1, epoch=peer.welcome["epoch"], images=[],
                  error="io", credit_jobs=1, credit_bytes=1)
    with wire.Producer(luna.endpoint) as another:
        assert another.welcome["epoch"] == peer.welcome["epoch"]
        submit(luna, another)


def test_orders(producer):
    luna, peer = producer
    unknown = peer.order("cancel", wire.new_id())
    assert unknown["error"] == "not_found" and unknown["detail"]
    folder = luna.output / "taken"
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file where the folder should be")
    job_id, _ = submit(luna, peer, save_path="taken")
    luna.wait_job(wire.id_text(job_id), "failed")
    folder.unlink()
    assert "error" not in peer.order("retry", job_id)
    luna.wait_job(wire.id_text(job_id))
    assert peer.order("cancel", job_id)["error"], "a completed job cannot be cancelled"


# ---- events ---------------------------------------------------------------------------


def test_snapshot_then_events_without_a_gap(producer):
    luna, peer = producer
    everything = wire.Subscriber(peer, b"")
    event = {"kind": "status"}
    while event["kind"] != "snapshot":  # what comes before it is part of it
        topic, event = everything.next()
    assert event["epoch"] == peer.welcome["epoch"]
    job_id, _ = submit(luna, peer, 2)
    mine = f"job/{wire.id_text(job_id)}"
    seqs, kinds = [event["seq"]], []
    while "completed" not in kinds:
        topic, event = everything.next()
        if event["kind"] == "snapshot":
            continue
        seqs.append(event["seq"])
        if topic == mine:
            kinds.append(event["kind"])
            assert event["jobs"][0]["id"] == job_id
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert kinds[0] == "accepted" and kinds[1] == "dispatched"
    assert kinds.count("image") in (1, 2)


def test_a_late_subscriber_gets_the_jobs_state(producer):
    luna, peer = producer
    job_id, _ = submit(luna, peer, 2)
    luna.wait_job(wire.id_text(job_id))
    topic, event = wire.Subscriber(peer, f"job/{wire.id_text(job_id)}".encode()).next()
    assert topic == f"job/{wire.id_text(job_id)}" and event["kind"] == "snapshot"
    assert event["jobs"][0]["state"] == "completed"
    assert wire.Subscriber(peer, b"status").next()[1]["status"]["completed"] == 1
    assert wire.Subscriber(peer, b"decoder/").next()[1]["decoders"][0]["name"] == "one"


# ---- decoder --------------------------------------------------------------------------


@pytest.fixture
def bare(home):
    """A broker without a decoder, and a producer."""
    home.start_broker(**PING)
    with wire.Producer(home.endpoint) as peer:
        yield home, peer


def save(luna, work, index, name):
    """What a decoder does, in short: a black picture, and its record."""
    path = luna.output / f"{name}_{index}.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    raw = path.read_bytes()
    return {"input": 0, "index": index, "path": str(path), "bytes": len(raw),
            "sha256": hashlib.sha256(raw).hexdigest(), "width": 8, "height": 8}


@pytest.mark.parametrize("maps_payload", [False, True])
def test_a_decoder_from_text(bare, maps_payload):
    luna, peer = bare
    with wire.Decoder(luna.endpoint, "python", ["python_vae"], maps_payload) as decoder:
        array = batch(2)
        receipt = peer.submit([wire.latent_input(array, affix="A")], vae="python_vae",
                              prompt=b'{"seed": 18446744073709551615}')
        job_id = receipt["id"]
        luna.expect(wire.id_text(job_id))
        work = decoder.take()
        assert ("payload_path" in work) == maps_payload
        assert (work["id"], work["attempt"]) == (job_id, 1)
        assert work["epoch"] == decoder.welcome["epoch"] and work["lease_ms"] > 0
        job = wire.open_payload(work)
        assert job["prompt"] == b'{"seed": 18446744073709551615}'
        assert job["inputs"][0]["latent"] == array.tobytes()
        first, second = (save(luna, work, index, "text") for index in (0, 1))
        decoder.report("progress", work, stage="saved", images=[first])
        wait_for(lambda: luna.job(wire.id_text(job_id)).get("images_done") == 1, "one is saved")
        decoder.report("done", work, vae="python_vae", images=[first, second])
        info = luna.wait_job(wire.id_text(job_id))
        assert info["decoder"] == "python" and len(info["files"]) == 2


def test_failed_with_retry_then_done_by_the_next_attempt(home):
    home.start_broker(**PING)
    with wire.Producer(home.endpoint) as peer, \
            wire.Decoder(home.endpoint, "python", ["python_vae"]) as decoder:
        receipt = peer.submit([wire.latent_input(batch(2))], vae="python_vae")
        job = home.expect(wire.id_text(receipt["id"]))
        work = decoder.take()
        saved = save(home, work, 0, "first")
        decoder.report("progress", work, stage="saved", images=[saved])
        decoder.report("failed", work, error="io", detail="the disk fell off", retry=True)
        again = decoder.take()
        assert again["attempt"] == 2
        assert again["done"] == [{"input": 0, "index": 0}]
        decoder.report("done", again, images=[saved, save(home, again, 1, "second")])
        info = home.wait_job(job)
        assert (info["attempts"], info["refused"], info.get("lost", 0)) == (2, 1, 0)


def test_failed_for_good(bare):
    luna, peer = bare
    with wire.Decoder(luna.endpoint, "python", ["python_vae"]) as decoder:
        receipt = peer.submit([wire.latent_input(batch(1))], vae="python_vae")
        job = luna.expect(wire.id_text(receipt["id"]), "failed")
        decoder.report("failed", decoder.take(), error="bad_model", detail="no such layer")
        info = luna.wait_job(job, "failed")
        assert (info["error"], info["detail"]) == ("bad_model", "no such layer")


def test_an_older_attempt_changes_no_state(bare):
    """The fence: a decoder that was given up says failed, and nobody listens."""
    luna, peer = bare
    with wire.Decoder(luna.endpoint, "old", ["python_vae"]) as old, \
            wire.Decoder(luna.endpoint, "new", ["python_vae"], credit_jobs=0) as new:
        receipt = peer.submit([wire.latent_input(batch(1))], vae="python_vae")
        job = luna.expect(wire.id_text(receipt["id"]))
        lost = old.take()
        old.slot.close()  # the socket closes: the job is given back
        new.send("credit", credit_jobs=1, credit_bytes=64 << 20)
        work = new.take()
        assert work["attempt"] == 2
        for word in ("failed", "progress"):
            old.report(word, lost, error="io", detail="too late", stage="decoding", images=[])
        new.report("failed", {**work, "attempt": 1}, error="io", detail="wrong attempt")
        assert new.ping()["order"] == "run"
        assert luna.job(job)["state"] == "in_progress"
        new.report("done", work, images=[save(luna, work, 0, "fenced")])
        info = luna.wait_job(job)
        assert (info["decoder"], info["lost"], info.get("refused", 0)) == ("new", 1, 0)


def test_a_silent_decoder_loses_its_lease(home):
    home.start_broker(LUNA_LEASE_TIME="2s", **PING)
    with wire.Producer(home.endpoint) as peer, \
            wire.Decoder(home.endpoint, "silent", ["python_vae"]) as silent:
        receipt = peer.submit([wire.latent_input(batch(1))], vae="python_vae")
        job = home.expect(wire.id_text(receipt["id"]))
        silent.take()
        wait_for(lambda: home.job(job).get("lost") == 1, "the lease ends")
        with wire.Decoder(home.endpoint, "awake", ["python_vae"]) as awake:
            work = awake.take()
            assert work["attempt"] == 2
            awake.report("done", work, images=[save(home, work, 0, "awake")])
            home.wait_job(job)


def test_bye_gives_the_job_back_and_counts_nothing(bare):
    luna, peer = bare
    with wire.Decoder(luna.endpoint, "leaving", ["python_vae"]) as leaving:
        receipt = peer.submit([wire.latent_input(batch(1))], vae="python_vae")
        job = luna.expect(wire.id_text(receipt["id"]))
        leaving.take()
        leaving.send("bye", reason="stopping")
        wait_for(lambda: luna.job(job)["state"] == "pending", "the job waits again")
    with wire.Decoder(luna.endpoint, "next", ["python_vae"]) as following:
        work = following.take()
        following.report("done", work, images=[save(luna, work, 0, "bye")])
        assert luna.wait_job(job).get("lost", 0) == 0


def test_credit_bounds_what_a_decoder_holds(bare):
    luna, peer = bare
    with wire.Decoder(luna.endpoint, "python", ["python_vae"], credit_jobs=2) as decoder:
        for _ in range(4):
            receipt = peer.submit([wire.latent_input(batch(1))], vae="python_vae")
            luna.expect(wire.id_text(receipt["id"]))
        held = [decoder.take(), decoder.take()]
        assert decoder.ping() and not decoder.slot.poll(0)
        for number in range(4):
            work = held.pop(0)
            decoder.report("done", work, images=[save(luna, work, 0, f"credit{number}")])
            if number < 2:
                held.append(decoder.take())


def test_a_cancel_reaches_the_decoder(bare):
    luna, peer = bare
    with wire.Decoder(luna.endpoint, "python", ["python_vae"]) as decoder:
        receipt = peer.submit([wire.latent_input(batch(1))], vae="python_vae")
        job = luna.expect(wire.id_text(receipt["id"]), "cancelled")
        decoder.take()
        assert "error" not in peer.order("cancel", receipt["id"])
        assert decoder.receive("cancel", id=receipt["id"])
        luna.wait_job(job, "cancelled")


def test_a_running_job_is_adopted_after_a_restart(bare):
    """The broker dies; the decoder says hello with what it runs and is done there."""
    luna, peer = bare
    with wire.Decoder(luna.endpoint, "python", ["python_vae"]) as decoder:
        receipt = peer.submit([wire.latent_input(batch(1))], vae="python_vae")
        job = luna.expect(wire.id_text(receipt["id"]))
        work = decoder.take()
        old_epoch = decoder.welcome["epoch"]
        luna.broker.kill()
        luna.start_broker(**PING)
        decoder.send("hello", role="decoder", name="python", instance=decoder.instance,
                     device="cpu", vaes=[{"name": "python_vae"}],
                     running=[{"id": work["id"], "attempt": work["attempt"]}])
        welcome = decoder.receive("welcome")
        assert welcome["epoch"] != old_epoch
        decoder.send("ready", credit_jobs=1, credit_bytes=64 << 20)
        decoder.report("done", {**work, "epoch": welcome["epoch"]},
                       images=[save(luna, work, 0, "adopted")])
        info = luna.wait_job(job)
        assert (info["attempts"], info.get("lost", 0)) == (1, 0)
