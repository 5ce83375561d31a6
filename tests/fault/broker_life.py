"""The scripted life of a broker: the same each time, so that each of its steps can go wrong.

First part: three jobs, one of them with an image of two saved on the way, one failed and
retried, one cancelled; two more are left behind when the broker is killed. Second part: a
restart that takes those up, forgets what is finished, accepts one more job and stops in
good order; also after a death in the first part (`again`). Then comes an inspection by a broker without faults, which must find all that
was ever answered, finish what is left, and have nothing else.
"""

import contextlib
import functools
import os
import shutil
import signal
import tempfile
import time


import numpy
import wire
from faultfs import World
from ledger import ACTIVE, ENDED, Broken, Job, look
from luna import BIN, Process
from peers import Dead, Hand, Silent, hear, wait

RULES = {"LUNA_HTTP_LISTEN": "off", "LUNA_LEASE_ADOPT": "20ms", "LUNA_LEASE_BACKOFF": "1ms",
         "LUNA_LEASE_DISCONNECT_GRACE": "20ms", "LUNA_LEASE_LOST_LIMIT": "50",
         "LUNA_LEASE_REFUSED_LIMIT": "50", "LUNA_STORE_RESERVE": "0"}
SYSEXITS = (69, 70, 73, 74, 75)
PAYLOAD_HEADER_BYTES = 64
START_S = 10.0


class Gone(Exception):
    """What a step of the script was about has ended in another way."""


def needless_when_gone(step):
    @functools.wraps(step)
    def tried(self, *jobs):
        try:
            return step(self, *jobs)
        except Gone:
            return None
    return tried


def make_jobs():
    def job(name, images):
        latent = numpy.full((images, 4, 8, 8), ord(name), numpy.float16)
        return Job(name, [wire.latent_input(latent)], images)
    return {name: job(name, images)
            for name, images in (("A", 2), ("B", 1), ("C", 1), ("E", 2), ("F", 1), ("G", 1))}


def image(job, index, of="first"):
    """A saved image as this decoder would report it; nobody looks at the path here."""
    return {"input": 0, "index": index, "path": f"/out/{job.name}{index}-{of}.png",
            "bytes": 100 + index, "sha256": f"{index:064x}", "width": 64, "height": 64}


class Life:
    def __init__(self, folder, journal=False, patience_s=10.0):
        self.world = World(folder, journal)
        self.patience_s = patience_s
        self.jobs = make_jobs()
        self.by_id = {job.id: job for job in self.jobs.values()}
        self.producer = self.hand = self.broker = None
        self.instance = wire.new_routing_id()
        self.planned = False  # the broker's end is in the plan
        self.told = None  # jobs that were accepted before what was not synced was lost
        self.finished = 0
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LUNA_")}
        self.env = {**kept, **RULES, "LUNA_HOME": str(self.world.disk)}
        self.endpoint = f"ipc://{self.world.disk}/run/control"

    # ---- the broker ------------------------------------------------------------------

    def start(self, plan=None, **rules):
        self.close_peers()
        env = {**self.env, **self.world.env(plan), **rules}
        self.broker = Process("broker", [str(BIN / "luna-broker")], env, self.world.folder)
        self.planned = plan is not None and plan.split("@")[0] in ("kill", "torn")
        self.producer = self.greet(lambda: wire.Producer(self.endpoint, deadline_s=0.3,
                                                         instance=self.instance))

    def greet(self, connect):
        def try_once(_):
            if not os.path.exists(self.endpoint[6:]):
                return wait_a_moment()
            try:
                return connect()
            except wire.WireError:
                return None
        return wait(self.broker, try_once, START_S)

    def connect_hand(self, name="hand", running=()):
        self.hand = self.greet(lambda: Hand(self.endpoint, name, running))

    def close_peers(self):
        for peer in (self.producer, self.hand):
            if peer:
                peer.close()
        self.producer = self.hand = None

    def kill(self):
        """From outside: it must have lived up to here."""
        if self.broker.popen.poll() is not None:
            raise Dead
        self.world.kill(self.broker)
        self.close_peers()

    def stop(self):
        """SIGTERM; it ends well, whatever its disk does."""
        code = self.broker.terminate()
        self.close_peers()
        if code != 0 and not (code == -signal.SIGKILL and self.planned):
            raise Broken("broker exits", f"ended with {code} on SIGTERM")

    def check_end(self, starting):
        """The broker is dead: only as planned, or, while starting, with a reason."""
        code = self.broker.popen.wait(10)
        self.read_last_receipts()
        self.close_peers()
        if code == -signal.SIGKILL and self.planned:
            return
        last = self.broker.text().strip().splitlines()[-1:] or [""]
        if starting and code in SYSEXITS and last[0].startswith("luna-broker: "):
            return
        raise Broken("broker exits", f"ended with {code}, its last words {last}")

    # ---- the producer ----------------------------------------------------------------

    def hear(self, kind, **wanted):
        return hear(self.broker, self.producer, kind, self.patience_s, **wanted)

    def push(self, job):
        if job.body is None:
            job.body = self.producer.job(job.inputs, id=job.id, vae="v")
        self.producer.push(job.body)

    def await_receipt(self, job):
        receipt = self.hear("receipt", id=job.id)
        if receipt["status"] == "refused":
            raise Broken("undone", f"job {job} was refused: {receipt}")
        job.accepted |= receipt["status"] == "accepted"
        if job.accepted and receipt["status"] != "accepted":
            raise Broken("undone", f"job {job} was accepted and now {receipt}")
        return receipt

    def read_last_receipts(self):
        """What the broker said before it died counts."""
        while self.producer:
            try:
                receipt = self.producer.receive("receipt", deadline_s=0)
            except wire.WireError:
                return
            if receipt["status"] == "accepted":
                self.by_id[receipt["id"]].accepted = True

    def submit(self, *jobs):
        for job in jobs:
            self.push(job)
        return all([self.await_receipt(job)["status"] == "accepted" for job in jobs])

    def ask(self, kind, **fields):
        self.producer.questions += 1
        self.producer.send(kind, re=self.producer.questions, **fields)
        return self.hear("answer", re=self.producer.questions)

    def show(self, job):
        """The broker's record of it, which the ledger has checked; None: not known."""
        answer = self.ask("query", what="job", id=job.id)
        if answer.get("error") not in (None, "not_found"):
            return {"state": "unreadable"}
        info = answer["jobs"][0] if "jobs" in answer else None
        look(job, info)
        return info

    def until(self, condition):
        wait(self.broker, lambda _: condition() or wait_a_moment(), self.patience_s)

    def cancel(self, job):
        job.cancel_asked = job.may_have_ended = True
        if "error" not in self.ask("cancel", id=job.id):
            job.seen = "cancelled"

    def retry(self, job):
        job.retry_asked = True
        if "error" not in self.ask("retry", id=job.id):
            job.seen = "pending"

    # ---- the decoder -----------------------------------------------------------------

    def take(self, *wanted):
        """The next job that is to be decoded; Gone when the wanted ones have ended."""
        def look_for(slice_s):
            work = self.hand.look(slice_s)
            if not work and all((self.show(job) or {}).get("state", "") in (*ENDED, "")
                                for job in wanted):
                raise Gone
            return work
        while True:
            work = wait(self.broker, look_for, self.patience_s)
            job = self.by_id.get(work["id"])
            if job is None or job.body is None:
                raise Broken("unknown jobs", f"work for {work['id'].hex()}")
            if job.seen == "completed":
                raise Broken("images doubled", f"job {job} was completed and is sent again")
            if wire.open_payload(work)["inputs"] != wire.unpack(job.body)["inputs"]:
                raise Broken("undone", f"job {job} came with another payload")
            job.attempts = max(job.attempts, work["attempt"])
            if job.seen != "cancelled":
                return job, work

    def progress(self, job, work, index):
        key = (0, index)
        job.report(key, image(job, index))
        self.hand.report("progress", work, stage="saved", images=[job.reported[key]])

    def done(self, job, work):
        job.may_have_ended = True
        for index in range(job.images):
            job.report((0, index), image(job, index))
        self.hand.report("done", work, images=list(job.reported.values()))

    # ---- the two parts -----------------------------------------------------------------

    def first_part(self):
        a, b, c, e, f = (self.jobs[name] for name in "ABCEF")
        self.connect_hand()
        if self.submit(a):
            self.save_one_then_all(a)
        if self.submit(b, c):
            self.fail_one_cancel_the_other(b, c)
        self.submit(e, f)
        if e.accepted:
            self.save_one(e)

    def second_part(self):
        e, f, g = (self.jobs[name] for name in "EFG")
        running = [{"id": e.id, "attempt": e.attempts}] if e.attempts else []
        self.connect_hand(running=running)
        if running:
            e.may_have_ended = True
            self.hand.send("done", **running[0], epoch=self.hand.welcome["epoch"],
                           images=self.both_images(e))
            while (self.show(e) or {}).get("state") in ACTIVE:  # too late to be adopted
                self.make(e)
        if f.accepted:
            self.make(f)
        self.await_forgetting("ABC")
        if self.submit(g):
            self.make(g)

    @needless_when_gone
    def make(self, *jobs):
        taken, work = self.take(*jobs)
        self.done(taken, work)
        self.until_ended(taken)

    @needless_when_gone
    def save_one(self, job):
        taken, work = self.take(job)
        self.progress(taken, work, 0)
        self.until(lambda: (0, 0) in taken.recorded or not self.show(taken))
        return taken, work

    @needless_when_gone
    def save_one_then_all(self, job):
        taken = self.save_one(job)
        if taken:
            self.done(*taken)
            self.until_ended(taken[0])

    @needless_when_gone
    def fail_one_cancel_the_other(self, b, c):
        taken, work = self.take(b, c)
        self.cancel(c if taken is b else b)
        self.hand.report("failed", work, error="device", detail="as the script wants it")
        self.until_ended(taken)
        self.retry(taken)
        self.make(taken)

    def until_ended(self, job):
        """Or forgotten."""
        self.until(lambda: (self.show(job) or {}).get("state") in (*ENDED, None))

    def await_forgetting(self, names):
        """At the broker's first tick; when its disk fails then, a minute later."""
        end = time.monotonic() + 1
        jobs = [self.jobs[name] for name in names]
        self.until(lambda: all(self.show(job) is None or job.seen in ACTIVE for job in jobs)
                   or time.monotonic() > end)

    @staticmethod
    def both_images(job):
        for index in range(job.images):
            job.report((0, index), image(job, index))
        return list(job.reported.values())

    def forget_finished(self):
        """From now on finished jobs may go."""
        for job in self.jobs.values():
            job.may_be_forgotten = True

    # ---- the inspection ----------------------------------------------------------------

    def inspect(self):
        """After any life: what was answered holds, and everything can be finished."""
        self.patience_s = 10.0
        try:
            self.inspect_all()
        except (Silent, Dead) as end:
            raise Broken("hangs", f"{type(end).__name__} while it is inspected") from None

    def inspect_all(self):
        self.start()
        for job in self.jobs.values():
            self.show(job)
        self.check_spool()
        self.finish_all()
        self.check_spool()
        known = {info["id"] for info in self.ask("query", what="jobs").get("jobs", [])}
        wanted = {job.id for job in self.jobs.values() if job.seen and not job.forgotten}
        if known != wanted:
            raise Broken("unknown jobs", f"{known ^ wanted}")
        self.kill()

    def show_all(self):
        """A broker without faults comes, shows every job, and is killed."""
        self.start()
        for job in self.jobs.values():
            self.show(job)
        self.kill()

    def look_again(self):
        """After one more power cut: what the inspection was shown is still so."""
        self.start()
        for job in self.jobs.values():
            self.show(job)
        self.check_spool()
        self.kill()

    def finish_all(self):
        self.connect_hand("inspector")
        for job in self.jobs.values():
            if job.body and not job.forgotten:
                self.submit(job)
        while active := self.active():
            self.make(*active)
            self.finished += 1

    def active(self):
        return [job for job in self.jobs.values()
                if (self.show(job) or {}).get("state") in ACTIVE]

    def check_spool(self):
        """ready/ holds the payloads of active and failed jobs and nothing else."""
        spool = self.world.disk / "state" / "spool"

        def exact():
            wanted = {wire.id_text(job.id): job.body for job in self.jobs.values()
                      if job.seen in (*ACTIVE, "failed") and not job.forgotten}
            return self.payloads(spool) == wanted and not list((spool / "tmp").iterdir())
        try:
            self.until(exact)
        except Silent:
            raise Broken("payloads", f"the spool holds {sorted(spool.rglob('*'))}, jobs are "
                         f"{[(j, j.seen) for j in self.jobs.values()]}") from None
        # A power cut may leave the name of a job that nobody was told of; it is set aside.
        aside = [path for path in (spool / "quarantine").iterdir()
                 if self.told is None or path.name in self.told]
        if aside:
            raise Broken("half files", f"{aside}")

    @staticmethod
    def payloads(spool):
        """{name: body} of ready/; one that is being removed is as good as gone."""
        found = {}
        for path in (spool / "ready").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[path.name] = path.read_bytes()[PAYLOAD_HEADER_BYTES:]
        return found


def wait_a_moment():
    time.sleep(0.001)


# ---- what the sweep runs ------------------------------------------------------------------

PATIENCE_S = {False: 10.0, True: 0.3}  # by whether the disk stays bad


def before_the_plan(life, part, dies_at):
    """The first part without a fault, or, for `again`, with a death in the middle of it:
    what that left unsynced is still unsynced, and the next program builds on it."""
    try:
        life.start(f"kill@{dies_at}" if part == "again" else None)
        life.first_part()
        life.kill()
    except Dead:
        life.check_end(False)
    life.forget_finished()


def live(life, part, plan=None, dies_at=100):
    """The part with the plan in it."""
    if part != "first":
        before_the_plan(life, part, dies_at)
    starting = True
    try:
        if part == "first":
            life.start(plan)
        else:
            life.start(plan, LUNA_STORE_KEEP="1ms")
        starting = False
        life.first_part() if part == "first" else life.second_part()
    except Dead:
        life.check_end(starting)
        return
    except Silent:
        if life.patience_s >= 1:
            raise Broken("hangs", "no answer") from None
    life.stop()


def run(folder, part, plan, at, result):
    life = Life(folder, plan.journal, PATIENCE_S[plan.lasting])
    try:
        live(life, part, f"{plan.kind}@{at}", 1 + at * 37 % 215)
        result.struck = life.world.struck() or ""
        if plan.cut == "later":
            life.show_all()
        if plan.cut:
            life.told = {wire.id_text(job.id) for job in life.jobs.values() if job.accepted}
            life.world.cut(plan.seed(at))
        life.inspect()
        if plan.cut:
            life.world.cut(0)
            life.look_again()
    except Broken as broken:
        result.struck = result.struck or life.world.struck() or ""
        raise Broken(broken.kind, f"{broken}\n{life.broker.text()[-4000:]}") from None
    finally:
        result.accepted = sum(job.accepted for job in life.jobs.values())
        life.close_peers()
        if life.broker:
            life.broker.kill()


def list_steps(plan):
    """The steps of each part, (call, file), under a plan that changes nothing."""
    found = {}
    for part in ("first", "second", "again"):
        folder = tempfile.mkdtemp(prefix="luna", dir="/tmp")
        life = Life(folder)
        try:
            live(life, part, plan)
            found[part] = [step[:2] for step in life.world.steps()]
            life.inspect()
        finally:
            life.broker.kill()
            shutil.rmtree(folder)
    return found
