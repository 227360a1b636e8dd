"""Split a run's work into units: documents whose mentions are found together, and published in the same commits.

Each unit is a range of doc_id, so that its commits change few files. The number and speed of the cores decide how large
units and Spark tasks are, so that cores do not wait for commits or for long tasks. Results do not depend on these sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from entitymill import schemas
from entitymill.errors import EntityMillError
from entitymill.run_row import RunRow
from entitymill.settings.sections import LimitSettings
from entitymill.source.changes import Changes
from entitymill.spark import spark_connect
from entitymill.tables.temporary_tables import UNIT

MAX_UNITS = 10_000
_IS_REMOVED = "_is_removed"
MIN_TASKS_PER_CORE, BALANCED_TASKS_PER_CORE, MAX_TASKS_PER_CORE = 2, 8, 1000
"""A unit has at least MIN_TASKS_PER_CORE and at most MAX_TASKS_PER_CORE Spark tasks per core. From BALANCED_TASKS_PER_CORE
tasks on, all cores finish at about the same time, although some tasks take longer than others."""
CHARS_PER_MB = 1_000_000
MIN_UNIT_ROWS, MIN_UNIT_CHARS = 100_000, 256_000_000
"""Lower bounds for the two values that `choose_sizes` computes: the maximum number of documents in a unit, and the maximum
number of code points. Smaller units would only cause more commits. Settings may choose smaller units."""
SECONDS_PER_UNIT = 30.0
"""Seconds for which a unit of the maximum size should keep all cores busy: several times as long as the driver needs to
publish the unit."""
SECONDS_PER_TASK = 4.0
"""Seconds that a Spark task should take. At the end of a unit, idle cores wait about this long for the last tasks."""
MIN_TASK_CHARS, MAX_TASK_CHARS = 64_000, 1_000_000
DEFAULT_SPEED = 60_000.0
"""Assumed code points per second and core if no earlier run has measured them: the speed of the bundled model in int8."""
MIN_MEASURED_CHARS = 1_000_000
"""Minimum number of code points that a run must have processed for its speed to be used."""
_CHARS_PER_ROW = MIN_UNIT_CHARS / MIN_UNIT_ROWS


@dataclass(frozen=True)
class PlannedUnit:
    """Documents to recognize in one unit, and documents to remove in the same commits.

    documents: DataFrame of the documents to recognize, with the columns of `Changes.documents` except `in_output`.
    removed: DataFrame with the doc_id of each document to remove; None if there are none.
    in_output: whether the output may already have rows of any of `documents`.
    rows: number of documents to recognize.
    chars: total number of code points in the texts of `documents`.
    """

    documents: DataFrame
    removed: DataFrame | None
    in_output: bool
    rows: int
    chars: int


def count_units(changes: Changes, sizes: UnitSizes) -> int:
    """Return the number of units into which a run's work is split, at most MAX_UNITS; 0 if there is nothing to do.

    Both the documents to recognize and the documents to remove count towards the maximum number of documents in a unit.
    """
    by_rows = -(-(changes.to_recognize + changes.to_remove) // sizes.rows)
    by_chars = -(-changes.chars // sizes.chars)
    return min(MAX_UNITS, max(by_rows, by_chars))


def split_work(
    changes: Changes, sizes: UnitSizes, write: Callable[[DataFrame], DataFrame], *, always_store: bool = False
) -> Iterator[PlannedUnit]:
    """Yield the units of work in order of doc_id; their sizes are approximate, because Spark estimates the ranges of ids.

    If there are several units, or with `always_store`, the documents are stored first, so that the source is read only once.
    The driver holds only a few numbers per unit.

    Args:
        changes: documents that the run must recognize or remove.
        sizes: maximum size of a unit.
        write: function that stores a DataFrame, partitioned by its column UNIT, and returns a DataFrame of the stored rows.
        always_store: whether to store the documents even if there is only one unit.

    Raises:
        EntityMillError: the source changed while it was read: more documents would be removed than were counted before.
    """
    number = count_units(changes, sizes)
    if number == 0:
        return
    if number == 1 and not always_store:
        removed = changes.removed if changes.to_remove else None
        documents = changes.documents.drop("in_output")
        yield PlannedUnit(documents, removed, changes.to_replace > 0, changes.to_recognize, changes.chars)
        return
    work = changes.documents.withColumn(_IS_REMOVED, F.lit(False))
    if changes.to_remove:
        to_remove = changes.removed.select("doc_id", F.lit(True).alias(_IS_REMOVED), F.lit(False).alias("in_output"))
        work = work.unionByName(to_remove, allowMissingColumns=True)
    written = write(work.repartitionByRange(number, "doc_id").withColumn(UNIT, F.spark_partition_id()))
    removed_rows = F.sum(F.col(_IS_REMOVED).cast("long")).alias("removed")
    sums = written.groupBy(UNIT).agg(
        F.count("*").alias("rows"), F.sum("chars").alias("chars"), F.max("in_output").alias("in_output"), removed_rows
    )
    found_units = sums.orderBy(UNIT).collect()
    if sum(found["removed"] for found in found_units) > changes.to_remove:
        # This is not a SourceError, because running again helps.
        raise EntityMillError(
            "source.path: rows disappeared from the source while this run read it. The run would remove more documents from "
            "the output than it counted at first. Nothing was published; run again."
        )
    for found in found_units:
        inside = written.where(F.col(UNIT) == found[UNIT])
        removed = inside.where(_IS_REMOVED).select("doc_id") if found["removed"] else None
        documents = inside.where(f"NOT {_IS_REMOVED}").drop(UNIT, _IS_REMOVED, "in_output")
        yield PlannedUnit(documents, removed, found["in_output"], found["rows"] - found["removed"], found["chars"] or 0)


def repartition_unit(
    spark: SparkSession, unit: PlannedUnit, task_chars: int, partitions: int | None, *, drop_duplicates: bool
) -> DataFrame:
    """Return a unit's documents, repartitioned by a hash of doc_id, so that a retried task gets the same documents.

    Args:
        task_chars: about how many code points each Spark task should get.
        partitions: number of partitions; None to compute it from `task_chars` and the total length of the texts.
        drop_duplicates: whether to keep only one row per id; needed if the source may have changed since its rows were
            counted.
    """
    tasks = partitions or count_tasks(unit.chars, task_chars, spark_connect.count_cores(spark))
    spread_out = unit.documents.repartition(tasks, "doc_id")
    return spread_out.dropDuplicates(["doc_id"]) if drop_duplicates else spread_out


def count_tasks(chars: int, task_chars: int, cores: int) -> int:
    """Return the number of Spark tasks for a unit with `chars` code points, so that each task gets about `task_chars`.

    A small unit gets more tasks with fewer code points: up to BALANCED_TASKS_PER_CORE tasks per core, as long as each task
    gets at least MIN_TASK_CHARS. The result is always between MIN_TASKS_PER_CORE and MAX_TASKS_PER_CORE tasks per core.
    """
    even = min(BALANCED_TASKS_PER_CORE * cores, chars // MIN_TASK_CHARS)
    return max(MIN_TASKS_PER_CORE * cores, even, min(chars // task_chars, MAX_TASKS_PER_CORE * cores))


@dataclass(frozen=True)
class UnitSizes:
    """Approximate sizes of units and Spark tasks.

    rows: maximum number of documents in a unit.
    chars: maximum number of code points in a unit.
    task_chars: about how many code points each Spark task should get.
    """

    rows: int
    chars: int
    task_chars: int


def choose_sizes(limits: LimitSettings, cores: int, speed: float | None) -> UnitSizes:
    """Return the sizes of units and Spark tasks for a number of cores (tasks that Spark runs at once).

    Args:
        limits: the section `limits` of the settings. If its `unit_rows` (documents) or `unit_mb` (millions of code points)
            is set, this value is the maximum size of a unit, instead of a computed one.
        cores: number of tasks that Spark runs at once.
        speed: code points that a core recognizes per second; None to use DEFAULT_SPEED.
    """
    speed = speed or DEFAULT_SPEED
    chars = max(MIN_UNIT_CHARS, int(cores * speed * SECONDS_PER_UNIT))
    return UnitSizes(
        limits.unit_rows or int(chars / _CHARS_PER_ROW),
        chars if limits.unit_mb is None else limits.unit_mb * CHARS_PER_MB,
        int(min(max(speed * SECONDS_PER_TASK, MIN_TASK_CHARS), MAX_TASK_CHARS)),
    )


def read_speed(run: RunRow | None) -> float | None:
    """Return the code points that one core recognized per second in an earlier run, from its row of `runs`.

    Return None if there was no run, if it processed fewer code points than MIN_MEASURED_CHARS, or if it did not measure the
    parts of recognition (schemas.PARTS).
    """
    if run is None or run.chars < MIN_MEASURED_CHARS:
        return None
    seconds = sum(run.seconds.get(part, 0.0) for part in schemas.PARTS)
    return run.chars / seconds if seconds else None
