#!/usr/bin/env bash
# The batch size by len(x) in torch.onnx.export.
#
# One would guess: in a forward pass len(x) is as good as x.shape[0], so with a dynamic first dimension the file takes any
# batch; or the export is refused, as torch.export.export refuses the same with Dim("batch"): "You marked batch as dynamic
# but your code specialized it to be a constant".
# What happens: that depends on how the dimension was given. With Dim("batch") every step of the export reports success, and
# the file takes the example's batch size only. With Dim.AUTO the file declares a dynamic batch, but the example's size is
# inside it: four images give two rows, both wrong, and no error. With Dim.DYNAMIC, or with the name as a string, all is
# well, as it is with x.shape[0] for each of the four.
#
# Installs into a temporary folder, which goes afterwards; with uv, whose cache keeps torch (5 GB) for the next time.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "uv==0.13.9"
"$work/venv/bin/uv" pip install -q --python "$work/venv/bin/python" "torch==2.15.0" "onnx==1.23.2" "onnxscript==0.7.2" \
    "onnxruntime==1.31.1" "numpy==2.4.6"
WORK=$work TMPDIR=$work "$work/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import logging
import os
import pathlib
import warnings

import numpy
import onnxruntime
import torch
from torch import nn
from torch.export import Dim

path = str(pathlib.Path(os.environ["WORK"]) / "model.onnx")
logged = io.StringIO()
logging.getLogger("torch").addHandler(logging.StreamHandler(logged))
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel("ERROR")  # that there is no torchvision


class ByShape(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 3)

    def size(self, x):
        return x.shape[0]

    def forward(self, x):
        return self.head(self.stem(x).reshape(self.size(x), 4, -1).mean(2))  # the mean over positions


class ByLen(ByShape):
    def size(self, x):
        return len(x)


def exported(net, first):
    """How the file answers four images, and a line on that and on what the export said."""
    progress = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(progress):
        warnings.simplefilter("always")
        torch.onnx.export(net, (torch.randn(2, 3, 4, 4),), path, dynamo=True, dynamic_shapes=({0: first},))
    texts = [progress.getvalue(), logged.getvalue(), *(str(each.message) for each in caught)]
    told = any(word in text.lower() for word in ("specializ", "constant", "static") for text in texts)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given, answer = session.get_inputs()[0], session.get_outputs()[0]
    images = torch.randn(4, 3, 4, 4)
    right = net(images).detach().numpy()
    try:
        found = session.run(None, {given.name: images.numpy()})[0]
    except Exception as error:
        outcome = "refused" if "Got: 4 Expected: 2" in str(error) else str(error)
    else:
        known = sum(any(numpy.allclose(row, one, atol=1e-5) for one in right) for row in found)
        outcome = f"{len(found)} rows, {known} of them right"
    declared = ["fixed" if type(each.shape[0]) is int else "dynamic" for each in (given, answer)]
    steps = "a first attempt failed" if "❌" in progress.getvalue() else "all steps well"
    line = (
        f"{steps}, of a constant it {'told' if told else 'said nothing'}; "
        f"batch in the file: {declared[0]} in, {declared[1]} out; answers: {outcome}"
    )
    return (outcome, told), line


torch.manual_seed(0)
print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}; exported with 2 images, run with 4")
try:
    torch.export.export(ByLen().eval(), (torch.randn(2, 3, 4, 4),), dynamic_shapes=({0: Dim("batch")},))
    by_export = "accepted"
except torch._dynamo.exc.UserError as error:
    by_export = f"refused ({str(error).splitlines()[1].strip(' -').split('. ')[0]})"
print(f"torch.export.export, len(x), Dim('batch'): {by_export}")
ways = {"Dim('batch')": Dim("batch"), "Dim.AUTO": Dim.AUTO, "Dim.DYNAMIC": Dim.DYNAMIC, "'batch'": "batch"}
by_onnx = {}
for net in (ByShape().eval(), ByLen().eval()):
    for name, first in ways.items():
        by_onnx[type(net), name], line = exported(net, first)
        print(f"torch.onnx.export, {'len(x)' if type(net) is ByLen else 'x.shape[0]'}, {name}: {line}")
right = ("4 rows, 4 of them right", False)
expected = {(kind, name): right for kind in (ByShape, ByLen) for name in ways}
expected[ByLen, "Dim('batch')"] = ("refused", False)
expected[ByLen, "Dim.AUTO"] = ("2 rows, 0 of them right", False)
as_found = by_export.startswith("refused") and by_onnx == expected
raise SystemExit(0 if as_found else "the behaviour has changed")
PYTHON
