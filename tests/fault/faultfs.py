"""The preload library from Python: a world whose disk fails as planned.

A world is a folder with two in it: `disk`, which the program under test believes to be its
disk, and `state`, where the library keeps what a power cut would leave of it.
"""

import ctypes
import os
import signal
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "system"))
sys.dont_write_bytecode = True

from luna import BIN  # noqa: E402

LIBRARY = Path(os.environ.get("LUNA_FAULTFS", BIN.parent / "fault" / "faultfs.so")).resolve()


class World:
    def __init__(self, folder, journal=False):
        """`journal`: any sync makes every name so far durable, as ext4 does."""
        self.folder = Path(folder)
        self.disk = self.folder / "disk"
        self.state = self.folder / "state"
        self.log = self.folder / "steps"
        self.journal = journal
        self.disk.mkdir(parents=True)

    def env(self, plan=None):
        """What a program needs in its environment, with or without a plan."""
        added = {"LD_PRELOAD": str(LIBRARY), "FAULTFS_ROOT": str(self.disk),
                 "FAULTFS_STATE": str(self.state), "FAULTFS_LOG": str(self.log),
                 "FAULTFS_JOURNAL": "1" if self.journal else "0"}
        return {**added, "FAULTFS_PLAN": plan} if plan else added

    def steps(self):
        """[(call, file, struck)] of the latest program."""
        if not self.log.exists():
            return []
        lines = self.log.read_text(errors="replace").splitlines()
        parts = [line.split(" ") for line in lines]
        return [(p[1], p[2], p[-1] == "*") for p in parts]

    def struck(self):
        """The step the plan struck first, as text; None when it was never reached."""
        for number, (call, file, hit) in enumerate(self.steps(), 1):
            if hit:
                return f"{number} {call} {file}"
        return None

    def kill(self, process):
        """SIGKILL between two steps: the record of what is durable is whole."""
        while process.popen.poll() is None:
            process.signal(signal.SIGSTOP)
            while process.popen.poll() is None and not all_stopped(process.popen.pid):
                time.sleep(0.0005)
            if not self.busy():
                break
            process.signal(signal.SIGCONT)
            time.sleep(0.001)
        process.kill()

    def busy(self):
        with open(self.state / "disk", "rb") as record:
            return record.read(4) != bytes(4)

    def cut(self, seed):
        """The power goes while nobody uses the disk: seed 0 loses all that was not synced."""
        if not self.state.exists():
            return
        library = ctypes.CDLL(str(LIBRARY), use_errno=True)
        call = library.faultfs_cut
        call.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64]
        if call(os.fsencode(self.state), os.fsencode(self.disk), seed) != 0:
            raise OSError(ctypes.get_errno(), "the power cut failed")


def all_stopped(pid):
    try:
        return all("\nState:\tT" in (task / "status").read_text()
                   for task in Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return False


class Clock:
    """A wall clock that steps: `env` goes to the program, `step_s` moves it."""

    def __init__(self, path):
        self.path = Path(path)
        self.step(0)

    def step(self, seconds):
        with open(self.path, "r+b" if self.path.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))

    def env(self):
        return {"LD_PRELOAD": str(LIBRARY), "FAULTFS_CLOCK": str(self.path)}
