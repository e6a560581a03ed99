"""What can go: the share of the multiply-adds that is left where every layer that can loses the same share.

    python benchmarks/reach.py [--ratio 0.5] [--models vit_tiny_patch16_224 torchvision:swin_t]

Networks of timm (or torchvision:NAME) as they are built, with random weights, for images of the size that they were
made for. `filters`: what goes without an option; `everything`: with `prune.coupled` and `prune.heads`. Nothing is
trained: these are counts, of convolutions and linear layers, and of the networks that come of it. Projections of
torch's and torchvision's attentions are counted where heads may go alone: in the last share, not in the first. Seconds
are those of looking, in which removal is tried on copies. What stays is named with the reason; answers, and layers
whose filters go with another's, are left out. Finished networks are kept below --work and not looked at again.
"""

from __future__ import annotations

import time
from functools import partial

import timm
import torch
import torchvision
from common import Ledger, Row, arguments, command, machine, rules, table, write_page
from torch import nn

import ice_ray

NETWORKS = (
    *("ghostnet_100", "resnest14d", "hrnet_w18_small", "levit_128s", "efficientformerv2_s0", "mobilenetv4_conv_small"),
    *("vit_tiny_patch16_224", "inception_v3", "tiny_vit_5m_224", "starnet_s1", "edgenext_xx_small", "densenet121"),
    *("swin_tiny_patch4_window7_224", "torchvision:swin_t", "regnetx_002", "mixer_b16_224", "convnextv2_atto"),
    *("repvgg_a0", "hgnetv2_b0", "torchvision:shufflenet_v2_x1_0", "torchvision:vit_b_16"),
)
GOES_WITH = ("goes with", "go with", "they are the model's outputs")


def built(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """The network with random weights, and the images that it takes."""
    torch.manual_seed(0)
    library, _, own = name.rpartition(":")
    if library == "torchvision":
        return torchvision.models.get_model(own), (3, 224, 224)
    model: nn.Module = timm.create_model(own)
    return model, tuple(model.default_cfg["input_size"])  # type: ignore[union-attr, index, arg-type]


def looked_at(name: str, ratio: float) -> Row:
    """Multiply-adds of one image, dense and what is left, and what stays."""
    model, shape = built(name)
    everything = ice_ray.LayerwisePruneConfig(coupled=True, heads=True)
    start = time.perf_counter()
    whole = ice_ray.inspect(model, shape, ratio=ratio, prune=everything)
    row = {"seconds": time.perf_counter() - start, "macs": whole.dense["multiply_adds"], "filters": 1.0}
    row["everything"] = whole.pruned["multiply_adds"] / row["macs"]
    reasons: dict[str, list[str]] = {}
    for layer, reason in whole.refused.items():
        if not any(words in reason for words in GOES_WITH):
            reasons.setdefault(reason, []).append(layer)
    row["stays"] = [f"`{layers[0]}` ({len(layers)}): {reason}" for reason, layers in reasons.items()]
    try:
        alone = ice_ray.inspect(model, shape, ratio=ratio, prune=ice_ray.LayerwisePruneConfig(coupled=False))
        row["filters"] = alone.pruned["multiply_adds"] / alone.dense["multiply_adds"]
    except ice_ray.UserError:
        pass  # nothing goes
    return row


def main() -> None:
    """Look at what is missing and write the page."""
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=list(NETWORKS))
    parser.add_argument("--ratio", type=float, default=0.5, help="of each layer's filters that go")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ledger = Ledger(options.work, "reach")
    lines, stays = [["network", "M multiply-adds", "filters", "everything", "s"]], []
    for name in options.models:
        row = ledger.once({"model": name, "ratio": options.ratio}, partial(looked_at, name, options.ratio))
        shares = f"{row['filters']:.3f}", f"{row['everything']:.3f}"
        lines.append([f"`{name}`", f"{row['macs'] / 1e6:,.0f}", *shares, f"{row['seconds']:.0f}"])
        stays += [f"- {name}: {each}" for each in row["stays"]]
    write_page(
        options.results,
        "reach.md",
        f"""# What can go

`{command()}`

{rules(__doc__)}

Of every layer the share {options.ratio:g} goes; {machine()};
timm {timm.__version__}, torchvision {torchvision.__version__}.

{table(lines)}

## What stays

The first layer of each reason, and how many there are.

{chr(10).join(stays) or "Nothing."}
""",
    )


if __name__ == "__main__":
    main()
