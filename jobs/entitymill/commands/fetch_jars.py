"""`entitymill fetch-jars`: Delta by its Maven coordinates, each file checked by the SHA-256 that is carried here."""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from entitymill.commands import common
from entitymill.errors import OutputError, SessionError, SettingsError
from entitymill.settings import secret_masking
from entitymill.spark import requirements, whole_files
from entitymill.terminal.console_text import visible

log = logging.getLogger("entitymill")
DEFAULT = Path("build/jars")
"""What `spark.jars` says if nobody says anything else."""
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
PATIENCE = 900
"""Seconds that a client may take."""


@dataclass(frozen=True)
class Jar:
    """One file of a Maven repository: its coordinates group:artifact:version, and its SHA-256."""

    coordinates: str
    sha256: str

    @property
    def name(self) -> str:
        """Of the file."""
        return "-".join(self.coordinates.split(":")[1:]) + ".jar"


JARS = {
    "3.5": (
        Jar("io.delta:delta-spark_2.12:3.3.3", "4912bf902a1c453aba3bd838ff212dedd357155212f9bb37a6b47d97f2827ebc"),
        Jar("io.delta:delta-storage:3.3.3", "45ad193053fd30cebe6d9ab1889873cde39b223a0f210e00ebee8b6642476901"),
    ),
    "4.0": (
        Jar("io.delta:delta-spark_2.13:4.0.1", "a1e76860b19fe1e6b205a4ea7a9099a2f9575d39bb71d49b3e679b299d0efb91"),
        Jar("io.delta:delta-storage:4.0.1", "ecc42c5aaa51c423312d9e4e48aa4a12b34740bf2c37de0e8f279277ec3d12e4"),
    ),
}
"""Of Spark -> all that a run needs beside it."""


def parser() -> argparse.ArgumentParser:
    """The options of `entitymill fetch-jars`."""
    built = argparse.ArgumentParser(
        prog="entitymill fetch-jars",
        description="Fetch Delta's jars with Maven or, where that is not installed, with Spark's own Ivy, and check their "
        "SHA-256. Both read their own settings, mirrors and caches included.",
        epilog="Examples: entitymill fetch-jars   entitymill fetch-jars --spark 4.0 --to /opt/entitymill/jars",
    )
    built.add_argument("--to", metavar="DIRECTORY", type=Path, default=DEFAULT, help=f"where to (default: {DEFAULT})")
    built.add_argument("--spark", choices=tuple(JARS), help="release they are for (default: the installed one, else 3.5)")
    built.add_argument("--client", choices=tuple(_CLIENTS), help="what fetches them (default: mvn, if it is installed)")
    built.add_argument("--repository", metavar="URL", help="a Maven repository to ask beside those of the client's settings")
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch; returns the exit code."""
    options = parser().parse_args(arguments)

    def work(start_log: Callable[[str | None], str]) -> None:
        wanted = JARS[options.spark or _installed_spark()]
        _check_directory(options.to, wanted)
        if all(_digest(options.to / jar.name) == jar.sha256 for jar in wanted):
            print(f"{visible(str(options.to))} has them already: {', '.join(jar.name for jar in wanted)}")
            return
        start_log(None)
        fetch(wanted, options.to, options.client, options.repository)
        print(f"wrote {', '.join(jar.name for jar in wanted)} to {visible(str(options.to))}; their SHA-256 are right")

    return common.reporting(work, "interrupted; nothing was written.")


def fetch(wanted: Sequence[Jar], to: Path, client: str | None = None, repository: str | None = None) -> None:
    """Fetch jars into a scratch directory, check them there, then put them into their own.

    Args:
        wanted: by their coordinates.
        to: the directory; it is made if it is not there.
        client: of _CLIENTS; none: the first that is installed.
        repository: to ask too.

    Raises:
        SettingsError: the client is not installed, or none is.
        SessionError: it could not fetch one, or a file is another one than it should be.
        OutputError: the directory cannot be written.
    """
    there = [name for name, (command_line, _) in _CLIENTS.items() if command_line()]
    chosen = client or next(iter(there), None)
    if chosen not in there:
        raise SettingsError(
            f"{f'--client {client} is not' if client else 'Neither Maven nor PySpark with Java is'} installed: "
            f"install Maven (mvn), or PySpark (`{requirements.install_command('spark')}`) and a JDK 17; or copy "
            f"{' and '.join(jar.name for jar in wanted)} to {to} from a machine that has one."
        )
    with tempfile.TemporaryDirectory(prefix="entitymill-jars-") as scratch:
        _CLIENTS[chosen][1](wanted, Path(scratch), repository)
        found: dict[Jar, Path] = {}
        for jar in wanted:
            fetched = next(Path(scratch, "jars").glob(f"*{jar.name}"), None)
            if fetched is None:
                raise SessionError(f"{chosen} did not fetch {jar.coordinates}: ask your Maven repository's keeper for it.")
            if _digest(fetched) != jar.sha256:
                raise SessionError(
                    f"{jar.name} has SHA-256 {str(_digest(fetched))[:12]}…, this version expects {jar.sha256[:12]}…: it was "
                    "altered or damaged on its way, and nothing was written; empty the client's cache and fetch again."
                )
            found[jar] = fetched
        try:
            to.mkdir(parents=True, exist_ok=True)
            for jar, fetched in found.items():
                whole_files.write(to / jar.name, fetched.read_bytes())
        except OSError as error:
            raise OutputError(f"--to {to} cannot be written: {error.strerror}.") from error


def _installed_spark() -> str:
    try:
        version = importlib.metadata.version("pyspark")
    except importlib.metadata.PackageNotFoundError:
        return next(iter(JARS))
    release = ".".join(version.split(".")[:2])
    if release not in JARS:
        raise SettingsError(f"PySpark {version} is not supported: name a release with --spark {' or '.join(JARS)}.")
    return release


def _check_directory(to: Path, wanted: Sequence[Jar]) -> None:
    """Two Deltas on one class path are neither."""
    names = {jar.name for jar in wanted}
    others = [path.name for path in sorted(to.glob("delta-*.jar")) if path.name not in names]
    if others:
        raise SettingsError(f"--to {to} holds {others[0]}, another Delta: remove it there, or name another directory.")


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _by_maven(wanted: Sequence[Jar], scratch: Path, repository: str | None) -> None:
    """With a pom of these very artifacts, and none that they ask for: what they need Spark has."""
    dependencies = ""
    for jar in wanted:
        group, artifact, version = jar.coordinates.split(":")
        alone = "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
        named = f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
        dependencies += f"<dependency>{named}{alone}</dependency>"
    named = f"<id>given</id><url>{escape(repository)}</url>" if repository else ""
    more = f"<repositories><repository>{named}</repository></repositories>" if named else ""
    (scratch / "pom.xml").write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>entitymill</groupId>'
        f"<artifactId>jars</artifactId><version>1</version><packaging>pom</packaging>{more}"
        f"<dependencies>{dependencies}</dependencies></project>",
        encoding="utf8",
    )
    copy = [f"{PLUGIN}:copy-dependencies", f"-DoutputDirectory={scratch / 'jars'}"]
    _run([*_mvn(), "--quiet", "--batch-mode", "--file", str(scratch / "pom.xml"), *copy], "mvn")


def _by_spark(wanted: Sequence[Jar], scratch: Path, repository: str | None) -> None:
    """With spark-submit of an empty program: it resolves `--packages` by Ivy, into `jars`, before it starts it."""
    (scratch / "nothing.py").touch()
    packages = ",".join(jar.coordinates for jar in wanted)
    options = ["--packages", packages, "--conf", f"spark.jars.ivy={scratch}"]
    # What Delta asks for beside its own is in Spark.
    options += ["--exclude-packages", "org.antlr:antlr4-runtime,org.scala-lang:scala-library"]
    options += ["--repositories", repository] if repository else []
    _run([*_spark_submit(), *options, str(scratch / "nothing.py")], "spark")


def _mvn() -> list[str]:
    found = shutil.which("mvn")
    return [found] if found else []


def _spark_submit() -> list[str]:
    found = importlib.util.find_spec("pyspark")
    java = os.environ.get("JAVA_HOME") or shutil.which("java")
    if found is None or found.origin is None or not java:
        return []
    return [str(Path(found.origin).parent / "bin" / "spark-submit")]


_CLIENTS: dict[str, tuple[Callable[[], list[str]], Callable[[Sequence[Jar], Path, str | None], None]]] = {
    "mvn": (_mvn, _by_maven),
    "spark": (_spark_submit, _by_spark),
}
"""Name -> its command line, empty where it is not installed, and what runs it."""


def _run(command_line: list[str], client: str) -> None:
    """Run a client; what it says is in the log.

    Raises:
        SessionError: it fails.
    """
    home = {"SPARK_HOME": str(Path(command_line[0]).parent.parent)} if client == "spark" else {}
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", **home}
    try:
        done = subprocess.run(  # noqa: S603  # a program on the user's own path
            command_line, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SessionError(f"{client} does not run, or not to an end: {type(error).__name__}.") from error
    said = secret_masking.mask_text(done.stdout + done.stderr)
    log.info("%s said: %s", client, said)
    if done.returncode:
        reasons = [line for line in said.splitlines() if "ERROR" in line or "unresolved" in line or "Exception" in line]
        reason = reasons[0].strip()[:300] if reasons else f"it ended with {done.returncode}"
        raise SessionError(f"{client} could not fetch the jars: {reason}")
