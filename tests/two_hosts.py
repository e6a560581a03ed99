"""A cluster over two network stacks of this machine: namespaces with names of their own and a wire between them."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from own_head import RAY, ROOT, started

_PORT = 6379


@dataclass(frozen=True)
class Host:
    """A network stack.

    Attributes:
        namespace: its name, of which nobody but root may make one.
        address: on the wire.
        name: what programs take the machine's name for.
    """

    namespace: str
    address: str
    name: str

    def command(self, words: Sequence[str]) -> list[str]:
        """What runs these words there."""
        named = ["unshare", "--uts", "sh", "-c", f'hostname {self.name} && exec "$@"', "sh"]
        return ["ip", "netns", "exec", self.namespace, *named, *words]


@dataclass(frozen=True)
class TwoHosts:
    """A running cluster, one CPU on each host.

    Attributes:
        head: where drivers run.
        other: a host that the head reaches by the wire alone.
        environment: of drivers.
    """

    head: Host
    other: Host
    environment: dict[str, str]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A driver on the head, to its end."""
        return subprocess.run(
            self.head.command(words), env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False,
            timeout=500,
        )  # fmt: skip


def why_impossible() -> str:
    """Why this machine cannot have them; empty where it can."""
    if not (shutil.which("ip") and shutil.which("unshare")):
        return "network namespaces take the programs ip and unshare"
    name = f"try-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return "" if made.returncode == 0 else f"no network namespaces here ({made.stderr.strip()})"


@contextmanager
def two_hosts() -> Iterator[TwoHosts]:
    """Wire them, start Ray on both with a token; all of it is gone after the block."""
    with ExitStack() as stack:
        head, other = stack.enter_context(_wired())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ir", ignore_cleanup_errors=True))
        own = {"HOME": folder, "RAY_AUTH_MODE": "token", "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
        # The hosts' names are in nobody's list of addresses: gloo is told the wire's end.
        own |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "wire", "RAY_ADDRESS": f"{head.address}:{_PORT}"}
        path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        both = TwoHosts(head, other, os.environ | own | path)
        subprocess.run([RAY, "get-auth-token", "--generate"], env=both.environment, capture_output=True, check=True)
        start = [RAY, "start", "--block", "--num-cpus=1", f"--temp-dir={folder}/r"]
        memory = f"--object-store-memory={200 * 2**20}"
        first = [*start, memory, "--head", f"--port={_PORT}", f"--node-ip-address={head.address}"]
        log = stack.enter_context((Path(folder) / "log").open("w+"))
        stack.enter_context(started(head.command([*first, "--include-dashboard=false"]), both.environment, log, ROOT))
        _wait_for_nodes(both, 1, Path(log.name))
        second = [RAY, "start", "--block", "--num-cpus=1", memory, f"--address={head.address}:{_PORT}"]
        stack.enter_context(
            started(other.command([*second, f"--node-ip-address={other.address}"]), both.environment, log, ROOT)
        )
        _wait_for_nodes(both, 2, Path(log.name))
        yield both


@contextmanager
def _wired() -> Iterator[tuple[Host, Host]]:
    mark = secrets.token_hex(3)
    hosts = tuple(Host(f"ice-{mark}-{name}", f"10.213.7.{n}", name) for n, name in ((1, "here"), (2, "there")))
    try:
        for host in hosts:
            _ip("netns", "add", host.namespace)
            _ip("-n", host.namespace, "link", "set", "lo", "up")
        peer = ["peer", "name", "wire", "netns", hosts[1].namespace]
        _ip("link", "add", "wire", "netns", hosts[0].namespace, "type", "veth", *peer)
        for host in hosts:
            _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "wire")
            _ip("-n", host.namespace, "link", "set", "wire", "up")
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:  # the wire goes with them
            subprocess.run(["ip", "netns", "del", host.namespace], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def _wait_for_nodes(both: TwoHosts, count: int, log: Path) -> None:
    asked = "import ray; ray.init(logging_level='ERROR'); print(len([n for n in ray.nodes() if n['Alive']]))"
    deadline = time.monotonic() + 120
    while (ended := both.run(sys.executable, "-c", asked)).stdout.strip() != str(count):
        assert time.monotonic() < deadline, log.read_text() + ended.stdout + ended.stderr
        time.sleep(1)
