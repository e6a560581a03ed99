#!/usr/bin/env bash
# Big-endian images in ONNX Runtime.
#
# One would guess: an array of dtype '>f4', as readers of FITS images and of other big-endian files give, counts as float32
# as everywhere in numpy; or it is refused, as torch.from_numpy refuses it.
# What happens: it is taken, and its bytes are read in the machine's order. Nothing is raised, and the result is that of other
# numbers. array.astype("f4") beforehand is needed. (Strides, transposed and reversed arrays, are heeded.)
#
# Installs into a temporary folder, which goes afterwards.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "onnxruntime==1.31.1" "onnx==1.23.2" "numpy==2.4.6"
"$work/venv/bin/python" - <<'PYTHON'
import sys

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper

if sys.byteorder != "little":
    raise SystemExit("this shows what a little-endian machine does")
image, answer = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("image", "answer"))
graph = helper.make_graph([helper.make_node("Add", ["image", "image"], ["answer"])], "twice", [image], [answer])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
values = numpy.arange(6, dtype="<f4").reshape(2, 3)
big = values.astype(">f4")
right = {
    name: numpy.array_equal(session.run(None, {"image": given})[0], 2 * values)
    for name, given in {
        "little-endian": values,
        "transposed": numpy.asfortranarray(values),
        "reversed": values[::-1].copy()[::-1],
        "big-endian": big,
        "big-endian, then astype": big.astype("f4"),
    }.items()
}
print(f"onnxruntime {onnxruntime.__version__}, numpy {numpy.__version__}; equal in numpy: {numpy.array_equal(big, values)}")
print(", ".join(f"{name}: {'right' if ok else 'WRONG'}" for name, ok in right.items()))
print(f"twice {big.tolist()[0]} is {session.run(None, {'image': big})[0].tolist()[0]}")
as_found = [name for name, ok in right.items() if not ok] == ["big-endian"]
raise SystemExit(0 if as_found else "the behaviour has changed")
PYTHON
