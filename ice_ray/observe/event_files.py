"""TensorBoard's event files where nothing can be appended: one after the other, each put there when it is whole."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch.utils.tensorboard import SummaryWriter

from ice_ray.address import StoragePath


@contextmanager
def event_file(folder: StoragePath) -> Iterator[SummaryWriter]:
    """One more event file of a run of TensorBoard's, which reads them in the order of their names.

    Raises:
        OSError: the store refused it. It is not asked again: nothing hangs on events.
    """
    with tempfile.TemporaryDirectory() as local:
        with SummaryWriter(local) as writer:
            yield writer
        for file in Path(local).iterdir():
            name = f"events.out.tfevents.{time.time_ns():020d}.{platform.node()}"
            (folder / name).write_now(file.read_bytes())


def steps_with(folder: StoragePath, tag: str) -> set[int]:
    """The steps for which a scalar is in the event files of a run of TensorBoard's; they are read as far as they are
    whole.

    Raises:
        OSError: the storage gives them not.
    """
    if not folder.is_dir():
        return set()
    with tempfile.TemporaryDirectory() as local:
        copy = Path(local) / "events.out.tfevents"
        found: set[int] = set()
        for file in folder.iterdir():
            if not file.name.startswith(copy.name):
                continue
            copy.write_bytes(file.read_bytes())
            for event in EventFileLoader(str(copy)).Load():
                found |= {int(event.step) for value in event.summary.value if value.tag == tag}
    return found
