"""Peers and programs that break the rules: the broker answers and goes on."""

import resource
import sqlite3
import time

import msgpack
import numpy
import pytest
import wire
import zmq
from luna import wait_for
from patience import SANITIZER

LATENT = numpy.zeros((1, 4, 8, 8), dtype=numpy.float16)


def submit(luna):
    receipt = luna.client.submit([wire.latent_input(LATENT)], vae="v")
    assert receipt["status"] == "accepted", receipt
    return luna.expect(wire.id_text(receipt["id"]), "failed")


def test_a_locked_database_delays_an_end_and_loses_none(home):
    """Another program holds the database's lock while a job ends."""
    home.start_broker()
    with wire.Decoder(home.endpoint, "stand-in", ["v"], maps_payload=True) as decoder:
        job = submit(home)
        work = decoder.take()
        database = sqlite3.connect(home.home / "state" / "luna.db", isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        decoder.report("failed", work, error="bad_latent", detail="as the test wants it")
        wait_for(lambda: "store_failed" in home.broker.text(), "the end was not stored")
        assert home.job(job)["state"] == "in_progress"
        database.execute("ROLLBACK")
        database.close()
        assert home.wait_job(job, "failed")["error"] == "bad_latent"


def test_more_decoders_than_descriptors(home):
    """Out of descriptors ZeroMQ would end the process: hello is answered `busy` before."""
    home.start_broker()
    resource.prlimit(home.broker.pid, resource.RLIMIT_NOFILE, (256, 256))
    decoders, refused = [], None
    while refused is None:
        assert len(decoders) < 64, "no hello was refused"
        name = f"d{len(decoders)}"
        with wire.Peer(home.endpoint, "producer") as peer:
            peer.send("hello", role="decoder", instance=peer.instance, name=name,
                      device="cpu")
            wait_for(lambda: peer.socket.poll(0), "hello is answered")
            answer = wire.unpack(peer.socket.recv())
        if answer["type"] == "welcome":
            decoders.append(wire.Decoder(home.endpoint, name, ["v"]))
        else:
            refused = answer
    for decoder in decoders:
        decoder.close()
    assert refused["error"] == "busy" and "descriptors" in refused["detail"], refused
    assert len(decoders) > 8


def test_more_decoders_than_zeromq_counts_sockets(home):
    """At ZeroMQ's own limit CZMQ would end the process."""
    home.start_broker(ZSYS_MAX_SOCKETS="40")
    decoders = [wire.Decoder(home.endpoint, f"d{number}", ["v"]) for number in range(40)]
    assert home.client.ping()
    for decoder in decoders:
        decoder.close()


def test_every_hello_is_welcome(home):
    """A decoder that says hello again and again: each closes a slot and opens another."""
    home.start_broker()
    with wire.Peer(home.endpoint, "producer") as peer:
        for _ in range(300):
            peer.send("hello", role="decoder", instance=peer.instance, name="d", device="cpu")
        slots = {peer.receive("welcome")["slot"] for _ in range(300)}
    assert len(slots) == 300


@pytest.mark.skipif(SANITIZER is not None, reason="sanitizers keep freed memory")
def test_large_messages_of_one_peer_do_not_pile_up(home):
    """What the broker has not read yet waits at the sender, not in the broker."""
    home.start_broker()
    large = msgpack.packb({"luna": 1, "type": "done", "x": [0] * 3_900_000,
                           "y": bytes(12_000_000)})
    flood = home.client.context.socket(zmq.DEALER)
    flood.setsockopt(zmq.LINGER, 0)
    flood.setsockopt(zmq.SNDHWM, 8)
    flood.connect(home.endpoint)
    for _ in range(80):
        flood.send(large)
    assert home.client.ping()
    with open(f"/proc/{home.broker.pid}/status") as status:
        peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    flood.close()
    assert peak_kib < 512 << 10, f"{peak_kib} KiB"


def test_peers_that_leave_what_was_not_read(home):
    """They close their sockets while the broker has more of them than it can take in."""
    home.start_broker()
    slow = msgpack.packb({"luna": 1, "type": "done", "x": [0] * 3_900_000})
    peers = [home.client.context.socket(zmq.DEALER) for _ in range(4)]
    for peer in peers:
        peer.setsockopt(zmq.LINGER, 0)
        peer.setsockopt(zmq.SNDHWM, 8)
        peer.connect(home.endpoint)
    for _ in range(4 if SANITIZER else 40):
        for peer in peers:
            peer.send(slow)
    for peer in peers:
        peer.close()
    for _ in range(8):
        assert home.client.ping()
        time.sleep(0.5)


def test_what_the_broker_quotes_is_utf8(home):
    home.start_broker()
    job = home.client.job([wire.latent_input(LATENT)], id=wire.new_id(), vae="v")
    home.client.push(job.replace(b"\xa4type\xa3job", b"\xa4type\xa3j\xe9b"))
    receipt = home.client.receive("receipt")
    assert (receipt["status"], receipt["error"]) == ("refused", "protocol")
    assert "j?b" in receipt["detail"]
