"""Run the job with spark-submit; fail without retries if a retry could not fix the error, or would hide it."""

from __future__ import annotations

import re
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

_CODES = (re.compile(r"[Ss]park exit code is: (\d+)"), re.compile(r"Error code is: (\d+)"))
"""Patterns of the exit code in error messages of the provider. The first pattern is for Kubernetes, where spark-submit
itself ends with 0, and the message contains the driver's exit code, too."""
FINAL = {
    2: "a setting is wrong",
    3: "the source cannot be read as the settings say",
    4: "too many rows were rejected, or too many documents would be removed; if you accept that, trigger a run with a "
    "higher max_reject_ratio, or with limits.max_removed_ratio=1 in settings",
    5: "the model was refused",
    6: "the run was published, but differs too much from earlier runs (report.fail_on_drift)",
    7: "the run reached limits.max_core_hours; the documents that it finished were published, and the next run of the "
    "same rows continues. If this run covers a slice, clear this task in Airflow to continue",
}
"""The exit codes after which a retry would fail again or hide the problem, with their meanings."""


class SubmitJob(SparkSubmitOperator):
    """The provider's operator, except that exit codes in FINAL are not retried."""

    def execute(self, context: Any) -> Any:
        """Submit the job and wait for its end.

        Raises:
            AirflowFailException: the job ended with an exit code in FINAL.
            AirflowException: the job failed in any other way; Airflow retries the task.
        """
        try:
            return super().execute(context)
        except AirflowException as error:
            code = parse_final_code(str(error))
            if code is None:
                raise
            raise AirflowFailException(
                f"exit {code}: {FINAL[code]}; see the error in the log above. Airflow does not retry: that would not help."
            ) from error


def parse_final_code(message: str) -> int | None:
    """Return the exit code in an error message of the provider if the code is in FINAL; otherwise None."""
    match = next(filter(None, (code.search(message) for code in _CODES)), None)
    code = int(match[1]) if match else None
    return code if code in FINAL else None
