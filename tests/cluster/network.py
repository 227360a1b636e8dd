"""Simulate hosts on one machine: network namespaces on a bridge, each with its own host name, /tmp and view of the files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyspark

from .servers import ROOT

NAMES = ("hub", "master", "driver", "worker1", "worker2")
HOME, SPARK = "/mnt/home", "/mnt/spark"

_ENTER = """set -eu
hostname "$1"
mount --bind "$2" /mnt
mount --bind "$3" /mnt/spark
mount --bind /mnt/hosts /etc/hosts
shift 3
while [ "$1" != -- ]; do mount -t tmpfs hidden "$1"; shift; done
shift
cd /mnt/home
exec "$@"
"""


@dataclass(frozen=True)
class Host:
    """A host in its own network namespace; `directory` is mounted there as /mnt."""

    name: str
    namespace: str
    address: str
    directory: Path

    def command(self, *command: str, alone: bool = True) -> list[str]:
        """Return the command line that runs a command on the host, with Spark and /mnt.

        Args:
            command: words of the command.
            alone: whether this repository, its Python environment and this machine's /tmp are hidden from the command.
        """
        # The longest path is hidden first: the mount point of a path would be gone after one of its parents is hidden.
        covered = {"/tmp", str(ROOT), str(Path(sys.prefix).resolve())} if alone else set()  # noqa: S108
        hidden = sorted(covered, key=len, reverse=True)
        spark = str(Path(pyspark.__file__).parent.resolve())
        enter = ["bash", "-c", _ENTER, "enter", self.name, str(self.directory), spark, *hidden, "--"]
        return [*self.plainly(), "unshare", "--mount", "--uts", "--propagation", "private", *enter, *command]

    def plainly(self) -> list[str]:
        """Return the prefix of a command that needs only the host's network."""
        return ["ip", "netns", "exec", self.namespace]

    def environment(self) -> dict[str, str]:
        """Return environment variables: PATH with Java and a suitable Python, and Spark's settings for the host."""
        # The system's Python comes first, if there is one, because the package was built with another Python.
        path = f"/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:{sys.base_prefix}/bin"
        kept = {name: value for name, value in os.environ.items() if name in ("JAVA_HOME", "LANG")}
        return {**kept, "PATH": path, "SPARK_HOME": SPARK, "SPARK_LOCAL_IP": self.address, "SPARK_LOCAL_DIRS": "/mnt/local"}

    def start(self, log: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        with (self.directory / log).open("wb") as out:
            return subprocess.Popen(
                self.command(*command),
                env={**self.environment(), **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def pids(self) -> list[int]:
        listed = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True)
        return [int(pid) for pid in listed.stdout.split()]

    def programs(self) -> list[str]:
        """Return the command lines of the processes on the host."""
        found = []
        for pid in self.pids():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip())
        return found


class Network:
    """The hosts. At the end of the context, their processes are ended and the hosts are removed."""

    def __init__(self, directory: Path) -> None:
        self._tag = f"em{os.getpid()}"
        self.hosts = {
            name: Host(name, f"{self._tag}-{name}", f"10.77.{os.getpid() % 250}.{number}", directory / name)
            for number, name in enumerate(NAMES, start=1)
        }

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self) -> None:
        hub = self.hosts["hub"].namespace
        table = "127.0.0.1 localhost\n" + "".join(f"{host.address} {host.name}\n" for host in self.hosts.values())
        for host in self.hosts.values():
            for part in ("home", "spark", "work", "local"):
                (host.directory / part).mkdir(parents=True)
            (host.directory / "hosts").write_text(table)
            _ip("netns", "add", host.namespace)
            _ip("-n", host.namespace, "link", "set", "lo", "up")
        _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", hub, "link", "set", "bridge", "up")
        for host in self.hosts.values():
            if host.namespace == hub:
                _ip("-n", hub, "address", "add", f"{host.address}/24", "dev", "bridge")
                continue
            port = f"to-{host.name}"
            _ip("-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            _ip("-n", hub, "link", "set", port, "master", "bridge", "up")
            _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.namespace, "link", "set", "eth0", "up")

    def __exit__(self, *_: object) -> None:
        for host in self.hosts.values():
            if not Path("/run/netns", host.namespace).exists():
                continue
            deadline = time.monotonic() + 20
            while (pids := host.pids()) and time.monotonic() < deadline:
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM if time.monotonic() < deadline - 10 else signal.SIGKILL)
                time.sleep(0.5)
            _ip("netns", "delete", host.namespace)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
