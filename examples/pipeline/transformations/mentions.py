"""Define a table of the mentions in Parquet files, for `spark-pipelines run` of Spark 4.1.

The environment variable ARTICLES names the directory of the files, and ENTITYMILL_MODEL that of the model bundle.
"""

import os

from pyspark import pipelines
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import entitymill

spark = SparkSession.active()
# The UDF is created here, because Spark allows a pipeline's function only to define a table. The model is sent to the
# executors once.
find_mentions = entitymill.udf(model=os.environ["ENTITYMILL_MODEL"], spark=spark)


@pipelines.materialized_view
def mentions() -> DataFrame:
    """Return one row per mention, with the article's id and the fields of `entitymill.Mention`."""
    articles = spark.read.parquet(os.environ["ARTICLES"])
    return articles.select("id", F.explode(find_mentions("text")).alias("mention")).select("id", "mention.*")
