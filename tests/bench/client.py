#!/usr/bin/python3
"""One client of a measured system, as a process of its own; started by broker_bench.py.

client.py put SYSTEM ADDRESS BYTES SECONDS DEPTH    puts for so long; prints how many
client.py finish SYSTEM ADDRESS NAME COUNT          takes and acknowledges so many

It says "ready", waits for a line, and works.
"""

import sys

sys.dont_write_bytecode = True

from systems import BY_KEY  # noqa: E402


def put(system, address, payload_bytes, seconds, depth):
    producer = system.producer(address, int(payload_bytes))
    producer.put()
    yield
    yield producer.put_for(float(seconds), int(depth))
    producer.close()


def finish(system, address, name, count):
    worker = system.worker(address, name)
    yield
    worker.finish(int(count))
    yield int(count)
    worker.close()


def main(role, key, *rest):
    steps = {"put": put, "finish": finish}[role](BY_KEY[key], *rest)
    next(steps)
    print("ready", flush=True)
    if sys.stdin.readline():
        print(next(steps), flush=True)
        next(steps, None)


if __name__ == "__main__":
    main(*sys.argv[1:])
