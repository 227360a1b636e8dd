"""Test that Spark properties are on no command line, because every user of the machine can read command lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECRET = "hunter2"
PROGRAM = """
import glob, json, os, sys, threading
from pathlib import Path
from entitymill.spark import session
from entitymill.settings.sections import SparkSettings

seen, tries, over = set(), [], threading.Event()

def look():
    while not over.is_set():
        tries.append(1)
        for place in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                seen.add(Path(place).read_bytes().replace(bytes(1), b" ").decode(errors="replace"))
            except OSError:
                pass
        over.wait(0.01)

watcher = threading.Thread(target=look)
watcher.start()
conf = json.loads(os.environ["CONF"])
settings = SparkSettings(master="local[1]", jars=os.environ["JARS"], conf=conf)
spark = session._start_session(settings, "name = a b", brief=True)
over.wait(0.1)
java = spark.sparkContext._gateway.proc.pid
commands = Path(f"/proc/{java}/cmdline").read_bytes().replace(bytes(1), b" ").decode()
over.set(); watcher.join()
system = spark.sparkContext._jvm.java.lang.System
print("\\n" + json.dumps({
    "jvm": commands,
    "leaks": sorted(one for one in seen if os.environ["MARK"] in one),
    "tries": len(tries),
    "memory": int(spark.sparkContext._jvm.java.lang.Runtime.getRuntime().maxMemory()),
    "conf": {key: spark.sparkContext.getConf().get(key) for key in [*conf, "spark.app.name", "spark.of.defaults"]},
    "java": {name: system.getProperty(name) for name in ("store.pass", "log4j2.configurationFile")},
    "left": glob.glob(os.path.join(os.environ["TMPDIR"], "**", "entitymill-spark-*"), recursive=True),
    "jars": spark.sparkContext.getConf().get("spark.jars") != "",
    "delta": session.has_class(spark, "io.delta.tables.DeltaTable"),
    "arguments": os.environ.get("PYSPARK_SUBMIT_ARGS"),
}))
"""  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [None, "--properties-file {file} --conf spark.ui.enabled=false pyspark-shell"])
def test_no_property_is_on_a_command_line(tmp_path: Path, arguments: str | None) -> None:
    conf = {
        "spark.hadoop.fs.s3a.secret.key": f" {SECRET}=a:b#c!d\\e 'f\" ü\t\U0001f600",
        "spark.executorEnv.STORE_PASS": SECRET,
        "spark.driver.memory": "777m",
        "spark.driver.extraJavaOptions": f'-Dstore.pass="{SECRET} \\"q\\" \\\\" -XX:+UseSerialGC',
    }
    (tmp_path / "spark-defaults.conf").write_text("spark.of.defaults yes\nspark.driver.memory 888m\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK", "PYSPARK"))}
    environment |= {
        "CONF": json.dumps(conf), "JARS": str(ROOT / "build" / "jars"), "MARK": SECRET, "TMPDIR": str(tmp_path),
        "PYTHONPATH": str(ROOT / "jobs"),
    }  # fmt: skip
    if arguments is None:
        environment["SPARK_CONF_DIR"] = str(tmp_path)
    else:
        environment["PYSPARK_SUBMIT_ARGS"] = arguments.format(file=tmp_path / "spark-defaults.conf")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert "org.apache.spark.deploy.SparkSubmit" in found["jvm"]
    assert found["tries"] > 20
    assert found["leaks"] == []
    assert SECRET not in found["jvm"]
    options = "spark.driver.extraJavaOptions"  # Spark adds its own options in front
    assert found["conf"].pop(options).endswith(f" {conf.pop(options)}")
    assert found["conf"] == {**conf, "spark.app.name": "name = a b", "spark.of.defaults": "yes"}
    assert 700 < found["memory"] / 2**20 < 780
    assert found["java"]["store.pass"] == f'{SECRET} "q" \\'
    assert found["delta"]
    assert (found["left"], found["arguments"]) == ([], environment.get("PYSPARK_SUBMIT_ARGS"))
