"""Twenty seconds of `make soak`, once with kills and once with power cuts of the broker."""

import os

import pytest
import soak

SEED = int(os.environ.get("LUNA_FAULT_SEED", "1"))


@pytest.mark.parametrize("power", (False, True), ids=("kills", "power-cuts"))
def test_a_short_soak(power):
    print(f"LUNA_FAULT_SEED={SEED}")
    run = soak.soak(kills=1000, seconds=10, seed=SEED, power=power)
    print(run.report())
    assert not run.faults, "\n".join(run.faults)
    assert run.kills() >= 5 and run.jobs >= 5
