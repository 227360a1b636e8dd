"""A table of the mentions in the Parquet files below ARTICLES, for `spark-pipelines run` of Spark 4.1."""

import os

from pyspark import pipelines
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import entitymill

spark = SparkSession.active()
# Outside the function: Spark lets a pipeline's functions define tables, and nothing else. The model is sent once.
find_mentions = entitymill.udf(model=os.environ["ENTITYMILL_MODEL"], spark=spark)


@pipelines.materialized_view
def mentions() -> DataFrame:
    """One row per mention: the article's id, and the fields of `entitymill.Mention`."""
    articles = spark.read.parquet(os.environ["ARTICLES"])
    return articles.select("id", F.explode(find_mentions("text")).alias("mention")).select("id", "mention.*")
