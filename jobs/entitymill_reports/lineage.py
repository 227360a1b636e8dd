"""Send OpenLineage events about a run: which table it read, which tables it wrote, and how it ended.

Source of the event format: https://openlineage.io/docs/spec/object-model; of the names of datasets:
https://openlineage.io/docs/spec/naming
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from entitymill import __version__
from entitymill.errors import DriftError, LimitError
from entitymill.run import exit_codes
from entitymill.settings import Settings, secret_masking
from entitymill.spark import installation, overlapping_paths
from entitymill.terminal.console_text import open_console

if TYPE_CHECKING:
    from pyspark.sql import types as T

    from entitymill.run.summary import Summary

log = logging.getLogger(f"entitymill.{__name__}")  # a child of the logger `entitymill`, so that its handler is used
PRODUCER = "entitymill"
JOB = "entitymill.extract"
TIMEOUT_SECONDS = 5
"""Seconds to wait for the server at lineage.url to answer an event; a run sends two events."""


class Lineage:
    """Sends the OpenLineage events of one run: START, and then COMPLETE, FAIL or ABORT."""

    def __init__(self, settings: Settings) -> None:
        """Keep a reference to the settings; nothing is sent yet."""
        self._settings = settings
        self._summary: Summary | None = None

    def begin(self, summary: Summary) -> None:
        """Send the event START for a run, and keep a reference to its summary for the last event, which `end` sends."""
        self._summary = summary
        self._send(summary, "START")

    def end(self, state: str, error: str | None = None) -> None:
        """Send the last event of the run; do nothing if `begin` was not called, because the server does not know the run.

        Args:
            state: the type of the event: COMPLETE, FAIL or ABORT.
            error: one sentence about the error that ended the run; None if the run did not fail.
        """
        if self._summary is not None:
            self._send(self._summary, state, error)

    def _send(self, summary: Summary, state: str, error: str | None = None) -> None:
        """Send an event, without retries; report a failure in the log and on stderr, but do not fail the run."""
        from openlineage.client import OpenLineageClient  # noqa: PLC0415  # installed only with the extra `lineage`
        from openlineage.client.transport.http import HttpConfig, HttpTransport  # noqa: PLC0415

        address = str(self._settings.lineage.url)
        try:
            config = HttpConfig(url=address, timeout=TIMEOUT_SECONDS, retry={"total": 0})
            OpenLineageClient(transport=HttpTransport(config)).emit(self._build_event(summary, state, error))
        except Exception as failure:
            log.exception("the lineage event could not be sent")
            where, why = secret_masking.mask_address(address), type(failure).__name__
            problem = f"lineage.url: the event {state} of the run could not be sent to {where}: {why}."
            message = f"{problem} This does not affect the run."
            open_console(stderr=True).print(message, highlight=False, soft_wrap=True, markup=False)

    def _build_event(self, summary: Summary, state: str, error: str | None) -> Any:
        """Return an OpenLineage RunEvent of type `state` about the run, the job, the source and the written tables.

        Only the event COMPLETE lists the tables that the run wrote.
        """
        from openlineage.client import event_v2 as events  # noqa: PLC0415  # installed only with the extra
        from openlineage.client.facet_v2 import error_message_run, processing_engine_run  # noqa: PLC0415

        facets: dict[str, Any] = {
            "processing_engine": processing_engine_run.ProcessingEngineRunFacet(version=__version__, name=PRODUCER)
        }
        if error is not None:
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(message=error, programmingLanguage="python")
        output = secret_masking.mask_address(self._settings.output.path or self._settings.output.schema_ or "")
        # OpenLineage requires a UUID; this one depends only on the output and the run.
        run_id = uuid.uuid5(uuid.NAMESPACE_URL, f"{output} {summary.run_id}")
        source = self._settings.source
        return events.RunEvent(
            eventType=events.RunState(state),
            eventTime=datetime.now(timezone.utc).isoformat(),
            run=events.Run(runId=str(run_id), facets=facets),
            job=events.Job(namespace=self._settings.lineage.namespace, name=f"{JOB} {output}"),
            inputs=[events.InputDataset(*self._name_dataset(source.path, by_name=source.format == "table"))],
            outputs=self._build_outputs(summary) if state == "COMPLETE" else [],
            producer=f"{PRODUCER}/{__version__}",
        )

    def _build_outputs(self, summary: Summary) -> list[Any]:
        """Return OpenLineage's datasets for the tables `entities` and `documents`: schema, and number of rows written.

        The schema of `entities` lacks the passthrough columns, which are copied from the source.
        """
        from openlineage.client import event_v2 as events  # noqa: PLC0415  # installed only with the extra
        from openlineage.client.facet_v2 import output_statistics_output_dataset, schema_dataset  # noqa: PLC0415

        from entitymill import schemas  # noqa: PLC0415  # imports Spark

        def build_fields(schema: T.StructType) -> list[Any]:
            """Return OpenLineage's fields for the columns of a schema: name, type and comment."""
            kinds = [(field.name, field.dataType.simpleString(), field.metadata.get("comment")) for field in schema]
            return [schema_dataset.SchemaDatasetFacetFields(*kind) for kind in kinds]

        output = self._settings.output
        written = {
            "entities": (schemas.entities_schema([]), sum(summary.by_label.values())),
            "documents": (schemas.DOCUMENTS, summary.documents),
        }
        outputs = []
        for name, (schema, rows) in written.items():
            address = f"{output.path}/{name}" if output.path is not None else f"{output.schema_}.{name}"
            statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows)
            outputs.append(
                events.OutputDataset(
                    *self._name_dataset(address, by_name=output.path is None),
                    outputFacets={"outputStatistics": statistics},
                    facets={"schema": schema_dataset.SchemaDatasetFacet(fields=build_fields(schema))},
                )
            )
        return outputs

    def _name_dataset(self, address: str, *, by_name: bool) -> tuple[str, str]:
        """Return the namespace and the name of a table in OpenLineage.

        If `by_name` is true, `address` is the table's name in a catalog. Otherwise it is a path or URI: the namespace is the
        storage, and the name is the path within the storage.
        """
        if by_name:
            return self._settings.lineage.namespace, address
        place = overlapping_paths.list_normalized_paths(secret_masking.mask_address(address))[0]
        return place.storage, f"/{'/'.join(place.parts)}"


@contextmanager
def emit_lineage(settings: Settings, *, enabled: bool) -> Iterator[Lineage | None]:
    """Send the last lineage event when the run inside the `with` block ends; the caller sends the first event.

    The last event is COMPLETE if the run succeeded, even if the block raises DriftError. It is ABORT if the run was
    interrupted or reached limits.max_core_hours. After any other error, it is FAIL. If the caller has not sent the first
    event, there is no last event.

    The value of the `with` statement is a Lineage, whose method `begin` sends the first event. If lineage.url is not set or
    `enabled` is false, the value is None, and no events are sent.

    Raises:
        SettingsError: lineage.url is set, but OpenLineage's library is not installed; raised before the run begins.
    """
    if settings.lineage.url is None or not enabled:
        yield None
        return
    installation.require_extra("lineage.url", "lineage")
    lineage = Lineage(settings)
    try:
        yield lineage
    except DriftError:  # raised only after the run has published everything
        lineage.end("COMPLETE")
        raise
    except BaseException as error:
        lineage.end(
            "ABORT" if isinstance(error, KeyboardInterrupt | LimitError) else "FAIL", exit_codes.describe_error(error)[0]
        )
        raise
    lineage.end("COMPLETE")
