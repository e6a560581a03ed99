"""Random small networks from a grammar of blocks: what people's own networks are made of, and what comes close to it.

A network is made from a number; the same every time. Its blocks say, of every layer whose filters may be asked for,
which modules behind it treat its channels one by one: with these a filter can be killed without asking any graph.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint
from torchvision.ops.misc import FrozenBatchNorm2d

CLASSES = 5
SHAPE = (3, 8, 8)
Chance = random.Random
Forward = Callable[[nn.Module, Tensor], Tensor]


class ChannelNorm(nn.Module):
    """A layer norm over the channels of feature maps (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class StandardConv(nn.Conv2d):
    """A convolution whose weights are standardised, filter by filter."""

    is_standardised = False

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.is_standardised else self.standardised()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def standardised(self) -> Tensor:
        """What it computes with."""
        spread, mean = torch.std_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        return (self.weight - mean) / (spread + 1e-5)


class Block(nn.Module):
    """Feature maps (N, width, H, W) to feature maps (N, out, H', W').

    Attributes:
        out: channels that it gives.
        chains: per layer (path in the block), the modules behind it that treat its channels one by one.
    """

    def __init__(self, out: int) -> None:
        super().__init__()
        self.out = out
        self.chains: dict[str, tuple[str, ...]] = {}

    def layer(self, name: str, module: nn.Module, *behind: nn.Module) -> None:
        """Add a layer and what treats its channels one by one."""
        self.add_module(name, module)
        names = [f"{name}_{number}" for number in range(len(behind))]
        for each, own in zip(names, behind, strict=True):
            self.add_module(each, own)
        self.chains[name] = tuple(names)

    def run(self, name: str, x: Tensor) -> Tensor:
        """A layer and what is behind it."""
        x = self.get_submodule(name)(x)
        for each in self.chains[name]:
            x = self.get_submodule(each)(x)
        return x


def a_norm(chance: Chance, channels: int) -> nn.Module:
    groups = chance.choice([each for each in (1, 2, 4) if channels % each == 0])
    made = chance.choice(
        [
            *[lambda: nn.BatchNorm2d(channels)] * 8,
            lambda: nn.BatchNorm2d(channels, affine=False),
            lambda: nn.BatchNorm2d(channels, track_running_stats=False),
            *[lambda: nn.GroupNorm(groups, channels)] * 2,
            lambda: nn.InstanceNorm2d(channels, affine=chance.random() < 0.5),
            lambda: FrozenBatchNorm2d(channels),
            lambda: ChannelNorm(channels),
            lambda: nn.LocalResponseNorm(3),
            nn.Identity,
        ]
    )
    return made()


def an_activation(chance: Chance, channels: int) -> nn.Module:
    usual = [nn.ReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.Identity]
    return chance.choice([*usual, lambda: nn.PReLU(channels), lambda: nn.ReLU(inplace=True)])()


def a_conv(chance: Chance, given: int, gives: int, size: int | None = None, **options: Any) -> nn.Conv2d:
    size = size or chance.choice([1, 3])
    return nn.Conv2d(given, gives, size, padding=size // 2, bias=chance.random() < 0.5, **options)


def usual(chance: Chance, channels: int) -> tuple[nn.Module, nn.Module]:
    return a_norm(chance, channels), an_activation(chance, channels)


def a_width(chance: Chance) -> int:
    return chance.choice([4, 6, 8, 12, 16])


class Chain(Block):
    """Convolution, norm, activation."""

    def __init__(self, chance: Chance, width: int) -> None:
        super().__init__(a_width(chance))
        self.layer("conv", a_conv(chance, width, self.out, stride=chance.choice([1, 1, 2])), *usual(chance, self.out))

    def forward(self, x: Tensor) -> Tensor:
        return self.run("conv", x)


class Residual(Block):
    """Two or three convolutions beside a shortcut."""

    def __init__(self, chance: Chance, width: int) -> None:
        super().__init__(width)
        inner = a_width(chance)
        self.layer("conv1", a_conv(chance, width, inner), *usual(chance, inner))
        self.deep = chance.random() < 0.5
        if self.deep:
            groups = chance.choice([1, 1, 2])
            self.layer("conv2", a_conv(chance, inner, inner, 3, groups=groups), *usual(chance, inner))
        self.layer("conv3", a_conv(chance, inner, width), a_norm(chance, width))
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.run("conv1", x)
        y = self.run("conv2", y) if self.deep else y
        return F.relu(self.drop(self.run("conv3", y)) + x)


class Inverted(Block):
    """Expansion, depthwise, perhaps a gate, projection."""

    def __init__(self, chance: Chance, width: int) -> None:
        super().__init__(width)
        inner = 2 * width
        depthwise = a_conv(chance, inner, inner, 3, groups=inner)
        self.layer("expand", a_conv(chance, width, inner, 1), *usual(chance, inner), depthwise, *usual(chance, inner))
        self.gated = chance.random() < 0.5
        if self.gated:
            self.layer("squeeze", nn.Conv2d(inner, 4, 1), nn.ReLU())
            self.add_module("excite", nn.Conv2d(4, inner, 1))
        self.layer("project", a_conv(chance, inner, width, 1), a_norm(chance, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.run("expand", x)
        if self.gated:
            y = y * torch.sigmoid(self.excite(self.run("squeeze", F.adaptive_avg_pool2d(y, 1))))
        return x + self.run("project", y)


class Dense(Block):
    """What a block gives beside what it reads."""

    def __init__(self, chance: Chance, width: int) -> None:
        super().__init__(width + 4)
        self.layer("conv1", a_conv(chance, width, 8), *usual(chance, 8))
        self.layer("conv2", a_conv(chance, 8, 4), *usual(chance, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.run("conv2", self.run("conv1", x))], 1)


class Branches(Block):
    """Branches that a convolution reads together, one behind the other."""

    interleaved = False

    def __init__(self, chance: Chance, width: int) -> None:
        super().__init__(width)
        inner = a_width(chance)
        self.layer("left", a_conv(chance, width, inner), *usual(chance, inner))
        self.layer("right", a_conv(chance, width, inner), *usual(chance, inner))
        self.layer("join", a_conv(chance, 2 * inner, width), *usual(chance, width))

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.run("left", x), self.run("right", x)
        joined = torch.stack([left, right], 2).flatten(1, 2) if self.interleaved else torch.cat([left, right], 1)
        return self.run("join", joined)


class Interleaved(Branches):
    """The same, a channel of each in turn."""

    interleaved = True


def _shuffle(groups: int) -> Forward:
    def run(_: nn.Module, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)

    return run


def _in_groups(groups: int) -> Forward:
    def run(_: nn.Module, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, groups, c // groups, h, w)
        return (parts / (1 + parts.square().mean(2, keepdim=True))).reshape(n, c, h, w)

    return run


def _halves(_: nn.Module, x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    return torch.cat([second, first], 1)


def _glued(_: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([F.glu(x, 1)] * 2, 1)


def _unshuffled(_: nn.Module, x: Tensor) -> Tensor:
    return F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2)


def _indexed(_: nn.Module, x: Tensor) -> Tensor:
    return x[:, torch.arange(x.shape[1] - 1, -1, -1)]


BETWEEN: dict[str, Forward] = {
    "padded": lambda _, x: F.pad(x, (0, 0, 0, 0, 2, 2))[:, 1:-3],
    "shuffled by 2": _shuffle(2),
    "shuffled by 4": _shuffle(4),
    "rolled": lambda _, x: torch.roll(x, 1, 1),
    "flipped": lambda _, x: x.flip(1),
    "halves swapped": _halves,
    "glued": _glued,
    "unshuffled": _unshuffled,
    "indexed": _indexed,
    "mean over channels": lambda _, x: x * torch.sigmoid(x.mean(1, keepdim=True)),
    "unit length": lambda _, x: x / (x.norm(dim=1, keepdim=True) + 1),
    "softmax over channels": lambda _, x: x.softmax(1),
    "summed up": lambda _, x: x.cumsum(1),
    "sorted": lambda _, x: x.sort(1).values,
    "normed in groups": _in_groups(2),
    "upsampled": lambda _, x: F.interpolate(x, scale_factor=2.0),
    "pooled": lambda _, x: F.max_pool2d(x, 2, 2, ceil_mode=True),
    "transposed": lambda _, x: x.transpose(2, 3),
    "as tokens and back": lambda _, x: x.flatten(2).transpose(1, 2).transpose(1, 2).reshape(x.shape),
    "in place": lambda _, x: x.mul_(0.5),
    "detached": lambda _, x: x.detach() + x,
}


class Between(Block):
    """Something happens to the channels between two convolutions."""

    def __init__(self, chance: Chance, width: int) -> None:
        super().__init__(width)
        inner, self.happens = chance.choice([8, 16]), chance.choice(sorted(BETWEEN))
        self.layer("conv1", a_conv(chance, width, inner), *usual(chance, inner))
        self.layer("conv2", a_conv(chance, inner, width), a_norm(chance, width))
        self.adds = chance.random() < 0.5 and self.happens not in ("upsampled", "pooled")

    def forward(self, x: Tensor) -> Tensor:
        y = self.run("conv2", BETWEEN[self.happens](self, self.run("conv1", x)))
        return y + x if self.adds else y


class Mixed(Block):
    """Tokens through linear layers, channels last (as in ConvNeXt)."""

    def __init__(self, chance: Chance, width: int) -> None:
        super().__init__(width)
        inner = 2 * width
        self.add_module("depthwise", a_conv(chance, width, width, 3, groups=width))
        self.norm = nn.LayerNorm(width)
        self.layer("up", nn.Linear(width, inner), chance.choice([nn.GELU, nn.ReLU])())
        self.layer("down", nn.Linear(inner, width))
        self.scale = nn.Parameter(torch.full((width,), chance.choice([1e-6, 1.0])))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.run("down", self.run("up", y)) * self.scale).permute(0, 3, 1, 2)


class Attention(Block):
    """Attention over positions, ours or torch's."""

    def __init__(self, chance: Chance, width: int) -> None:
        super().__init__(width)
        self.own = chance.random() < 0.5
        self.heads = 2
        if self.own:
            self.layer("qkv", nn.Linear(width, 3 * width))
            self.layer("proj", nn.Linear(width, width))
        else:
            self.attend = nn.MultiheadAttention(width, self.heads, batch_first=True)
        self.layer("up", nn.Linear(width, 2 * width), nn.GELU())
        self.layer("down", nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        if self.own:
            q, k, v = self.qkv(tokens).reshape(n, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, h * w, c)
            tokens = tokens + self.proj(mixed)
        else:
            tokens = tokens + self.attend(tokens, tokens, tokens, need_weights=False)[0]
        tokens = tokens + self.run("down", self.run("up", tokens))
        return tokens.transpose(1, 2).reshape(n, c, h, w)


class Shared(Block):
    """One module in two places, under one name or two; or two layers with one weight."""

    def __init__(self, chance: Chance, width: int) -> None:
        super().__init__(width)
        self.how = chance.choice(["twice", "two names", "one weight", "one norm"])
        self.layer("conv1", a_conv(chance, width, width, 3), an_activation(chance, width))
        self.layer("conv2", a_conv(chance, width, width, 3), an_activation(chance, width))
        if self.how == "two names":
            self.conv2 = self.conv1
        elif self.how == "one weight":
            self.conv2.weight = self.conv1.weight
        elif self.how == "one norm":
            self.norm = nn.BatchNorm2d(width)
            self.chains = {name: ("norm", *chain) for name, chain in self.chains.items()}

    def forward(self, x: Tensor) -> Tensor:
        return self.run("conv1" if self.how == "twice" else "conv2", self.run("conv1", x))


class Held(Block):
    """A part that its owner has frozen."""

    def __init__(self, chance: Chance, width: int) -> None:
        super().__init__(width)
        inner = a_width(chance)
        self.layer("conv1", a_conv(chance, width, inner), *usual(chance, inner))
        self.layer("conv2", a_conv(chance, inner, inner), *usual(chance, inner))
        self.layer("conv3", a_conv(chance, inner, width), a_norm(chance, width))
        held = self.get_submodule(chance.choice(["conv1", "conv2", "conv3", "conv1_0", "conv2_0"]))
        held.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.run("conv3", self.run("conv2", self.run("conv1", x)))


class Dressed(Block):
    """Layers whose weights are made of others: standardised, normalised, masked."""

    def __init__(self, chance: Chance, width: int) -> None:
        super().__init__(width)
        inner = 8
        self.how = chance.choice(["standardised", "weight norm", "spectral norm", "masked"])
        kind = StandardConv if self.how == "standardised" else nn.Conv2d
        self.layer("conv1", kind(width, inner, 3, padding=1), *usual(chance, inner))
        self.layer("conv2", kind(inner, width, 3, padding=1), a_norm(chance, width))
        dressed = self.get_submodule(chance.choice(["conv1", "conv2"]))
        if self.how == "weight norm":
            parametrizations.weight_norm(dressed)
        elif self.how == "spectral norm":
            parametrizations.spectral_norm(dressed)
        elif self.how == "masked":
            prune.l1_unstructured(dressed, "weight", 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.run("conv2", self.run("conv1", x))


class Bare(Block):
    """Parameters and buffers that belong to no layer."""

    def __init__(self, chance: Chance, width: int) -> None:
        super().__init__(width)
        inner = 8
        self.how = chance.choice(["scale", "buffer", "functional", "einsum", "unused"])
        self.layer("conv1", a_conv(chance, width, inner), *usual(chance, inner))
        self.layer("conv2", a_conv(chance, inner, width), a_norm(chance, width))
        if self.how == "scale":
            self.scale = nn.Parameter(torch.rand(inner, 1, 1))
        elif self.how == "buffer":
            self.register_buffer("scale", torch.rand(1, inner, 1, 1))
        elif self.how in ("functional", "einsum"):
            self.weight = nn.Parameter(torch.randn(inner, inner, 1, 1))
        else:
            self.spare = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.run("conv1", x)
        if self.how in ("scale", "buffer"):
            y = y * self.scale
        elif self.how == "functional":
            y = F.conv2d(y, self.weight)
        elif self.how == "einsum":
            y = torch.einsum("nchw,oc->nohw", y, self.weight[:, :, 0, 0])
        return x + self.run("conv2", y)


class Up(Block):
    """A transposed convolution between two others."""

    def __init__(self, chance: Chance, width: int) -> None:
        super().__init__(width)
        self.layer("conv1", a_conv(chance, width, 8), *usual(chance, 8))
        self.layer("up", nn.ConvTranspose2d(8, 8, 2, stride=2), *usual(chance, 8))
        self.layer("conv2", a_conv(chance, 8, width, 3, stride=2), a_norm(chance, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.run("conv2", self.run("up", self.run("conv1", x)))


class Maxout(Block):
    """The greater of every two neighbouring channels."""

    def __init__(self, chance: Chance, width: int) -> None:
        super().__init__(width)
        self.layer("conv1", a_conv(chance, width, 16), a_norm(chance, 16))
        self.layer("conv2", a_conv(chance, 8, width), a_norm(chance, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.run("conv1", x)
        n, c, h, w = y.shape
        return x + self.run("conv2", y.view(n, c // 2, 2, h, w).amax(2))


class Customary(Block):
    """What people's own networks do between two convolutions, with more than functions of torch's."""

    def __init__(self, chance: Chance, width: int) -> None:
        super().__init__(width)
        self.how = chance.choice(sorted(CUSTOMS))
        self.layer("conv1", a_conv(chance, width, 8), *usual(chance, 8))
        given = CUSTOMS[self.how](self, chance)
        self.layer("conv2", a_conv(chance, given, width), a_norm(chance, width))
        self.adds = chance.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        y = self.run("conv2", self.happens(self, self.run("conv1", x), x))
        return y + x if self.adds and y.shape == x.shape else y


def _space_to_depth(block: Customary, chance: Chance) -> int:
    def happens(block: Customary, y: Tensor, _: Tensor) -> Tensor:
        y = F.pad(y, (0, y.shape[3] % 2, 0, y.shape[2] % 2))
        parts = [y[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
        return torch.cat(parts, 1)

    block.happens = happens
    return 32


def _gated_by_linear(block: Customary, chance: Chance) -> int:
    block.layer("squeeze", nn.Linear(8, 4), nn.ReLU())
    block.excite = nn.Linear(4, 8)

    def happens(block: Customary, y: Tensor, _: Tensor) -> Tensor:
        gate = torch.sigmoid(block.excite(block.run("squeeze", y.mean((2, 3)))))
        return y * gate.view(y.size(0), y.size(1), 1, 1)

    block.happens = happens
    return 8


def _gated_by_what_was_read(block: Customary, chance: Chance) -> int:
    block.add_module("gate", a_conv(chance, block.out, 8, block.conv1.kernel_size[0]))
    block.happens = lambda block, y, x: y * torch.sigmoid(block.gate(x))
    return 8


def _gated_by_neighbours(block: Customary, chance: Chance) -> int:
    block.eca = nn.Conv1d(1, 1, 3, padding=1, bias=False)
    block.happens = lambda block, y, _: y * torch.sigmoid(block.eca(y.mean((2, 3))[:, None])[:, 0])[:, :, None, None]
    return 8


def _gated_by_places(block: Customary, chance: Chance) -> int:
    block.add_module("places", nn.Conv2d(2, 1, 3, padding=1))

    def happens(block: Customary, y: Tensor, _: Tensor) -> Tensor:
        return y * torch.sigmoid(block.places(torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)))

    block.happens = happens
    return 8


def _responding(block: Customary, chance: Chance) -> int:
    block.gamma, block.beta = nn.Parameter(torch.rand(1, 8, 1, 1)), nn.Parameter(torch.rand(1, 8, 1, 1))

    def happens(block: Customary, y: Tensor, _: Tensor) -> Tensor:
        energy = y.norm(dim=(2, 3), keepdim=True)
        return y + block.gamma * (y * energy / (energy.mean(1, keepdim=True) + 1e-6)) + block.beta

    block.happens = happens
    return 8


def _tokens_convolved(block: Customary, chance: Chance) -> int:
    block.layer("over", nn.Conv1d(8, 8, 3, padding=1), nn.ReLU())
    block.happens = lambda block, y, _: block.run("over", y.flatten(2)).view(y.shape)
    return 8


def _multiplied_depthwise(block: Customary, chance: Chance) -> int:
    block.add_module("depthwise", nn.Conv2d(8, 16, 3, padding=1, groups=8))
    block.happens = lambda block, y, _: block.depthwise(y)
    return 16


def _partly(block: Customary, chance: Chance) -> int:
    block.add_module("part", nn.Conv2d(2, 2, 3, padding=1))

    def happens(block: Customary, y: Tensor, _: Tensor) -> Tensor:
        first, second = y.split([2, y.shape[1] - 2], 1)
        return torch.cat([block.part(first), second], 1)

    block.happens = happens
    return 8


def _with_places(block: Customary, chance: Chance) -> int:
    def happens(block: Customary, y: Tensor, _: Tensor) -> Tensor:
        rows = torch.linspace(-1, 1, y.shape[2], dtype=y.dtype, device=y.device)
        return torch.cat([rows.view(1, 1, -1, 1).expand(len(y), 1, -1, y.shape[3]), y], 1)

    block.happens = happens
    return 9


def _scaled_by_one_number(block: Customary, chance: Chance) -> int:
    block.alpha = nn.Parameter(torch.tensor(0.7))
    block.happens = lambda block, y, _: y * block.alpha
    return 8


def _scaled_by_halves(block: Customary, chance: Chance) -> int:
    block.register_buffer("small", torch.tensor([0.5], dtype=torch.float16))
    block.register_buffer("count", torch.tensor([3, 4]))
    block.happens = lambda block, y, _: y * block.small.to(y.dtype) * block.count[0]
    return 8


def _scaled_by_their_count(block: Customary, chance: Chance) -> int:
    block.happens = lambda block, y, _: y / y.shape[1] ** 0.5
    return 8


def _channels_attend(block: Customary, chance: Chance) -> int:
    def happens(block: Customary, y: Tensor, _: Tensor) -> Tensor:
        flat = y.reshape(y.size(0), 2, -1, y.size(2) * y.size(3))
        return (torch.softmax(flat @ flat.transpose(2, 3), -1) @ flat).reshape(y.shape)

    block.happens = happens
    return 8


def _with_counts_written_down(block: Customary, chance: Chance) -> int:
    block.happens = lambda block, y, _: y.view(-1, 8, y.shape[2] * y.shape[3]).view(-1, 8, *y.shape[2:])
    return 8


def _weight_read_directly(block: Customary, chance: Chance) -> int:
    block.add_module("direct", nn.Conv2d(8, 8, 1))
    block.happens = lambda block, y, _: F.conv2d(y, block.direct.weight, block.direct.bias)
    return 8


def _normed_over_all(block: Customary, chance: Chance) -> int:
    block.add_module("pool", nn.AdaptiveAvgPool2d(2))
    block.over_all = nn.LayerNorm((8, 2, 2))
    block.happens = lambda block, y, _: block.over_all(block.pool(y))
    return 8


def _around_the_edge(block: Customary, chance: Chance) -> int:
    block.layer("edge", nn.Conv2d(8, 8, 3, padding=1, padding_mode=chance.choice(["circular", "replicate"])), nn.ReLU())
    block.happens = lambda block, y, _: block.run("edge", y)
    return 8


def _without_momentum(block: Customary, chance: Chance) -> int:
    block.mean = nn.BatchNorm2d(8, momentum=None)
    block.chains["conv1"] += ("mean",)
    block.happens = lambda block, y, _: block.mean(y)
    return 8


def _without_gradients(block: Customary, chance: Chance) -> int:
    block.layer("held", nn.Conv2d(8, 8, 1), nn.ReLU())

    def happens(block: Customary, y: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            return block.run("held", y)

    block.happens = happens
    return 8


def _worked_out_again(block: Customary, chance: Chance) -> int:
    block.layer("again", nn.Conv2d(8, 8, 1), nn.ReLU())
    block.happens = lambda block, y, _: checkpoint(lambda given: block.run("again", given), y, use_reentrant=False)
    return 8


def _twice_beside_itself(block: Customary, chance: Chance) -> int:
    block.happens = lambda block, y, _: torch.cat([y, y], 1)
    return 16


def _both_signs(block: Customary, chance: Chance) -> int:
    block.happens = lambda block, y, _: torch.cat([F.relu(y), F.relu(-y)], 1)
    return 16


def _weighed_branches(block: Customary, chance: Chance) -> int:
    """Selective kernels: two branches, weighed by a softmax over both."""
    block.add_module("other", a_conv(chance, block.out, 8, block.conv1.kernel_size[0]))
    block.add_module("weigh", nn.Linear(8, 16))

    def happens(block: Customary, y: Tensor, x: Tensor) -> Tensor:
        other = block.other(x)
        shares = block.weigh((y + other).mean((2, 3))).view(len(y), 2, -1, 1, 1).softmax(1)
        return y * shares[:, 0] + other * shares[:, 1]

    block.happens = happens
    return 8


CUSTOMS: dict[str, Callable[[Customary, Chance], int]] = {
    "space to depth": _space_to_depth,
    "gated by linear": _gated_by_linear,
    "gated by what was read": _gated_by_what_was_read,
    "gated by neighbours": _gated_by_neighbours,
    "gated by places": _gated_by_places,
    "responding": _responding,
    "tokens convolved": _tokens_convolved,
    "multiplied depthwise": _multiplied_depthwise,
    "partly": _partly,
    "with places": _with_places,
    "scaled by one number": _scaled_by_one_number,
    "scaled by halves": _scaled_by_halves,
    "scaled by their count": _scaled_by_their_count,
    "channels attend": _channels_attend,
    "with counts written down": _with_counts_written_down,
    "weight read directly": _weight_read_directly,
    "normed over all": _normed_over_all,
    "around the edge": _around_the_edge,
    "without momentum": _without_momentum,
    "without gradients": _without_gradients,
    "worked out again": _worked_out_again,
    "twice beside itself": _twice_beside_itself,
    "both signs": _both_signs,
    "weighed branches": _weighed_branches,
}


USUAL_BLOCKS: tuple[type[Block], ...] = (Chain, Residual, Inverted, Dense, Branches, Mixed)
ODD_BLOCKS: tuple[type[Block], ...] = (
    Between, Between, Between, Customary, Customary, Customary, Attention, Shared, Held, Dressed, Bare, Up, Maxout,
    Interleaved,
)  # fmt: skip


class Head(Block):
    """Feature maps to logits (N, CLASSES)."""

    def __init__(self, chance: Chance, width: int, places: int) -> None:
        super().__init__(CLASSES)
        self.how = chance.choice(["pooled", "mean", "viewed", "flattened", "last", "convolved", "deep"])
        given = width * places if self.how in ("viewed", "flattened", "last") else width
        if self.how == "convolved":
            self.layer("linear", nn.Conv2d(width, CLASSES, 1))
            return
        if self.how == "deep":
            self.layer("hidden", nn.Linear(width, 12), nn.BatchNorm1d(12), nn.ReLU())
            given = 12
        self.layer("linear", nn.Linear(given, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "convolved":
            return self.linear(x).mean((2, 3))
        if self.how == "viewed":
            x = x.view(x.size(0), -1)
        elif self.how == "flattened":
            x = x.flatten(1)
        elif self.how == "last":
            x = x.permute(0, 2, 3, 1).flatten(1)
        elif self.how == "mean":
            x = x.mean((2, 3))
        else:
            x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.linear(self.run("hidden", x) if self.how == "deep" else x)


@dataclasses.dataclass
class Answer:
    """As libraries of other kinds of networks give it."""

    logits: Tensor
    features: Tensor


ANSWERS: dict[str, Callable[[Tensor, Tensor, bool], Any]] = {
    "logits": lambda logits, features, training: logits,
    "tuple": lambda logits, features, training: (logits, features),
    "dict": lambda logits, features, training: {"logits": logits, "features": features},
    "dataclass": lambda logits, features, training: Answer(logits, features),
    "more in training": lambda logits, features, training: (logits, logits * 2) if training else logits,
    "features alone": lambda logits, features, training: features,
}


class Generated(nn.Module):
    """A stem, blocks, a head."""

    def __init__(self, chance: Chance, is_odd: bool) -> None:
        super().__init__()
        stem = Chain(chance, 3)
        blocks: list[Block] = [stem]
        for _ in range(chance.randint(1, 3)):
            kinds = ODD_BLOCKS if is_odd and chance.random() < 0.6 else USUAL_BLOCKS
            blocks.append(chance.choice(kinds)(chance, blocks[-1].out))
        self.blocks = nn.Sequential(*blocks)
        with torch.no_grad():
            seen = self.blocks.eval()(torch.zeros(1, *SHAPE))
        self.head = Head(chance, seen.shape[1], seen.shape[2] * seen.shape[3])
        if self.head.how == "viewed" and not seen.is_contiguous():
            self.head.how = "flattened"  # nobody has a network that takes no images at all
        self.answer = chance.choice(sorted(ANSWERS)) if is_odd and chance.random() < 0.15 else "logits"
        self.train()

    def forward(self, x: Tensor) -> Any:
        features = self.blocks(x)
        return ANSWERS[self.answer](self.head(features), features, self.training)

    @property
    def described(self) -> str:
        """What it is made of."""
        parts = [type(each).__name__ + _how(each) for each in [*self.blocks, self.head]]
        return f"{' > '.join(parts)} > {self.answer}"

    @property
    def is_plain(self) -> bool:
        """Whether it is made of nothing but what most networks have."""
        norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)  # a ChannelNorm behind a layer keeps it whole
        own = [each for each in self.modules() if "Norm" in type(each).__name__]
        usual = all(type(each) in USUAL_BLOCKS for each in self.blocks) and all(isinstance(each, norms) for each in own)
        return usual and any(isinstance(each, (Residual, Inverted, Mixed)) for each in self.blocks)


def _how(block: nn.Module) -> str:
    how = getattr(block, "how", getattr(block, "happens", None))
    norms = sorted({type(each).__name__ for each in block.modules() if "Norm" in type(each).__name__} - {"BatchNorm2d"})
    told = [*([how] if how else []), *norms]
    return f" ({', '.join(told)})" if told else ""


def generated(number: int, seed: int = 0) -> Generated:
    """The network of that number, every third without anything odd; its weights and statistics far from those it would
    be born with, which are nearly nothing in places.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 * seed + number)
        network = Generated(random.Random(f"{seed} network {number}"), number % 3 > 0)
        with torch.no_grad():
            for tensor in network.state_dict().values():
                if tensor.is_floating_point() and tensor.ndim == 1:
                    tensor.uniform_(0.5, 1.5)
    return network


def killed(network: Generated, removed: dict[str, Sequence[int]]) -> None:
    """Make filters give nothing, and what treats their channels behind them keep that: in place, no graph asked.

    Weights that are standardised keep what that makes of them, so that inputs that are gone cannot be felt by others.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, StandardConv):
                module.weight.copy_(module.standardised())
                module.is_standardised = True
            if isinstance(module, Mixed):  # what is dead must come to the norm as zeros, and leave it so
                for shift in (module.depthwise.bias, module.norm.bias):
                    if shift is not None:
                        shift.zero_()
        for layer, filters in removed.items():
            place, _, name = layer.rpartition(".")
            block = network.get_submodule(place)
            while not isinstance(block, Block):
                place, _, outer = place.rpartition(".")
                name, block = f"{outer}.{name}", network.get_submodule(place)
            for each in (name, *block.chains.get(name, ())):
                _silence(block.get_submodule(each), list(filters))


def _silence(module: nn.Module, channels: list[int]) -> None:
    module = module.norm if isinstance(module, ChannelNorm) else module
    for name in ("weight", "bias", "running_mean"):
        tensor = getattr(module, name, None)
        is_slope = isinstance(module, nn.PReLU) or (isinstance(module, FrozenBatchNorm2d) and name == "running_mean")
        if isinstance(tensor, Tensor) and not is_slope:
            tensor[channels] = 0


class Affine(nn.Module):
    """What a norm does to each channel by itself."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        if self.weight is None:
            return x
        shape = self.weight.shape if x.ndim == 2 else (-1, 1, 1)
        return x * self.weight.view(shape) + self.bias.view(shape)


class Uncentred(nn.Module):
    """What a layer norm does where the mean of the channels is zero: dead ones change nothing but their number."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt() + self.bias


def without_mixing(network: nn.Module) -> nn.Module:
    """In place: norms that take their statistics over channels do to each channel what they do to it alone, or in a
    layer norm's case what they do where the mean is zero, so that channels that are gone cannot be felt by others.
    """
    for name, module in list(network.named_modules()):
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)):
            place, _, own = name.rpartition(".")
            left = Uncentred(module) if isinstance(module, nn.LayerNorm) else Affine(module)
            setattr(network.get_submodule(place), own, left)
    return network
