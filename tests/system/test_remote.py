"""A broker that serves other machines: encrypted, and for those whose key it lists.

The other machine is a second LUNA_HOME; what it shares with the broker's is the output folder.
"""

import json
import os
import random
import re
import resource
import select
import socket
import struct
import threading

import numpy
import pytest
import wire
import zmq
from files import VAE, batch, photograph, write_latent
from luna import LIBRARY, wait_for
from outbox_producer import new_job
from patience import patient
from test_strangers import conversation, frame, say
from zmq.utils.monitor import recv_monitor_message

PORTS = 103
LATENT = numpy.zeros((1, 4, 8, 8), dtype=numpy.float16)
QUICK = {"LUNA_LEASE_DISCONNECT_GRACE": "0ms"}


def all_free(first):
    held = []
    try:
        for port in range(first, first + PORTS):
            held.append(socket.socket())
            held[-1].bind(("127.0.0.1", port))
        return True
    except OSError:
        return False
    finally:
        for one in held:
            one.close()


def free_ports():
    """The first of 103, below those that the system gives away itself."""
    for _ in range(100):
        first = random.randrange(12_000, 32_000)
        if all_free(first):
            return first
    raise AssertionError("no free range of ports")


class Other:
    """Another machine, for which the broker of `luna` listens."""

    def __init__(self, luna):
        self.luna = luna
        self.home = luna.home / "other"
        self.port = free_ports()
        self.listen = f"tcp://127.0.0.1:{self.port}"
        self.list = luna.home / "state" / "allowed_keys"
        luna.env.update(QUICK, LUNA_BROKER_REMOTE=self.listen)
        luna.start_broker()
        self.address = re.search(r"address=(\S+\?key=[0-9a-f]{64})", luna.broker.text()).group(1)
        self.key = self.address.partition("?key=")[2]
        self.at(self.address)

    def at(self, address):
        self.env = {"LUNA_HOME": str(self.home), "LUNA_BROKER": address}

    def lunactl(self, *args):
        return self.luna.lunactl(*args, **self.env)

    def own_key(self):
        done = self.lunactl("key")
        assert done.code == 0 and re.fullmatch(r"[0-9a-f]{64}\n", done.out), done
        return done.out.strip()

    def allow(self, *keys):
        """Nobody but these, as of now."""
        new = self.list.with_suffix(".new")
        new.write_text("# the list\n" + "".join(f"{key} of a test\n" for key in keys))
        os.replace(new, self.list)

    def start_decoder(self, name="there", ready=True):
        return self.luna.start_decoder(name, ready, **self.env)

    def new_keys(self):
        keys = wire.Keys()
        self.allow(keys.text)
        return keys


@pytest.fixture
def other(home):
    return Other(home)


@pytest.fixture
def friend(other):
    """The other machine, whose key the broker lists."""
    other.allow(other.own_key())
    return other


def small(luna, count=1):
    return write_latent(luna.home / f"{count}.latent", batch(count, 16))


# ---- who may come in --------------------------------------------------------------------


def test_who_is_not_listed_is_told_which_key_to_list(home, other):
    done = other.lunactl("--broker", other.address, "status")
    own = other.own_key()
    assert done.code == 69 and not done.out, done
    assert done.err.count("\n") == 1 and own in done.err, done
    refused = re.findall(r"remote_refused address=(\S+) key=(\S+)", home.broker.text())
    assert refused == [("127.0.0.1", own)], home.broker.text()
    other.allow(wire.Keys().text, own)
    done = other.lunactl("--broker", other.address, "status")
    assert done.code == 0 and not done.err, done
    other.allow(wire.Keys().text)
    assert other.lunactl("status").code == 69


def test_a_decoder_that_waits_to_be_listed(home, other):
    decoder = other.start_decoder(ready=False)
    own = other.own_key()
    wait_for(lambda: own in home.broker.text(), "the broker refuses the decoder")
    assert own in decoder.text()
    assert home.decoder_list() == []
    other.allow(own)
    wait_for(lambda: home._is_ready(decoder), "the decoder is in")
    home.submit_wait(small(home))


@pytest.mark.parametrize("line", ["{0}", "{0} # name", "{1}", "\n\n{0}", "{0}\r\nnonsense"])
def test_a_line_of_the_list(home, other, line):
    own = other.own_key()
    other.list.write_text("# keys\n" + line.format(own, own.upper()))
    assert other.lunactl("status").code == 0


@pytest.mark.parametrize("line", ["# {0}", "{1}"])
def test_a_line_that_lists_nobody(home, other, line):
    own = other.own_key()
    other.list.write_text(line.format(own, own[:63]))
    assert other.lunactl("status").code == 69


# ---- the whole path -----------------------------------------------------------------------


def drained(luna, name):
    return any(d["name"] == name and d["state"] == "draining" for d in luna.decoder_list())


def decoded_by(luna, name, submit):
    """The job of `submit` while the other decoder takes nothing."""
    idle = {"here": "there", "there": "here"}[name]
    assert luna.lunactl("drain", idle).code == 0
    wait_for(lambda: drained(luna, idle), f"{idle} is drained")
    job = submit()
    assert luna.wait_job(job)["decoder"] == name
    assert luna.lunactl("resume", idle).code == 0
    wait_for(lambda: not drained(luna, idle), f"{idle} is back")


def test_everything_from_another_machine(home, friend):
    home.start_decoder("here")
    friend.start_decoder("there")

    def from_there():
        done = friend.lunactl("submit", "--latents", photograph("chelsea"), "--vae", VAE,
                              "--output-dir", home.output, "--wait")
        assert done.code == 0, done
        job, path = done.out.splitlines()
        assert os.path.exists(path)
        return home.expect(job)

    def from_here():
        return home.submit_wait(small(home))[0]

    for submit in (from_there, from_here):
        for name in ("here", "there"):
            decoded_by(home, name, submit)
    line = json.loads(friend.lunactl("--json", "top", "--once").out)
    assert line["status"]["completed"] == 4, line
    names = {d["name"] for d in json.loads(friend.lunactl("--json", "decoders").out)}
    assert names == {"here", "there"}
    assert home.lunactl("status").code == 0
    assert not (friend.home / "state" / "broker.key").exists()
    assert not (home.home / "state" / "client.key").exists()


def test_events_reach_both_machines(home, other):
    """The same ones, numbered without a gap."""
    keys = other.new_keys()
    with wire.Producer(other.address, keys=keys) as there:
        subscribers = [wire.Subscriber(there, ""), wire.Subscriber(home.client, "")]
        for subscriber in subscribers:
            for _ in range(2):  # that of the jobs comes last
                assert subscriber.next()[1]["kind"] == "snapshot"
        home.start_decoder("here")
        job = there.submit([wire.latent_input(batch(1))], vae=VAE)["id"]
        home.expect(wire.id_text(job))
        told = [[], []]
        for subscriber, events in zip(subscribers, told):
            while not (events and events[-1][1] == "completed"):
                topic, event = subscriber.next()
                if event["kind"] != "snapshot":
                    events.append((event["seq"], event["kind"], topic))
    assert told[0] == told[1]
    seqs = [seq for seq, _, _ in told[0]]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert f"job/{wire.id_text(job)}" in {topic for _, _, topic in told[0]}


def test_a_payload_that_cannot_be_mapped_crosses_the_wire(home, other):
    keys = other.new_keys()
    array = numpy.random.default_rng(1).standard_normal((4, 32, 128, 128), numpy.float32)
    with wire.Producer(other.address, keys=keys) as producer, \
            wire.Decoder(other.address, "stand-in", ["v"], keys=keys) as decoder:
        assert producer.welcome["intake"] == f"tcp://*:{other.port + 1}"
        assert decoder.welcome["slot"] == f"tcp://*:{other.port + 3}"
        receipt = producer.submit([wire.latent_input(array)], vae="v")
        assert receipt["status"] == "accepted", receipt
        job = home.expect(wire.id_text(receipt["id"]), "failed")
        work = decoder.take()
        assert "payload_path" not in work
        assert wire.open_payload(work)["inputs"][0]["latent"] == array.tobytes()
        decoder.report("failed", work, error="bad_latent", detail="as the test wants it")
        home.wait_job(job, "failed")


# ---- strangers ----------------------------------------------------------------------------

CONTROL, INTAKE, EVENTS, SLOT = range(4)
KINDS = {CONTROL: zmq.DEALER, INTAKE: zmq.PUSH, EVENTS: zmq.SUB, SLOT: zmq.PULL}
OUTCOMES = (zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_DISCONNECTED)


class Stranger:
    """A ZeroMQ socket that has or has not got in."""

    def __init__(self, context, other, offset, encrypt):
        self.socket = context.socket(KINDS[offset])
        self.socket.setsockopt(zmq.LINGER, 0)
        encrypt(self.socket)
        self.monitor = self.socket.get_monitor_socket(OUTCOMES)
        if offset == EVENTS:
            self.socket.subscribe("")
        self.socket.connect(f"tcp://127.0.0.1:{other.port + offset}")

    def is_in(self, decoder):
        """The decoder, at whose slot the stranger may be, must not fall silent meanwhile."""
        wait_for(lambda: decoder.ping() and self.monitor.poll(10), "ZeroMQ tells how it went")
        return recv_monitor_message(self.monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED

    def speak(self, offset):
        """What a peer would say here, though nobody may read it."""
        hello = wire.pack("hello", role="producer", instance=wire.new_routing_id(), name="x")
        job = wire.pack("job", id=wire.new_id(), client=wire.new_routing_id(), created_ms=1,
                        vae="v", inputs=[wire.latent_input(LATENT)])
        if offset in (CONTROL, INTAKE):
            try:
                self.socket.send({CONTROL: hello, INTAKE: job}[offset], zmq.DONTWAIT)
            except zmq.Again:
                pass

    def heard(self):
        return KINDS[INTAKE] != self.socket.type and self.socket.poll(0)


def without_keys(_socket, _other):
    pass


def with_a_key_of_its_own(socket, other):
    wire.Keys().encrypt(socket, other.key)


def for_another_broker(socket, other):
    other.keys.encrypt(socket, wire.Keys().text)


def listed(socket, other):
    other.keys.encrypt(socket, other.key)


@pytest.mark.parametrize("encrypt, let_in", [
    (without_keys, False), (with_a_key_of_its_own, False), (for_another_broker, False),
    (listed, True)])
def test_strangers_hear_nothing(home, other, encrypt, let_in):
    """While a decoder and a subscriber who are listed get all there is."""
    other.keys = other.new_keys()
    with wire.Decoder(other.address, "stand-in", ["v"], credit_jobs=8, keys=other.keys) as decoder:
        events = wire.Subscriber(decoder, "job/")
        events.next()  # the snapshot
        strangers = {}
        for offset in (CONTROL, INTAKE, EVENTS) if let_in else KINDS:
            strangers[offset] = Stranger(decoder.context, other, offset,
                                         lambda socket: encrypt(socket, other))
            if not let_in:
                strangers[offset].speak(offset)
        assert [one.is_in(decoder) for one in strangers.values()] == [let_in] * len(strangers)
        receipts = [home.client.submit([wire.latent_input(LATENT)], vae="v") for _ in range(8)]
        jobs = {home.expect(wire.id_text(one["id"]), "failed") for one in receipts}
        taken = [decoder.take() for _ in range(8)]
        assert {wire.id_text(work["id"]) for work in taken} == jobs
        for work in taken:
            decoder.report("failed", work, error="bad_latent", detail="as the test wants it")
        ended = set()
        while ended != jobs:
            topic, event = events.next()
            if event["kind"] == "failed":
                ended.add(topic.partition("/")[2])
        assert decoder.ping() and home.client.ping()
        heard = {offset for offset, one in strangers.items() if one.heard()}
        assert heard == ({EVENTS} if let_in else set())


def test_another_brokers_key(home, friend):
    done = friend.lunactl("--broker", f"{friend.listen}?key={wire.Keys().text}", "status")
    assert done.code == 69 and done.err.count("\n") == 1 and not done.out, done
    assert "remote_refused" not in home.broker.text()


CURVE = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)


def curve_words(rng):
    """A CURVE peer's greeting and commands, of about the right length, with random bytes."""
    hello = b"\x05HELLO\x01\x00" + bytes(72) + rng.randbytes(120 + rng.choice((0, 0, 0, -1, 1)))
    initiate = b"\x08INITIATE" + rng.randbytes(rng.choice((0, 95, 104, 248, 600)))
    message = b"\x07MESSAGE" + rng.randbytes(rng.choice((0, 8, 33, 300)))
    words = [frame(4 if len(body) < 256 else 6, body) for body in (hello, initiate, message)]
    return CURVE + b"".join(words[rng.randrange(2):rng.randrange(1, 4)])


def talk(port, rng):
    with socket.socket() as stranger:
        stranger.settimeout(5)
        stranger.connect(("127.0.0.1", port))
        text = curve_words(rng) if rng.random() < 0.5 else conversation(rng)
        say(stranger, text.replace(b"NULL\0", b"CURVE") if rng.random() < 0.3 else text, rng)


@pytest.mark.parametrize("seed", (1, 2, 3))
def test_bytes_that_are_not_zeromq(home, other, seed):
    keys = other.new_keys()
    with wire.Decoder(other.address, "stand-in", ["v"], keys=keys) as decoder:
        before = home.broker.text()
        rng = random.Random(seed)
        for number in range(400):
            talk(other.port + rng.randrange(4), rng)
            if number % 20 == 0:
                decoder.ping()
        assert decoder.ping()["order"] == "run" and home.client.ping()
    told = home.broker.text()[len(before):].splitlines()
    assert [line for line in told if "decoder_" not in line] == []
    assert all(re.match(r"[\d:.]+ luna-broker \w+: \w+ ", line) for line in told), told


def knock(port):
    """Comes and goes at once, with a reset."""
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stranger.connect(("127.0.0.1", port))


def babble(port):
    """Until the broker has closed its side."""
    with socket.socket() as stranger:
        stranger.settimeout(patient(10))
        stranger.connect(("127.0.0.1", port))
        stranger.sendall(bytes(64))
        try:
            while stranger.recv(4096):
                pass
        except ConnectionResetError:
            pass


def test_a_stranger_at_the_slot_takes_no_job_away(home, other):
    keys = other.new_keys()
    with wire.Decoder(other.address, "stand-in", ["v"], keys=keys) as decoder:
        receipt = home.client.submit([wire.latent_input(LATENT)], vae="v")
        job = home.expect(wire.id_text(receipt["id"]), "failed")
        work = decoder.take()
        for _ in range(100):
            knock(other.port + 3)
            babble(other.port + 3)
            assert decoder.ping()["order"] == "run"
        assert [d["state"] for d in home.decoder_list()] == ["busy"]
        assert home.job(job)["state"] == "in_progress"
        decoder.report("failed", work, error="bad_latent", detail="as the test wants it")
        info = home.wait_job(job, "failed")
        assert (info["attempts"], info.get("lost", 0)) == (1, 0)
        again = home.client.submit([wire.latent_input(LATENT)], vae="v")
        home.expect(wire.id_text(again["id"]), "failed")
        decoder.report("failed", decoder.take(), error="bad_latent", detail="this one too")
        home.wait_job(wire.id_text(again["id"]), "failed")


def crowd(luna, port, strangers):
    """Some more strangers that say nothing; whether the broker has shut its door."""
    for _ in range(40):
        try:
            strangers.append(socket.create_connection(("127.0.0.1", port), timeout=1))
        except OSError:
            break  # it is shut
    return "remote_shut" in luna.broker.text()


@pytest.mark.parametrize("slot", (False, True))
def test_more_strangers_than_descriptors(home, friend, slot):
    """This machine and whoever is in notice nothing, and the door opens again."""
    friend.start_decoder()
    resource.prlimit(home.broker.pid, resource.RLIMIT_NOFILE, (512, 512))
    strangers = []
    try:
        wait_for(lambda: crowd(home, friend.port + (3 if slot else 0), strangers), "the door is shut")
        assert home.lunactl("status").code == 0
        home.submit_wait(small(home))  # the decoder is in
    finally:
        for one in strangers:
            one.close()
    wait_for(lambda: "remote_open" in home.broker.text(), "the door is open")
    assert friend.lunactl("status").code == 0
    friend.start_decoder("later")


# ---- whatever dies --------------------------------------------------------------------------


def test_a_killed_decoder_of_another_machine(home, friend):
    friend.start_decoder("there")
    job = home.submit(write_latent(home.home / "batch.latent", batch(12, 40)))
    home.wait_images(job)
    home.start_decoder("here")
    home.decoders["there"].kill()
    assert home.job(job)["state"] != "completed", "too fast to be killed in the middle"
    info = home.wait_job(job)
    assert (info["attempts"], info["lost"], info["decoder"]) == (2, 1, "here")
    assert len(info["files"]) == 12


@pytest.fixture
def client(home, friend, monkeypatch):
    """libluna on the other machine."""
    made = []

    def make():
        monkeypatch.setenv("LUNA_HOME", str(friend.home))
        monkeypatch.setenv("LUNA_LIBRARY", str(LIBRARY))
        import luna_client
        made.append(luna_client.Client(friend.env["LUNA_BROKER"]))
        made[-1].wait_available(patient(10_000))
        return made[-1]

    yield make
    for one in made:
        one.close(0)


def test_a_restart_of_the_broker(home, friend, client):
    """The same key, so both come back by themselves."""
    there = friend.start_decoder("there")
    producer = client()
    home.broker.kill()
    array = batch(2)
    jobs = [producer.submit(new_job(producer, array, home.output)) for _ in range(3)]
    home.start_broker()
    assert friend.address in home.broker.text()
    for job in jobs:
        producer.wait_receipt(job, patient(20_000))
        home.expect(job)
        producer.wait_job(job, patient(20_000))
        assert home.job(job)["decoder"] == "there"
    assert there.popen.poll() is None


class Cable:
    """What leads to the broker's ports, on an address of its own; may be cut."""

    def __init__(self, port, count=23, host="127.0.0.2"):
        self.pairs, self.lock, self.stopped = [], threading.Lock(), False
        self.listeners = [socket.create_server((host, port + i)) for i in range(count)]
        self.threads = [threading.Thread(target=self._accept, args=(one,), daemon=True)
                        for one in self.listeners]
        for thread in self.threads:
            thread.start()

    def _accept(self, listener):
        while True:
            ready, _, _ = select.select([listener], [], [], 0.1)
            if self.stopped:
                return
            if ready:
                self._join(listener.accept()[0])

    def _join(self, near):
        try:
            far = socket.create_connection(("127.0.0.1", near.getsockname()[1]))
        except OSError:  # a slot that is gone
            near.close()
            return
        with self.lock:
            self.pairs.append((near, far))
        for source, target in ((near, far), (far, near)):
            threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    @staticmethod
    def _carry(source, target):
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        with self.lock:
            for pair in self.pairs:
                for one in pair:
                    try:
                        one.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass

    def close(self):
        self.stopped = True
        for thread in self.threads:
            thread.join()
        self.cut()
        for one in self.listeners:
            one.close()


@pytest.fixture
def cable(friend):
    """The friend's way to the broker from now on."""
    cable = Cable(friend.port)
    friend.at(friend.address.replace("127.0.0.1", "127.0.0.2"))
    yield cable
    cable.close()


def work_again(home, producer):
    """A job goes from the other machine to the other machine."""
    array = batch(1)
    job = producer.submit(new_job(producer, array, home.output))
    producer.wait_receipt(job, patient(20_000))
    home.expect(job)
    producer.wait_job(job, patient(20_000))


def test_a_cut_connection(home, friend, cable, client):
    friend.start_decoder("there")
    producer = client()
    for _ in range(3):
        work_again(home, producer)
        cable.cut()
    work_again(home, producer)


def test_a_key_that_is_struck_off_and_listed_again(home, friend, cable, client):
    """Struck off it is refused as soon as it connects again; listed again, all goes on."""
    friend.start_decoder("there")
    producer = client()
    work_again(home, producer)
    friend.allow()
    cable.cut()
    wait_for(lambda: "remote_refused" in home.broker.text(), "the broker refuses the key")
    wait_for(lambda: home.decoder_list() == [] or home.decoder_list()[0]["state"] == "lost",
             "the decoder is given up")
    friend.allow(friend.own_key())
    work_again(home, producer)


# ---- settings -------------------------------------------------------------------------------

KEY = "0123456789abcdef" * 4


@pytest.mark.parametrize("remote", [
    "tcp://0.0.0.0", "tcp://0.0.0.0:0", "tcp://0.0.0.0:65434", "tcp://0.0.0.0:port",
    "tcp://0.0.0.0:-1", "ipc:///tmp/remote", "0.0.0.0:19290"])
def test_a_wrong_remote_setting(home, remote):
    done = home.run("luna-broker", "--check-config", LUNA_BROKER_REMOTE=remote)
    assert done.code == 78 and done.err.count("\n") == 1 and not done.out, done
    assert "[broker] remote" in done.err, done


def test_the_last_port_of_a_remote_setting(home):
    done = home.run("luna-broker", "--check-config", LUNA_BROKER_REMOTE="tcp://0.0.0.0:65433")
    assert done.code == 0, done


@pytest.mark.parametrize("program, env", [
    ("luna-decoder", "LUNA_DECODER_BROKER"), ("lunactl", "LUNA_BROKER")])
@pytest.mark.parametrize("address", [
    "tcp://10.0.0.1:1234", f"tcp://10.0.0.1:1234?key={KEY[:63]}", f"tcp://10.0.0.1?key={KEY}",
    f"tcp://10.0.0.1:1234?key={KEY}0", f"tcp://10.0.0.1:1234?key={KEY[:63]}g",
    f"ipc:///tmp/control?key={KEY}"],
    ids=["no key", "63 digits", "no port", "65 digits", "no digit", "ipc"])
def test_a_wrong_address(home, program, env, address):
    command = {"luna-decoder": ["--check-config"], "lunactl": ["status"]}[program]
    done = home.run(program, *command, **{env: address})
    assert done.code == 78 and done.err.count("\n") == 1 and not done.out, done
    assert address in done.err, done


def key_file(path, text, mode):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("text, mode", [
    (f"{KEY}\n", 0o644), (f"{KEY}\n", 0o640), (f"{KEY[:63]}\n", 0o600), ("", 0o600)],
    ids=["read by all", "read by the group", "63 digits", "empty"])
@pytest.mark.parametrize("program", ["luna-broker", "luna-decoder", "lunactl"])
def test_a_key_file_that_is_none(home, program, text, mode):
    name = "broker.key" if program == "luna-broker" else "client.key"
    path = key_file(home.home / "state" / name, text, mode)
    args = {"luna-broker": [], "luna-decoder": ["--device", "cpu"], "lunactl": ["status"]}[program]
    done = home.run(program, *args, LUNA_BROKER_REMOTE=f"tcp://127.0.0.1:{free_ports()}",
                    LUNA_BROKER=f"tcp://127.0.0.1:9?key={KEY}")
    assert done.code == 78 and not done.out, done
    told = [line for line in done.err.splitlines() if str(path) in line]
    assert len(told) == 1, done
    assert path.read_text() == text


def test_keys_are_made_for_their_owner_alone(home, friend):
    for path in (home.home / "state" / "broker.key", friend.home / "state" / "client.key"):
        assert path.stat().st_mode & 0o777 == 0o600
    named = friend.home / "elsewhere" / "my.key"
    done = home.lunactl("key", **friend.env, LUNA_KEY_FILE=str(named))
    assert done.code == 0 and done.out.strip() != friend.own_key(), done
    assert named.stat().st_mode & 0o777 == 0o600


def test_a_port_that_is_in_use(home):
    port = free_ports()
    with socket.create_server(("127.0.0.1", port + 1)):
        done = home.run("luna-broker", LUNA_BROKER_REMOTE=f"tcp://127.0.0.1:{port}")
    assert done.code not in (0, -6, -11) and not done.out, done
    assert len([line for line in done.err.splitlines() if str(port + 1) in line]) == 1, done
