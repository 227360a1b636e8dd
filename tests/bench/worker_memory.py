"""Measure the memory of a worker's process and of its child, which runs the tagger.

`python tests/bench/worker_memory.py` prints the peak resident memory of both, in MB, for two models in int8: the bundled
model and a network of DistilBERT-base's shape with random weights. Databricks' standard and serverless compute give a worker
about 1 GB. So the exit code is 1 if the two processes together need more than MAX_MB with either model.
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
MAX_MB = 900
"""Limit of the peaks of both processes together, which docs/connect.md states."""


def read_peak(pid: int) -> float:
    """Return the peak resident memory of a process, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6


def measure(directory: Path, sentences: int) -> None:
    """Recognize documents in a child of this process, and print the peaks of both; exit with 1 if they exceed MAX_MB."""
    manifest, files = bundle.read_directory(directory)
    options = RecognitionOptions(Execution("int8"), "sentencex", trim=True)
    work = child_process.Work(FACTORY, ((files, manifest, str(directory)), ({}, {}, ""), options))
    child = child_process.get_child(work)
    for batch in isolation_bench.batches(sentences):
        child(batch, 600)
    (pid,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    here, there = read_peak(os.getpid()), read_peak(int(pid))
    print(f"{manifest.name}: worker {here:.0f} MB, child {there:.0f} MB, both {here + there:.0f} MB", flush=True)
    if here + there > MAX_MB:
        sys.exit(f"{manifest.name}: worker and child need more than {MAX_MB} MB; find out why, or change docs/connect.md")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per model; exit with 1 if a model needs more than MAX_MB, after both are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="run for seconds, only to see that it works")
    parser.add_argument("--only", type=Path, help="measure only this bundle, in this process")
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
        smoke = ["--smoke"] if options.smoke else []
        commands = [[sys.executable, __file__, "--only", str(directory), *smoke] for directory in (random_models.DEMO, base)]
        codes = [subprocess.run(command, check=False).returncode for command in commands]
    if any(codes):
        sys.exit(1)


if __name__ == "__main__":
    main()
