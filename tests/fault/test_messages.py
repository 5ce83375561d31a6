"""Duplicate, late and reordered messages, and peers that do not behave."""

import os
import socket
import struct
import time

import numpy
import pytest
import wire
import zmq
from luna import wait_for
from peers import Hand

LATENT = numpy.zeros((2, 4, 8, 8), dtype=numpy.float16)
FAST = {"LUNA_LEASE_TIME": "600ms", "LUNA_LEASE_PING": "100ms",
        "LUNA_LEASE_DISCONNECT_GRACE": "1ms", "LUNA_LEASE_BACKOFF": "1ms",
        "LUNA_LEASE_LOST_LIMIT": "50"}


@pytest.fixture
def broker(bare):
    bare.start_broker(LUNA_LEASE_DISCONNECT_GRACE="1ms", LUNA_LEASE_BACKOFF="1ms")
    yield bare
    assert bare.broker.popen.poll() is None, "the broker is dead"
    assert bare.client.ping()


def submit(luna, **settings):
    receipt = luna.client.submit([wire.latent_input(LATENT)], vae="v", **settings)
    assert receipt["status"] == "accepted", receipt
    return wire.id_text(receipt["id"])


def image(index, by="one"):
    return {"input": 0, "index": index, "path": f"/out/{by}{index}.png", "bytes": 10 + index,
            "sha256": f"{index:064x}", "width": 64, "height": 64}


def both(by="one"):
    return [image(0, by), image(1, by)]


def files(luna, job):
    return [(f["index"], f["path"]) for f in luna.job(job).get("files", [])]


def settled(luna):
    """The broker has read what was sent before on this control socket."""
    luna.client.ping()


# ---- an attempt's messages in the wrong order, or too often --------------------------------

def test_done_before_its_progress(broker):
    job = submit(broker)
    with Hand(broker.endpoint, "one") as one:
        work = one.take()
        one.report("done", work, images=both())
        one.report("progress", work, stage="saved", images=[image(0)])
        one.ping()
        assert broker.wait_job(job)["images_done"] == 2
    assert files(broker, job) == [(0, "/out/one0.png"), (1, "/out/one1.png")]


def test_done_twice_and_failed_after_done(broker):
    job = submit(broker)
    with Hand(broker.endpoint, "one") as one:
        work = one.take()
        for _ in range(2):
            one.report("done", work, images=both())
        one.report("failed", work, error="io", detail="too late", retry=True)
        one.ping()
        info = broker.wait_job(job)
        one.report("done", work, images=both("again"))
        one.report("failed", work, error="device", detail="much too late")
        one.ping()
        assert broker.job(job) == info
        assert broker.status().get("completed") == 1
        other = submit(broker)  # and it is still a decoder
        one.report("done", one.take(), images=both())
        broker.wait_job(other)


def test_done_after_failed(broker):
    """The failure counts: the attempt is over. Its pictures are real all the same."""
    job = submit(broker)
    with Hand(broker.endpoint, "one") as one:
        work = one.take()
        one.report("failed", work, error="io", detail="first", retry=True)
        one.report("done", work, images=both())
        one.ping()
        assert broker.wait_job(job)["state"] == "completed"
        assert one.look(0.3) is None or one.look(0) is None
    assert len(files(broker, job)) == 2


def test_the_same_image_under_two_names(broker):
    """The first record stays."""
    job = submit(broker)
    with Hand(broker.endpoint, "one") as one:
        work = one.take()
        one.report("progress", work, stage="saved", images=[image(0), image(0, "again")])
        one.report("progress", work, stage="saved", images=[image(0, "later")])
        one.report("done", work, images=[image(0, "last"), image(1), image(1, "again")])
        broker.wait_job(job)
    assert files(broker, job) == [(0, "/out/one0.png"), (1, "/out/one1.png")]


def test_images_the_job_does_not_have(broker):
    """They are not counted: a job is completed by its own images only."""
    job = submit(broker)
    with Hand(broker.endpoint, "one") as one:
        work = one.take()
        one.report("progress", work, stage="saved",
                   images=[{**image(0), "index": 2}, {**image(0), "input": 4}])
        one.report("done", work, images=[image(0), {**image(1), "index": 4095}])
        again = one.take(deadline_s=3)
        assert again["attempt"] == 2
        assert [(d.get("input", 0), d.get("index", 0)) for d in again["done"]] == [(0, 0)]
        one.report("done", again, images=both())
        broker.wait_job(job)
    assert [index for index, _ in files(broker, job)] == [0, 1]


# ---- messages of attempts that are not theirs, or not any more ---------------------------

def test_done_of_another_decoders_attempt(broker):
    mine, theirs = submit(broker), submit(broker)
    with Hand(broker.endpoint, "one") as one, Hand(broker.endpoint, "two") as two:
        work, other = one.take(), two.take()
        for kind, fields in (("failed", {"error": "device", "detail": "not mine"}),
                             ("done", {"images": []}), ("progress", {"stage": "decoding"})):
            one.report(kind, other, **fields)
        one.ping()
        assert broker.job(wire.id_text(other["id"]))["state"] == "in_progress"
        two.report("done", other, images=both("two"))
        one.report("done", work, images=both())
        for job in (mine, theirs):
            assert broker.wait_job(job)["attempts"] == 1


@pytest.mark.parametrize("attempt", (0, 2, 2**32, 2**63))
def test_attempts_that_never_were(broker, attempt):
    job = submit(broker)
    with Hand(broker.endpoint, "one") as one:
        work = one.take()
        never = {**work, "attempt": attempt}
        one.report("progress", never, stage="saved", images=[image(0, "never")])
        one.report("failed", never, error="device", detail="never")
        one.report("done", never, images=both("never"))
        one.ping()
        assert broker.job(job)["state"] == "in_progress"
        one.report("done", work, images=both())
        broker.wait_job(job)
    assert files(broker, job) == [(0, "/out/one0.png"), (1, "/out/one1.png")]


def test_jobs_that_never_were(broker):
    with Hand(broker.endpoint, "one") as one:
        never = {"id": wire.new_id(), "attempt": 1, "epoch": one.welcome["epoch"]}
        one.report("progress", never, stage="saved", images=[image(0)])
        one.report("done", never, images=both())
        one.report("failed", never, error="device")
        assert one.ping()
    assert "jobs" not in broker.client.query("jobs")


def test_a_given_up_decoders_pictures_are_kept_and_nothing_else(bare):
    """One that was silent for a lease: its late words change no state, its pictures are
    recorded, and the new attempt is told not to make them again."""
    bare.start_broker(**FAST)
    job = submit(bare)
    one = Hand(bare.endpoint, "one")
    work = one.take()
    wait_for(lambda: "fell silent" in bare.broker.text(), "it is given up")
    with Hand(bare.endpoint, "two") as two:
        second = two.take()
        assert second["attempt"] == 2
        one.report("progress", work, stage="saved", images=[image(0)])
        one.report("failed", work, error="device", detail="too late")
        one.ping()
        wait_for(lambda: files(bare, job), "the picture is recorded")
        assert bare.job(job)["state"] == "in_progress"
        assert bare.job(job).get("refused", 0) == 0
        two.report("failed", second, error="io", detail="again, please", retry=True)
        third = two.take()
        assert [d.get("index", 0) for d in third["done"]] == [0]
        two.report("done", third, images=[image(1, "two")])
        bare.wait_job(job)
    one.close()
    assert files(bare, job) == [(0, "/out/one0.png"), (1, "/out/two1.png")]


def test_a_late_done_of_a_given_up_decoder_completes_the_waiting_job(bare):
    bare.start_broker(**FAST)
    job = submit(bare)
    one = Hand(bare.endpoint, "one")
    work = one.take()
    wait_for(lambda: bare.job(job)["state"] == "pending", "it is given back")
    one.report("done", work, images=both())
    assert bare.wait_job(job)["attempts"] == 1
    one.close()


def test_words_of_another_epoch(broker):
    """A broker's restart does not take an attempt away: (job, attempt) is what counts."""
    job = submit(broker)
    with Hand(broker.endpoint, "one") as one:
        work = one.take()
        one.report("done", {**work, "epoch": wire.new_id()}, images=both())
        assert broker.wait_job(job)["attempts"] == 1


def test_a_job_sent_many_times_is_one(broker):
    job_id = wire.new_id()
    body = broker.client.job([wire.latent_input(LATENT)], id=job_id, vae="v")
    for _ in range(50):
        broker.client.push(body)
    receipts = [broker.client.receive("receipt", id=job_id)]
    settled(broker)
    while broker.client.socket.poll(100):
        receipts.append(wire.unpack(broker.client.socket.recv()))
    assert {r["status"] for r in receipts} == {"accepted"}
    assert sum(not r.get("duplicate", False) for r in receipts) == 1
    assert len(broker.client.query("jobs")["jobs"]) == 1


def test_the_same_id_with_another_content(broker):
    """The first one was accepted, and it is what is decoded."""
    job_id = wire.new_id()
    first = wire.latent_input(LATENT)
    assert broker.client.submit([first], id=job_id, vae="v")["status"] == "accepted"
    other = wire.latent_input(numpy.ones((1, 4, 8, 8), numpy.float32))
    receipt = broker.client.submit([other], id=job_id, vae="w")
    assert receipt["status"] == "accepted" and receipt["duplicate"] and receipt["images"] == 2
    with Hand(broker.endpoint, "one") as one:
        assert wire.open_payload(one.take())["inputs"][0]["latent"] == first["latent"]


def test_an_offer_twice(broker):
    """Each is answered, and the job is stored once."""
    client, job_id = broker.client, wire.new_id()
    body = client.job([wire.latent_input(LATENT)], id=job_id, vae="v")
    for _ in range(2):
        client.send("offer", id=job_id, client=client.instance, bytes=len(body))
    answers = []
    while len(answers) < 2:
        assert client.socket.poll(5000), answers
        answers.append(wire.unpack(client.socket.recv()))
    if answers[0]["type"] == "answer":
        pytest.skip("this broker takes no offers")
    assert {a["status"] for a in answers} <= {"send", "busy", "accepted"}, answers
    assert answers[0]["status"] == "send"
    client.push(body)
    assert client.receive("receipt", id=job_id, status="accepted")
    client.send("offer", id=job_id, client=client.instance, bytes=len(body))
    assert client.receive("receipt", id=job_id)["status"] in ("accepted", "send")
    assert len(client.query("jobs")["jobs"]) == 1


# ---- peers that do not read ---------------------------------------------------------------

def resident_kib(luna):
    with open(f"/proc/{luna.broker.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def deaf_dealer(luna):
    """Connected, and never reads."""
    dealer = luna.client.context.socket(zmq.DEALER)
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.setsockopt(zmq.RCVHWM, 1)
    dealer.setsockopt(zmq.SNDHWM, 100000)
    dealer.connect(luna.endpoint)
    return dealer


def fill(luna, count):
    for _ in range(count):
        luna.client.push(luna.client.job([wire.latent_input(LATENT)], id=wire.new_id(), vae="v",
                                         prompt_id="p" * 1000))
    wait_for(lambda: luna.status().get("pending", 0) == count, "all jobs are in")


def test_a_client_that_never_reads_its_answers(bare):
    """Its job has many pictures with long paths, and it asks for them again and again: the
    answers pile up somewhere else than in the broker."""
    bare.start_broker()
    many = wire.latent_input(numpy.zeros((2000, 1, 1, 1), numpy.float16))
    receipt = bare.client.submit([many], vae="v")
    assert receipt["status"] == "accepted", receipt
    with Hand(bare.endpoint, "one") as one:
        one.report("done", one.take(), images=[
            {**image(0), "index": n, "path": f"/{n}/" + "p" * 2000} for n in range(2000)])
        bare.wait_job(wire.id_text(receipt["id"]))
    before, peak_mib, end = resident_kib(bare), 0, time.monotonic() + 5
    deaf = deaf_dealer(bare)
    for number in range(200):
        deaf.send(wire.pack("query", re=number + 1, what="job", id=receipt["id"]))
    while peak_mib < 400 and time.monotonic() < end:
        bare.client.ping()
        time.sleep(0.05)
        peak_mib = max(peak_mib, (resident_kib(bare) - before) >> 10)
    deaf.close()
    assert peak_mib < 400, f"{peak_mib} MiB for a client that does not read"


def test_a_watcher_that_never_reads(bare):
    bare.start_broker()
    deaf = bare.client.context.socket(zmq.SUB)
    deaf.setsockopt(zmq.LINGER, 0)
    deaf.setsockopt(zmq.RCVHWM, 1)
    deaf.connect(bare.client.welcome["events"])
    deaf.subscribe(b"")
    fill(bare, 300)
    before = resident_kib(bare)
    for _ in range(300):
        deaf.unsubscribe(b"job/")
        deaf.subscribe(b"job/")
    with Hand(bare.endpoint, "one") as one:
        for _ in range(300):
            one.report("done", one.take(), images=both())
    wait_for(lambda: bare.status().get("completed") == 300, "everything is done all the same")
    grown_mib = (resident_kib(bare) - before) >> 10
    deaf.close()
    assert grown_mib < 128, f"{grown_mib} MiB"


def test_a_decoder_that_connects_and_never_takes(bare):
    """Its credit is generous and its pipe stays full: bytes wait on the disk."""
    bare.start_broker(**FAST)
    large = wire.latent_input(numpy.zeros((8, 16, 128, 128), numpy.float16))  # 4 MiB
    for _ in range(40):
        receipt = bare.client.submit([large], vae="v")
        assert receipt["status"] == "accepted"
    before = resident_kib(bare)
    with wire.Decoder(bare.endpoint, "deaf", ["v"], credit_jobs=64, credit_bytes=1 << 30) as deaf:
        deaf.slot.setsockopt(zmq.RCVHWM, 1)
        for _ in range(15):
            deaf.send("ping", running=0, ticks=0)
            time.sleep(0.1)
        grown_mib = (resident_kib(bare) - before) >> 10
    assert grown_mib < 64, f"{grown_mib} MiB"
    with Hand(bare.endpoint, "one") as one:
        work = one.take()
        one.report("failed", work, error="device", detail="enough", retry=False)
        bare.wait_job(wire.id_text(work["id"]), "failed")
    assert bare.client.ping()


# ---- bytes that are no messages ------------------------------------------------------------

GREETING = (b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0"
            + bytes(31))


def command(name, body):
    frame = bytes([len(name)]) + name + body
    return struct.pack(">BB", 4, len(frame)) + frame


def ready(kind):
    return command(b"READY", b"\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind)


def raw(luna, name):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(5)
    connection.connect(str(luna.home / "run" / name))
    return connection


def send(connection, data):
    try:
        connection.sendall(data)
    except OSError:
        pass  # it was thrown out, which is right


SOCKETS = (("control", b"DEALER"), ("intake", b"PUSH"), ("events", b"SUB"))


def test_garbage_on_every_socket(broker):
    held = []
    for name, kind in SOCKETS:
        for data in (os.urandom(4096), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", GREETING[:20],
                     GREETING + os.urandom(500), GREETING + ready(kind) + os.urandom(500),
                     GREETING + ready(b"DEALER" * 30), b"\xff" * 64):
            connection = raw(broker, name)
            send(connection, data)
            held.append(connection)
    submit(broker)
    for connection in held:
        connection.close()


def test_half_a_message(broker):
    """Half a frame, and frames that announce more which never come: they are nobody's."""
    job = broker.client.job([wire.latent_input(LATENT)], id=wire.new_id(), vae="v")
    held = []
    for name, kind in SOCKETS:
        for data in (struct.pack(">BQ", 2, len(job)) + job[:100],
                     struct.pack(">BQ", 3, len(job)) + job,
                     struct.pack(">BQ", 2, 2**62), struct.pack(">BQ", 3, 2**63 + 5)):
            connection = raw(broker, name)
            send(connection, GREETING + ready(kind) + data)
            held.append(connection)
    submit(broker)
    for connection in held[::2]:
        connection.close()
    submit(broker)
    for connection in held:
        connection.close()
    assert len(broker.client.query("jobs")["jobs"]) == 2


def test_multipart_messages(broker):
    """A job is one frame: more behind it is dropped. On the control socket the last counts."""
    body = broker.client.job([wire.latent_input(LATENT)], id=wire.new_id(), vae="v")
    broker.client.intake.send_multipart([body, b"more", bytes(100000)])
    assert broker.client.receive("receipt")["status"] == "accepted"
    broker.client.intake.send_multipart([b"first", body])
    broker.client.socket.send_multipart([b"", wire.pack("ping")])
    assert broker.client.receive("pong")
    broker.client.socket.send_multipart([b"junk"] * 50 + [wire.pack("query", re=9, what="status")])
    assert broker.client.receive("answer", re=9)["status"]


def test_a_flood_of_hello_and_of_connections(bare):
    """Nobody reads the answers, each comes from another peer; decoders go on being served."""
    bare.start_broker()
    before = resident_kib(bare)
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 2000)
    peers = []
    for number in range(400):
        peer = context.socket(zmq.DEALER)
        peer.setsockopt(zmq.LINGER, 0)
        peer.setsockopt(zmq.RCVHWM, 1)
        peer.connect(bare.endpoint)
        for _ in range(25):
            peer.send(wire.pack("hello", role=("producer", "decoder")[number % 2],
                                instance=wire.new_routing_id(), name=f"n{number}", device="cpu"))
        peers.append(peer)
    job = submit(bare)

    def try_to_connect():  # `busy` until those that never came are given up
        try:
            return Hand(bare.endpoint, "one")
        except wire.WireError:
            return None
    with wait_for(try_to_connect, "a decoder is welcome") as one:
        one.report("done", one.take(), images=both())
        bare.wait_job(job)
    grown_mib = (resident_kib(bare) - before) >> 10
    context.destroy(linger=0)
    assert grown_mib < 400, f"{grown_mib} MiB"
    wait_for(lambda: bare.client.ping(), "it goes on")
