"""A sample of `make fault`: points of every plan, the same each time but for LUNA_FAULT_SEED."""

import os

import pytest
import sweep

SEED = int(os.environ.get("LUNA_FAULT_SEED", "1"))


@pytest.mark.parametrize("subject, count", (("broker", 45), ("decoder", 30)))
def test_a_sample_of_points(subject, count):
    print(f"LUNA_FAULT_SEED={SEED}")
    points = sweep.sample(sweep.all_points(subject, list(sweep.PLANS)), count, SEED)
    totals = sweep.sweep(points)
    assert not totals.failed()
    struck = [result for result in totals.results if result.struck]
    assert len(struck) > 0.8 * len(points), "the points do not strike"


def test_the_sweep_notices(tmp_path):
    """A broker that is lied to about its syncs loses jobs in a power cut: the ledger sees it."""
    import broker_life
    life = broker_life.Life(tmp_path)
    try:
        life.start()
        job = life.jobs["A"]
        assert life.submit(job) and job.accepted
        life.kill()
        for payload in (life.world.disk / "state" / "spool" / "ready").iterdir():
            payload.unlink()
        for path in (life.world.disk / "state").glob("luna.db*"):
            path.unlink()
        with pytest.raises(sweep.Broken, match="accepted jobs lost: job A"):
            life.inspect()
    finally:
        life.close_peers()
        life.broker.kill()
