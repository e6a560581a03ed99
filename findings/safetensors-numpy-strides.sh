#!/usr/bin/env bash
# Saving a transposed numpy array as safetensors.
#
# One would guess: safetensors.numpy.save_file writes the values of an array whatever its strides are, as numpy.save does;
# or it refuses, as safetensors.torch.save_file does of a tensor that is not contiguous.
# What happens: it raises nothing and writes the memory as it lies, under the array's shape. A transposed, Fortran-ordered,
# reversed or strided array comes back with other values. So weights that were turned for another framework
# (kernels in HWIO order to OIHW, a linear layer's weight.T) need numpy.ascontiguousarray before they are saved.
#
# Installs into a temporary folder, which goes afterwards.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "safetensors==0.8.0" "numpy==2.4.6"
FILE=$work/arrays.safetensors "$work/venv/bin/python" - <<'PYTHON'
import os

import numpy
import safetensors
from safetensors.numpy import load_file, save_file

kernel = numpy.arange(54, dtype=numpy.float32).reshape(3, 3, 2, 3)  # height, width, in, out
arrays = {
    "contiguous": kernel,
    "HWIO to OIHW": kernel.transpose(3, 2, 0, 1),
    "Fortran order": numpy.asfortranarray(kernel),
    "reversed": kernel[::-1],
    "every second": kernel[..., ::2],
}
same = {}
for name, array in arrays.items():
    save_file({"weight": array}, os.environ["FILE"])
    read = load_file(os.environ["FILE"])["weight"]
    same[name] = numpy.array_equal(read, array)
    print(f"{name}: shape {read.shape}, {'the same' if same[name] else 'OTHER'} values")
save_file({"weight": numpy.ascontiguousarray(arrays["HWIO to OIHW"])}, os.environ["FILE"])
same["made contiguous"] = numpy.array_equal(load_file(os.environ["FILE"])["weight"], arrays["HWIO to OIHW"])
print(f"made contiguous first: {'the same' if same['made contiguous'] else 'OTHER'} values")
print(f"safetensors {safetensors.__version__}, numpy {numpy.__version__}")
as_found = {name for name, found in same.items() if found} == {"contiguous", "made contiguous"}
raise SystemExit(0 if as_found else "the behaviour has changed")
PYTHON
