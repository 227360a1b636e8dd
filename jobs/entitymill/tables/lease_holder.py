"""Which process holds a lease, and whether it is known to be dead."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path


def this_process() -> dict[str, str]:
    """What tells this process from every other, on any machine, at any time."""
    return {"host": socket.gethostname(), **_kernel(), "pid": str(os.getpid()), "started": _started(os.getpid()) or ""}


def gone(process: str | None) -> bool:
    """Whether a process is known to be dead: of this kernel and this pid namespace, and not there any more."""
    try:
        told = json.loads(process or "")
        pid = int(told["pid"])
    except (ValueError, KeyError, TypeError):
        return False
    here = all(told.get(key) == value for key, value in _kernel().items())
    return here and not _hidden(pid) and _started(pid) != told.get("started")


def host(process: str | None) -> str:
    """Where a process runs, in words."""
    try:
        return f"on {json.loads(process or '')['host']}"
    except (ValueError, KeyError, TypeError):
        return "somewhere"


def _kernel() -> dict[str, str]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return {"boot": boot, "namespace": str(Path("/proc/self/ns/pid").readlink())}
    except OSError:
        # Told apart from every other, so that nobody is ever found gone.
        return {"boot": os.urandom(8).hex(), "namespace": ""}


def _hidden(pid: int) -> bool:
    """Whether a process is there, of another user's, and /proc does not say when it began (hidepid, ProtectProc)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not Path(f"/proc/{pid}/stat").exists()
    except (ProcessLookupError, OverflowError):
        return False
    return False


def _started(pid: int) -> str | None:
    """The process's start in clock ticks since boot; none if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie is dead, and only waits to be reaped. https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    return None if fields[0] == "Z" else fields[19]
