#!/usr/bin/python3
"""Luna's broker beside beanstalkd, Redis and NATS, and beside the bare disk and pipe.

Everything runs in one go on one disk, a few messages of each system in turn, so that what
the disk and the neighbours do hits all alike. All get the same bytes: a job with one latent.

1. durable accept    one client: from sending to the confirmation
2. take              one worker: from asking to a message in hand; the acknowledgement; both.
                     Luna's worker gets a file it maps (or, as the others, bytes), and its
                     next job is on the way while the last one is acknowledged
3. messages a second small jobs, one and four clients, then as many workers
4. recovery          killed with small jobs waiting, started, until the first answer
5. memory            of luna-broker with large jobs waiting; only with --memory-jobs

The servers are started in a temporary folder and gone at the end; it needs 4 GiB of disk,
and 64 MiB for each of --memory-jobs. What a version cannot do is left out, and said.
"""

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True

import machine  # noqa: E402
from samples import print_numbers, print_times, summary  # noqa: E402
from systems import BROKERS, BY_KEY, FAILURES, FLOORS, BenchError, Luna, now_ms  # noqa: E402

MIB = 1 << 20
SMALL_BYTES = 16 << 10
LARGEST_OVERHEAD = 1 << 16
#  MiB: (rounds, messages of each system a round)
PLAN = {1: (8, 12), 4: (8, 8), 16: (6, 5), 64: (6, 3)}
#  Ways to take: (label, what Luna's worker is given)
LUNA_WAYS = {"luna-map-1": ("Luna, mapped, credit 1", (1, True)),
             "luna-map-2": ("Luna, mapped, credit 2", (2, True)),
             "luna-bytes-1": ("Luna, bytes, credit 1", (1, False))}
CLIENTS = {"1 client": (1, 1), "4 clients": (4, 1), "1, 16 on the way": (1, 16)}
RATE_ROUNDS = 2
PUT_SECONDS = 1.0
RECOVER_JOBS = 10_000
FILL_DEPTH = 64
KEEP_FREE_BYTES = 8_000_000_000
PARTS = ("accept", "rate", "recovery", "memory")


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="" if text else "\r", file=sys.stderr, flush=True)


def ways_of(system):
    """(key, what its worker is given) of each way to take that is measured."""
    if isinstance(system, Luna):
        return [(key, given) for key, (_, given) in LUNA_WAYS.items()]
    return [(system.key, ())]


class Bench:
    def __init__(self, options, folder, sockets):
        self.options = options
        self.folder = folder
        self.sockets = sockets
        self.largest_bytes = max(*options.sizes, 1) * MIB + LARGEST_OVERHEAD
        self.left_out = {}  # label: why

    @contextlib.contextmanager
    def systems(self, classes, sync=True):
        """Started, and gone afterwards."""
        running = []
        try:
            for system in classes:
                reason = system.missing()
                if reason:
                    self.left_out[system.label] = reason
                    continue
                running.append(system(self.folder, self.sockets, self.largest_bytes))
                running[-1].start(sync)
            yield running
        finally:
            for system in running:
                system.stop()

    def chosen(self):
        return [system for system in BROKERS if system.key in self.options.systems]

    def able(self, systems, mib):
        """Those that can hold messages of this size."""
        for system in systems:
            if mib * MIB > system.most_bytes:
                self.left_out[f"{system.label}, {mib} MiB"] = system.most_because
        return [system for system in systems if mib * MIB <= system.most_bytes]

    # ---- 1 and 2: accept, take ----------------------------------------------------------

    def measure_size(self, systems, mib):
        """({key: [ms]} of accepts, {key: {half: [ms]}} of takes)."""
        rounds, count = PLAN.get(mib, (9, 4))
        accepts = {system.key: [] for system in systems}
        takes = {}
        producers = [(system, system.producer(system.address(), mib * MIB))
                     for system in systems]
        for number in range(rounds):
            progress(f"{mib} MiB: round {number + 1} of {rounds}")
            turn = number % len(systems)
            for system, producer in producers[turn:] + producers[:turn]:
                for key, given in ways_of(system):
                    accepts[system.key] += self.accept(system, producer, count)
                    if system.takes:
                        self.take(system, key, given, count, takes)
                    system.settle()
                system.trim()
        for _, producer in producers:
            producer.close()
        return {key: times[1:] for key, times in accepts.items()}, takes  # the first warms up

    def accept(self, system, producer, count):
        times = []
        for _ in range(count):
            begin = now_ms()
            producer.put()
            times.append(now_ms() - begin)
        system.settle()
        return times

    def take(self, system, key, given, count, takes):
        worker = system.worker(system.address(), key, *given)
        of_key = takes.setdefault(key, {"take": [], "acknowledge": [], "both": []})
        for half, times in worker.drain(count).items():
            of_key[half] += times
        worker.close()

    def accept_and_take(self):
        results = {"accept": {}, "take": {}}
        with self.systems(self.chosen() + list(FLOORS)) as systems:
            for mib in self.options.sizes:
                accepts, takes = self.measure_size(self.able(systems, mib), mib)
                size = f"{mib} MiB"
                results["accept"][size] = {key: summary(ms) for key, ms in accepts.items()}
                results["take"][size] = {
                    key: {half: summary(ms) for half, ms in halves.items() if ms}
                    for key, halves in takes.items()}
        return results

    # ---- 3: rate ------------------------------------------------------------------------

    def crowd(self, commands):
        """Clients in processes of their own: (seconds from go to the last, their numbers)."""
        clients = []
        try:
            for command in commands:
                clients.append(subprocess.Popen(
                    [sys.executable, str(Path(__file__).with_name("client.py")),
                     *map(str, command)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for client in clients:
                if client.stdout.readline() != "ready\n":
                    raise BenchError(f"a client did not start: {client.args[2:]}")
            begin = time.perf_counter()
            for client in clients:
                client.stdin.write("go\n")
                client.stdin.flush()
            numbers = [client.stdout.readline() for client in clients]
            seconds = time.perf_counter() - begin
            if "" in numbers:
                raise BenchError("a client ended before its work was done")
            for client in clients:
                client.wait(30)
            return seconds, [int(number) for number in numbers]
        finally:
            for client in clients:
                client.kill()
                client.wait()
                client.stdin.close()
                client.stdout.close()

    def put_all(self, system, clients, depth):
        """(jobs, seconds); each client has put one before."""
        seconds, counts = self.crowd([("put", system.key, system.address(), SMALL_BYTES,
                                       PUT_SECONDS, depth)] * clients)
        system.settle()
        return sum(counts), seconds

    def finish_all(self, system, workers, jobs):
        shares = [jobs // workers + (i < jobs % workers) for i in range(workers)]
        seconds, _ = self.crowd([("finish", system.key, system.address(), f"worker-{i}", share)
                                 for i, share in enumerate(shares)])
        system.settle()
        system.trim()
        return jobs, seconds

    def rates(self):
        """{system: {"accepted": {way: per second}, "completed": {way: per second}}}"""
        sums = {}
        with self.systems(self.chosen()) as systems:
            for way, (clients, depth) in CLIENTS.items():
                for number in range(RATE_ROUNDS):
                    for system in systems if number % 2 == 0 else systems[::-1]:
                        progress(f"rate: {way}, {system.label}")
                        of_system = sums.setdefault(system.key,
                                                    {"accepted": {}, "completed": {}})
                        put = self.put_all(system, clients, depth)
                        done = self.finish_all(system, clients, put[0] + clients)
                        of_system["accepted"].setdefault(way, []).append(put)
                        of_system["completed"].setdefault(way, []).append(done)
        return {"rate": {key: {what: {way: per_second(counted)
                                      for way, counted in ways.items()}
                               for what, ways in of_system.items()}
                         for key, of_system in sums.items()}}

    # ---- 4: recovery --------------------------------------------------------------------

    def recovery(self):
        """Filling is not measured, so the others need not sync meanwhile."""
        results = {}
        for chosen in self.chosen():
            with self.systems([chosen], sync=chosen is Luna) as systems:
                for system in systems:
                    progress(f"recovery: filling {system.label}")
                    producer = system.producer(system.address(), SMALL_BYTES)
                    producer.put_many(RECOVER_JOBS, FILL_DEPTH)
                    producer.close()
                    system.settle()
                    results[system.key] = round(system.reopen(RECOVER_JOBS), 1)
        return {"recovery": {"jobs": RECOVER_JOBS, "ms": results}}

    # ---- 5: memory ----------------------------------------------------------------------

    def memory_jobs(self):
        """As many as the disk has room for."""
        wanted = self.options.memory_jobs
        free = shutil.disk_usage(self.folder).free - KEEP_FREE_BYTES
        fit = max(free // (64 * MIB + LARGEST_OVERHEAD), 0)
        if fit < wanted:
            print(f"memory: {fit} of {wanted} jobs of 64 MiB fit on this disk", file=sys.stderr)
        return int(min(fit, wanted))

    def memory(self):
        if not self.options.memory_jobs:
            return {}
        jobs = self.memory_jobs()
        marks = sorted({count for count in (0, 10, 100, jobs) if count <= jobs})
        results = {}
        with self.systems([Luna]) as (luna,):
            producer = luna.producer(luna.address(), 64 * MIB)
            for count in range(jobs + 1):
                if count:
                    producer.put()
                if count in marks:
                    results[str(count)] = resident(luna.process.popen.pid)
                progress(f"memory: {count} of {jobs} jobs")
            producer.close()
        return {"memory": results}

    # ---- all ----------------------------------------------------------------------------

    def run(self):
        parts = {"accept": self.accept_and_take, "rate": self.rates,
                 "recovery": self.recovery, "memory": self.memory}
        results = {}
        for name in self.options.parts:
            results.update(parts[name]())
        progress("")
        return {**results, "left_out": self.left_out}


def per_second(counted):
    return round(sum(jobs for jobs, _ in counted) / sum(seconds for _, seconds in counted), 1)


def resident(pid):
    """MiB of a process."""
    fields = dict(line.split(":", 1) for line in
                  Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: round(int(fields[name].split()[0]) / 1024, 1)
            for name in ("VmHWM", "VmRSS", "RssAnon")}


# ---- tables --------------------------------------------------------------------------------


def label_of(key):
    return LUNA_WAYS[key][0] if key in LUNA_WAYS else BY_KEY[key].label


def show_times(results):
    print_times("durable accept, ms", {
        size: [(label_of(key), row) for key, row in rows.items()]
        for size, rows in results["accept"].items()})
    for half, title in (("take", "take: asked to in hand, ms"),
                        ("acknowledge", "acknowledge: done to confirmed, ms"),
                        ("both", "take and acknowledge, ms")):
        print_times(title, {
            size: [(label_of(key), rows[key][half]) for key in sorted(rows, key=order)
                   if half in rows[key]]
            for size, rows in results["take"].items()})


def order(key):
    """Luna's ways first, then the systems in their order."""
    return list(LUNA_WAYS).index(key) if key in LUNA_WAYS else 99 + list(BY_KEY).index(key)


def show_rates(rates):
    for what in ("accepted", "completed"):
        ways = [way for way, (_, depth) in CLIENTS.items() if what == "accepted" or depth == 1]
        heads = [way.replace("client", "worker") if what == "completed" else way for way in ways]
        print_numbers(f"16 KiB jobs {what} a second", heads,
                      [(label_of(key), [row[what][way] for way in ways])
                       for key, row in rates.items()])


def show(results):
    if "accept" in results:
        show_times(results)
    if "rate" in results:
        show_rates(results["rate"])
    if "recovery" in results:
        print_numbers(f"killed with {results['recovery']['jobs']} jobs waiting", ["ms to answer"],
                      [(label_of(key), [ms]) for key, ms in results["recovery"]["ms"].items()])
    if "memory" in results:
        print_numbers("luna-broker with 64 MiB jobs waiting, MiB", ["VmHWM", "VmRSS", "RssAnon"],
                      [(f"{count} jobs", list(row.values()))
                       for count, row in results["memory"].items()])
    for label, reason in results["left_out"].items():
        print(f"\nleft out: {label}: {reason}")


# ---- the run -------------------------------------------------------------------------------


def parse():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    words = str.split
    numbers = (lambda text: [int(word) for word in text.split()])
    numbers.__name__ = "list of MiB"
    parser.add_argument("--folder", default=None, metavar="DIR",
                        help="a temporary folder is made in DIR, on the disk to be measured")
    parser.add_argument("--sizes", type=numbers, default=list(PLAN), metavar='"MIB ..."')
    parser.add_argument("--systems", type=words, metavar='"NAME ..."',
                        default=[system.key for system in BROKERS],
                        help=" ".join(system.key for system in BROKERS))
    parser.add_argument("--parts", type=words, default=list(PARTS), metavar='"PART ..."',
                        help=" ".join(PARTS))
    parser.add_argument("--memory-jobs", type=int, default=0, metavar="N",
                        help="64 MiB jobs to queue for the memory table")
    parser.add_argument("--json", metavar="FILE", help="write all numbers there too")
    options = parser.parse_args()
    for name, allowed in (("systems", [system.key for system in BROKERS]), ("parts", PARTS)):
        unknown = set(getattr(options, name)) - set(allowed)
        if unknown:
            parser.error(f"--{name}: {' '.join(unknown)} is none of {' '.join(allowed)}")
    return options


def stop(number, _frame):
    sys.exit(128 + number)


def main():
    options = parse()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    folder = tempfile.mkdtemp(prefix="broker-bench-", dir=options.folder)
    sockets = tempfile.mkdtemp(prefix="luna-bench-")  # a socket's path has at most 107 bytes
    try:
        results = {"machine": machine.describe(folder, Luna.program)}
        machine.show(results["machine"])
        results.update(Bench(options, folder, sockets).run())
        show(results)
        if options.json:
            Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
    except FAILURES as error:
        progress("")
        for log in sorted(Path(folder).glob("*.log")):
            print(f"---- {log.name}\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
        sys.exit(f"broker_bench: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(sockets, ignore_errors=True)


if __name__ == "__main__":
    main()
