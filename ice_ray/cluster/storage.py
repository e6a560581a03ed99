"""Whether every node sees the run's folder: a token that the driver writes must be readable from all of them."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ice_ray.address import StoragePath, storage_path
from ice_ray.errors import RunError, UserError
from ice_ray.files import write_text
from ice_ray.interruption import interrupt, interruptible

_POLL_SECONDS, _ANSWER_SECONDS = 2.0, 60.0


def unseen_from(folder: StoragePath, token: str, nodes: list[str], answered: set[str] | None = None) -> str:
    """What is wrong with the first node that does not find the token in the folder; empty where all do.

    Args:
        answered: those that do are added; one that is too busy to say can be asked again.
    """
    answers = {
        node: _token.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(_file(folder))
        for node in nodes
    }
    hosts = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes()}
    for node, answer in answers.items():
        try:
            found = ray.get(answer, timeout=_ANSWER_SECONDS)
        except ray.exceptions.RayError:  # the node has gone, or is too busy to say
            continue
        if answered is not None:
            answered.add(node)
        if found != token:
            return f"--storage: node {hosts.get(node, node)} does not see '{folder}': {folder.sharing}"
    return ""


@contextmanager
def seen_by_all(folder: StoragePath) -> Iterator[None]:
    """Hold that every node sees the folder while the block runs, those that join meanwhile included. For the main
    thread.

    Raises:
        RunError: one does not; from within the block.
    """
    token, file = secrets.token_hex(16), _file(folder)
    write_text(file, token)
    # This node sees its own folders; whether its other processes reach an address is asked like that of any node's.
    known = {ray.get_runtime_context().get_node_id()} if folder.local else set[str]()
    done, fault = threading.Event(), list[str]()

    def check() -> str:
        joined = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in known]
        return unseen_from(folder, token, joined, known)

    def watch() -> None:
        while not done.wait(_POLL_SECONDS):
            if wrong := check():
                fault.append(wrong)
                interrupt()
                return

    if wrong := check():
        raise RunError(wrong)
    watcher = threading.Thread(target=watch, name="storage", daemon=True)
    watcher.start()
    try:
        with interruptible():
            yield
    except KeyboardInterrupt as interruption:
        if fault:
            raise RunError(fault[0]) from interruption
        raise
    finally:
        done.set()
        watcher.join(_ANSWER_SECONDS)
        with suppress(OSError):  # a token that stays harms nobody, and what ended the block says more
            file.unlink(missing_ok=True)


def rays_own(folder: StoragePath) -> dict[str, Any]:
    """Where Tune and Train keep what is theirs: the same folder, or the same address by the same file system."""
    path, file_system = storage_path(folder).arrow
    return {"storage_path": path, "storage_filesystem": file_system}


def _file(folder: StoragePath) -> StoragePath:
    return folder / ".token"


@ray.remote(num_cpus=0)
def _token(file: StoragePath) -> str:
    try:
        return file.read_now().decode()
    except (OSError, UserError):  # a node may even lack what the address needs
        return ""
