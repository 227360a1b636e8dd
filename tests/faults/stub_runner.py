"""Run the job with the stub engine, once for each line of standard input, in one Spark session.

A line is a JSON object with the keys overrides, full and model. The answer is a line of JSON with status, and with error or
with mode and documents. The first line of the output says that the process is ready.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "jobs"), str(ROOT / "tests")]

from bench import stub_engine  # noqa: E402
from entitymill import settings  # noqa: E402
from entitymill.errors import EntityMillError  # noqa: E402
from entitymill.run import extraction  # noqa: E402
from entitymill.settings import sections  # noqa: E402
from entitymill.spark.session import open_session  # noqa: E402
from entitymill.tables import lease  # noqa: E402
from entitymill.workers.engine_choice import Engine  # noqa: E402
from small_queries import SMALL_QUERIES  # noqa: E402


def main() -> None:
    """Start Spark, and run the job for each line of standard input."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    lease.POLL_SECONDS = 0.2
    # If the code cache is full, Java prints a warning to standard output, among the answers.
    room = "-XX:ReservedCodeCacheSize=400m"
    java = f"-Dlog4j2.configurationFile={(ROOT / 'conf' / 'log4j2.properties').as_uri()} {room}"
    conf = {**SMALL_QUERIES, "spark.driver.memory": "1500m", "spark.driver.extraJavaOptions": java}
    chosen = sections.SparkSettings(master="local[1]", jars=str(ROOT / "build" / "jars"), conf=conf)
    spark = open_session(chosen, "entitymill stub runner")
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        told = json.loads(line)
        engine = Engine("stub", told["model"], lambda: stub_engine.stub_tagger)
        extraction.open_engine = lambda *_, engine=engine: engine  # type: ignore[attr-defined]
        try:
            done = extraction.extract(spark, settings.load(None, told["overrides"], {}), full=told["full"])
            answer = {"status": "done", "mode": done.mode, "documents": done.documents}
        except EntityMillError as error:
            answer = {"status": "failed", "error": str(error)}
        except Exception as error:  # a run that lost its lease may end with any error of Spark's
            answer = {"status": "failed", "error": f"{type(error).__name__}: {str(error)[:300]}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
