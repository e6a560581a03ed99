"""Which rows and columns belong to which attention head, and taking heads out."""

import copy

import pytest
import torch
import torch.nn.functional as F
from models.test_attention import SECOND, drawn, small_swin, small_vit
from torch import nn
from torchvision.models import vit_b_16

from ice_ray.models.attention import with_open_heads
from ice_ray.pruning.attention import Heads, cut_heads, find_heads, silence_heads


def timm():
    return pytest.importorskip("timm", reason="timm is an extra of the package")


class Attention(nn.Module):
    """As many write it.

    Args:
        closed: the heads are joined to the width of what it reads.
        shared: keys and values of one head serve all.
        mixed: what the heads give is mixed before the projection.
    """

    def __init__(self, width=24, heads=3, closed=False, shared=False, mixed=False):
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.shared = 1 if shared else heads
        self.queries = nn.Linear(width, width)
        self.keys_values = nn.Linear(width, 2 * self.shared * self.head_dim)
        self.projection = nn.Linear(width, width)
        self.mix = nn.LayerNorm(width) if mixed else nn.Identity()
        self.closed = closed

    def forward(self, x):
        images, tokens, width = x.shape
        split = images, tokens, -1, self.head_dim
        query = self.queries(x).view(split).transpose(1, 2)
        key, value = (each.reshape(split).transpose(1, 2) for each in self.keys_values(x).chunk(2, dim=-1))
        attended = F.softmax(query @ key.transpose(-2, -1) * self.head_dim**-0.5, dim=-1) @ value
        joined = attended.transpose(1, 2).reshape(images, tokens, width if self.closed else -1)
        return self.projection(self.mix(joined))


class Net(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 4, 4)
        self.attention = Attention(**settings)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        return self.head((tokens + self.attention(tokens)).mean(dim=1))


SHAPE = (3, 32, 32)
NETWORKS = {
    "ViT of torchvision": lambda: small_vit(num_classes=5),
    "Swin of torchvision": lambda: small_swin(num_classes=5),
    "Swin v2 of torchvision": lambda: small_swin(num_classes=5, **SECOND),
    "ViT of timm": lambda: timm().create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=5
    ),
    "Swin of timm": lambda: timm().create_model(
        "swin_tiny_patch4_window7_224",
        **{"img_size": 32, "window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (3, 6), "num_classes": 5},
    ),
    "LeViT of timm": lambda: timm().create_model("levit_128s", img_size=96, num_classes=5),
    "of one's own": Net,
    "with shared keys and values": lambda: Net(shared=True),
}


def test_rows_of_queries_keys_and_values_belong_to_heads():
    heads = find_heads(Net(), SHAPE)["attention"]
    assert isinstance(heads, Heads)
    side_by_side = tuple(head for head in range(3) for _ in range(8))
    assert heads.columns == side_by_side
    assert dict(heads.rows) == {
        "attention.queries": side_by_side,
        "attention.keys_values": side_by_side * 2,
    }
    assert heads.numbers == (("attention", "num_heads"),)


def test_what_all_heads_share_stays():
    heads = find_heads(Net(shared=True), SHAPE)["attention"]
    assert [layer for layer, _ in heads.rows] == ["attention.queries"]


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_heads_that_nothing_reads_go_without_a_trace(build):
    model = drawn(build()).eval()
    shape = (3, 96, 96) if "levit" in str(model.__class__).lower() else SHAPE
    before = copy.deepcopy(model.state_dict())
    found = find_heads(model, shape)
    assert found and all(isinstance(heads, Heads) for heads in found.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model = model.double()
    silent, pruned = copy.deepcopy(model), copy.deepcopy(model)
    for each in (silent, pruned):
        with_open_heads(each)
    for heads in found.values():
        gone = range(1, heads.count, 2)
        silence_heads(silent, heads, gone)
        cut_heads(pruned, heads, gone)
    images = torch.randn(2, *shape, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(pruned(images), silent(images))
        assert not torch.allclose(pruned(images), model(images), rtol=1e-4, atol=1e-4)
    assert sum(each.numel() for each in pruned.parameters()) < sum(each.numel() for each in model.parameters())
    # What is left are attentions like any other.
    again = find_heads(pruned.float(), shape)
    assert all(
        isinstance(own, Heads) and own.count == heads.count - heads.count // 2
        for heads, own in zip(found.values(), again.values(), strict=True)
        if heads.count > 2 and isinstance(heads, Heads)
    )


def test_dead_heads_of_vit_b_16_go():
    torch.manual_seed(0)
    model = vit_b_16(num_classes=5).eval()
    nn.init.normal_(model.heads.head.weight)
    found = find_heads(model, (3, 224, 224))
    assert len(found) == 12
    with_open_heads(model)
    silent, images = copy.deepcopy(model), torch.randn(1, 3, 224, 224)
    for heads in found.values():
        silence_heads(silent, heads, (0, 5, 7))
        cut_heads(model, heads, (0, 5, 7))
    with torch.no_grad():
        torch.testing.assert_close(model(images), silent(images), rtol=1e-4, atol=1e-4)


REFUSED = {
    "reshape": (lambda: Net(closed=True), "takes the width of its heads from what it reads"),
    "mixed": (lambda: Net(mixed=True), "side by side"),
    "one": (lambda: Net(heads=1), "single head"),
}


@pytest.mark.parametrize(("build", "why"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_followed_is_refused_in_words(build, why):
    assert why in find_heads(build(), SHAPE)["attention"]
