"""`entitymill fetch-jars`: fetch Delta's jars by their Maven coordinates, and check their SHA-256.

A client is a program that fetches jars: Maven, or spark-submit with Ivy.
"""

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
from entitymill.spark import files_on_this_machine, installation
from entitymill.terminal.console_text import visible

log = logging.getLogger("entitymill")
DEFAULT = Path("build/jars")
"""The default of the `spark.jars` setting."""
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
CLIENT_TIMEOUT = 900
"""Seconds after which a client is stopped if it has not finished."""


@dataclass(frozen=True)
class Jar:
    """A jar in a Maven repository.

    coordinates: group:artifact:version.
    sha256: the expected digest of the file, in hexadecimal.
    """

    coordinates: str
    sha256: str

    @property
    def name(self) -> str:
        """The file name of the jar."""
        return "-".join(self.coordinates.split(":")[1:]) + ".jar"


JARS = {
    release: (
        Jar(f"io.delta:{delta.artifact}_{delta.scala}:{delta.version}", delta.sha256),
        Jar(f"io.delta:delta-storage:{delta.version}", delta.storage_sha256),
    )
    for release, delta in installation.DELTA.items()
}
"""For each release of Spark, the jars that a run needs in addition to Spark."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of `entitymill fetch-jars`."""
    built = common.build_parser(
        "fetch-jars",
        description="Fetch Delta's jars with Maven or, if Maven is not installed, with Spark's own Ivy, and check their "
        "SHA-256. Maven uses its own settings, with mirrors and its cache.",
        epilog="Examples:\n  entitymill fetch-jars\n  entitymill fetch-jars --spark 4.0 --to /opt/entitymill/jars",
    )
    built.add_argument(
        "--to", metavar="DIRECTORY", type=Path, default=DEFAULT, help=f"directory to write to (default: {DEFAULT})"
    )
    built.add_argument("--spark", choices=tuple(JARS), help="release of Spark (default: the installed one, else 3.5)")
    built.add_argument(
        "--client", choices=tuple(_CLIENTS), help="program that fetches the jars (default: mvn, if it is installed)"
    )
    built.add_argument("--repository", metavar="URL", help="a Maven repository to use in addition to the client's own")
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the jars and return the exit code."""
    options = parser().parse_args(arguments)

    def work(start_log: Callable[[str | None], str]) -> None:
        """Fetch the jars into the directory --to, unless it already has them, and print what was done.

        Raise SettingsError if the directory has jars of another Delta version.
        """
        jars = JARS[options.spark or _find_installed_release()]
        names = ", ".join(jar.name for jar in jars)
        _refuse_other_delta(options.to, jars)
        if all(_hash_file(options.to / jar.name) == jar.sha256 for jar in jars):
            print(f"{visible(str(options.to))} already has {names}")
            return
        start_log(None)
        fetch(jars, options.to, options.client, options.repository)
        print(f"wrote {names} to {visible(str(options.to))}; every SHA-256 is correct")

    return common.run_and_report(work, "interrupted; nothing was written.")


def fetch(jars: Sequence[Jar], to: Path, client: str | None = None, repository: str | None = None) -> None:
    """Fetch jars into a scratch directory, check them there, then copy them to `to`, which is created if it is missing.

    Args:
        client: a key of _CLIENTS, or None for the first client that is installed.
        repository: URL of a Maven repository to use in addition to the repositories in the client's settings.

    Raises:
        SettingsError: the requested client is not installed, or no client is installed.
        SessionError: the client could not fetch a jar, or a jar has a different SHA-256.
        OutputError: the directory cannot be written.
    """
    installed = [name for name, (command_line, _) in _CLIENTS.items() if command_line()]
    chosen = client or next(iter(installed), None)
    if chosen not in installed:
        raise SettingsError(
            f"{f'--client: {client} is not' if client else 'Neither Maven nor PySpark with Java is'} installed: "
            f"install Maven (mvn), or PySpark (`{installation.install_command('spark')}`) and a JDK 17; or copy "
            f"{' and '.join(jar.name for jar in jars)} to {to} from another machine."
        )
    with tempfile.TemporaryDirectory(
        prefix="entitymill-jars-", dir=files_on_this_machine.open_private_directory()
    ) as scratch:
        _CLIENTS[chosen][1](jars, Path(scratch), repository)
        files: dict[Jar, Path] = {}
        for jar in jars:
            fetched = next(Path(scratch, "jars").glob(f"*{jar.name}"), None)
            if fetched is None:
                raise SessionError(
                    f"{chosen} did not fetch {jar.coordinates}: ask the administrator of your Maven repository to add it."
                )
            digest = _hash_file(fetched)
            if digest != jar.sha256:
                raise SessionError(
                    f"{jar.name} has SHA-256 {str(digest)[:12]}…, but entitymill expects {jar.sha256[:12]}…: the "
                    "file was altered or damaged, and nothing was written. Empty the client's cache and fetch again."
                )
            files[jar] = fetched
        try:
            to.mkdir(parents=True, exist_ok=True)
            for jar, fetched in files.items():
                files_on_this_machine.write_atomically(to / jar.name, fetched.read_bytes())
        except OSError as error:
            raise OutputError(f"--to {to} cannot be written: {error.strerror}; name another directory.") from error


def _find_installed_release() -> str:
    """Return the installed PySpark's release, such as 3.5; if PySpark is not installed, the first release in JARS.

    Raise SettingsError if this release of PySpark is not supported.
    """
    try:
        version = importlib.metadata.version("pyspark")
    except importlib.metadata.PackageNotFoundError:
        return next(iter(JARS))
    release = ".".join(version.split(".")[:2])
    if release not in JARS:
        raise SettingsError(f"PySpark {version} is not supported: name a release with --spark {' or '.join(JARS)}.")
    return release


def _refuse_other_delta(to: Path, jars: Sequence[Jar]) -> None:
    """Raise SettingsError if the directory has jars of another Delta version: two versions on one class path conflict."""
    names = {jar.name for jar in jars}
    others = [path.name for path in sorted(to.glob("delta-*.jar")) if path.name not in names]
    if others:
        raise SettingsError(
            f"--to {to} contains {others[0]}, another version of Delta: delete that file, or name another directory."
        )


def _hash_file(path: Path) -> str | None:
    """Return the SHA-256 of a file in hexadecimal; None if the file does not exist."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_with_maven(jars: Sequence[Jar], scratch: Path, repository: str | None) -> None:
    """Write a pom.xml with the jars to the scratch directory, and let Maven fetch them into the directory scratch/jars.

    Dependencies of the jars are not fetched, because Spark contains them. `repository` is the URL of an additional Maven
    repository, or None.
    """
    dependencies = ""
    for jar in jars:
        group, artifact, version = jar.coordinates.split(":")
        exclusions = "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
        named = f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
        dependencies += f"<dependency>{named}{exclusions}</dependency>"
    named = f"<id>given</id><url>{escape(repository)}</url>" if repository else ""
    more = f"<repositories><repository>{named}</repository></repositories>" if named else ""
    more += f"<pluginRepositories><pluginRepository>{named}</pluginRepository></pluginRepositories>" if named else ""
    (scratch / "pom.xml").write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>entitymill</groupId>'
        f"<artifactId>jars</artifactId><version>1</version><packaging>pom</packaging>{more}"
        f"<dependencies>{dependencies}</dependencies></project>",
        encoding="utf8",
    )
    copy = [f"{PLUGIN}:copy-dependencies", f"-DoutputDirectory={scratch / 'jars'}"]
    _run_client([*_find_maven(), "--quiet", "--batch-mode", "--file", str(scratch / "pom.xml"), *copy], "mvn")


def _fetch_with_spark(jars: Sequence[Jar], scratch: Path, repository: str | None) -> None:
    """Fetch the jars with spark-submit into the directory scratch/jars.

    spark-submit runs an empty program with the option --packages; before that, Ivy, which is part of Spark, downloads these
    packages. `repository` is the URL of an additional Maven repository, or None.
    """
    (scratch / "nothing.py").touch()
    packages = ",".join(jar.coordinates for jar in jars)
    options = ["--packages", packages, "--conf", f"spark.jars.ivy={scratch}"]
    # Spark contains Delta's other dependencies.
    options += ["--exclude-packages", "org.antlr:antlr4-runtime,org.scala-lang:scala-library"]
    options += ["--repositories", repository] if repository else []
    _run_client([*_find_spark_submit(), *options, str(scratch / "nothing.py")], "spark")


def _find_maven() -> list[str]:
    """Return the path of mvn, as a list to which arguments are added; empty if Maven is not installed."""
    found = shutil.which("mvn")
    return [found] if found else []


def _find_spark_submit() -> list[str]:
    """Return the path of spark-submit, as a list to which arguments are added; empty if PySpark or Java is not installed."""
    found = importlib.util.find_spec("pyspark")
    java = os.environ.get("JAVA_HOME") or shutil.which("java")
    if found is None or found.origin is None or not java:
        return []
    return [str(Path(found.origin).parent / "bin" / "spark-submit")]


_CLIENTS: dict[str, tuple[Callable[[], list[str]], Callable[[Sequence[Jar], Path, str | None], None]]] = {
    "mvn": (_find_maven, _fetch_with_maven),
    "spark": (_find_spark_submit, _fetch_with_spark),
}
"""For each client, two functions. The first returns a list with the client's program, or an empty list if the client is not
installed. The second fetches jars with the client: its arguments are jars, the scratch directory and `repository`."""


def _run_client(command_line: list[str], client: str) -> None:
    """Run a client's command line, and write what the client prints to the log, with credentials masked.

    `client` is a key of _CLIENTS. Raise SessionError if the client fails, or takes longer than CLIENT_TIMEOUT seconds.
    """
    home = {"SPARK_HOME": str(Path(command_line[0]).parent.parent)} if client == "spark" else {}
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", **home}
    try:
        done = subprocess.run(  # noqa: S603  # a program on the user's own path
            command_line, env=environment, capture_output=True, text=True, timeout=CLIENT_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SessionError(
            f"{client} could not be started, or did not finish within {CLIENT_TIMEOUT} seconds: {type(error).__name__}. "
            "Check the network, or choose another --client."
        ) from error
    printed = secret_masking.mask_text(done.stdout + done.stderr)
    log.info("output of %s: %s", client, printed)
    if done.returncode:
        reasons = [line for line in printed.splitlines() if "ERROR" in line or "unresolved" in line or "Exception" in line]
        reason = reasons[0].strip()[:300] if reasons else f"exit code {done.returncode}"
        raise SessionError(f"{client} could not fetch the jars: {reason}. Check the network, or name a --repository.")
