"""Test that a malicious model ends a command with exit code 5 and an error that names the file, within resource limits."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from entitymill.errors import ModelError
from entitymill.recognition import model_loading_limits, sentences, sentences_dl_saved
from entitymill.recognition.tagger import Execution, bundle
from entitymill.workers import child_process
from entitymill.workers.engine_openvino import FACTORY
from entitymill.workers.worker import RecognitionOptions
from unit import hostile

MAX_MEMORY = 5 * 2**30
"""Half of the limit on a process's address space, in bytes: more than a command needs, less than malicious models take."""
MAX_WRITTEN = 64 * 2**20
TEXT = "They met in Paris."
COMMAND = "import sys; from entitymill.cli import main; sys.exit(main())"


def run(directory: Path, *arguments: object) -> tuple[int, str]:
    """Run a command under resource limits of the system; return its exit code, and its output as one line."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2 * MAX_MEMORY, 2 * MAX_MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_WRITTEN, MAX_WRITTEN))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    directory.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(directory), "PYTHONPATH": str(hostile.ROOT / "jobs")}
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, preexec_fn=limit, timeout=300
    )
    return ended.returncode, " ".join((ended.stdout + ended.stderr).split())


def assert_refused(said: str, code: int, named: str) -> None:
    """Check for exit code 5 and one sentence with `named` and the log's path, without a stack trace of any language."""
    assert code == 5, said
    sentence, _, rest = said.partition(" stack trace: ")
    assert sentence.startswith("error: ") and named in sentence, said
    assert " " not in rest.strip(), said
    assert not any(word in said for word in ("Traceback", "panicked at", "terminate called", "src/")), said


BUNDLES: list[tuple[Callable[[Path], Path], str]] = [
    (hostile.network_that_crashes, "crashes the process that loads it (killed by SIG"),
    (hostile.network_that_is_refused, "openvino_model.xml"),
    (hostile.long_window, "says max_length 1048576, but its openvino_model.xml has positions for only 512 pieces"),
    (hostile.growing_tokenizer, "/tokenizer.json crashes the process that loads it (killed by SIGABRT)"),
    (hostile.endless_label, f"of labels.json of the model, '{('PER' * 14)[:40]}…', is longer than 100 characters"),
    (hostile.panicking_tokenizer, "/tokenizer.json cannot be read as a tokenizer"),
]
DETECTORS: list[tuple[Callable[[Path], Path], str]] = [
    (hostile.wide_kernel, "the convolution spans 20 characters; 1 to 11 are supported"),
    (hostile.large_detector, "would need 242,000,000,000 bytes"),
    (hostile.large_numbers, "the layers do not fit each other"),
    (hostile.growing_keys, "an entry of the checkpoint's index has more than 1,024 bytes"),
    (hostile.many_entries, "the checkpoint's index has more than 1,000 entries"),
    (hostile.many_blocks, "the checkpoint's index has more than 1,000 blocks"),
    (hostile.many_dimensions, "an entry of the checkpoint's index has more than 1,024 bytes"),
]


@pytest.mark.parametrize(("make", "named"), BUNDLES, ids=lambda value: getattr(value, "__name__", ""))
def test_tag_refuses_a_hostile_bundle(tmp_path: Path, make: Callable[[Path], Path], named: str) -> None:
    code, said = run(tmp_path / "scratch", "tag", "--model", make(tmp_path / "model"), TEXT)
    assert_refused(said, code, named)


def test_a_tokenizer_that_grows_over_a_rare_letter_only_is_stopped(tmp_path: Path) -> None:
    model = hostile.growing_tokenizer(tmp_path / "model", "\u00df")
    assert run(tmp_path / "scratch", "tag", "--model", model, TEXT)[0] == 0
    code, said = run(tmp_path / "scratch", "tag", "--model", model, "They met in Gie\u00dfen.")
    assert_refused(said, code, "/model crashes on these texts, or needs far more memory than texts of this size should need")


def test_a_worker_refuses_a_bundle_that_crashes_its_child(tmp_path: Path) -> None:
    manifest, files = bundle.read_directory(hostile.network_that_crashes(tmp_path / "model"))
    run_ = RecognitionOptions(Execution(), "rules", trim=True)
    work = child_process.Work(FACTORY, ((files, manifest, "s3a://models/ner"), ({}, {}, ""), run_), quiet=True)
    with pytest.raises(ModelError, match=r"^s3a://models/ner/openvino_model\.xml crashes the process that loads it"):
        child_process.Child(work)


@pytest.mark.parametrize(("make", "named"), BUNDLES, ids=lambda value: getattr(value, "__name__", ""))
def test_prepare_refuses_a_hostile_bundle(tmp_path: Path, make: Callable[[Path], Path], named: str) -> None:
    code, said = run(tmp_path / "scratch", "prepare", make(tmp_path / "model"), tmp_path / "out")
    assert_refused(said, code, named)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "scratch"}


@pytest.mark.parametrize(("make", "named"), DETECTORS, ids=lambda value: getattr(value, "__name__", ""))
def test_tag_refuses_a_hostile_detector(tmp_path: Path, make: Callable[[Path], Path], named: str) -> None:
    code, said = run(tmp_path / "scratch", "tag", "--detector-model", make(tmp_path / "detector"), TEXT)
    assert_refused(said, code, named)
    assert "generic_classifier_tensorflow" in said


@pytest.mark.parametrize("make", [make for make, named in DETECTORS if "index" in named])
def test_a_driver_refuses_a_small_file_of_a_large_detector(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    files = sentences.find_detector_files(make(tmp_path / "detector"))
    assert sum(file.stat().st_size for file in files.values()) < 400_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    with pytest.raises(ModelError, match="is not the network of a SentenceDetectorDLModel"):
        sentences.open_detector("dl", files, "the detector")
    assert time.process_time() - began < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_a_large_file_raises_no_limit_above_the_memory_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 2**25, "SC_PAGE_SIZE": 4096}.__getitem__)
    plain = model_loading_limits.compute_loading_limit([])
    pad = tmp_path / "pad"
    with pad.open("wb") as file:
        file.truncate(2**22)
        assert model_loading_limits.compute_loading_limit([pad]) == plain + 24 * 2**22
        file.truncate(2**40)
    assert model_loading_limits.compute_loading_limit([pad]) == 2**37


def test_a_file_that_is_not_of_the_bundle_raises_no_limit_of_tag(tmp_path: Path) -> None:
    model = hostile.growing_tokenizer(tmp_path / "model")
    with (model / "pad").open("wb") as file:
        file.truncate(2**40)
    code, said = run(tmp_path / "scratch", "tag", "--model", model, TEXT)
    assert_refused(said, code, "/tokenizer.json crashes the process that loads it")


def test_descriptions_of_a_model_are_bounded(tmp_path: Path) -> None:
    model = hostile.changed_bundle(tmp_path / "model", bundle.LABELS, lambda text: text + " " * 2**20)
    with pytest.raises(ModelError, match=r"labels\.json of the model is not JSON"):
        bundle.read_tags(model / bundle.LABELS)
    manifest = model / bundle.MANIFEST
    text = manifest.read_text(encoding="utf8")
    manifest.write_text(text + " " * 2**20, encoding="utf8")
    with pytest.raises(ModelError, match="is too large to be a model manifest"):
        bundle.read_directory(model)
    with pytest.raises(ModelError, match="name: String should have at most 255 characters"):
        bundle.read_manifest(json.dumps({**json.loads(text), "name": "x" * 300}), "the model")
    files = sentences.find_detector_files(hostile.detector(tmp_path / "detector"))
    with files[sentences_dl_saved.METADATA].open("a", encoding="utf8") as metadata:
        metadata.write(" " * 2**24)
    with pytest.raises(ModelError, match="is not valid metadata of a Spark NLP model"):
        sentences.open_detector("dl", files, "the detector")


def test_a_detector_of_plain_sizes_is_read(tmp_path: Path) -> None:
    code, said = run(tmp_path / "scratch", "tag", "--detector-model", hostile.detector(tmp_path / "detector"), TEXT)
    assert (code, said) == (0, "They met in [Paris LOC].")


def test_a_zip_in_a_zip_has_the_budget_of_the_outer_one(tmp_path: Path) -> None:
    source = hostile.nested_zip(tmp_path)
    assert source.stat().st_size < 200_000
    code, said = run(tmp_path / "scratch", "prepare", source, tmp_path / "out")
    assert_refused(said, code, "bert_classification_onnx unpacks to far more than its own size")
