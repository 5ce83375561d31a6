"""A producer with an outbox, to be killed: submits jobs until then.

Prints the id of each job as soon as it is on a disk, its own host's or the broker's.
With --deliver it submits nothing, and ends when the broker has all there was.
"""

import os
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests" / "system"), str(ROOT / "producer" / "comfyui")]

import luna_client  # noqa: E402
from files import VAE, batch  # noqa: E402

PAUSE_S = 0.02  # between jobs
KEEP_MS = 20_000


def new_job(client, array, output):
    """A submission that points to `array`, which must live as long."""
    job = client.new_submission()
    job.vae = VAE.encode()
    job.output_dir = os.fsencode(output)
    job.input_count = 1
    latent = job.inputs[0]
    latent.data = array.ctypes.data
    latent.bytes = array.nbytes
    latent.dtype = str(array.dtype).encode()
    latent.dims = array.ndim
    for axis, size in enumerate(array.shape):
        latent.shape[axis] = size
    return job


def submit_for_ever(client, output):
    array = batch(1, 16)
    while True:
        job_id = client.submit(new_job(client, array, output))
        client.wait_kept(job_id, KEEP_MS)
        print(job_id, flush=True)
        time.sleep(PAUSE_S)


def deliver(client):
    while client.unsettled()[0]:
        time.sleep(PAUSE_S)
    return client.close(0)


def main(output, *flags):
    client = luna_client.Client(name="producer")
    client.notices(lambda kind, reason, job: print(kind, reason, job, file=sys.stderr))
    if "--deliver" in flags:
        sys.exit(deliver(client))
    submit_for_ever(client, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
