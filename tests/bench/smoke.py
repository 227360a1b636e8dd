"""Run every benchmark for a few seconds, to see that it works: `make bench-smoke`. The printed numbers mean nothing.

Benchmarks with Spark share one session, whose JVM is warm after the first benchmark. job.py stops this session, and
cluster.py opens its own sessions, so they run last. isolation.py limits the memory of this process, so it runs first.
"""

from __future__ import annotations

import time

import encoding_scores
import engines
import estimates
import growth
import isolation
import job
import layout
import long_documents
import review_sample
import sessions
import tagger
import worker_memory

import cluster
from small_queries import SMALL_QUERIES


def main() -> None:
    """Run all benchmarks."""
    began = time.perf_counter()
    benches = (
        isolation,
        worker_memory,
        layout,
        tagger,
        engines,
        growth,
        long_documents,
        review_sample,
        encoding_scores,
        estimates,
        job,
        cluster,
    )
    for bench in benches:
        print(f"\n== {bench.__name__} --smoke", flush=True)
        if bench is engines:
            session = sessions.open_bench("4g", sparknlp=True)
            for key, value in SMALL_QUERIES.items():
                session.conf.set(key, value)
        bench.main(["--smoke"])
        print(f"== {bench.__name__} ran, {time.perf_counter() - began:.0f} s so far", flush=True)


if __name__ == "__main__":
    main()
