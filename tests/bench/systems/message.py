"""The message that all systems are given: a job of Luna's wire with one latent."""

import math
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "system"))

import wire  # noqa: E402

VAE = "bench"
CHANNELS = 16
ELEMENT_BYTES = 4
BLOCK = os.urandom(1 << 16)


def latent(payload_bytes):
    """float32 [1, 16, side, side]; the values do not matter to a broker."""
    side = math.isqrt(payload_bytes // (CHANNELS * ELEMENT_BYTES))
    if side * side * CHANNELS * ELEMENT_BYTES != payload_bytes:
        raise ValueError(f"{payload_bytes} bytes are no square float32 latent")
    data = (BLOCK * (payload_bytes // len(BLOCK) + 1))[:payload_bytes]
    return {"format": "png", "dtype": "float32", "shape": [1, CHANNELS, side, side],
            "latent": data}


def job_bytes(payload_bytes, job_id=None, client=None):
    return wire.pack("job", id=job_id or wire.new_id(), client=client or wire.new_routing_id(),
                     created_ms=0, vae=VAE, inputs=[latent(payload_bytes)])
