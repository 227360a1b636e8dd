"""One run at a time writes an output: its row in `runs` is the lease, and Delta's conflict check decides who gets it.

The holder writes its row anew while it works. A run that finds that row outdated, or its holder's process gone from this
very machine, takes over under the next epoch; what the old holder may still commit is fenced off (see `commits`).
"""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Row

from entitymill.errors import OutputError
from entitymill.platform import spark_connect
from entitymill.settings.sections import LimitSettings
from entitymill.tables import commits
from entitymill.tables.commits import TRIES, Claims, Commits, concurrent
from entitymill.tables.layout import Tables
from entitymill.tables.runs import MAINTENANCE, Record, Runs, turn

log = logging.getLogger(__name__)
POLL_SECONDS = 2.0
RENEWALS_PER_LEASE = 3
POOL = "entitymill-lease"
"""Of Spark's fair scheduler: where that is on, renewals do not queue behind the run's own tasks."""


class Lease:
    """The right to write an output, held while the context lasts."""

    def __init__(
        self,
        tables: Tables,
        limits: LimitSettings,
        run_id: str,
        row: Callable[[], dict[str, Any]] | None = None,
        seen: Record | None = None,
        waits: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Nothing is taken yet.

        Args:
            limits: how long to wait, and how long a lease lasts without renewal.
            run_id: of the taker.
            row: of `runs`, as it is by now, without what says that it is the lease; none for maintenance.
            seen: what `runs` said not long ago. Where another run has come since, Delta skips the row of this one.
            waits: is told for whom it waits.
        """
        self._tables = tables
        self._limits = limits
        self._run_id = run_id
        self._row = row or (lambda: {"mode": MAINTENANCE})
        self._seen = seen
        self._waits = waits
        self._runs = Runs(tables)
        self._claim = claim_of(tables, limits, run_id)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._renew_while_held, daemon=True)
        # By the clock on the wall, which goes on while a machine sleeps.
        self._renewed = 0.0
        self.started = datetime.now(timezone.utc)
        """When the run began: after the last one, whatever the clocks say."""
        self.epoch = 0
        self.before = Record()
        """What `runs` said before the lease was taken."""

    def __enter__(self) -> Self:
        """Take it.

        Raises:
            OutputError: another run holds it for longer than `limits.wait_seconds`.
        """
        deadline = time.monotonic() + self._limits.wait_seconds
        holder = "another run that just began"
        while not self._claim_and_take():
            holder = self._holder() or holder
            if time.monotonic() >= deadline:
                raise OutputError(
                    f"output: {holder} writes {self._tables.place}; run again when it is done, or raise limits.wait_seconds."
                )
            log.info("waiting for %s", holder)
            self._waits(holder)
            # Of runs that wait for the same one, not always the same should come in each other's way.
            time.sleep(min(POLL_SECONDS * random.uniform(0.5, 1), max(0.1, deadline - time.monotonic())))  # noqa: S311
        self._thread.start()
        if self.before.latest is not None and self.before.latest["status"] != "done":
            # It did not give the lease back, or broke off while Spark went on with its last commit.
            try:
                self.commits.fence(self._tables, Tables(self._tables.spark, self._tables.settings, staged=True))
            except BaseException as error:
                # The next holder fences too: this one does not end as done.
                self.__exit__(type(error), error, error.__traceback__)
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give it back, if `end` did not."""
        if not self._stopped.is_set():
            try:
                self.end("done" if error is None else "stopped" if isinstance(error, KeyboardInterrupt) else "failed")
            except Exception:
                # The run's own outcome counts; the next one waits until the lease ends.
                log.exception("the lease could not be given back")
        self._withdraw()

    def end(self, status: str) -> None:
        """Write down how the run ended, and with that give the lease back."""
        self._stopped.set()
        self._thread.join()
        self._runs.put(self._whole(status), self.commits)

    def check(self, *, surely: bool = False) -> None:
        """Make sure that no other run took over.

        Args:
            surely: whether to look although the lease was renewed not long ago.

        Raises:
            OutputError: one did.
        """
        if not surely and time.time() - self._renewed < self._limits.lease_seconds / 2:
            return
        latest = self._runs.look().latest
        if latest is None or latest["epoch"] != self.epoch:
            raise OutputError(
                f"output: run {latest and latest['run_id']} took over {self._tables.place}, since this run gave no sign of "
                f"life for limits.lease_seconds = {self._limits.lease_seconds}; nothing more was published; that run goes "
                "on."
            )

    def _claim_and_take(self) -> bool:
        taken = False
        try:
            if self._claim is not None and not self._claim.take():
                return False
            taken = self._try_to_take(*self._look_surely())
        finally:
            if not taken:
                self._withdraw()
        return taken

    def _look_surely(self) -> tuple[Record, int]:
        """What `runs` says, and the epoch to take; of two first runs, one may find the table half made by the other."""
        for attempt in range(TRIES):
            try:
                if attempt or not self._tables.current("runs"):
                    self._runs.create()
                seen, self._seen = self._seen, None
                found = seen or self._runs.look()
                return found, int(found.latest["epoch"]) + 1 if found.latest else self._runs.first_epoch()
            except (PySparkException, Py4JJavaError, OutputError):
                if attempt == TRIES - 1:
                    raise
                time.sleep(POLL_SECONDS)
        raise AssertionError

    def _try_to_take(self, found: Record, epoch: int) -> bool:
        holder = found.holder
        if holder is not None and _lasting(holder) and not process_gone(holder["process"]):
            return False
        self.epoch = epoch
        self.commits = Commits(self._tables, self._run_id, self.epoch)
        self.started = turn(found.last)
        try:
            self._runs.put(self._whole("running"), self.commits, over=holder is not None)
        except Exception as error:
            if concurrent(error):
                return False
            raise
        if not self._runs.wrote(self._run_id):
            return False  # another run of the same epoch was first
        self.before, self._renewed = found, time.time()
        return True

    def _whole(self, status: str) -> dict[str, Any]:
        now = datetime.now(timezone.utc)
        running = status == "running"
        return {
            **self._row(),
            "run_id": self._run_id,
            "started_at": self.started,
            "ended_at": None if running else now,
            "status": status,
            "epoch": self.epoch,
            "process": json.dumps(this_process()),
            "until": now + timedelta(seconds=self._limits.lease_seconds) if running else None,
        }

    def _withdraw(self) -> None:
        if self._claim is None:
            return
        try:
            self._claim.release()
        except Exception:
            # Others wait until it is outdated, or find this process gone.
            log.exception("the claim could not be withdrawn")

    def _holder(self) -> str | None:
        try:
            held = self._runs.look().holder
        except (PySparkException, Py4JJavaError):  # a first run makes the directory, then the table, then its row
            held = None
        if held is None:
            return None
        until = f"{held['until']:%Y-%m-%d %H:%M:%S}"
        return f"run {held['run_id']} ({host_of(held['process'])}, its lease lasts until {until})"

    def _renew_while_held(self) -> None:
        if not spark_connect.remote(self._tables.spark):
            self._tables.spark.sparkContext.setLocalProperty("spark.scheduler.pool", POOL)
        while not self._stopped.wait(self._limits.lease_seconds / RENEWALS_PER_LEASE):
            try:
                if self._claim is not None:
                    self._claim.renew()
                began = time.time()
                self._runs.put(self._whole("running"), self.commits)
                self._renewed = began
            except Exception:
                log.exception("the lease could not be renewed")


def _lasting(holder: Row) -> bool:
    return bool(holder["until"].astimezone(timezone.utc) > datetime.now(timezone.utc))


def claim_of(tables: Tables, limits: LimitSettings, run_id: str) -> Claims | None:
    """The claim that has to stand before anything is committed; none where the storage itself tells commits apart."""
    if not commits.claim_needed(tables.spark, tables.settings):
        return None
    own = json.dumps(this_process())
    return Claims(tables.spark, tables.address("claims"), run_id, own, process_gone, limits.lease_seconds)


def this_process() -> dict[str, str]:
    """What tells this process from every other, on any machine, at any time."""
    return {"host": socket.gethostname(), **_kernel(), "pid": str(os.getpid()), "started": _started(os.getpid()) or ""}


def process_gone(process: str | None) -> bool:
    """Whether a process is known to be dead: of this kernel and this pid namespace, and not there any more."""
    try:
        told = json.loads(process or "")
        pid = int(told["pid"])
    except (ValueError, KeyError, TypeError):
        return False
    here = all(told.get(key) == value for key, value in _kernel().items())
    return here and not _hidden(pid) and _started(pid) != told.get("started")


def host_of(process: str | None) -> str:
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
