"""Test the memory and the cores that a tagger may use by default in a container, with fake cgroup files."""

from __future__ import annotations

from pathlib import Path

import pytest

import entitymill
from entitymill.recognition import hardware, model_loading_limits
from entitymill.recognition.tagger import Execution
from entitymill.recognition.tagger.inference import Tagger
from entitymill.workers import engine_openvino
from entitymill_models import precision_loss

MODEL = Path(__file__).parents[2] / "models" / "demo"
GB = 10**9
NO_LIMIT = {"memory.max": "max\n", "cpu.max": "max 100000\n"}
POD = {"memory.max": f"{6 * GB}\n", "cpu.max": "max 100000\n"}
VERSION_1 = {
    "memory/memory.limit_in_bytes": f"{6 * GB}\n",
    "cpu/cpu.cfs_quota_us": "200000\n",
    "cpu/cpu.cfs_period_us": "100000\n",
}
NO_LIMIT_1 = {
    "memory/memory.limit_in_bytes": "9223372036854771712\n",
    "cpu/cpu.cfs_quota_us": "-1\n",
    "cpu/cpu.cfs_period_us": "100000\n",
}
SMALL = {"memory.max": f"{GB}\n", "cpu.max": "400000 100000\n"}


def use_cgroups(directory: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the program read these files, on a machine with 64 CPUs."""
    for name, text in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
    monkeypatch.setattr(hardware, "CGROUPS", directory)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.delenv("SPARK_EXECUTOR_CORES", raising=False)


@pytest.mark.parametrize(
    ("files", "executor_cores", "memory", "cores", "limit"),
    [
        ({}, None, None, 64, 2**30 + 512_000),
        (NO_LIMIT, None, None, 64, 2**30 + 512_000),
        (NO_LIMIT_1, None, 9223372036854771712, 64, 2**30 + 512_000),
        (POD, "4", 6 * GB, 4, 375_000_000),  # as in docs/cluster.md
        (POD, None, 6 * GB, 64, 256_000_000),
        (POD, "many", 6 * GB, 64, 256_000_000),
        (VERSION_1, None, 6 * GB, 2, 750_000_000),
        (SMALL, None, GB, 4, 256_000_000),
        ({"memory.max": f"{100 * GB}"}, "4", 100 * GB, 4, 2**30 + 512_000),
    ],
)
def test_the_default_limit_is_a_quarter_of_a_cores_share_of_the_container(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    executor_cores: str | None,
    memory: int | None,
    cores: int,
    limit: int,
) -> None:
    use_cgroups(tmp_path, files, monkeypatch)
    if executor_cores is not None:
        monkeypatch.setenv("SPARK_EXECUTOR_CORES", executor_cores)
    assert hardware.read_memory_limit() == memory
    assert hardware.count_cores() == cores
    assert model_loading_limits.compute_tagging_limit(1000, None) == limit


class FakeSession:
    """A stand-in for a Spark session on YARN, which cannot run here: it has the properties of the session only."""

    def __init__(self, **conf: str) -> None:
        self.conf = {key.replace("_", "."): value for key, value in conf.items()}


@pytest.mark.parametrize(
    ("conf", "share"),
    [
        ({"spark_master": "local[2]", "spark_executor_memory": "4g"}, None),
        ({"spark_master": "yarn"}, 2**30 + 384 * 2**20),  # Spark's defaults: one core, 1 GB, at least 384 MB more
        (
            {"spark_executor_memory": "4g", "spark_executor_cores": "4", "spark_executor_memoryOverheadFactor": "0.5"},
            3 * 2**29,
        ),
        ({"spark_executor_memory": "2048", "spark_executor_memoryOverhead": "1024M"}, 3 * 2**30),
        ({"spark_executor_memory": "20GB"}, 22 * 2**30),
        ({"spark_executor_memory": "1024k", "spark_executor_pyspark_memory": "1048576b"}, 386 * 2**20),
    ],
)
def test_on_yarn_the_driver_computes_the_share_of_each_core(conf: dict[str, str], share: int | None) -> None:
    assert engine_openvino.compute_memory_share(FakeSession(**{"spark_master": "yarn"} | conf)) == share  # type: ignore[arg-type]
    if share is not None:
        limit = model_loading_limits.compute_tagging_limit(1000, share=share)
        assert limit == min(2**30 + 512_000, max(256_000_000, share // 4))


def test_a_limit_in_the_settings_is_not_changed_by_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cgroups(tmp_path, SMALL, monkeypatch)
    assert model_loading_limits.compute_tagging_limit(1000, 5000) == 5 * GB
    assert model_loading_limits.compute_tagging_limit(1000, 10) == 10_000_000


def test_the_share_is_that_of_the_processes_that_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cgroups(tmp_path, POD, monkeypatch)
    limits = [model_loading_limits.compute_tagging_limit(1000, processes=processes) for processes in (1, 3)]
    assert limits == [2**30 + 512_000, 500_000_000]  # the pod has 6 GB


def test_no_more_threads_are_started_than_the_container_has_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tagger: Tagger
) -> None:
    use_cgroups(tmp_path, VERSION_1, monkeypatch)
    started: list[int] = []

    def load(files: object, manifest: object, execution: Execution, where: str = "") -> Tagger:
        del files, manifest, where
        started.append(execution.threads)
        return tagger

    monkeypatch.setattr(Tagger, "load", load)
    entitymill.load(MODEL)
    entitymill.load(MODEL, threads=5)
    precision_loss.find_mentions(MODEL, "f32", [["Paris"]])
    assert started == [2, 5, 2]
