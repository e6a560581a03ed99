"""Stage 2 alone: replay a search's winner."""

import sys

from ice_ray.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main(["replay", *sys.argv[1:]]))
