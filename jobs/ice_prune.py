"""Prune a trained classifier: both stages."""

import sys

from ice_ray.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main(["prune", *sys.argv[1:]]))
