"""Damaged files: the job they belong to fails alone, with a reason; the rest goes on."""

import random
import shutil

import numpy
import pytest
import wire
from files import VAE, batch
from luna import wait_for
from peers import Hand

LATENT = numpy.zeros((1, 4, 8, 8), dtype=numpy.float16)
HEADER_BYTES = 64


def submit(luna, count, vae="v", **settings):
    """Ids of so many small jobs."""
    ids = []
    for _ in range(count):
        receipt = luna.client.submit([wire.latent_input(LATENT)], vae=vae, **settings)
        assert receipt["status"] == "accepted", receipt
        ids.append(wire.id_text(receipt["id"]))
    return ids


def ready(luna):
    return luna.home / "state" / "spool" / "ready"


def quarantine(luna):
    return luna.home / "state" / "spool" / "quarantine"


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def make_longer(path):
    path.write_bytes(path.read_bytes() + bytes(100))


def flip_magic(path):
    flip(path, 3)


def flip_id(path):
    flip(path, 20)


def remove(path):
    path.unlink()


def make_folder(path):
    path.unlink()
    path.mkdir()


WHAT_THE_HEADER_SHOWS = [cut_short, empty, make_longer, flip_magic, flip_id, remove,
                         make_folder]


def finish(luna, ids):
    """A decoder that takes every job and completes it; the ids it was sent."""
    taken = []
    with wire.Decoder(luna.endpoint, "stand-in", ["v"]) as decoder:
        while any(luna.job(job)["state"] in ("pending", "in_progress") for job in ids):
            if not decoder.slot.poll(50):
                continue
            work = wire.unpack(decoder.slot.recv())
            taken.append(wire.id_text(work["id"]))
            decoder.report("done", work, images=[
                {"input": 0, "index": 0, "path": f"/x/{len(taken)}.png", "bytes": 1,
                 "sha256": "0" * 64, "width": 8, "height": 8}])
    return taken


@pytest.mark.parametrize("damage", WHAT_THE_HEADER_SHOWS)
def test_a_payload_damaged_while_the_broker_is_down(bare, damage):
    bare.start_broker()
    ids = submit(bare, 3)
    bare.broker.kill()
    damage(ready(bare) / ids[1])
    bare.start_broker()
    info = bare.job(ids[1])
    assert (info["state"], info["error"]) == ("failed", "io"), info
    assert "payload" in info["detail"] or ids[1] in info["detail"], info
    assert [p.name for p in quarantine(bare).iterdir()] == ([] if damage is remove else [ids[1]])
    assert sorted(finish(bare, ids)) == sorted([ids[0], ids[2]])
    assert bare.client.order("retry", wire.id_bytes(ids[1]))["error"] == "not_found"


@pytest.mark.parametrize("damage", WHAT_THE_HEADER_SHOWS)
def test_a_payload_damaged_before_it_is_dispatched(bare, damage):
    """The bytes go to this decoder through the broker, which reads them then."""
    bare.start_broker()
    ids = submit(bare, 3)
    damage(ready(bare) / ids[1])
    assert sorted(finish(bare, ids)) == sorted([ids[0], ids[2]])
    info = bare.job(ids[1])
    assert info["state"] == "failed" and info["error"] in ("io", "not_found"), info
    assert info["detail"], info
    assert "error" in bare.client.order("retry", wire.id_bytes(ids[1]))
    assert bare.client.ping()


@pytest.mark.parametrize("down", (True, False), ids=("while-down", "while-running"))
def test_a_flipped_bit_in_the_latents_is_never_decoded(home, down):
    """Only the checksum tells; the decoder looks at it, and nothing of it becomes a picture."""
    home.start_broker()
    latent = batch(1, 4)
    ids = []
    for _ in range(3):
        receipt = home.client.submit([wire.latent_input(latent)], vae=VAE,
                                     output_dir=str(home.output))
        ids.append(wire.id_text(receipt["id"]))
    if down:
        home.broker.kill()
    flip(ready(home) / ids[1], HEADER_BYTES + 300)
    if down:
        home.start_broker()
    home.start_decoder("one")
    for number, job in enumerate(ids):
        home.wait_job(home.expect(job, "failed" if number == 1 else "completed"),
                      "failed" if number == 1 else "completed")
    info = home.job(ids[1])
    assert "damaged" in info["detail"] or "checksum" in info["detail"], info
    assert not info.get("files")


def test_strange_files_in_the_spool_are_set_aside(bare):
    bare.start_broker()
    ids = submit(bare, 1)
    bare.broker.kill()
    stranger = wire.id_text(wire.new_id())
    torn = wire.id_text(wire.new_id())
    (ready(bare) / "README").write_text("what is this?")
    (ready(bare) / ids[0].upper()).write_bytes((ready(bare) / ids[0]).read_bytes())
    (ready(bare) / stranger).write_bytes((ready(bare) / ids[0]).read_bytes())
    (ready(bare) / torn).write_bytes((ready(bare) / ids[0]).read_bytes()[:200])
    (ready(bare).parent / "tmp" / "half").write_bytes(b"half")
    bare.start_broker()
    assert {p.name for p in quarantine(bare).iterdir()} == {"README", ids[0].upper(), stranger,
                                                             torn}
    assert not list((ready(bare).parent / "tmp").iterdir())
    assert finish(bare, ids) == ids
    assert len(bare.client.query("jobs")["jobs"]) == 1


def test_something_else_in_the_place_of_a_socket(bare):
    """The sentence tells what is in the way, not of another broker."""
    (bare.home / "run" / "control").mkdir(parents=True)
    done = bare.run("luna-broker", deadline_s=20)
    assert done.code == 73, done
    assert f"{bare.home}/run/control" in done.err and "another broker" not in done.err, done


# ---- the database -----------------------------------------------------------------------

def start_or_refuse(luna):
    """True when it serves. Else it has said in one line what is wrong, and ended with 74."""
    process = luna._start("broker", "luna-broker", LUNA_LEASE_ADOPT="20ms")
    luna.broker = process
    wait_for(lambda: process.popen.poll() is not None or " ready " in process.text(),
             "the broker serves or ends")
    if process.popen.poll() is None:
        wait_for(lambda: luna.status(), "it answers")
        return True
    process.ended = True
    last = process.text().strip().splitlines()[-1]
    assert process.popen.returncode in (69, 74), (process.popen.returncode, last)
    assert last.startswith("luna-broker: ") and "luna.db" in last, last
    return False


def set_database_aside(luna):
    for path in (luna.home / "state").glob("luna.db*"):
        path.unlink()


def prepare(luna, kept):
    """A folder with jobs in every state, copied to `kept`; (active, ended) ids."""
    luna.start_broker(LUNA_LEASE_ADOPT="20ms")
    ended = submit(luna, 2)
    finish(luna, ended)
    active = submit(luna, 3)
    running = submit(luna, 1, priority=9)[0]
    with Hand(luna.endpoint, "hand") as hand:
        assert hand.take()["id"] == wire.id_bytes(running)
        luna.broker.kill()
    luna.close_client()
    shutil.copytree(luna.home / "state", kept)
    return [*active, running], ended


def restore(luna, kept):
    luna.close_client()
    shutil.rmtree(luna.home / "state")
    shutil.copytree(kept, luna.home / "state")
    (luna.home / "broker.log").write_text("")


def check_jobs(luna, active, ended):
    """No active job is lost: it goes on, or has failed with a reason."""
    known = {wire.id_text(i["id"]): i for i in luna.client.query("jobs").get("jobs", [])}
    for job in active:
        assert job in known, f"{job} is lost"
    assert set(known) <= {*active, *ended}
    finish(luna, active)
    for job in active:
        info = luna.job(job)
        assert info["state"] == "completed" or info.get("error"), info


def damage_database(luna, kept, active, ended, damage):
    restore(luna, kept)
    damage(luna.home / "state")
    if not start_or_refuse(luna):
        set_database_aside(luna)
        (luna.home / "broker.log").write_text("")
        assert start_or_refuse(luna), "the database was moved aside"
    check_jobs(luna, active, ended)
    assert luna.client.ping()
    luna.broker.kill()


def flip_some(name, chooser, count):
    def damage(state):
        path = state / name
        data = bytearray(path.read_bytes())
        for _ in range(count):
            data[chooser.randrange(len(data))] ^= 1 << chooser.randrange(8)
        path.write_bytes(data)
    return damage


def shorten(name, chooser):
    def damage(state):
        path = state / name
        path.write_bytes(path.read_bytes()[:chooser.randrange(path.stat().st_size)])
    return damage


def test_a_damaged_database_loses_no_active_job(bare, tmp_path):
    """Torn and flipped database and log, at places of a seed: the broker serves, or says
    what to do; then every active job is there again."""
    seed = 20
    print(f"seed {seed}")
    chooser = random.Random(seed)
    kept = tmp_path / "kept"
    active, ended = prepare(bare, kept)
    for name in ("luna.db", "luna.db-wal"):
        for count in (1, 1, 1, 3, 10):
            damage_database(bare, kept, active, ended, flip_some(name, chooser, count))
        for _ in range(3):
            damage_database(bare, kept, active, ended, shorten(name, chooser))
    damage_database(bare, kept, active, ended, lambda s: (s / "luna.db").write_bytes(b"x" * 8192))
    damage_database(bare, kept, active, ended, lambda s: (s / "luna.db").unlink())
    damage_database(bare, kept, active, ended, lambda s: (s / "luna.db-wal").unlink())
    damage_database(bare, kept, active, ended, lambda s: (s / "luna.db-shm").write_bytes(b"y" * 99))


def test_a_full_database_page_of_nonsense_while_it_runs(bare):
    """The database is overwritten under the broker: it goes on answering, and its jobs are
    there after it was moved aside."""
    bare.start_broker()
    ids = submit(bare, 3)
    with open(bare.home / "state" / "luna.db", "r+b") as file:
        file.seek(0, 2)
        size = file.tell()
        for at in range(4096, size, 4096):
            file.seek(at)
            file.write(b"\xa5" * 4096)
    for _ in range(3):
        job = bare.client.job([wire.latent_input(LATENT)], vae="v")
        bare.client.push(job)
        bare.client.query("job", id=wire.id_bytes(ids[0]))
    assert bare.status()
    bare.broker.kill()
    set_database_aside(bare)
    bare.start_broker()
    finish(bare, ids)
    assert {bare.job(job)["state"] for job in ids} == {"completed"}
