"""The ledger of luna.py itself: it must notice whatever goes wrong with a picture."""

import shutil

import pytest
from files import batch, write_latent


def notices(luna, words):
    with pytest.raises((AssertionError, FileNotFoundError), match=words):
        luna.check_ledger()
        luna.check_leftovers()


def test_the_ledger_notices(luna):
    job, (first, second) = luna.submit_wait(write_latent(luna.home / "two.latent", batch(2)))
    luna.check_ledger()
    luna.check_leftovers()

    kept = first.read_bytes()
    first.unlink()
    notices(luna, first.name)
    first.write_bytes(kept[:-1] + b"\0")
    notices(luna, first.name)
    first.write_bytes(kept)

    shutil.copy(second, luna.output / "second_copy.png")
    notices(luna, "second_copy")
    (luna.output / "second_copy.png").unlink()

    part = luna.output / ".luna-x.part"
    part.write_bytes(b"half")
    notices(luna, "part")
    part.unlink()

    luna.expected[job] = "failed"
    notices(luna, "completed")
    del luna.expected[job]
    notices(luna, "nobody submitted")
    luna.expect(job)


def test_a_death_is_noticed(luna):
    luna.decoders["one"].popen.kill()
    luna.decoders["one"].popen.wait()
    with pytest.raises(AssertionError, match="one ended with -9"):
        luna.finish()
    luna.decoders["one"].ended = True
    luna.finished = False
