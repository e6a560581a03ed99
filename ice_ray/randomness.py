"""Step-keyed randomness: every random choice is drawn from a generator named by where in the run it is made.

Nothing depends on what was drawn before, so a resumed run equals the unbroken one and two trials with the
same history are the same run.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(*key: int | str) -> int:
    """A 63-bit seed that depends on every part of the key and on their order."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator for the choice that `key` names, for example (seed, step, epoch, "shuffle").

    CPU even when the work runs on a GPU: the same choices on every device.
    """
    import torch  # here: processes that only decode images draw none, and are spared the seconds of loading it

    return torch.Generator().manual_seed(seed_of(*key))
