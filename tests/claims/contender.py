"""One of several processes that claim the same places at the same moments, and what came of it."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

from ice_ray.address import storage_path
from ice_ray.claims.claim import HeldError, claimed

_POLL_SECONDS = 0.002


def wait_for(count: int, folder: Path, pattern: str) -> None:
    """Until so many files of that name are there."""
    while len(list(folder.glob(pattern))) < count:
        time.sleep(_POLL_SECONDS)


def main(where: str, table: str, own: int, contenders: int, rounds: int) -> None:
    """Claim `where`/NUMBER in each round, all at once; whoever holds it keeps it until all others have been refused."""
    notes = Path(table)
    for number in range(rounds):
        (notes / f"ready-{number}-{own}").touch()
        wait_for(contenders, notes, f"ready-{number}-*")
        said: list[str] = []
        with suppress(HeldError), claimed(storage_path(where) / f"{number}", "contender", said.append):
            (notes / f"won-{number}-{own}").touch()
            (notes / f"told-{number}-{own}").touch()
            wait_for(contenders, notes, f"told-{number}-*")
        (notes / f"told-{number}-{own}").touch()
        wait_for(contenders, notes, f"told-{number}-*")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
