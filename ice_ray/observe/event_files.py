"""TensorBoard's event files where nothing can be appended: one after the other, each put there when it is whole."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from ice_ray.address import Address


@contextmanager
def event_file(address: Address) -> Iterator[SummaryWriter]:
    """One more event file of a run of TensorBoard's, which reads them in the order of their names.

    Raises:
        OSError: the store refused it. It is not asked again: nothing hangs on events.
    """
    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            yield writer
        for file in Path(folder).iterdir():
            name = f"events.out.tfevents.{time.time_ns():020d}.{platform.node()}"
            (address / name).write_bytes(file.read_bytes())
