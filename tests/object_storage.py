"""A server that speaks S3, as a process of this machine, and the variables by which clients find it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pyarrow.fs import S3FileSystem

SECRET = "secret-of-the-tests"
_START_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """Where it listens. What it holds goes with its process."""

    port: int

    @property
    def variables(self) -> dict[str, str]:
        """For clients, their processes' children included."""
        return {
            "AWS_ACCESS_KEY_ID": "key-of-the-tests",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @contextmanager
    def running(self, *buckets: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """Its process, with these buckets, while the block runs."""
        words = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(self.port)]
        process = subprocess.Popen(
            words, env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._await(process)
            for bucket in buckets:
                self.make(bucket)
            yield process
        finally:
            process.kill()
            process.wait()

    def make(self, bucket: str) -> None:
        """One more bucket."""
        client = S3FileSystem(
            access_key="key",
            secret_key=SECRET,
            endpoint_override=f"127.0.0.1:{self.port}",
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        )
        client.create_dir(bucket)

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("the server has ended, or does not listen")


def new_server() -> Server:
    """One that does not run yet, at a port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return Server(free.getsockname()[1])
