"""Stage 1 alone: search the hyperparameters."""

import sys

from ice_ray.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main(["search", *sys.argv[1:]]))
