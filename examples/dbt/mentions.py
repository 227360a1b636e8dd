"""A dbt Python model: one row for each mention in the model `articles`, for adapters that run Python on Spark (Databricks).

Copy it into `models/` of the dbt project. The cluster needs the wheel of this program and a bundle, such as
/Volumes/main/nlp/models/demo; name the bundle in dbt_project.yml:

    models:
      my_project:
        mentions:
          +entitymill_model: /Volumes/main/nlp/models/demo
"""

from typing import Any

from pyspark.sql import DataFrame, SparkSession

import entitymill


def model(dbt: Any, session: SparkSession) -> DataFrame:  # noqa: ARG001  # dbt passes both
    """Return the rows of the table, which dbt writes."""
    dbt.config(materialized="table")
    return entitymill.mentions(dbt.ref("articles"), "id", "body", model=dbt.config.get("entitymill_model"))
