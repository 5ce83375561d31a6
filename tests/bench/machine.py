"""The machine a measurement ran on, in words."""

import os
import platform
import shutil
import subprocess
from pathlib import Path


def _first(path, key):
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return line.split(":", 1)[1].strip()
    return "unknown"


def _file_system(folder):
    """`ext4 on /dev/vda`, of the mount that holds the folder."""
    best, found = "", "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ", 1)
        mount, (kind, device) = before.split()[4], after.split()[:2]
        inside = os.path.join(folder, "").startswith(os.path.join(mount, ""))
        if inside and len(mount) >= len(best):
            best, found = mount, f"{kind} on {device}"
    return found


def _version(*command):
    if not shutil.which(command[0]):
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout or done.stderr).splitlines()[0].strip()


def describe(folder, luna_broker):
    folder = str(Path(folder).resolve())
    free = shutil.disk_usage(folder).free
    return {
        "cpu": _first("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "file_system": _file_system(folder),
        "free_gib": round(free / 2**30, 1),
        "kernel": platform.release(),
        "load": round(os.getloadavg()[0], 2),
        "luna": _version(luna_broker, "--version"),
        "beanstalkd": _version("beanstalkd", "-v"),
        "redis": _version("redis-server", "--version"),
        "nats": _version("nats-server", "--version"),
    }


def show(machine):
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
          f"{machine['file_system']}, {machine['free_gib']} GiB free; "
          f"Linux {machine['kernel']}; load {machine['load']} at the start")
    print("; ".join(machine[key] for key in ("luna", "beanstalkd", "redis", "nats")))
