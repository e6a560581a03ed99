"""The ImageNet benchmark: its images, its counts, the norms estimated anew, the other tool's target, its page."""

import importlib
import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

import ice_ray

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
pytest.importorskip("timm")
imagenet = importlib.import_module("imagenet")
SHAPE = (3, 32, 32)
DATA, WEIGHTS = ROOT / "data" / "imagenet-1000", ROOT / "data" / f"{imagenet.NETWORK}.safetensors"


class Net(nn.Module):
    """A stem, a depthwise block and a head: images (N, 3, H, W) to logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.block = nn.Sequential(
            *(nn.Conv2d(8, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()),
            *(nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU6()),
            *(nn.Conv2d(32, 8, 1, bias=False), nn.BatchNorm2d(8)),
        )
        self.classifier = nn.Linear(8, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv_stem(images))
        return self.classifier((x + self.block(x)).mean((2, 3)))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


def test_images_are_the_middle_of_256_pixels_on_the_shorter_side(tmp_path):
    pixels = np.zeros((256, 400, 3), np.uint8)
    pixels[16:240, 88:312] = 200
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    half = io.BytesIO()
    Image.fromarray(pixels).resize((800, 512), Image.Resampling.NEAREST).save(half, "PNG")
    table = pa.table({"image": [file.getvalue(), half.getvalue()], "label": [3, 5]})
    pq.write_table(table, tmp_path / "test-00000-of-00001.parquet")
    images, labels = imagenet.images(tmp_path, "test")
    assert images.shape == (2, 3, 224, 224) and images.dtype == torch.uint8
    assert labels.tolist() == [3, 5]
    assert (images[0] == 200).all()
    assert (images[1][:, 2:-2, 2:-2] == 200).all()  # bicubic: the edge is blurred
    with pytest.raises(SystemExit, match="no train"):
        imagenet.images(tmp_path, "train")


def test_multiply_adds_and_parameters_are_counted_as_the_package_counts_them(network):
    known = ice_ray.inspect(network, SHAPE).dense
    assert imagenet.multiply_adds(network, SHAPE) == known["multiply_adds"]
    assert imagenet.parameters(network) == known["parameters"]


def test_norms_estimated_anew_are_those_of_the_images(network):
    images = torch.randint(256, (imagenet.BATCH * 2, *SHAPE), dtype=torch.uint8)
    imagenet.estimate_norms(network, map(imagenet.normalised, images.split(imagenet.BATCH)))
    with torch.inference_mode():
        given = network.conv_stem(imagenet.normalised(images))
    assert torch.allclose(network.bn1.running_mean, given.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(network.bn1.running_var, given.var((0, 2, 3)), rtol=1e-2)
    assert network.bn1.momentum == 0.1 and not network.bn1.training


@pytest.mark.parametrize("allocate", ["uniform", "global"])
def test_the_other_tool_takes_no_more_than_the_target_asks_for(network, allocate):
    dense = imagenet.multiply_adds(network, SHAPE)
    smaller = imagenet.pruned_by_torch_pruning(network, SHAPE, 0.8, allocate, ["classifier", "conv_stem", "block.6"])
    left = imagenet.multiply_adds(smaller, SHAPE) / dense
    filter_of_block = (8 + 9 + 8) * 16 * 16 / dense
    assert 0.8 - filter_of_block < left <= 0.8
    assert smaller.conv_stem.out_channels == 8 and network.block[0].out_channels == 32
    assert torch.isfinite(smaller(torch.randn(2, *SHAPE))).all()


def test_inner_filters_are_those_that_the_package_removes():
    import timm

    model = timm.create_model(imagenet.NETWORK)
    spared = imagenet.not_inner(model)
    convolutions = [name for name, each in model.named_modules() if isinstance(each, nn.Conv2d) and each.groups == 1]
    removed = {unit.layer for unit in ice_ray.inspect(model, (3, 64, 64), ratio=0.5).units}
    assert {*convolutions} - {*spared} == removed


def test_every_row_has_its_line_in_the_page():
    ways = [*imagenet.OURS, *imagenet.THEIRS]
    figures = {"macs": 0.8, "parameters": 0.9, "agreement": 60.0, "seconds": 7.0, "memory": 2.0}
    rows = [
        {"key": {**way._asdict(), "share": share, "seed": 0}, "top1": 10.0 + number, **figures}
        for share in (0.7, 0.9)
        for number, way in reversed([*enumerate(ways)])
    ]
    text = imagenet.page(rows)
    assert text.index("## 0.9") < text.index("## 0.7")
    found = [line.split(" | ")[7] for line in text.splitlines() if line.startswith(("| ice_ray", "| torch-pruning"))]
    assert found == 2 * [f"{10 + number:.1f}" for number in range(len(ways))]


@pytest.mark.skipif(not (DATA.is_dir() and WEIGHTS.is_file()), reason="needs data/imagenet-1000 and the weights")
def test_the_published_weights_know_the_images():
    images, labels = imagenet.images(DATA, "test")
    found = imagenet.answers(imagenet.trained(WEIGHTS), images[:50])
    assert (found == labels[:50]).float().mean() > 0.7
