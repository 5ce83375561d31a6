"""Files on their way: under a hidden name until they are whole.

While one is written its process holds a lock on it, which the kernel undoes when the process
ends, however it ends: what can be locked by somebody else is left over. Some network file
systems keep locks to one host, so the name also says where it was written, and a sweep
believes the lock for files of its own host only: of the same start of the same kernel, which
containers share, or of an earlier start of the same machine. Where there are no locks
(Windows) or it cannot be told, they stay.
"""

import contextlib
import hashlib
import logging
import os
import re
import socket
import time

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_NAME = re.compile(r"\.luna-here-(\w+)-(\w+)-\d+-\d+\.part\Z")
_UNKNOWN = "0"

_log = logging.getLogger("luna")


def _text_of(path):
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def _word(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else _UNKNOWN


def _this_host():
    """(this start of the kernel, this machine), as words of a name."""
    machine = _text_of("/etc/machine-id")
    return (_word(_text_of("/proc/sys/kernel/random/boot_id")),
            _word(machine and f"{machine} {socket.gethostname()}"))


_HERE = _this_host()


def _lock(file, flags=0):
    """False where there are no locks, and with LOCK_NB when another has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | flags)
        return True
    except (OSError, AttributeError):
        return False


def _create(folder):
    while True:
        name = f".luna-here-{'-'.join(_HERE)}-{os.getpid()}-{time.monotonic_ns()}.part"
        file = open(os.path.join(folder, name), "xb")
        _lock(file)
        if os.fstat(file.fileno()).st_nlink > 0:
            return file
        file.close()  # a sweep came before the lock


@contextlib.contextmanager
def part(folder, data):
    """The path of a file in this folder that holds these bytes, on its disk; it is gone
    afterwards."""
    file = _create(folder)
    try:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        if fcntl is None:
            file.close()  # Windows renames no open file
        yield file.name
    finally:
        file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file.name)


# ---- what was left over -------------------------------------------------------------------


def _is_of_this_host(name):
    found = _NAME.match(name)
    return bool(found) and any(theirs == ours != _UNKNOWN
                               for theirs, ours in zip(found.groups(), _HERE))


def _remove_if_dead(path):
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not _lock(file, fcntl.LOCK_NB):
            return False
        os.unlink(path)
        return True
    except OSError:
        return False
    finally:
        os.close(file)


def sweep(top):
    """Removes what killed processes of this host left below a folder; their number."""
    if fcntl is None:
        return 0
    count = sum(_remove_if_dead(os.path.join(folder, name))
                for folder, _, names in os.walk(top) for name in names if _is_of_this_host(name))
    if count:
        _log.info("Luna: removed %d unfinished files of a ComfyUI that was killed", count)
    return count
