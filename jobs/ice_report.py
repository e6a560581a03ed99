"""Write the reports of runs anew, and compare several."""

import sys

from ice_ray.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main(["report", *sys.argv[1:]]))
