"""What a run finds before it does anything: its source, the runs before it, and whether there is anything new."""

from __future__ import annotations

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Row, SparkSession

from entitymill.engines.engine import Engine
from entitymill.errors import OutputError
from entitymill.platform import overlapping_paths
from entitymill.run import failed_documents, guards
from entitymill.run.summary import Summary, scope, slice_of
from entitymill.settings import Settings
from entitymill.source.reader import Source, open_source
from entitymill.tables import Stamp, Tables, table_checks
from entitymill.tables.runs import Record, Runs


def opened(
    spark: SparkSession, settings: Settings, summary: Summary, engine: Engine, owner: str | None
) -> tuple[Source, Stamp]:
    """The source, if the output may be where it is, and is no other source's; and what the rows of a run over it carry.

    Args:
        spark: the session.
        settings: of the run.
        summary: gets the run's scope.
        engine: of the run.
        owner: source of the output; none where no run was.
    """
    source = open_source(spark, settings.source)
    if settings.output.path is not None:
        try:
            overlapping_paths.check_output(spark, source.location, settings.output.path)
        except OSError as error:
            raise OutputError(f"output.path: {settings.output.path} cannot be reached: {error}.") from error
    summary.scope = scope(settings, source.identity, str(spark.conf.get("spark.sql.session.timeZone")))
    stamp = Stamp(summary.run_id, summary.started_at, engine.name, engine.fingerprint, source.version, slice_of(settings))
    guards.check_source(settings, owner)
    return source, stamp


def seen(tables: Tables, runs: Runs) -> Record:
    """What `runs` says; where it is somebody else's table, the check of all tables says so."""
    try:
        return runs.look()
    except (PySparkException, Py4JJavaError):
        table_checks.check_ours(tables)
        raise


def continues(last: Row | None, tables: Tables, summary: Summary, stamped: Stamp, source: Source) -> bool:
    """Whether the last run was about the same, and came to its end: then only what changed since needs a look.

    A source whose condition may hold for other rows by now is never the same.
    """
    if source.moving:
        return False
    same = last is not None and (last.status, last.scope, last.fingerprint) == ("done", summary.scope, stamped.fingerprint)
    return same and not failed_documents.worth_a_try(tables, last)


def nothing_new(last: Row | None, tables: Tables, summary: Summary, stamped: Stamp, source: Source) -> bool:
    """Whether the last run did the same for the same version of the source."""
    unchanged = last is not None and last.source_version == stamped.source_version != "unversioned"
    return unchanged and tables.complete() and continues(last, tables, summary, stamped, source)
