"""One run at a time works on an output: the others wait for its sign of life to end. That only saves work.

What keeps the tables right is the epoch that a run takes with its first commit to `runs`; see docs/decisions.md.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import Any, Self

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from entitymill.errors import OutputError
from entitymill.settings.sections import LimitSettings
from entitymill.spark import spark_connect
from entitymill.spark.run_session import clone_session
from entitymill.tables.commits import TRIES, Commits, is_concurrent_write
from entitymill.tables.heartbeats import Heartbeat
from entitymill.tables.layout import Tables
from entitymill.tables.runs import MAINTENANCE, Record, Runs, choose_start

log = logging.getLogger(__name__)
POLL_SECONDS = 2.0
BEATS_PER_LEASE = 3


class Lease:
    """The right to work on an output, held while the context lasts."""

    def __init__(
        self,
        tables: Tables,
        limits: LimitSettings,
        run_id: str,
        row: Callable[[], dict[str, Any]] | None = None,
        seen: Record | None = None,
        waits: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Prepare; nothing is written yet.

        Args:
            tables: in the run's private session.
            limits: how long to wait, and how long a lease lasts without a sign of life.
            run_id: of the taker.
            row: returns the run's row of `runs` as it stands by now; None for maintenance.
            seen: what `runs` said not long ago. Where another run has come since, Delta skips the row of this one.
            waits: is called with the name of the run that this one waits for.
        """
        self._tables = tables
        self._limits = limits
        self._run_id = run_id
        self._row = row or (lambda: {"mode": MAINTENANCE})
        self._seen = seen
        self._waits = waits
        self._runs = Runs(tables)
        self._heartbeat = None
        if tables.root is not None and not spark_connect.is_remote(tables.spark):
            self._heartbeat = Heartbeat(tables, run_id, limits.lease_seconds)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat_while_held, daemon=True)
        self._checked_at = 0.0
        self._skipped = False
        self.started = datetime.now(timezone.utc)
        """When the run began: after the last one, whatever the clocks say."""
        self.epoch = 0
        self.earlier_runs = Record()
        """What `runs` said before the lease was taken."""

    def __enter__(self) -> Self:
        """Take it.

        Raises:
            OutputError: another run holds it for longer than `limits.wait_seconds`.
        """
        deadline = time.monotonic() + self._limits.wait_seconds
        holder = "another run that just began"
        for attempt in itertools.count():
            other = self._take()
            if other is None:
                break
            if not other and attempt < TRIES:  # another run came and went since the last look
                continue
            holder = other or holder
            if time.monotonic() >= deadline:
                raise OutputError(
                    f"output: {holder} writes {self._tables.place}; run again when it is done, or raise limits.wait_seconds."
                )
            log.info("waiting for %s", holder)
            self._waits(holder)
            # Runs that wait for the same one must not collide at each try.
            time.sleep(min(POLL_SECONDS * random.uniform(0.5, 1), max(0.1, deadline - time.monotonic())))  # noqa: S311
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give it back, if `end` did not."""
        if not self._stopped.is_set():
            try:
                self.end("done" if error is None else "stopped" if isinstance(error, KeyboardInterrupt) else "failed")
            except Exception:
                # The run's own outcome counts; the next one waits until the lease ends.
                log.exception("the lease could not be given back")
        if self._heartbeat is not None:
            self._heartbeat.stop()

    def end(self, status: str) -> None:
        """Record how the run ended, and give the lease back.

        Raises:
            OutputError: another run took over, and the record was refused.
        """
        self._stopped.set()
        self._thread.join()
        self._runs.write_row(self._build_row(status), self.commits)
        if status == "done" and not self.commits.has_committed("runs"):
            self._raise_lost()

    def check_if_due(self) -> None:
        """Make sure, now and then, that no other run took over: it saves work that would be refused.

        Raises:
            OutputError: one did.
        """
        if time.time() - self._checked_at >= self._limits.lease_seconds / 2:
            self.check_now()

    def check_now(self) -> None:
        """Make sure that no other run took over.

        Raises:
            OutputError: one did.
        """
        if self._runs.read_record().epoch != self.epoch:
            self._raise_lost()
        self._checked_at = time.time()

    def _raise_lost(self) -> None:
        latest = self._runs.read_record().latest
        raise OutputError(
            f"output: run {latest and latest['run_id']} took over {self._tables.place}, since this run gave no sign of life "
            f"for limits.lease_seconds = {self._limits.lease_seconds:g}; nothing more was published; that run continues."
        )

    def _take(self) -> str | None:
        """Try to take the lease; return None where that worked, otherwise who holds it, as far as that is known."""
        taken = False
        try:
            if self._heartbeat is not None:
                self._heartbeat.beat({"run_id": self._run_id, "process": _process()})
                others = self._heartbeat.read_other_runs()
                if others:
                    return _describe_run(max(others, key=lambda row: str(row.get("started_at", ""))))
            found, epoch = self._choose_epoch()
            if self._heartbeat is None and found.lease_until is not None and found.lease_until > datetime.now(timezone.utc):
                return _describe_run(found.latest.asDict() if found.latest else {})
            taken = self._begin(found, epoch)
            return None if taken else ""
        finally:
            if not taken and self._heartbeat is not None:
                self._heartbeat.stop()

    def _choose_epoch(self) -> tuple[Record, int]:
        """Read `runs`; of two first runs, one may find the table half made by the other."""
        for attempt in range(TRIES):
            try:
                if attempt or not self._tables.is_current("runs"):
                    self._runs.create()
                seen, self._seen = self._seen, None
                found = seen or self._runs.read_record()
            except (PySparkException, Py4JJavaError, OutputError):
                if attempt == TRIES - 1:
                    raise
                time.sleep(POLL_SECONDS)
            else:
                # One more than the last: had another run begun meanwhile, Delta would skip this one's first commit.
                last = self._runs.base_epoch() if found.latest is None else found.epoch
                return found, max(last, self._runs.greatest_noted_epoch() if self._skipped else 0) + 1
        raise AssertionError

    def _begin(self, found: Record, epoch: int) -> bool:
        """Commit the own row under a new epoch; return whether Delta took it."""
        self.epoch = epoch
        self.commits = Commits(self._tables, self._run_id, epoch)
        self.started = choose_start(found.last)
        try:
            self._runs.write_row(self._build_row("running"), self.commits, mark_dead=found.running)
        except Exception as error:
            if is_concurrent_write(error):
                return False
            raise
        if not self.commits.has_committed("runs"):
            self._skipped = True  # another run of this epoch was first; or somebody restored `runs`
            return False
        self.earlier_runs, self._checked_at = found, time.time()
        return True

    def _build_row(self, status: str) -> dict[str, Any]:
        now = datetime.now(timezone.utc)
        running = status == "running"
        return {
            **self._row(),
            "run_id": self._run_id,
            "started_at": self.started,
            "ended_at": None if running else now,
            "status": status,
            "epoch": self.epoch,
            "settled": None if running else self.commits.settled,
            "process": _process(),
            "until": now + timedelta(seconds=self._limits.lease_seconds) if running else None,
        }

    def _beat_while_held(self) -> None:
        # A session of its own: the number of a statement that runs meanwhile stands in the run's.
        runs = Runs(Tables(clone_session(self._tables.spark), self._tables.settings))
        while not self._stopped.wait(self._limits.lease_seconds / BEATS_PER_LEASE):
            try:
                if self._heartbeat is not None:
                    self._heartbeat.beat(self._build_row("running"))
                else:
                    runs.write_row(self._build_row("running"), self.commits)
            except Exception:
                log.exception("no sign of life could be given")


def _process() -> str:
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid()})


def _describe_run(row: dict[str, Any]) -> str:
    """Name a run for people; empty where nothing is known of it."""
    if not row.get("run_id"):
        return ""
    until = f", its lease lasts until {row['until']:%Y-%m-%d %H:%M:%S}" if isinstance(row.get("until"), datetime) else ""
    try:
        host = json.loads(row.get("process") or "")["host"]
    except (ValueError, KeyError, TypeError):
        host = "an unknown host"
    return f"run {row['run_id']} (on {host}{until})"
