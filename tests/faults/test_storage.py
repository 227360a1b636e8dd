"""Test runs, and reruns, on storage that is full, is not writable, or fails before or after a commit takes effect."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from entitymill import settings
from entitymill.run.extraction import extract
from entitymill.settings import sections
from entitymill.spark.session import open_session
from expected_tables import ExpectedTables
from small_queries import SMALL_QUERIES

from .cluster import JARS, QUICK_START, ROOT, SPARK_HOME, Driver
from .conftest import POOL, options, write

JAVA = Path(__file__).parent / "java" / "FailingLogStore.java"
BEFORE = {f"d{i}": text for i, text in enumerate(POOL[:6])}
AFTER = {**{f"d{i}": text for i, text in enumerate(POOL[1:6])}, "d8": POOL[8], "d9": POOL[9]}
"""Compared to BEFORE, d5 is gone, all other documents have changed, and two are new."""
FAILING = {"documents": 1, "entities": 1, "rejects": 1, "runs": 2}
"""Table -> number of the commit that fails, among the commits of a run to the table."""
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the file that says which commit fails; FailingLogStore.java describes its format."""
    return tmp_path_factory.mktemp("plan") / "plan.txt"


@pytest.fixture(scope="module")
def spark(plan: Path) -> Iterator[SparkSession]:
    """Open a session whose Delta log store fails as the plan says."""
    classes = plan.parent / "classes"
    path = os.pathsep.join([f"{JARS}/*", f"{SPARK_HOME}/jars/*"])
    subprocess.run(["javac", "-proc:none", "-cp", path, "-d", str(classes), str(JAVA)], check=True)
    subprocess.run(["jar", "--create", "--file", str(classes / "faults.jar"), "-C", str(classes), "entitymill"], check=True)
    conf = {
        "spark.driver.memory": "3g",
        # The log store and its superclass must have the same class loader.
        "spark.driver.extraClassPath": f"{classes}/faults.jar:{JARS}/*",
        "spark.jars": "",
        "spark.driver.extraJavaOptions": f"-Dentitymill.faults.plan={plan} {QUICK_START}",
        "spark.delta.logStore.file.impl": "entitymill.faults.FailingLogStore",
        **SMALL_QUERIES,
    }
    session = open_session(sections.SparkSettings(master="local[2]", jars=str(JARS), conf=conf), "entitymill faults")
    yield session
    session.stop()


def run(spark: SparkSession, directory: Path, rows: dict[str, str], *refused: str) -> None:
    write(directory, {**rows, **dict.fromkeys(refused)})
    small = ["limits.unit_rows=4", "limits.max_reject_ratio=0.5", "spark.partitions=2"]
    extract(spark, settings.load(None, [*options(directory), *small], {}))


@contextlib.contextmanager
def failing(plan: Path, what: str) -> Iterator[None]:
    """Let commits fail as the plan `what` says, and check that one did."""
    failed = plan.with_name(f"{plan.name}.failed")
    failed.unlink(missing_ok=True)
    plan.write_text(what)
    try:
        yield
    finally:
        plan.write_text("")
    assert failed.read_text()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("table", FAILING)
def test_a_commit_that_fails_once_is_made_once(
    spark: SparkSession, plan: Path, truth: ExpectedTables, tmp_path: Path, when: str, table: str
) -> None:
    """A commit that fails once must take effect once, in a run that adds, changes, removes and rejects documents."""
    run(spark, tmp_path, BEFORE)
    with failing(plan, f"{when} {FAILING[table]} /out/{table}/"):
        run(spark, tmp_path, AFTER, "refused")
    truth.check(tmp_path / "out", AFTER)
    rejects = DeltaTable(str(tmp_path / "out" / "rejects")).to_pyarrow_table().to_pylist()
    assert [(row["doc_id"], row["code"]) for row in rejects] == [("refused", "null_text")]
    runs = DeltaTable(str(tmp_path / "out" / "runs")).to_pyarrow_table().to_pylist()
    assert [row["status"] for row in runs] == ["done", "done"]


@pytest.mark.parametrize("table", ["documents", "entities"])
def test_storage_that_stays_away_fails_the_run_and_the_next_one_mends_it(
    spark: SparkSession, plan: Path, truth: ExpectedTables, tmp_path: Path, table: str
) -> None:
    run(spark, tmp_path, BEFORE)
    with failing(plan, f"always 2 /out/{table}/"), pytest.raises(Exception, match="storage fails"):
        run(spark, tmp_path, AFTER)
    run(spark, tmp_path, AFTER)
    truth.check(tmp_path / "out", AFTER)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], object]]:
    """Mount a file system of 512 KiB at the output; yield a function that remounts it with other options."""
    place = tmp_path / "out"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], check=True)
    yield lambda how: subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)
    subprocess.run(["umount", str(place)], check=True)


@as_root
def test_a_full_disk_is_said_to_be_full_and_the_next_run_goes_on(
    truth: ExpectedTables, tmp_path: Path, small_disk: Callable[[str], object]
) -> None:
    rows = {f"d{i}": text for i, text in enumerate(POOL)}
    write(tmp_path, dict(rows))
    chosen = [*options(tmp_path), "limits.unit_rows=20", "spark.conf.spark.driver.memory=2g"]
    assert Driver.start("local[2]", chosen, tmp_path).wait() == 1
    said = (tmp_path / "said.txt").read_text()
    assert f"output.path: the disk of {tmp_path}/out is full" in said, said
    assert "Traceback" not in said
    assert "Exception" not in said
    assert "is full" in list_errors(tmp_path)
    small_disk("size=64m")
    assert Driver.start("local[2]", chosen, tmp_path).wait() == 0, (tmp_path / "said.txt").read_text()
    assert "is full" in list_errors(tmp_path)
    truth.check(tmp_path / "out", rows)


def list_errors(directory: Path) -> str:
    """Return what `entitymill runs` prints about the runs of the output in a directory."""
    overrides = [item for option in options(directory) for item in ("--set", option)]
    command = [sys.executable, "-c", "from entitymill.cli import main; raise SystemExit(main())", "runs", *overrides]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


@as_root
def test_an_output_that_became_read_only_is_named(tmp_path: Path, small_disk: Callable[[str], object]) -> None:
    write(tmp_path, dict(BEFORE))
    small_disk("ro")
    assert Driver.start("local[2]", options(tmp_path), tmp_path).wait() == 1
    assert "output.path" in (tmp_path / "said.txt").read_text()


@as_root
def test_a_table_that_may_not_be_written_is_named(truth: ExpectedTables, tmp_path: Path) -> None:
    """The output belongs to another user, and the run's root lacks the capabilities with which root may write everywhere."""
    write(tmp_path, dict(BEFORE))
    assert Driver.start("local[2]", options(tmp_path), tmp_path).wait() == 0
    write(tmp_path, dict(AFTER))
    for path in (tmp_path / "out", *(tmp_path / "out").rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    overrides = [item for option in [*options(tmp_path), f"spark.jars={JARS}"] for item in ("--set", option)]
    command = [sys.executable, str(ROOT / "jobs" / "extract_entities.py"), *overrides]
    powerless = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--", *command]
    done = subprocess.run(powerless, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, "output.path" in done.stderr) == (1, True), done.stderr
    truth.check(tmp_path / "out", BEFORE)
