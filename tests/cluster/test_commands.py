"""Test the command lines of docs/cluster.md for YARN and Kubernetes: spark-submit's own code parses and prepares them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyspark
import pytest
from py4j.java_gateway import JavaGateway
from pyspark.java_gateway import launch_gateway

from entitymill import __version__
from entitymill.commands import maintain
from page_code import read_code_block

from .conftest import PACKAGE, PAGE
from .servers import credentials

YARN, KUBERNETES, STANDALONE = "--master yarn", "--master k8s://", "--master spark://"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package's directory with a user's configuration."""
    copy = tmp_path_factory.mktemp("commands")
    for path in PACKAGE.iterdir():
        if path.name != "conf":
            (copy / path.name).symlink_to(path)
    shutil.copytree(PACKAGE / "conf", copy / "conf")
    (copy / "conf" / "articles.yaml").write_text(read_code_block(PAGE, "recognition: {precision: int8}"))
    return copy


@pytest.fixture(scope="module")
def jvm() -> Iterator[Any]:
    # For YARN, Spark requires the name of a directory with Hadoop's settings.
    os.environ["HADOOP_CONF_DIR"] = "/nowhere"
    gateway: JavaGateway = launch_gateway()
    yield gateway.jvm
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(20)
    del os.environ["HADOOP_CONF_DIR"]


def typed(command: str, directory: Path) -> list[str]:
    """Run a code block in a shell whose mkdir, tar and spark-submit are stubs, and return the arguments of spark-submit."""
    script = 'mkdir() { :; }; tar() { :; }; spark-submit() { printf "%s\\0" "$@"; }\n' + command
    shown = subprocess.run(["bash", "-euc", script], cwd=directory, capture_output=True, text=True, check=True)
    return shown.stdout.split("\0")[:-1]


def prepared(jvm: Any, arguments: list[str], directory: Path) -> tuple[list[str], Any, str]:
    """Return what spark-submit would start: arguments, Spark properties and main class."""
    absolute = [_absolute(argument, directory) for argument in arguments]
    java = jvm.java.util.ArrayList()
    for argument in absolute:
        java.add(argument)
    words = jvm.scala.collection.JavaConverters.asScalaBuffer(java).toSeq()
    parsed = jvm.org.apache.spark.deploy.SparkSubmitArguments(words, jvm.scala.sys.package.env())
    found = jvm.org.apache.spark.deploy.SparkSubmit().prepareSubmitEnvironment(parsed, jvm.scala.Option.empty())
    started = jvm.scala.collection.JavaConverters.seqAsJavaList(found._1())
    return list(started), found._3(), found._4()


def _absolute(argument: str, directory: Path) -> str:
    """Make the paths in an argument absolute, because `directory` is not the JVM's working directory."""
    parts = [f"{directory}/{part}" if (directory / part.split("#")[0]).exists() else part for part in argument.split(",")]
    return ",".join(parts)


def test_yarn(jvm: Any, package: Path) -> None:
    started, conf, main = prepared(jvm, typed(read_code_block(PAGE, YARN), package), package)
    assert main == "org.apache.spark.deploy.yarn.YarnClusterApplication"
    # The directory has links to the files of the package, and Spark resolves them.
    assert started[:2] == ["--primary-py-file", f"file:{PACKAGE}/extract_entities.py"]
    assert started[2:4] == ["--class", "org.apache.spark.deploy.PythonRunner"]
    assert started[4::2] == ["--arg"] * 4
    assert started[5::2] == ["--config", "articles.yaml", "--set", "log=stderr"]
    assert conf.get("spark.yarn.appMasterEnv.PYSPARK_PYTHON") == "./environment/bin/python"
    assert conf.get("spark.yarn.dist.archives").endswith("environment.tar.gz#environment")
    files, jars = (conf.get(f"spark.yarn.dist.{what}").split(",") for what in ("files", "jars"))
    assert [Path(path).name for path in files] == ["base.yaml", "articles.yaml", "log4j2.properties"]
    assert conf.get("spark.driver.extraJavaOptions") == "-Dlog4j2.configurationFile=log4j2.properties"
    assert {"hadoop-aws-3.3.4.jar", "delta-spark_2.12-3.3.3.jar"} <= {Path(path).name for path in jars}
    assert (conf.get("spark.executor.cores"), conf.get("spark.executor.memoryOverheadFactor")) == ("4", "0.5")
    assert conf.get("spark.ui.enabled") == "true"


def test_maintenance_is_in_the_place_of_the_job(jvm: Any, package: Path) -> None:
    line = read_code_block(PAGE, YARN).rstrip().replace("extract_entities.py", "maintain_tables.py") + " optimize\n"
    started, _, _ = prepared(jvm, typed(line, package), package)
    assert started[:2] == ["--primary-py-file", f"file:{PACKAGE}/maintain_tables.py"]
    maintain.parser().parse_args(started[5::2])


def test_the_image_holds_what_the_lines_name(package: Path) -> None:
    copied = [
        line.split()[1:] for line in read_code_block(PAGE, "FROM spark:").splitlines() if line.startswith(("COPY", "ADD"))
    ]
    place = {source: target.rstrip("/") for *sources, target in copied for source in sources}
    for source in place:
        assert (package / source).exists(), source
    for program in ("extract_entities.py", "maintain_tables.py"):
        assert f"{place[program]}/{program}" == f"/opt/entitymill/{program}"
    assert (package / "conf" / "articles.yaml").exists(), "a directory is copied by its content"
    assert place["conf"] == "/opt/entitymill"


def test_kubernetes(jvm: Any, package: Path) -> None:
    started, conf, main = prepared(jvm, typed(read_code_block(PAGE, KUBERNETES), package), package)
    assert main == "org.apache.spark.deploy.k8s.submit.KubernetesClientApplication"
    assert started[:2] == ["--primary-py-file", "local:///opt/entitymill/extract_entities.py"]
    assert conf.get("spark.kubernetes.container.image").endswith(f"entitymill:{__version__}")
    assert conf.get("spark.driver.extraJavaOptions") == "-Dlog4j2.configurationFile=/opt/entitymill/log4j2.properties"
    assert conf.get("spark.pyspark.python") == "/opt/entitymill/environment/bin/python"
    assert conf.get("spark.delta.logStore.s3a.impl") == "io.delta.storage.S3SingleDriverLogStore"


def test_standalone_has_no_cluster_mode_for_python(package: Path) -> None:
    arguments = ["cluster" if word == "client" else word for word in typed(read_code_block(PAGE, STANDALONE), package)]
    home = Path(pyspark.__file__).parent
    done = subprocess.run(
        [str(home / "bin" / "spark-submit"), *arguments],
        cwd=package, env={**credentials(), "SPARK_HOME": str(home)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert (
        "Cluster deploy mode is currently not supported for python applications on standalone" in done.stdout + done.stderr
    )
