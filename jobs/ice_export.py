"""Write a pruned model as ONNX or as an exported program."""

import sys

from ice_ray.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main(["export", *sys.argv[1:]]))
