"""Start an S3 server that checks signatures, and a relay in front of it that can refuse or stall connections."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.fs as pafs

ROOT = Path(__file__).parents[2]
KEY, SECRET, BUCKET = "AKENTITYMILLTEST", "s3cret-of-the-cluster-tests", "lake"


@dataclass
class S3Server:
    """S3Proxy with its objects in memory; `inside` is the prefix of a command that runs in a network namespace."""

    directory: Path
    host: str
    port: int
    inside: list[str] = field(default_factory=list)

    def start(self) -> S3Server:
        properties = self.directory / "s3proxy.properties"
        properties.write_text(
            f"s3proxy.endpoint=http://{self.host}:{self.port}\ns3proxy.authorization=aws-v2-or-v4\n"
            f"s3proxy.identity={KEY}\ns3proxy.credential={SECRET}\n"
            "jclouds.provider=transient\njclouds.identity=unused\njclouds.credential=unused\n"
        )
        jars = ROOT / "build" / "s3-server"
        assert list(jars.glob("s3proxy*.jar")), "run `make test-cluster`: it fetches the server"
        logback = Path(__file__).parent / "server" / "logback.xml"
        command = ["java", f"-Dlogback.configurationFile={logback}", "-Xmx1g", "-cp", f"{jars}/*", "org.gaul.s3proxy.Main"]
        self.log = self.directory / "s3proxy.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*self.inside, *command, "--properties", str(properties)], stdout=log, stderr=subprocess.STDOUT
            )
        return self

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def client(endpoint: str) -> pafs.S3FileSystem:
    """Return PyArrow's S3 client, which shares no code with the client under test."""
    os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"  # the server refuses checksums that follow the content
    return pafs.S3FileSystem(
        access_key=KEY, secret_key=SECRET, endpoint_override=endpoint, scheme="http", region="us-east-1",
        allow_bucket_creation=True,
    )  # fmt: skip


def fill(endpoint: str, directory: Path) -> None:
    """Wait until the server answers, and copy a directory's content to the bucket."""
    wait_for(endpoint)
    s3 = client(endpoint)
    s3.create_dir(BUCKET)
    pafs.copy_files(str(directory), BUCKET, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=s3)


def wait_for(endpoint: str, seconds: float = 60) -> None:
    host, _, port = endpoint.partition(":")
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on {endpoint}"
            time.sleep(0.2)
        else:
            return


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Relay:
    """Forwards loopback connections to a port, until it is told to refuse them or to stall them."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._open: set[socket.socket] = set()
        self._flows = threading.Event()
        self._listener: socket.socket | None = None
        self.forward()

    def forward(self) -> None:
        self._flows.set()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stall(self) -> None:
        """Accept connections, but forward nothing in either direction."""
        self._flows.clear()

    def refuse(self) -> None:
        """Stop listening, and close all open connections."""
        listener, self._listener = self._listener, None
        if listener is not None:
            _close(listener)
        for connection in list(self._open):
            _close(connection)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 16):
                self._flows.wait()
                sink.sendall(chunk)
        for end in (source, sink):
            self._open.discard(end)
            _close(end)


def _close(connection: socket.socket) -> None:
    # A shutdown ends another thread's accept or recv; a close does not.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def credentials() -> dict[str, str]:
    """Return this process's environment with the server's credentials, without other variables of Spark, AWS or the job."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYSPARK_", "SPARK_", "AWS_", "ENTITYMILL__"))}
    return {**kept, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
