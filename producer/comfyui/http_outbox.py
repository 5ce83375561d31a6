"""The HTTP client's outbox: a folder of jobs that no daemon has accepted, one file each.

    <order>-<job id>.job           a job, waiting
    <order>-<job id>.job.part      being written; what a killed process left is removed
    <order>-<job id>.job.refused   the daemon refused it; its latents are kept
    LOCK                           of the process that has the folder, as long as it lives

A folder has one process at a time, so that no job is sent by two.
"""

import os
import re
import time

from .luna_client import RC_BUSY, LunaError

MAX_BYTES = 4 << 30  # of all files, as in libluna

_JOB_FILE = re.compile(r"\d{20}-([0-9a-f-]{36})\.job\Z")
_PART = ".part"


class Outbox:
    """LunaError "busy" when another process has the folder; OSError when it cannot be used."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        self._lock = os.open(os.path.join(folder, "LOCK"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._take_lock()
        except BaseException:
            os.close(self._lock)
            raise
        for name in os.listdir(folder):
            if name.endswith(_PART):
                remove(os.path.join(folder, name))

    def _take_lock(self):
        try:
            _lock(self._lock)
        except OSError:
            raise LunaError(RC_BUSY, "busy", f"the outbox {self.folder} is in use by another "
                            "process: give each ComfyUI a folder of its own") from None

    def jobs(self):
        """[(job id, path)] of what a former process left, in its order."""
        found = ((_JOB_FILE.match(name), name) for name in sorted(os.listdir(self.folder)))
        return [(match.group(1), os.path.join(self.folder, name)) for match, name in found if match]

    def write(self, job_id, message):
        """The path of the job's file, which is on the disk. OSError when it is not."""
        path = os.path.join(self.folder, f"{time.time_ns():020}-{job_id}.job")
        try:
            used = sum(entry.stat().st_size for entry in os.scandir(self.folder))
            if used + len(message) > MAX_BYTES:
                raise OSError(f"the outbox is full, {used >> 20} MiB")
            with open(path + _PART, "xb") as file:
                file.write(message)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path + _PART, path)
            self._sync()
        except OSError as problem:
            remove(path + _PART)
            raise OSError(f"cannot write {path}: {problem}") from problem
        return path

    def _sync(self):
        """So that the name outlives a power cut; Windows has no such call for a folder."""
        if os.name == "posix":
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def close(self):
        os.close(self._lock)


def remove(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # somebody tidied up


def _lock(file):
    """For this process alone, until it ends. OSError when another one has it."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
