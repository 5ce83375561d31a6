"""The preload library itself: what is synced survives a power cut, what is not need not."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest
from faultfs import Clock, World

HEAD = """
import os
def put(path, text, sync=True):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(fd, text)
    if sync: os.fsync(fd)
    os.close(fd)
def sync(folder):
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
"""


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def run(world, script, plan=None, **more):
    env = {**os.environ, **world.env(plan), **more}
    return subprocess.run([sys.executable, "-c", HEAD + script], env=env, cwd=world.disk,
                          capture_output=True, text=True, timeout=60)


def after_cut(world, script, seed=0, plan=None):
    done = run(world, script, plan)
    assert plan or done.returncode == 0, done.stderr
    world.cut(seed)
    return {str(path.relative_to(world.disk)): path.read_bytes()
            for path in world.disk.rglob("*") if path.is_file()}


def test_a_synced_file_with_a_synced_name_stays(world):
    assert after_cut(world, "put('a', b'1'); sync('.')") == {"a": b"1"}


def test_a_synced_file_without_a_name_is_gone(world):
    assert after_cut(world, "put('a', b'1')") == {}


def test_a_journal_commits_the_name_with_the_file(tmp_path):
    world = World(tmp_path, journal=True)
    assert after_cut(world, "put('a', b'1'); put('b', b'2', False)") == {"a": b"1"}


def test_a_name_without_its_bytes_is_an_empty_file(world):
    assert after_cut(world, "put('a', b'1', False); sync('.')") == {"a": b""}


def test_a_rename_lasts_when_the_new_folder_is_synced(world):
    script = "os.mkdir('t'); os.mkdir('r'); sync('.'); put('t/a', b'1'); sync('t');"
    assert after_cut(world, script + "os.rename('t/a', 'r/a')") == {"t/a": b"1"}
    assert after_cut(world, "os.rename('t/a', 'r/a'); sync('r')") == {"t/a": b"1", "r/a": b"1"}
    assert after_cut(world, "os.unlink('t/a'); sync('t')") == {"r/a": b"1"}


def test_what_one_program_left_unsynced_the_next_one_can_lose(world):
    run(world, "put('a', b'1')")
    assert after_cut(world, "put('b', b'2')") == {}
    run(world, "put('a', b'1')")
    assert after_cut(world, "sync('.')") == {"a": b"1"}


def test_an_unlink_that_is_not_synced_comes_back_with_the_synced_bytes(world):
    script = "put('a', b'12'); sync('.'); put('a', b'3', False); os.unlink('a')"
    assert after_cut(world, script) == {"a": b"12"}


def test_hard_links_are_one_file(world):
    after_cut(world, "put('a', b'1'); os.link('a', 'b'); sync('.')")
    assert (world.disk / "a").stat().st_ino == (world.disk / "b").stat().st_ino


def test_a_part_of_what_was_not_synced(world):
    """Old and new blocks mixed, lengths old or new, names up to a moment: never else."""
    seen = set()
    for seed in range(1, 17):
        shutil.rmtree(world.disk)
        (world.disk / "d").mkdir(parents=True)
        (world.disk / "a").write_bytes(b"x" * 2000)
        files = after_cut(world, """
put('a', b'y' * 3000, False)
put('d/one', b'1'); os.rename('d/one', 'd/two'); put('d/three', b'3')
""", seed)
        data = files.pop("a")
        assert len(data) in (2000, 3000)
        for at in range(0, len(data), 512):
            block = data[at:at + 512]
            old = (b"x" * 2000)[at:at + 512].ljust(len(block), b"\0")
            assert block in (old[:len(block)], b"y" * len(block))
        names = tuple(sorted(files))
        assert names in ((), ("d/one",), ("d/two",), ("d/three", "d/two"))
        seen.add((len(data), data[:512] == b"y" * 512, names))
    assert len(seen) > 5


def test_kill_is_before_the_step_and_torn_in_the_middle(world):
    script = "put('a', b'12345678')"
    assert run(world, script, "kill@2").returncode == -signal.SIGKILL
    assert (world.disk / "a").read_bytes() == b""
    assert world.struck() == "2 write a"
    assert run(world, script, "torn@2").returncode == -signal.SIGKILL
    assert (world.disk / "a").read_bytes() == b"1234"
    assert run(world, script, "torn@1").returncode == -signal.SIGKILL
    assert run(world, "pass", "kill@1").returncode == 0
    assert world.struck() is None


def test_errors_come_once_or_for_good(world):
    def errors(plan):
        for path in world.disk.iterdir():
            path.unlink()
        done = run(world, """
for i in range(3):
    try: put('f%d' % i, b'12345678'); print('ok', end=' ')
    except OSError as e: print(e.strerror.split()[0], end=' ')
""", plan)
        return done.stdout.split()
    assert errors("eio@1") == ["Input/output", "ok", "ok"]
    assert errors("enospc@4") == ["ok", "No", "ok"]  # steps 3 and 4 are a sync and a close
    assert errors("edquot@5") == ["ok", "Disk", "ok"]
    assert errors("gone@6") == ["ok", "Input/output", "Input/output"]
    assert errors("full@6") == ["ok", "ok", "No"]  # the first write is short
    assert os.path.getsize(world.disk / "f1") == 4
    assert errors("short@2") == ["ok", "ok", "ok"]
    assert os.path.getsize(world.disk / "f0") == 4


def test_sqlite_is_seen_and_keeps_its_word(world):
    script = """
import sqlite3
db = sqlite3.connect('x.db', isolation_level=None)
db.execute('PRAGMA journal_mode=WAL'); db.execute('PRAGMA synchronous=FULL')
db.execute('CREATE TABLE t (n)')
for i in range(5): db.execute('INSERT INTO t VALUES (?)', (i,)); print(i, flush=True)
os._exit(0)
"""
    done = run(world, script)
    steps = world.steps()
    calls = {(call, file) for call, file, _ in steps}
    assert {("write", "x.db-wal"), ("sync", "x.db-wal"), ("sync", "x.db")} <= calls
    assert done.stdout.split() == list("01234")
    world.cut(0)
    for at in range(len(steps) // 2, len(steps), 3):
        for path in world.disk.iterdir():
            path.unlink()
        done = run(world, script, f"kill@{at}")
        world.cut(at)
        db = sqlite3.connect(world.disk / "x.db")
        rows = [n for (n,) in db.execute("SELECT n FROM t")] if done.stdout else []
        db.close()
        assert rows[:len(done.stdout.split())] == [int(n) for n in done.stdout.split()]


def test_the_clock_steps(tmp_path):
    clock = Clock(tmp_path / "clock")
    script = "import time; print(int(time.time()), end=' ', flush=True)\n"
    clock.step(86400)
    env = {**os.environ, **clock.env()}
    ahead = int(subprocess.run([sys.executable, "-c", script], env=env, capture_output=True,
                               text=True, timeout=60).stdout)
    here = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                              timeout=60).stdout)
    assert 86400 - 60 < ahead - here < 86400 + 60
