"""Let only one run at a time write an output: the run that holds the output's lease. Other runs wait until the lease ends.

The lease ends with the run, or limits.lease_seconds after the run's last heartbeat (see `heartbeats`). The lease only avoids
wasted work. The tables stay correct even if two runs write at once, because each run has an epoch: a number greater than
those of all earlier runs. A run takes its epoch with its first commit to `runs`. After that commit, Delta refuses commits of
earlier runs to `runs`; after `recovery.settle`, Delta refuses their commits to all tables. See docs/decisions.md.
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
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import Self

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from entitymill.errors import LimitError, OutputError
from entitymill.run_row import UNKNOWN_TIME, RunRow
from entitymill.settings.sections import LimitSettings
from entitymill.spark import spark_connect
from entitymill.spark.private_session import clone_session
from entitymill.tables.heartbeats import Heartbeat
from entitymill.tables.numbered_commits import TRIES, Commits, is_concurrent_write
from entitymill.tables.output_tables import Tables
from entitymill.tables.runs import MAINTENANCE, Record, Runs, choose_start

log = logging.getLogger(__name__)
POLL_SECONDS = 2.0
"""Longest pause between two attempts to take the lease."""
BEATS_PER_LEASE = 3
"""How many heartbeats a run writes in `limits.lease_seconds`, at equal intervals."""


class Lease:
    """Context manager that gives a run the lease, the right to write an output, until the `with` block ends."""

    def __init__(
        self,
        tables: Tables,
        limits: LimitSettings,
        run_id: str,
        build_row: Callable[[], RunRow] | None = None,
        record: Record | None = None,
        on_wait: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Store the arguments; the lease is taken when the `with` block begins.

        Args:
            tables: tables of the output, in the run's Spark session, which must come from `open_private_session`.
            build_row: function that returns the run's current row of `runs`; if None, the row has the mode `maintenance`.
            record: summary of `runs`, if the caller has just read one; None to let this class read the summary. If `runs`
                changes before the lease is taken, this class reads a new summary in any case.
            on_wait: function that is called before each pause while this run waits for another run. Its argument is a
                description of the other run.
        """
        self._tables = tables
        self._limits = limits
        self._run_id = run_id
        self._build_own_row = build_row or (lambda: RunRow(run_id, mode=MAINTENANCE))
        self._record = record
        self._on_wait = on_wait
        self._runs = Runs(tables)
        self._heartbeat = None
        if tables.root is not None and not spark_connect.is_remote(tables.spark):
            self._heartbeat = Heartbeat(tables, run_id, limits.lease_seconds)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat_while_held, daemon=True)
        self._checked_at = 0.0
        self._skips = 0
        self.started = datetime.now(timezone.utc)
        """Start time of this run in UTC; once the lease is taken, later than the start of the latest earlier run."""
        self.epoch = 0
        """Number of this run, greater than those of all earlier runs; 0 until the first attempt to commit to `runs`."""
        self.earlier_runs = Record()
        """Summary of `runs` before this run took the lease."""

    def __enter__(self) -> Self:
        """Wait until no other run holds the lease, take the lease, and start to write heartbeats in a separate thread.

        Raise OutputError if another run still holds the lease after `limits.wait_seconds`.
        """
        deadline = time.monotonic() + self._limits.wait_seconds
        holder = "another run that just began"
        for attempt in itertools.count():
            other = self._try_to_take()
            if other is None:
                break
            if not other and attempt < TRIES:  # another run has just committed to `runs`
                continue
            holder = other or holder
            if time.monotonic() >= deadline:
                raise OutputError(
                    f"output: {holder} is writing to {self._tables.output}; run again when it is done, or increase "
                    "limits.wait_seconds."
                )
            log.info("waiting for %s", holder)
            self._on_wait(holder)
            # The pauses are random, so that waiting runs do not collide at each attempt.
            time.sleep(min(POLL_SECONDS * random.uniform(0.5, 1), max(0.1, deadline - time.monotonic())))  # noqa: S311
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Release the lease, unless `end` has already done this; if the release fails, only log the error.

        The run's status becomes `stopped` if the `with` block raised KeyboardInterrupt or LimitError, `failed` if it raised
        any other error, and otherwise `done`.
        """
        if not self._stopped.is_set():
            status = "failed"
            if error is None:
                status = "done"
            elif isinstance(error, KeyboardInterrupt | LimitError):
                status = "stopped"
            try:
                self.end(status)
            except Exception:
                log.exception("the lease could not be released; the next run waits until the lease ends by itself")
        if self._heartbeat is not None:
            self._heartbeat.stop()

    def end(self, status: str) -> None:
        """Stop the heartbeats, and write the run's final status (done, failed or stopped) to `runs`; this ends the lease.

        Where runs write heartbeat files, other runs wait until the end of the `with` block, which deletes this run's file.
        If another run took over the output, Delta skips the write. In this case, raise OutputError if `status` is done. If
        `status` is failed or stopped, raise nothing, because the caller already has an error.
        """
        self._stopped.set()
        self._thread.join()
        self._runs.replace_running_rows(self._build_row(status), self.commits)
        if status == "done" and not self.commits.has_committed("runs"):
            self._raise_lost()

    def check_if_due(self) -> None:
        """Call `check_now`, unless the last check was less than half of `limits.lease_seconds` ago.

        Raise OutputError if `check_now` does: another run has taken the lease.
        """
        if time.time() - self._checked_at >= self._limits.lease_seconds / 2:
            self.check_now()

    def check_now(self) -> None:
        """Raise OutputError if another run has taken the lease, because this run sent no heartbeat for too long."""
        if self._runs.read_record().epoch != self.epoch:
            self._raise_lost()
        self._checked_at = time.time()

    def _raise_lost(self) -> None:
        """Raise an OutputError that says which run took over the output."""
        latest = self._runs.read_record().latest
        raise OutputError(
            f"output: run {latest and latest.run_id} took over {self._tables.output}, because this run sent no heartbeat "
            f"for {self._limits.lease_seconds:g} seconds (limits.lease_seconds). This run stops and publishes nothing more; "
            "the other run continues."
        )

    def _try_to_take(self) -> str | None:
        """Try to take the lease; return None on success, or else a description of the run that holds the lease.

        The description is empty if another run has just committed to `runs`. Where runs write heartbeat files, this run
        first writes its own file. If the lease is not taken, the file is deleted again.
        """
        taken = False
        try:
            if self._heartbeat is not None:
                process = describe_process(self._limits.lease_seconds)
                self._heartbeat.beat(RunRow(self._run_id, datetime.now(timezone.utc), process=process))
                others = self._heartbeat.read_other_runs()
                if others:
                    self._record = None  # the summary will be outdated when the other run ends
                    return _describe_run(min(others, key=_rank_as_holder))
            found, epoch = self._choose_epoch()
            until = found.lease_until if self._heartbeat is None else None
            if found.latest is not None and until is not None and until > datetime.now(timezone.utc):
                return _describe_run(found.latest)
            taken = self._begin(found, epoch)
            return None if taken else ""
        finally:
            if not taken and self._heartbeat is not None:
                self._heartbeat.stop()

    def _choose_epoch(self) -> tuple[Record, int]:
        """Choose this run's epoch (its number: the greatest known epoch + 1); return a summary of `runs` and the epoch.

        Create the table `runs` if it does not exist. In the summary, `certain` is False if another run may have begun after
        the summary was read.
        """
        for attempt in range(TRIES):  # another run may be creating `runs` as well
            try:
                if attempt or not self._tables.is_current("runs"):
                    self._runs.create()
                # If somebody has restored or deleted rows of `runs`, only its history has the greatest epoch.
                noted = self._runs.read_greatest_epoch_in_history() if self._skips else 0
                found = self._record or self._runs.read_record()
                self._record = None
            except (PySparkException, Py4JJavaError, OutputError):
                if attempt == TRIES - 1:
                    raise
                time.sleep(POLL_SECONDS)
            else:
                # If another run takes the next epoch first, Delta skips this run's first commit.
                last = self._runs.read_base_epoch() if found.latest is None else found.epoch
                if last >= self.epoch:
                    self._skips = noted = 0  # an ordinary collision: the run that took this epoch is in `runs`
                if noted <= last and self._skips > 1:
                    # The history no longer has the greatest epoch. The current time in seconds is greater than every epoch:
                    # see `read_base_epoch`.
                    noted = int(time.time())
                epoch = max(last, noted) + 1
                return replace(found, certain=epoch == last + 1), epoch
        raise AssertionError

    def _begin(self, earlier_runs: Record, epoch: int) -> bool:
        """Take the lease: commit this run's row to `runs`, and set dead runs to the status died; return whether this worked.

        Return False if Delta refuses or skips the commit, usually because another run has begun. `earlier_runs` and `epoch`
        are the results of `_choose_epoch`. Set the attributes epoch, commits and started and, on success, earlier_runs.
        """
        self.epoch = epoch
        self.commits = Commits(self._tables, self._run_id, epoch)
        self.started = choose_start(earlier_runs.last)
        try:
            dead = self._heartbeat.dead if self._heartbeat is not None else {}
            row = self._build_row("running")
            self._runs.add_row(row, self.commits, mark_dead=earlier_runs.running, heartbeats=dead)
        except Exception as error:
            if is_concurrent_write(error):
                return False
            raise
        if not self.commits.has_committed("runs"):
            self._skips += 1  # another run took this epoch first, or somebody restored an old version of `runs`
            return False
        if self._tables.version("runs") != max(earlier_runs.version, 0) + 1:
            # After `earlier_runs` was read, another run has written its end into its row, or somebody has replaced `runs`.
            earlier_runs = replace(self._runs.read_record(before=epoch), certain=earlier_runs.certain)
        self.earlier_runs, self._checked_at = earlier_runs, time.time()
        return True

    def _build_row(self, status: str) -> RunRow:
        """Return the run's row of `runs`: the result of `build_row` with new times, status, epoch, settled and process."""
        now = datetime.now(timezone.utc)
        running = status == "running"
        # If somebody has put back an old copy of `runs`, the tables have greater epochs than `runs`. The current time in
        # seconds is greater than every epoch (see `Runs.read_base_epoch`), so the next run chooses one that is great enough.
        # If there is a later run, Delta skips the commit of this row.
        epoch = max(self.epoch, int(now.timestamp())) if self.commits.found_later_run else self.epoch
        return replace(
            self._build_own_row(),
            started_at=self.started,
            ended_at=None if running else now,
            status=status,
            epoch=epoch,
            settled=None if running else self.commits.settled,
            process=describe_process(self._limits.lease_seconds),
            until=now + timedelta(seconds=self._limits.lease_seconds) if running else None,
        )

    def _beat_while_held(self) -> None:
        """Write heartbeats until the lease is released; log errors, raise none. This method runs in a separate thread.

        In a catalog and on Spark Connect, where there are no heartbeat files, rewrite the run's row of `runs` instead.
        """
        # Use a separate session: in the run's session, the main thread may have set a transaction number for a commit.
        runs = Runs(Tables(clone_session(self._tables.spark), self._tables.settings))
        while not self._stopped.wait(self._limits.lease_seconds / BEATS_PER_LEASE):
            try:
                if self._heartbeat is not None:
                    self._heartbeat.beat(self._build_row("running"))
                else:
                    runs.replace_running_rows(self._build_row("running"), self.commits)
            except Exception:
                log.exception(
                    "the heartbeat could not be written; without one, another run may take over after limits.lease_seconds"
                )


def describe_process(lease_seconds: float) -> str:
    """Return host name, process id and the run's `limits.lease_seconds` as JSON, for the `process` column of `runs`."""
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "lease_seconds": lease_seconds})


def _rank_as_holder(row: RunRow) -> tuple[bool, bool, datetime]:
    """Return a sort key that is smallest for the heartbeat of the run that holds the lease.

    The status running comes first, then the earliest start; unknown starts come last.
    `row` is the content of a heartbeat file. Until the holder writes the status running, its file looks like the file of a
    waiting run. But the holder's file has the earliest start, because waiting runs rewrite their files with later starts.
    """
    return row.status != "running", row.started_at == UNKNOWN_TIME, row.started_at


def _describe_run(row: RunRow) -> str:
    """Return a description of a run for messages: its id, its host and the end of its lease in this machine's local time."""
    until = f", its lease lasts until {row.until.astimezone():%Y-%m-%d %H:%M:%S}" if row.until is not None else ""
    return f"run {row.run_id} (on {row.host}{until})"
