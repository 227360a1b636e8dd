"""Find the mentions in files of texts as they arrive, and append them to a Delta table, with Structured Streaming.

    export PATH=$PWD/.venv/bin:$PATH PYSPARK_PYTHON=$PWD/.venv/bin/python    # after `make run`
    spark-submit --properties-file conf/spark-defaults.conf --jars "$(ls build/jars/*.jar | paste -sd,)" \
        examples/spark/stream_mentions.py ARTICLES OUTPUT --model models/demo

ARTICLES is a directory of Parquet files with the columns id and text. Each file is read once: OUTPUT/checkpoint records
which files were read. If the program is killed, start it again with the same arguments: no mention is lost or written twice.
"""

import argparse

from pyspark.sql import SparkSession

import entitymill


def main() -> None:
    """Find mentions until there are no more files or, with --follow, until the program is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("articles", help="directory of Parquet files")
    parser.add_argument("output", help="directory for the Delta table and the checkpoint")
    parser.add_argument("--model", required=True, help="directory of a model bundle")
    parser.add_argument("--files", type=int, default=10, help="maximum number of files in a micro-batch (default: 10)")
    parser.add_argument("--follow", action="store_true", help="wait for new files")
    options = parser.parse_args()

    spark = SparkSession.builder.getOrCreate()
    reader = spark.readStream.schema("id string, text string").option("maxFilesPerTrigger", options.files)
    found = entitymill.mentions(reader.parquet(options.articles), model=options.model)
    writer = found.writeStream.format("delta").option("checkpointLocation", f"{options.output}/checkpoint")
    trigger = writer.trigger(processingTime="1 second") if options.follow else writer.trigger(availableNow=True)
    trigger.start(f"{options.output}/mentions").awaitTermination()


if __name__ == "__main__":
    main()
