"""Every step to the disk goes wrong in turn, in every way; then everything must hold.

    sweep.py broker|decoder [--sample N --seed S] [--plan NAME] [--point PART:PLAN:N]

Without --sample all points are tried. Prints a table of what was tried and what was found,
and how to repeat each point that failed; ends with 1 when one did.
"""

import argparse
import collections
import dataclasses
import functools
import itertools
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback

from faultfs import World  # noqa: F401  (finds the other modules' folder)
from ledger import Broken

WORKERS = 4 * os.cpu_count()  # a life waits more than it computes
RUN_EDGE = 4  # steps at each end of a long run of equal ones
PROGRESS = 500  # points between two lines that tell how far it is


@dataclasses.dataclass(frozen=True)
class Plan:
    """What step N meets; after a death the disk may lose what was not synced."""
    kind: str  # of the preload library
    cut: str = ""  # "all": loses all that was not synced, "some": a part of it, "later":
    # all, but only when the next program has started and shown what it knows
    journal: bool = False  # the disk commits names as ext4 does
    deadly: bool = False
    lasting: bool = False  # the disk does not get well by itself
    what: str = ""

    def seed(self, at):
        """Of the cut: odd ones keep the order of names in all folders, as a journal does."""
        return 2 * at + self.journal if self.cut == "some" else 0


PLANS = {
    "kill": Plan("kill", deadly=True, what="SIGKILL before the step"),
    "torn": Plan("torn", deadly=True, what="SIGKILL in the middle of it"),
    "cut": Plan("kill", "all", deadly=True, what="power cut, all that is not synced is lost"),
    "cut-some": Plan("torn", "some", deadly=True, what="power cut, a part of it is lost"),
    "cut-journal": Plan("kill", "all", True, deadly=True,
                        what="the same where any sync makes all names durable"),
    "cut-journal-some": Plan("torn", "some", True, deadly=True,
                             what="and names are durable in order, as on ext4"),
    "cut-later": Plan("kill", "later", deadly=True,
                      what="SIGKILL, a restart, and only then a power cut"),
    "eio": Plan("eio", what="EIO once"),
    "enospc": Plan("enospc", what="ENOSPC once"),
    "edquot": Plan("edquot", what="EDQUOT once"),
    "short": Plan("short", what="a write does half"),
    "eintr": Plan("eintr", what="EINTR once"),
    "full": Plan("full", lasting=True, what="the disk is full from there on"),
    "badread": Plan("badread", what="a read fails once"),
    "gone": Plan("gone", lasting=True, what="EIO from there on"),
}


#  What is known to go wrong, and is counted apart: (plan, step, what breaks): why.
KNOWN = {}


@dataclasses.dataclass(frozen=True)
class Point:
    subject: str
    part: str
    plan: str
    at: int

    def __str__(self):
        return f"{self.part}:{self.plan}:{self.at}"


@dataclasses.dataclass
class Result:
    point: Point
    struck: str = ""  # the step it struck; "": the life has fewer steps
    kind: str = ""  # what is broken
    text: str = ""
    accepted: int = 0
    seconds: float = 0.0

    def known(self):
        """Why it broke, when that is known."""
        for (plan, step, kind), why in KNOWN.items():
            if (re.fullmatch(plan, self.point.plan) and re.search(step, self.struck) and
                    kind == self.kind):
                return why
        return None


def subject_of(name):
    if name == "broker":
        import broker_life as subject
    else:
        import decoder_life as subject
    return subject


def run_point(point, within):
    """One life in a folder of its own, and its inspection."""
    result, began = Result(point), time.monotonic()
    folder = tempfile.mkdtemp(dir=within)
    try:
        subject_of(point.subject).run(folder, point.part, PLANS[point.plan], point.at, result)
    except Broken as broken:
        result.kind, result.text = broken.kind, str(broken)
    except Exception:  # noqa: BLE001  (a bug of the test must be seen, not end the sweep)
        result.kind, result.text = "the test itself", traceback.format_exc()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result.seconds = time.monotonic() - began
    return result


def all_points(subject, plans):
    """Every step of each part under each plan. `again` is about what a death has left: only
    deaths follow."""
    points = []
    for kind in {counted(plan) for plan in plans}:
        for part, steps in count_steps(subject, kind).items():
            for plan in plans:
                if counted(plan) == kind and (PLANS[plan].deadly or part != "again"):
                    points += [Point(subject, part, plan, at) for at in places(steps)]
    return points


def count_steps(subject, kind):
    """{part: steps}, of two lives the shorter: one that does something over again is no measure."""
    first, second = (subject_of(subject).list_steps(kind) for _ in range(2))
    return {part: min(first[part], second[part], key=len) for part in first}


def places(steps):
    """The numbers of all steps but the inner ones of a long run of equal ones, such as the
    filling of a file with zeros; and a few more, for lives that are longer."""
    numbers, at = [], 0
    for _, run in itertools.groupby(steps):
        count = len(list(run))
        edge = RUN_EDGE if count > 4 * RUN_EDGE else count
        numbers += range(at + 1, at + edge + 1)
        numbers += range(at + max(edge, count - edge) + 1, at + count + 1)
        at += count
    return numbers + list(range(at + 1, at + 1 + at // 20))


def counted(plan):
    """A plan under which the steps of this one are numbered and nothing happens."""
    return "badread@1000000000" if plan == "badread" else None


def sample(points, count, seed):
    """As many of each plan, spread at random over its points."""
    chooser = random.Random(seed)
    by_plan = collections.defaultdict(list)
    for point in points:
        by_plan[point.plan].append(point)
    share = max(1, count // len(by_plan))
    return [p for group in by_plan.values()
            for p in chooser.sample(group, min(share, len(group)))]


def run_all(points):
    """Results as they come. Longest first, so that both workers end together."""
    order = sorted(points, key=lambda p: not PLANS[p.plan].lasting)
    pool = multiprocessing.Pool(WORKERS, maxtasksperchild=100)
    with tempfile.TemporaryDirectory(prefix="luna", dir="/tmp",
                                     ignore_cleanup_errors=True) as folder:
        run = functools.partial(run_point, within=folder)
        yield from pool.imap_unordered(run, order, chunksize=1)
        pool.close()  # not terminate, which may wait for ever
        pool.join()


class Totals:
    def __init__(self):
        self.results = []

    def add(self, result):
        self.results.append(result)
        if result.known():
            print(f"{result.point} struck {result.struck}: known: {result.known()}", flush=True)
        elif result.kind:
            print(f"\n{result.point} struck {result.struck or 'nothing'}\n{result.text}\n"
                  f"again: sweep.py {result.point.subject} --point {result.point}", flush=True)

    def failed(self):
        return [result for result in self.results if result.kind and not result.known()]

    def table(self):
        kinds = ["accepted jobs lost", "undone", "images doubled", "half files"]
        kinds += sorted({r.kind for r in self.failed()} - set(kinds))
        kinds += ["known"] if any(r.known() for r in self.results) else []
        head = f"{'plan':17}{'points':>7}" + "".join(f"{kind:>20}" for kind in kinds)
        lines = [head]
        for plan in [p for p in PLANS if any(r.point.plan == p for r in self.results)]:
            lines.append(self._line(plan, [r for r in self.results if r.point.plan == plan],
                                    kinds) + f"   {PLANS[plan].what}")
        lines.append(self._line("all", self.results, kinds))
        return "\n".join(lines)

    @staticmethod
    def _line(name, results, kinds):
        found = collections.Counter("known" if r.known() else r.kind for r in results)
        counts = [found[kind] for kind in kinds]
        struck = sum(bool(r.struck) for r in results)
        return f"{name:17}{struck:7}" + "".join(f"{count:20}" for count in counts)

    def slow(self):
        return max((r.seconds for r in self.results), default=0)


def sweep(points):
    totals, began = Totals(), time.monotonic()
    for number, result in enumerate(run_all(points), 1):
        totals.add(result)
        if number % PROGRESS == 0:
            print(f"{number} of {len(points)}, {len(totals.failed())} failed", flush=True)
    jobs = sum(r.accepted for r in totals.results)
    print(f"\n{totals.table()}\n{len(totals.results)} lives, {jobs} accepted jobs, "
          f"{time.monotonic() - began:.0f} s, the longest {totals.slow():.1f} s", flush=True)
    return totals


def parse_point(subject, text):
    part, plan, at = text.split(":")
    return Point(subject, part, plan, int(at))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=("broker", "decoder"))
    parser.add_argument("--sample", type=int, metavar="N", help="so many points in all")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--plan", action="append", choices=PLANS)
    parser.add_argument("--point", action="append", metavar="PART:PLAN:N")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # folders and processes go too
    if given.point:
        points = [parse_point(given.subject, text) for text in given.point]
    else:
        points = all_points(given.subject, given.plan or list(PLANS))
    if given.sample:
        print(f"seed {given.seed}")
        points = sample(points, given.sample, given.seed)
    print(f"{given.subject}: {len(points)} points", flush=True)
    return 1 if sweep(points).failed() else 0


if __name__ == "__main__":
    sys.exit(main())
