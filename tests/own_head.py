"""A real head on this machine, with token authentication, that touches no other cluster here."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import ray

ROOT = Path(__file__).parent.parent
RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Head:
    """A running head.

    Attributes:
        address: of its control store, for drivers.
        dashboard: of its job server.
        environment: of processes that may talk to it; their home holds the token.
    """

    address: str
    dashboard: str
    environment: dict[str, str]

    def run(self, *command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """A command to its end; may fail."""
        return subprocess.run(
            command, env=self.environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=400
        )

    def submit(self, *command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """A command that hands in a job, to its end; again where a head that has only just started has nobody yet to
        run one.
        """
        deadline = time.monotonic() + 120
        while True:
            ended = self.run(*command, cwd=cwd)
            if "No available agent" not in ended.stdout + ended.stderr or time.monotonic() > deadline:
                return ended
            time.sleep(2)


@contextmanager
def running_head(cpus: int, autoscaling: dict[str, object] | None = None) -> Iterator[Head]:
    """Start one, as docs/cluster.md has it; ends it and all that it started, and nothing else."""
    with tempfile.TemporaryDirectory(prefix="ir", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        port, dashboard, client = free_ports(3)
        address = f"{ray.util.get_node_ip_address()}:{port}"
        faster = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}  # read where there is an autoscaler
        own = {"HOME": folder, "RAY_AUTH_MODE": "token", "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
        own |= {"RAY_ADDRESS": ""}  # none but the one that is named
        path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        head = Head(address, f"http://127.0.0.1:{dashboard}", os.environ | own | path | faster)
        made = head.run(RAY, "get-auth-token", "--generate")
        assert made.returncode == 0, made.stderr
        command = [RAY, "start", "--head", "--block", f"--port={port}", f"--num-cpus={cpus}", f"--temp-dir={folder}/r"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
        # Where another cluster's agent has the usual port, this head would never have anybody to run a job.
        command.append("--dashboard-agent-listen-port=0")
        if autoscaling is not None:
            provider = {**autoscaling["provider"], "gcs_address": address}  # type: ignore[dict-item]
            config = home / "ray_bootstrap_config.yaml"  # where `ray up` leaves it
            config.write_text(json.dumps({**autoscaling, "provider": provider}))
            command.append(f"--autoscaling-config={config}")
        with (home / "head.log").open("w") as log, started(command, head.environment, log, home) as process:
            _wait_for(head, process, home / "head.log")
            yield head


@contextmanager
def started(
    command: list[str], environment: dict[str, str], log: TextIO, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process while the block runs; ended after it, with all that it has started."""
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_for(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while head.run(RAY, "job", "list", "--address", head.dashboard).returncode != 0:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(1)
