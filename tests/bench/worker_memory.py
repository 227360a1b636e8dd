"""Measure the memory of a worker's process and of its child, which runs the tagger.

`python tests/bench/worker_memory.py`: the peak resident memory of both, in MB, with the bundled model and with a network of
DistilBERT-base's shape (random weights), both in int8. Databricks' standard and serverless compute give a worker about 1 GB.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import isolation as isolation_bench
import machine
import random_models

from entitymill.recognition.tagger import Execution, bundle
from entitymill.workers import child_process
from entitymill.workers.engine_openvino import FACTORY
from entitymill.workers.worker import RecognitionOptions

WINDOWS = 3


def read_peak(pid: int) -> float:
    """Return the peak resident memory of a process, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6


def measure(directory: Path, sentences: int) -> None:
    """Recognize documents in a child of this process, and print the peaks of both."""
    manifest, files = bundle.read_directory(directory)
    options = RecognitionOptions(Execution("int8"), "sentencex", trim=True)
    work = child_process.Work(FACTORY, ((files, manifest, str(directory)), ({}, {}, ""), options))
    child = child_process.get_child(work)
    for batch in isolation_bench.batches(sentences):
        child(batch, 600)
    (pid,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    here, there = read_peak(os.getpid()), read_peak(int(pid))
    print(f"{manifest.name}: worker {here:.0f} MB, child {there:.0f} MB, both {here + there:.0f} MB", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="whether it runs at all, in seconds")
    parser.add_argument("--only", type=Path, help="measure this bundle alone, in this process")
    options = parser.parse_args(arguments)
    sentences = 40 if options.smoke else WINDOWS * isolation_bench.SENTENCES_IN_WINDOW
    if options.only:
        measure(options.only, sentences)
        return
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        saved = Path(scratch) / "saved"
        random_models.write_random_model(saved, random_models.TINY if options.smoke else random_models.BASE)
        base = random_models.make_bundle(saved, Path(scratch) / "int8", "calibrated")
        for directory in (random_models.DEMO, base):
            smoke = ["--smoke"] if options.smoke else []
            subprocess.run([sys.executable, __file__, "--only", str(directory), *smoke], check=True)


if __name__ == "__main__":
    main()
