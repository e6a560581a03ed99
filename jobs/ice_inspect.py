"""Show what can be pruned in a model."""

import sys

from ice_ray.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main(["inspect", *sys.argv[1:]]))
