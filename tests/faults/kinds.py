"""The kinds of fault: what is done to a running job, and what the job is to say that it survived."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random

from ground import Ground
from job import Job, Stage
from processes import CONTROLLER, MEMORY, MESSENGER, TRIAL, TRIAL_AT_WORK, WORKER, Process, Titles, workers

from ice_ray.trials.run import STATES

DISK_BYTES = 64 * 2**20
_REFUSED = "trying again in"


@dataclass(frozen=True)
class Scene:
    """A job that runs, and what a fault may need."""

    job: Job
    ground: Ground
    random: Random

    def refusals(self) -> int:
        """How often a process of the job has said that the storage refused it something."""
        return self.ground.refusals() + self.job.printed.count(_REFUSED)

    def wait_for_refusals(self) -> None:
        """Until two more have been."""
        before = self.refusals()
        self.job.expect("two refusals", lambda: self.refusals() >= before + 2)

    def victim(self, titles: Titles) -> Process:
        """A process of such a title, drawn and held: it is still at that. Waits until there is one."""
        found: list[Process] = []

        def held() -> bool:
            there = workers(titles)
            drawn = self.random.choice(there) if there else None
            if drawn is not None and drawn.hold(titles):
                found.append(drawn)
            return bool(found)

        self.job.expect(titles[0], held)
        return found[0]

    def kill_driver(self) -> None:
        """And wait until Ray has noticed: what lives of the old job must not write beside the new one."""
        self.job.kill()
        ends = time.monotonic() + 120
        while workers(TRIAL + MEMORY + WORKER + MESSENGER):
            assert time.monotonic() < ends, "Ray's processes outlive their driver"
            time.sleep(0.1)


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: for people.
        inflict: does it; what it does is over when it returns.
        fault_log: what the job is to count it as; empty where there is nothing to survive.
        nodes: that there are when the job begins.
        least: how far the job must have come.
        latest: after which share of its stage it is not inflicted: there must be something left to go on with.
        small: whether the run is on a disk that can be filled, which takes root's rights to mount.
    """

    name: str
    stage: Stage
    inflict: Callable[[Scene], None]
    fault_log: str
    nodes: int = 2
    least: int = 1
    latest: float = 0.85
    small: bool = False


def kill(titles: Titles, scene: Scene) -> None:
    """A process of such a title, wherever it is."""
    scene.victim(titles).kill()


def lose_node(titles: Titles, scene: Scene) -> None:
    """The raylet of such a process with all that runs there; another node joins instead."""
    victim = scene.victim(titles)
    scene.ground.lose(victim.parent)
    victim.kill()
    scene.ground.join()


def join_late(scene: Scene) -> None:
    """A node more, which is to get a trial before the search is over."""
    raylet = scene.ground.join()
    scene.job.expect("a trial on the new node", lambda: bool(workers(TRIAL, raylet)))


def lose_entries(scene: Scene) -> None:
    """The networks that trials share: those in the object store with the process that refers to them, and the files."""
    for path in (scene.job.folder / STATES / "networks").glob("*.safetensors"):
        path.unlink(missing_ok=True)
    scene.victim(MEMORY).kill()


def kill_driver(scene: Scene) -> None:
    """And go on with the run."""
    scene.kill_driver()
    scene.job.start(resume=True)


def damage_search(scene: Scene) -> None:
    """Kill the driver, cut off a part of every kind of file that a search keeps, and go on."""
    scene.kill_driver()
    states = scene.job.folder / STATES
    for pattern in ("trial-*.json", "networks/*.safetensors", "actions.jsonl"):
        if found := sorted(states.glob(pattern)):
            _cut(scene.random.choice(found), scene.random.uniform(0.5, 0.95))
    scene.job.start(resume=True)


def damage_checkpoint(scene: Scene) -> None:
    """Kill the driver, cut off a part of the newest checkpoint and of Train's own list of them, and go on."""
    scene.kill_driver()
    newest = max((scene.job.folder / "replay").glob("checkpoint_*/"))
    _cut(newest / scene.random.choice(["snapshot.safetensors", "progress.json"]), scene.random.uniform(0.1, 0.95))
    _cut(scene.job.folder / "replay" / "checkpoint_manager_snapshot.json", 0.5)
    scene.job.start(resume=True)


def fill_disk_for_a_moment(scene: Scene) -> None:
    """Until it has refused something twice."""
    with full(scene.job.folder.parent):
        scene.wait_for_refusals()


def fill_disk(scene: Scene) -> None:
    """Until the job has given up, in one line; then make room and go on."""
    before = len(scene.job.printed)
    with full(scene.job.folder.parent):
        assert scene.job.finish() == 1, scene.job.printed[-4000:]
    said = scene.job.printed[before:]
    assert "No space left on device" in said.splitlines()[-1] and "Traceback" not in said, said[-4000:]
    scene.job.start(resume=True)


def refuse(scene: Scene) -> None:
    """The folders take no new file, until they have refused something twice."""
    folder = scene.job.folder
    folders = [each for each in (folder / STATES, folder / STATES / "networks", folder / "replay") if each.is_dir()]
    with unwritable(folders):
        scene.wait_for_refusals()


KINDS = (
    Kind("trial killed", "search", partial(kill, TRIAL_AT_WORK), "trial restart"),
    Kind("stage 2 worker killed", "replay", partial(kill, WORKER), "worker restart"),
    Kind("raylet of a trial killed", "search", partial(lose_node, TRIAL_AT_WORK), "trial restart"),
    Kind("driver killed in stage 1", "search", kill_driver, "resumption"),
    Kind("shared memory killed", "search", partial(kill, MEMORY), "action cache restart"),
    Kind("checkpoint truncated before resume", "replay", damage_checkpoint, "damaged file", least=2),
    Kind("storage refuses twice in stage 1", "search", refuse, "storage retry"),
    Kind("node joins late", "search", join_late, "", nodes=1, latest=0.4),
    Kind("files of the search truncated before resume", "search", damage_search, "resumption"),
    Kind("disk full in stage 1, then resumed", "search", fill_disk, "resumption", small=True),
    Kind("driver killed in stage 2", "replay", kill_driver, "resumption"),
    Kind("shared networks lost", "search", lose_entries, "action cache restart"),
    Kind("disk full at a checkpoint", "replay", fill_disk_for_a_moment, "storage retry", small=True),
    Kind("storage refuses twice in stage 2", "replay", refuse, "storage retry"),
    Kind("raylet of a stage 2 worker killed", "replay", partial(lose_node, WORKER), "worker restart"),
    Kind("messenger of stage 2 killed", "replay", partial(kill, MESSENGER), "messenger restart"),
    Kind("controller of stage 2 killed", "replay", partial(kill, CONTROLLER), "controller restart"),
)


def _cut(path: Path, share: float) -> None:
    """Leave a share of a file, where there is one yet."""
    if path.is_file():
        os.truncate(path, int(share * path.stat().st_size))


@cache
def may_mount() -> bool:
    """Whether this user may, here: root in a container often may not."""
    if os.geteuid():
        return False
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=False, capture_output=True)
        if tried.returncode == 0:
            subprocess.run(["umount", folder], check=True)
    return tried.returncode == 0


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of its own in that place."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill the disk and keep it so, whatever the job removes there; make room again at the end."""
    ballast, done = disk / "ballast", threading.Event()

    def fill() -> None:
        # Without a buffer: what does not fit must fail here.
        with ballast.open("wb", buffering=0) as file:
            while True:
                for size in (2**20, 2**12, 1):
                    with suppress(OSError):
                        while file.write(bytes(size)) == size:
                            pass
                if done.wait(0.02):
                    return

    filler = threading.Thread(target=fill, name="ballast")
    filler.start()
    try:
        while os.statvfs(disk).f_bavail:
            time.sleep(0.02)
        yield
    finally:
        done.set()
        filler.join()
        ballast.unlink()


@contextmanager
def unwritable(folders: list[Path]) -> Iterator[None]:
    """No name in these folders can be made, changed or removed. Root's rights outdo permissions, not this flag."""
    lock, unlock = (["chattr", "+i"], ["chattr", "-i"]) if not os.geteuid() else (["chmod", "a-w"], ["chmod", "u+w"])
    if shutil.which(lock[0]) is None:
        raise PermissionError(f"needs {lock[0]}")
    names = [str(folder) for folder in folders]
    try:
        subprocess.run([*lock, *names], check=True)
        yield
    finally:
        subprocess.run([*unlock, *names], check=True)
