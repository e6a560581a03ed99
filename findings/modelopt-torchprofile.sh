#!/usr/bin/env bash
# A budget of multiply-adds in NVIDIA ModelOpt's FastNAS, with the torchprofile that its message asks for.
#
# One would guess: after pip install nvidia-modelopt torchvision, as NVIDIA's notebook on pruning a ResNet-20 begins,
# mtp.prune(..., constraints={"flops": "60%"}) ends in "Please run `pip install torchprofile` to use this function", and does
# its work once that is done.
# What happens: the import fails already: requests and huggingface_hub are needed, and required by none but extras. With them
# it is as its message says; but pip install torchprofile brings 0.1.0 (of 2026), which keeps no
# torchprofile.profile.handlers any longer: ModelOpt replaces that tuple to leave batch norms out, and ends in an
# AttributeError. With 0.0.4 it works. ModelOpt names that version only in its extra dev-test.
#
# Installs into a temporary folder, which goes afterwards; with uv, whose cache keeps torch (5 GB) for the next time.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "uv==0.13.9"
"$work/venv/bin/uv" pip install -q --python "$work/venv/bin/python" "torch==2.15.0" "nvidia-modelopt==0.47.0" "torchvision" \
    "numpy==2.4.6"
cat > "$work/search.py" <<'PYTHON'
import warnings
from importlib.metadata import PackageNotFoundError, version

warnings.simplefilter("ignore")
import torch
from torch import nn

torch.manual_seed(0)
images = torch.randn(8, 3, 16, 16)
net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
try:
    profiler = version("torchprofile")
except PackageNotFoundError:
    profiler = "none"
try:
    import modelopt.torch.prune as mtp

    pruned, _ = mtp.prune(
        net,
        mode="fastnas",
        constraints={"flops": "60%"},
        dummy_input=images[:1],
        config={
            "data_loader": [(images, None)] * 50,
            "score_func": lambda model: -float(model.eval()(images).square().mean()),
            "verbose": False,
        },
    )
    said = f"filters {[each.out_channels for each in pruned if isinstance(each, nn.Conv2d)]}"
except (ImportError, AttributeError, ValueError) as error:
    said = f"{type(error).__name__}: {error.__cause__ or error}"
print(f"RESULT torchprofile {profiler}, nvidia-modelopt {version('nvidia-modelopt')}, torch {torch.__version__}: {said}")
PYTHON
export TMPDIR=$work
run() { "$work/venv/bin/python" "$work/search.py" 2>/dev/null | grep RESULT | tee -a "$work/said"; }
run
for package in "requests huggingface_hub" torchprofile==0.1.0 torchprofile==0.0.4; do
    # shellcheck disable=SC2086 # two packages are two words
    "$work/venv/bin/uv" pip install -q --python "$work/venv/bin/python" $package
    run
done
grep -q "torchprofile none.*No module named 'requests'" "$work/said" &&
    grep -q "torchprofile 0.1.0.*no attribute 'handlers'" "$work/said" &&
    grep -q "torchprofile 0.0.4.*filters" "$work/said" ||
    { echo "the behaviour has changed"; exit 1; }
