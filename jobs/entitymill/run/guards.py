"""Before a run does anything: what it finds, and what it refuses to destroy.

It refuses the output of another source, and to remove more documents than anybody expects of a night.
"""

from __future__ import annotations

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from entitymill.engines.engine import Engine
from entitymill.errors import OutputError, RejectedError, SettingsError
from entitymill.run import failed_documents
from entitymill.run.summary import Summary, scope, slice_of
from entitymill.settings import Settings
from entitymill.source.changes import Changes
from entitymill.source.reader import Source, open_source
from entitymill.tables import Stamp, Tables, table_setup
from entitymill.tables.runs import Record, Runs


def check_source(settings: Settings, owner: str | None) -> None:
    """Refuse to take over the output of another source: all its documents would be removed.

    Args:
        owner: source of the output; none where no run was.

    Raises:
        SettingsError: it is another one.
    """
    here = settings.masked()["source"]["path"]
    if owner is None or settings.output.adopt_source or owner.rstrip("/") == here.rstrip("/"):
        return
    output = settings.output.path or settings.output.schema_
    raise SettingsError(
        f"source.path: the output {output} is of {owner}, whose documents would all be removed; give {here} an "
        "output of its own, or set output.adopt_source=true if it takes the place of the other."
    )


def check_other_slices(tables: Tables, slice_: str | None, *, trusted: bool) -> None:
    """Refuse to do a slice alone where everything has to be done anew: the documents of other slices would be lost.

    Args:
        slice_: digest of the slice that the run is about; none: the whole source.
        trusted: whether the tables are what the runs before left.

    Raises:
        OutputError: it would.
    """
    if slice_ is None or (trusted and tables.complete()):
        return
    if any(tables.exists(name) and tables.read(name).take(1) for name in ("entities", "documents")):
        raise OutputError(
            f"output: a table of {tables.place} is gone, or cannot be taken back to what it was, so all documents have to "
            "be done anew: run once without output.replace_slice, over all slices."
        )


def check_removals(
    settings: Settings,
    tables: Tables,
    found: Changes,
    slice_: str | None,
    *,
    whole: bool,
    collected: DataFrame | None = None,
) -> None:
    """Refuse to take out more documents than a person expects of one run.

    Args:
        found: what the run would do.
        slice_: digest of the slice that it is about; none: the whole source.
        whole: whether it replaces everything, so that nothing was compared with the output.
        collected: doc_id of what a dead run of the same kind did already, and was compared with.

    Raises:
        RejectedError: it would take out a larger share than limits.max_removed_ratio.
    """
    if not (whole or found.to_remove) or not tables.exists("documents"):
        return
    held = tables.read("documents")
    if slice_ is not None:
        held = held.where(F.col("slice") == slice_)
    here = found.documents.select("doc_id")
    if collected is not None:
        here = here.unionByName(collected.select("doc_id").join(found.removed, "doc_id", "left_anti"))
    gone = held.join(here, "doc_id", "left_anti").count() if whole else found.to_remove
    documents = max(gone, held.count()) if gone else 0
    allowed = settings.limits.max_removed_ratio
    if gone > allowed * documents:
        raise RejectedError(
            f"source.path: {gone} of the {documents} documents of {tables.place} are not in {settings.source.path} any "
            f"more, a larger share than limits.max_removed_ratio {allowed:g} allows: nothing was changed; if that is right, "
            "run once with --allow-removals."
        )


def refused_too_many(settings: Settings, found: Changes) -> bool:
    """Whether `check_rejects` would refuse a source."""
    return bool(found.rows) and sum(found.counts.values()) / found.rows > settings.limits.max_reject_ratio


def check_rejects(settings: Settings, found: Changes, tense: str = "were") -> None:
    """Refuse a source of which too much is refused.

    Args:
        found: what the run would do.
        tense: for the message.

    Raises:
        RejectedError: a larger share of its rows than limits.max_reject_ratio.
    """
    if refused_too_many(settings, found):
        refused, allowed = sum(found.counts.values()), settings.limits.max_reject_ratio
        reasons = ", ".join(f"{rows} {code}" for code, rows in sorted(found.counts.items()))
        raise RejectedError(
            f"{refused} of {found.rows} rows of {settings.source.path} {tense} refused ({reasons}), more than "
            f"limits.max_reject_ratio {allowed:g} allows: nothing was published"
            + ("; the rejects table lists the rows." if tense == "were" else ".")
        )


def opened(
    spark: SparkSession, settings: Settings, summary: Summary, engine: Engine, owner: str | None
) -> tuple[Source, Stamp]:
    """The source, if the output may be where it is, and is no other source's; and what the rows of a run over it carry.

    Args:
        summary: gets the run's scope.
        engine: of the run.
        owner: source of the output; none where no run was.
    """
    source = open_source(spark, settings.source)
    if settings.output.path is not None:
        try:
            source.check_output(settings.output.path)
        except OSError as error:
            raise OutputError(f"output.path: {settings.output.path} cannot be reached: {error}.") from error
    summary.scope = scope(settings, source.identity, str(spark.conf.get("spark.sql.session.timeZone")))
    stamp = Stamp(summary.run_id, summary.started_at, engine.name, engine.fingerprint, source.version, slice_of(settings))
    check_source(settings, owner)
    return source, stamp


def seen(tables: Tables, runs: Runs) -> Record:
    """What `runs` says; where it is somebody else's table, the check of all tables says so."""
    try:
        return runs.look()
    except (PySparkException, Py4JJavaError):
        table_setup.check_ours(tables)
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
