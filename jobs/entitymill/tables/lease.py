"""One run at a time writes an output: a row of a Delta table says which, and Delta's own conflict check decides who gets it.

The holder renews its row while it works. A run that finds the row outdated, or its holder's process gone from this very
machine, takes over under a higher epoch; what the old holder may still commit is fenced off (see `commits`).
"""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import Self

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, Row
from pyspark.sql import functions as F

from entitymill import schemas, session
from entitymill.errors import OutputError
from entitymill.settings import LimitSettings
from entitymill.tables import claims
from entitymill.tables.claims import Claims
from entitymill.tables.commits import TRIES, Commits, concurrent
from entitymill.tables.layout import LEASE, Tables

log = logging.getLogger(__name__)
POLL_SECONDS = 2.0
RENEWALS_PER_LEASE = 3
POOL = "entitymill-lease"
"""Of Spark's fair scheduler: where that is on, renewals do not queue behind the run's own tasks."""


class Lease:
    """The right to write an output, held while the context lasts."""

    def __init__(self, tables: Tables, limits: LimitSettings, run_id: str) -> None:
        """Nothing is taken yet.

        Args:
            tables: of the output.
            limits: how long to wait, and how long a lease lasts without renewal.
            run_id: of the taker.
        """
        # A session of its own: the run's carries the fence in its confs, and a query of the renewals must not take it.
        self._session = session.beside(tables.spark)
        self._table = Tables(self._session, tables.settings)
        self._tables = tables
        self._limits = limits
        self._run_id = run_id
        self._claim = claim_of(tables, limits, run_id)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._renew_while_held, daemon=True)
        self.epoch = 0
        self._taken_over = False

    def __enter__(self) -> Self:
        """Take it.

        Raises:
            OutputError: another run holds it for longer than `limits.wait_seconds`.
        """
        deadline = time.monotonic() + self._limits.wait_seconds
        while not self._claim_and_take():
            holder = self._holder()
            if time.monotonic() >= deadline:
                raise OutputError(
                    f"output: {holder} writes {self._where()}; run again when it is done, or raise limits.wait_seconds."
                )
            log.info("waiting for %s", holder)
            # Of runs that wait for the same one, not always the same should come in each other's way.
            time.sleep(min(POLL_SECONDS * random.uniform(0.5, 1), max(0.1, deadline - time.monotonic())))  # noqa: S311
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give it back."""
        self._stopped.set()
        self._thread.join()
        try:
            self._update(self.epoch, run_id=F.lit(None), process=F.lit(None), until=F.lit(None))
        except Exception:
            # The run's own outcome counts; the next one waits until the lease ends.
            log.exception("the lease could not be given back")
        self._withdraw()

    def commits(self) -> Commits:
        """The holder's commits. A holder before that did not give the lease back may still be at work: it is fenced off."""
        made = Commits(self._tables.spark, self.epoch)
        if self._taken_over:
            made.fence(self._tables, Tables(self._tables.spark, self._tables.settings, staged=True))
        return made

    def check(self) -> None:
        """Make sure that no other run took over.

        Raises:
            OutputError: one did.
        """
        held = self._read()
        if held.epoch != self.epoch:
            raise OutputError(
                f"output: run {held.run_id} took over {self._where()}, since this run gave no sign of life for "
                f"limits.lease_seconds = {self._limits.lease_seconds}; nothing more was published; that run goes on."
            )

    def _find_surely(self) -> Row:
        """Of two first runs at once, one may find the table half made by the other."""
        for _ in range(TRIES - 1):
            try:
                return self._find()
            except (PySparkException, Py4JJavaError, OutputError):
                time.sleep(POLL_SECONDS)
        return self._find()

    def _claim_and_take(self) -> bool:
        if self._claim is not None and not self._claim.take():
            return False
        taken = False
        try:
            taken = self._try_to_take(self._find_surely())
        finally:
            if not taken:
                self._withdraw()
        return taken

    def _withdraw(self) -> None:
        if self._claim is None:
            return
        try:
            self._claim.release()
        except Exception:
            # Others wait until it is outdated, or find this process gone.
            log.exception("the claim could not be withdrawn")

    def _holder(self) -> str:
        try:
            held = self._row() if self._table.exists(LEASE) else None
        except (PySparkException, Py4JJavaError):  # a first run makes the directory, then the table, then its row
            held = None
        if held is None or held.run_id is None:
            return "another run that just began"
        return f"run {held.run_id} ({_host(held.process)}, its lease lasts until {held.until:%Y-%m-%d %H:%M:%S})"

    def _find(self) -> Row:
        """The row; made where it is not there."""
        if not self._table.exists(LEASE):
            self._table.create(LEASE, schemas.LEASE)
        held = self._row()
        if held is not None:
            return held
        # Two first runs at once: an insert that finds a row inserts none, and of two at the same moment one conflicts.
        first = self._session.range(1).select(F.lit(0).cast("long").alias("epoch"))
        merge = self._table.table(LEASE).alias("t").merge(first.alias("s"), "true")
        try:
            merge.whenNotMatchedInsert(values={"epoch": "s.epoch"}).execute()
        except Exception as error:
            if not concurrent(error):
                raise
        return self._read()

    def _try_to_take(self, held: Row) -> bool:
        now = datetime.now(timezone.utc)
        lasting = held.until is not None and held.until.astimezone(timezone.utc) > now
        if held.run_id is not None and lasting and not gone(held.process):
            return False
        # The time keeps epochs growing even where somebody removed the table.
        epoch = max(held.epoch + 1, int(now.timestamp()))
        process = F.lit(json.dumps(this_process()))
        try:
            self._update(
                held.epoch, epoch=F.lit(epoch), run_id=F.lit(self._run_id), process=process, until=F.lit(self._until())
            )
        except Exception as error:
            if concurrent(error):
                return False
            raise
        found = self._read()
        if (found.epoch, found.run_id) != (epoch, self._run_id):
            return False
        self.epoch, self._taken_over = epoch, held.run_id is not None
        return True

    def _until(self) -> datetime:
        return datetime.now(timezone.utc) + timedelta(seconds=self._limits.lease_seconds)

    def _renew_while_held(self) -> None:
        self._session.sparkContext.setLocalProperty("spark.scheduler.pool", POOL)
        while not self._stopped.wait(self._limits.lease_seconds / RENEWALS_PER_LEASE):
            try:
                if self._claim is not None:
                    self._claim.renew()
                self._update(self.epoch, until=F.lit(self._until()))
            except Exception:
                log.exception("the lease could not be renewed")

    def _update(self, held: int, **values: Column) -> None:
        """Change the row, if its epoch is still the one held."""
        self._table.table(LEASE).update(F.col("epoch") == held, dict(values))

    def _read(self) -> Row:
        held = self._row()
        if held is None:
            raise OutputError(f"output: {self._table.address(LEASE)} is empty; remove it and run again.")
        return held

    def _row(self) -> Row | None:
        rows = self._table.read(LEASE).orderBy("epoch", ascending=False).take(1)
        return rows[0] if rows else None

    def _where(self) -> str:
        return str(self._table.settings.path or self._table.settings.schema_)


def claim_of(tables: Tables, limits: LimitSettings, run_id: str) -> Claims | None:
    """The claim that has to stand before anything is committed; none where the storage itself tells commits apart."""
    if not claims.needed(tables.spark, tables.settings):
        return None
    directory = tables.address("claims")
    return Claims(tables.spark, directory, run_id, json.dumps(this_process()), gone, limits.lease_seconds)


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
    return here and _started(pid) != told.get("started")


def _kernel() -> dict[str, str]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return {"boot": boot, "namespace": str(Path("/proc/self/ns/pid").readlink())}
    except OSError:
        # Told apart from every other, so that nobody is ever found gone.
        return {"boot": os.urandom(8).hex(), "namespace": ""}


def _started(pid: int) -> str | None:
    """The process's start in clock ticks since boot; none if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie is dead, and only waits to be reaped. https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    return None if fields[0] == "Z" else fields[19]


def _host(process: str | None) -> str:
    try:
        return f"on {json.loads(process or '')['host']}"
    except (ValueError, KeyError, TypeError):
        return "somewhere"
