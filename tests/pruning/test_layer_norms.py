"""Streams under layer norms: what goes is what a network computes whose norms look at the other channels alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from models.test_attention import small_swin, small_vit
from pruning.test_pruned_heads import exported
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.convnext import LayerNorm2d as TorchvisionNorm

import ice_ray
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.target import macs
from ice_ray.models.copies import unsettled
from ice_ray.models.units import PrunableUnit
from ice_ray.pruning.config import LayerwisePruneConfig
from ice_ray.pruning.layer_norm import keep_scale, layer_norm_dim
from ice_ray.pruning.removal import remove_filters
from ice_ray.pruning.selection import Selection

pytestmark = pytest.mark.filterwarnings("ignore:dense")  # the networks are untrained
SHAPE = (3, 32, 32)
CPU = torch.device("cpu")
BOTH = Selection(coupled=True, heads=True)


def timm():
    return pytest.importorskip("timm", reason="timm is an extra of the package")


class FirstNorm(nn.Module):
    """A layer norm over the channels of feature maps, as the authors of ConvNeXt write it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(channels)), nn.Parameter(torch.rand(channels))
        self.eps, self.normalized_shape = 1e-6, (channels,)

    def forward(self, x: Tensor) -> Tensor:
        apart = x - x.mean(1, keepdim=True)
        x = apart / torch.sqrt(apart.pow(2).mean(1, keepdim=True) + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class Streamed(nn.Module):
    """A stream of feature maps with norms of one's own, and a concatenation of it under one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.side = nn.Conv2d(3, 12, 4, 4), nn.Conv2d(3, 6, 4, 4)
        self.norm, self.up, self.down = FirstNorm(12), nn.Conv2d(12, 16, 1), nn.Conv2d(16, 12, 1)
        self.over_both, self.head = FirstNorm(18), nn.Linear(18, 5)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.stem(x)
        stream = stream + self.down(self.up(self.norm(stream)).relu())
        return self.head(self.over_both(torch.cat([self.side(x), stream], 1)).mean((2, 3)))


def vit_of_timm() -> nn.Module:
    return timm().create_model(
        "vit_tiny_patch16_224",
        **{"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 5},
        init_values=0.5,
    )


def convnext_v2() -> nn.Module:
    sizes = {"depths": (1, 1, 2, 1), "dims": (12, 16, 24, 32)}
    return timm().create_model("convnextv2_atto", num_classes=5, **sizes)


def mixer() -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_blocks": 2}
    return timm().models.mlp_mixer.MlpMixer(num_classes=5, **sizes)


def edgenext() -> nn.Module:
    """The last stage, which sees one position here, has no attention."""
    sizes = {"dims": (12, 16, 24, 32), "depths": (1, 1, 1, 1), "global_block_counts": (0, 1, 1, 0), "heads": (2,) * 4}
    return timm().models.edgenext.EdgeNeXt(num_classes=5, **sizes, d2_scales=(2, 2, 4, 2))


def swin_of_timm() -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (3, 6)}
    return timm().create_model("swin_tiny_patch4_window7_224", num_classes=5, **sizes)


def convnext() -> nn.Module:
    return ConvNeXt([CNBlockConfig(16, 24, 1), CNBlockConfig(24, None, 2)], num_classes=5)


def stage(root: str, *paths: str) -> dict[str, str]:
    return dict.fromkeys(paths, root)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Mapping[str, str]]] = {
    "ViT of torchvision": (lambda: small_vit(num_classes=5), stage("conv_proj", "encoder")),
    "ViT of timm": (vit_of_timm, stage("patch_embed.proj", "blocks", "norm")),
    "ConvNeXt of torchvision": (
        convnext,
        stage("features.0.0", "features.0", "features.1", "features.2")
        | stage("features.2.1", "features.3", "classifier"),
    ),
    "ConvNeXt V2 of timm": (
        convnext_v2,
        stage("stem.0", "stem", "stages.0", "stages.1.downsample")
        | stage("stages.1.downsample.1", "stages.1.blocks", "stages.2.downsample")
        | stage("stages.2.downsample.1", "stages.2.blocks", "stages.3.downsample")
        | stage("stages.3.downsample.1", "stages.3.blocks", "head"),
    ),
    "Swin of torchvision": (
        lambda: small_swin(num_classes=5),
        stage("features.0.0", "features.0", "features.1", "features.2")
        | stage("features.2.reduction", "", "features.3"),
    ),
    "MLP-Mixer of timm": (mixer, stage("stem.proj", "blocks", "norm")),
    "EdgeNeXt of timm": (
        edgenext,
        stage("stem.0", "stem", "stages.0", "stages.1.downsample")
        | stage("stages.1.downsample.1", "stages.1.blocks", "stages.2.downsample")
        | stage("stages.2.downsample.1", "stages.2.blocks", "stages.3.downsample")
        | stage("stages.3.downsample.1", "stages.3.blocks", "head"),
    ),
    "Swin of timm": (
        swin_of_timm,
        stage("patch_embed.proj", "patch_embed", "layers.0", "layers.1.downsample")
        | stage("layers.1.downsample.reduction", "layers.1.blocks", "norm"),
    ),
}
"""How each is built, and by module path the root of the stream that the norms within it look at: the longest path."""


def streams_of(name: str) -> tuple[DenseNetwork, dict[str, str]]:
    """The network, with no more to go than its streams; and by norm the root of what it looks at."""
    build, roots = NETWORKS[name]
    network, selection = DenseNetwork.verified(unsettled(build()), SHAPE, BOTH)
    assert not selection.faulty
    found = {}
    for path, module in network.build(CPU).named_modules():
        if isinstance(module, nn.LayerNorm):
            above = [each for each in roots if not each or path == each or path.startswith(f"{each}.")]
            found[path] = roots[max(above, key=len)]
    return network, found


def drawn(unit: PrunableUnit) -> list[int]:
    """Less than half of the filters, of every run the same places."""
    run = unit.filters // unit.groups
    order = torch.randperm(run, generator=torch.Generator().manual_seed(run)).tolist()
    return sorted(start + each for start in range(0, unit.filters, run) for each in order[: max(1, run // 2 - 1)])


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_left_is_the_network_with_norms_over_what_is_left(name):
    """Judged without any graph: in the dense network every norm is replaced by one that looks at the channels that are
    kept, and the others are nothing behind it. All that reads a stream reads it behind a norm.
    """
    network, roots = streams_of(name)
    streams = [unit for unit in network.units if unit.layer in roots.values()]
    filters = {unit.layer: unit.filters for unit in streams}
    assert set(filters) == set(roots.values())
    gone = {unit.layer: drawn(unit) for unit in streams}
    dense, images = network.build(CPU).double(), torch.randn(2, *SHAPE, dtype=torch.float64)
    pruned = copy.deepcopy(dense)
    remove_filters(pruned, SHAPE, gone)

    def over_the_kept(root: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(norm: nn.Module, given: tuple[Tensor, ...], _: Tensor) -> Tensor:
            dim = 1 if "2d" in type(norm).__name__ else -1
            x, width = given[0].movedim(dim, -1), len(norm.weight)
            kept = torch.tensor([number for number in range(width) if number % filters[root] not in set(gone[root])])
            share, result = width / len(kept), torch.zeros_like(x)
            weight, bias = norm.weight[kept] * share**0.5, norm.bias[kept]
            result[..., kept] = F.layer_norm(x[..., kept], (len(kept),), weight, bias, norm.eps * share)
            return result.movedim(-1, dim)

        return hook

    with torch.no_grad():
        whole = dense(images)
        for path, root in roots.items():
            dense.get_submodule(path).register_forward_hook(over_the_kept(root))
        wanted, found = dense(images), pruned(images)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    assert float((wanted - whole).norm()) > 0.01 * float(whole.norm())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_counts_are_those_of_the_network_that_is_built(name, share):
    network, _ = streams_of(name)
    runs = {unit.layer: unit.filters // unit.groups for unit in network.units}
    kept = {unit.layer: unit.groups * max(1, round(share * runs[unit.layer])) for unit in network.units}
    dense, pruned = network.build(CPU), network.build_pruned(kept, CPU)
    footprint = network.footprint
    assert footprint.share("macs", kept) == pytest.approx(macs(network, pruned) / macs(network, dense), rel=1e-9)
    assert footprint.share("params", kept) == pytest.approx(network.unpruned_share(pruned, "parameters"), rel=1e-9)


@pytest.mark.parametrize(
    "name", ["ViT of torchvision", "ViT of timm", "ConvNeXt V2 of timm", "Swin of torchvision", "MLP-Mixer of timm"]
)
def test_what_is_pruned_loads_trains_and_runs_elsewhere(name, tmp_path):
    build, _ = NETWORKS[name]
    model, data = unsettled(build()), (torch.randn(48, *SHAPE), torch.randint(5, (48,)))
    settings = {
        "ratio": 0.5,
        "device": "cpu",
        "calibration_images": 32,
        "repair": "least-squares",
        "prune": LayerwisePruneConfig(coupled=True, heads=True),
        "hyperparameters": ice_ray.IceHyperparameters(float("inf"), 0.0, 0.01, 0.0, 0.0, 0),
    }
    result = ice_ray.prune(model, data, data, **settings)
    assert result.macs < 0.45 * result.original_macs
    result.save(tmp_path / "pruned")
    loaded = ice_ray.load_pruned(tmp_path / "pruned", builder=build)
    with torch.no_grad():
        torch.testing.assert_close(loaded(data[0]), result.model(data[0]), rtol=0, atol=0)
    exported(result, data[0][:3], tmp_path)
    optimizer = torch.optim.SGD(loaded.train().parameters(), 0.01)
    F.cross_entropy(loaded(data[0]), data[1]).backward()
    assert all(each.grad is not None and bool(each.grad.isfinite().all()) for each in loaded.parameters())
    optimizer.step()


def norms() -> dict[str, tuple[nn.Module, int]]:
    found: dict[str, tuple[nn.Module, int]] = {
        "torch": (nn.LayerNorm(8, eps=0.1), -1),
        "torch, no bias": (nn.LayerNorm(8, bias=False), -1),
        "RMS of torch": (nn.RMSNorm(8, eps=0.1), -1),
        "torchvision": (TorchvisionNorm(8), 1),
        "one's own": (FirstNorm(8), 1),
    }
    layers = timm().layers
    return found | {"timm": (layers.LayerNorm(8), -1), "timm, feature maps": (layers.LayerNorm2d(8), 1)}


@pytest.mark.parametrize("name", norms())
def test_beside_dead_channels_whose_mean_is_zero_a_norm_gives_what_it_gave(name):
    norm, dim = norms()[name]
    norm = unsettled(norm)
    assert layer_norm_dim(norm) == dim
    lost, shape = [1, 2, 6], (2, 3, 3, 8)
    kept = [number for number in range(8) if number not in lost]
    x = torch.randn(shape)
    x[..., lost] = 0
    x[..., kept] -= x[..., kept].mean(-1, keepdim=True)
    with torch.no_grad():
        wanted = norm(x.movedim(-1, dim)).movedim(dim, -1)[..., kept]
        keep_scale(norm, 8, len(kept))
        for key in dict(norm.named_parameters()):
            setattr(norm, key, nn.Parameter(getattr(norm, key)[kept]))
        given = norm(x[..., kept].movedim(-1, dim)).movedim(dim, -1)
    torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-5)


def test_of_an_rms_norm_whatever_their_mean():
    norm, x = unsettled(nn.RMSNorm(6, eps=0.1)), torch.cat([torch.rand(4, 3) + 1, torch.zeros(4, 3)], 1)
    with torch.no_grad():
        wanted = norm(x)[:, :3]
        keep_scale(norm, 6, 3)
        norm.weight = nn.Parameter(norm.weight[:3])
        torch.testing.assert_close(norm(x[:, :3]), wanted)


@pytest.mark.parametrize(
    "module",
    [
        nn.LayerNorm((8, 2)),
        nn.LayerNorm(8, elementwise_affine=False),
        nn.GroupNorm(1, 8),
        nn.BatchNorm2d(8),
        nn.PReLU(8),
    ],
)
def test_other_norms_are_none(module):
    assert layer_norm_dim(unsettled(module)) is None


def test_a_concatenation_under_a_norm_loses_channels_of_each_part():
    network, selection = DenseNetwork.verified(unsettled(Streamed()), SHAPE, BOTH)
    assert not selection.faulty
    assert {unit.layer for unit in network.units} == {"stem", "side", "up"}
    model = network.build(CPU)
    remove_filters(model, SHAPE, {"stem": (0, 5, 7), "side": (2,)})
    kept = [0, 1, 3, 4, 5, *(6 + number for number in range(12) if number not in (0, 5, 7))]
    dense = network.build(CPU)
    assert torch.equal(model.over_both.bias, dense.over_both.bias[kept])
    torch.testing.assert_close(model.over_both.weight, dense.over_both.weight[kept] * (18 / 14) ** 0.5)
    assert model.over_both.eps == pytest.approx(1e-6 * 18 / 14)
    assert model.over_both.normalized_shape == (14,)
    assert model.norm.eps == pytest.approx(1e-6 * 12 / 9)


class Misread(Streamed):
    """Its norm does with many channels what it does not do with few."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = Fickle(12)


class Fickle(FirstNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.shape[1] == 12 or x.shape[0] > 9 else super().forward(x.flip(1)).flip(1) * 1.01


def test_a_norm_that_does_otherwise_with_fewer_channels_is_found_out():
    _, selection = DenseNetwork.verified(unsettled(Misread()), SHAPE, BOTH)
    assert dict(selection.faulty).keys() == {"stem"}
