"""The job by spark-submit: what would fail again the same way, or be hidden by another run, is not tried again."""

from __future__ import annotations

import re
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

_CODES = (re.compile(r"[Ss]park exit code is: (\d+)"), re.compile(r"Error code is: (\d+)"))
"""On Kubernetes spark-submit itself ends with 0, and the provider tells the driver's code beside it."""
FINAL = {
    2: "a setting is wrong",
    3: "the source cannot be read as the settings say",
    4: "too much was refused, or would be taken out",
    5: "the model was refused",
    6: "the run was published, but differs from the ones before (report.fail_on_drift)",
}
"""Exit codes of the job that a retry does not change, or would hide, and what they mean."""


class SubmitJob(SparkSubmitOperator):
    """The provider's operator, which knows no exit code."""

    def execute(self, context: Any) -> Any:
        """Submit the job and wait for its end.

        Raises:
            AirflowFailException: it ended with one of FINAL.
        """
        try:
            return super().execute(context)
        except AirflowException as error:
            code = final(str(error))
            if code is None:
                raise
            raise AirflowFailException(
                f"exit {code}: {FINAL[code]}; the log above has the sentence. Not tried again."
            ) from error


def final(told: str) -> int | None:
    """The exit code that an error of the hook tells of, if a retry does not change it."""
    found = next(filter(None, (code.search(told) for code in _CODES)), None)
    code = int(found[1]) if found else None
    return code if code in FINAL else None
