"""What the core does on a CUDA device: pruning in bf16 and fp16, two runs bit for bit, latency, memory. No Ray.

    python tools/gpu_check.py --pack .gpu-check
    python tools/gpu_check.py [--device cuda] [--page gpu_check.md]

The first line, where there are a package index and real images, makes a folder of about 30 MB: 4,000 training and 2,000
test images of CIFAR-10, the weights of a ResNet-20, and the few small wheels that the core needs beside torch (for
another Python than this one: `--python 3.12`). The second is for the machine with the GPU, which needs nothing but
torch, a checkout and that folder; it prints a page of Markdown. Each row of the first table is two runs of
`ice_ray.prune` at 60% of the filters, with the same seed: repairs alone (`ice` as it is by default, theta never), and
the paper's pipeline (filters by l1, no repair, a fine-tune of an epoch at theta .5). Peak memory is what torch took on
the device, beside what was there before. Latency: forward passes in eval mode, dense and pruned in turn; median.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
# What the core imports beside torch and NumPy, by module and by package.
NEEDED = {
    "annotated_types": "annotated-types",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "rich": "rich",
    "safetensors": "safetensors",
    "torch_pruning": "torch-pruning",
    "tqdm": "tqdm",
    "typing_extensions": "typing-extensions",
    "typing_inspection": "typing-inspection",
    "yaml": "pyyaml",
}
TRAIN_IMAGES, TEST_IMAGES, BATCHES, PASSES = 4000, 2000, (1, 64, 512), 50


def pack(folder: Path, data: Path, weights: Path, python: str) -> None:
    """Images, weights and wheels into the folder."""
    import safetensors.torch
    from cifar import cifar10, part
    from resnet import trained

    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for split, count in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
        images, labels = cifar10(data, split)
        rows = part(labels, count, seed=0)
        tensors |= {f"{split} images": images[rows].permute(0, 2, 3, 1).contiguous(), f"{split} labels": labels[rows]}
    safetensors.torch.save_file(tensors, folder / "images.safetensors")
    safetensors.torch.save_file(trained(weights).state_dict(), folder / "resnet20.safetensors")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pins = [
        pin for pin in project["tool"]["uv"]["constraint-dependencies"] if pin.partition("==")[0] in NEEDED.values()
    ]
    system = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (28, 17)] + ["--platform=manylinux2014_x86_64"]
    words = ["pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", python, *system]
    subprocess.run([*words, "--dest", str(folder / "wheels"), *pins], check=True)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 2**20:.0f} MiB")


def install(folder: Path) -> None:
    """The wheels of what this Python lacks, for this process alone."""
    lacking = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if not lacking:
        return
    target = tempfile.mkdtemp(prefix="gpu-check-")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target]
    subprocess.run([*words, "--find-links", str(folder / "wheels"), *lacking], check=True)
    sys.path.append(target)


class Check:
    """The core on one device.

    Args:
        folder: what `pack` has made.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        import safetensors.torch
        from resnet import trained

        import ice_ray

        own = safetensors.torch.load_file(folder / "images.safetensors")
        train, test = (ice_ray.ImageSet(own[f"{split} images"], own[f"{split} labels"]) for split in ("train", "test"))
        self.device, self.model = device, trained(folder / "resnet20.safetensors")
        self.data = ice_ray.PruningData(train, test, ice_ray.Preprocessing(pad=4, flip=True))
        paper = ice_ray.IceHyperparameters(0.5, 0.3, 0.005, 8e-4, 0.1, 40)
        self.runs: dict[str, dict[str, Any]] = {
            "repairs alone": {},
            "the paper's": {"criterion": "l1", "repair": "none", "decision_error": 0.0, "hyperparameters": paper},
        }

    def pruned(self, name: str, precision: Any) -> tuple[Any, float, float]:
        """A run's result, its seconds in all, and the peak of memory in MiB."""
        import ice_ray

        before = self.memory(reset=True)
        started = time.perf_counter()
        given = {"ratio": 0.6, "precision": precision, "device": self.device, "progress": False, **self.runs[name]}
        result = ice_ray.prune(self.model, self.data, **given)
        self.wait()
        return result, time.perf_counter() - started, self.memory() - before

    def memory(self, reset: bool = False) -> float:
        """Greatest memory of the device since the last reset, MiB; 0 on a CPU."""
        if self.device.type != "cuda":
            return 0.0
        if reset:
            torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.max_memory_allocated(self.device) / 2**20

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @torch.inference_mode()
    def latency(self, models: list[nn.Module], batch: int, kind: torch.dtype) -> list[tuple[float, float]]:
        """Per model: milliseconds of a forward pass, and the peak of its memory in MiB."""
        images = torch.randn(batch, 3, 32, 32, device=self.device).contiguous(memory_format=torch.channels_last)
        times: list[list[float]] = [[] for _ in models]
        peaks = [0.0 for _ in models]
        for turn in range(-5, PASSES):  # the first five warm up
            for number, model in enumerate(models):
                before = self.memory(reset=True)
                self.wait()
                started = time.perf_counter()
                with torch.autocast(self.device.type, kind, enabled=kind != torch.float32):
                    model(images)
                self.wait()
                peaks[number] = max(peaks[number], self.memory() - before)
                if turn >= 0:
                    times[number].append(1000 * (time.perf_counter() - started))
        return [(statistics.median(own), peak) for own, peak in zip(times, peaks, strict=True)]


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same parameters and buffers, bit for bit."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def kept_bits(result: Any) -> bool:
    """Whether saving a result and loading it gives the same network."""
    from resnet import CifarResNet

    import ice_ray

    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        result.save(folder)
        return same_bits(ice_ray.load_pruned(folder, builder=CifarResNet), result.model.cpu())


def page(folder: Path, device: torch.device) -> str:
    """All of it, in Markdown."""
    from common import command, table

    check, kinds = Check(folder, device), {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    on_gpu = device.type == "cuda"
    head = ["arithmetic", "run", "dense, %", "pruned, %", "seconds, first run", "second run", "same bits", "peak, MiB"]
    rows = [head]
    for precision in ("bf16", "fp16", "fp32") if on_gpu else ("bf16", "fp32"):
        for name in check.runs:
            (first, seconds, peak), (second, again, _) = (check.pruned(name, precision) for _ in range(2))
            accuracies = f"{first.original_accuracy:.2f}", f"{first.accuracy:.2f}"
            bits = "yes" if same_bits(first.model, second.model) else "no"
            rows.append(
                [precision, name, *accuracies, f"{seconds:.1f}", f"{again:.1f}", bits, f"{peak:,.0f}" if on_gpu else ""]
            )
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    models = [check.model.to(device, memory_format=torch.channels_last).eval(), first.model.to(device).eval()]
    times = [["batch", "arithmetic", "dense, ms", "pruned, ms", "times as fast", "dense, MiB", "pruned, MiB"]]
    for batch in BATCHES:
        for precision in ("fp32", "fp16") if on_gpu else ("fp32", "bf16"):
            (slow, more), (fast, less) = check.latency(models, batch, kinds[precision])
            figures = [f"{slow:.3f}", f"{fast:.3f}", f"{slow / fast:.2f}"]
            times.append([str(batch), precision, *figures, *([f"{more:.1f}", f"{less:.1f}"] if on_gpu else ["", ""])])
    saved = "the same bits" if kept_bits(second) else "OTHER BITS"
    where = torch.cuda.get_device_name(device) if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    cuda = f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}" if on_gpu else ""
    return f"""# The core on {where}

`{command()}`

Python {platform.python_version()}, torch {torch.__version__}{cuda}. ResNet-20, {TRAIN_IMAGES:,} training images,
accuracy on {TEST_IMAGES:,} test images, which also decide. {first.original_parameters:,} to {first.parameters:,}
parameters, {first.original_macs:,} to {first.macs:,} multiply-adds. Saved and loaded, the model has {saved}.

{table(rows)}

{table(times)}
"""


def main() -> int:
    """Pack, or check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="make the folder, and nothing else")
    parser.add_argument("--data", type=Path, default=Path("data/cifar10"), help="for --pack: CIFAR-10 as parquet")
    parser.add_argument("--weights", type=Path, default=Path("data/resnet20-12fca82f.th"), help="for --pack")
    own = ".".join(platform.python_version_tuple()[:2])
    parser.add_argument("--python", default=own, metavar="VERSION", help="for --pack: of the machine with the GPU")
    parser.add_argument("--from", type=Path, default=Path(".gpu-check"), dest="folder", help="the folder that was made")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 ...; cpu tries the script itself")
    parser.add_argument("--page", type=Path, help="write the page there too")
    options = parser.parse_args()
    if options.pack is not None:
        pack(options.pack, options.data, options.weights, options.python)
        return 0
    try:
        device = torch.device(options.device)
    except RuntimeError:
        parser.error(f"--device {options.device}: cuda, cuda:1 ... or cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        print("gpu_check.py: torch finds no CUDA device here; --device cpu tries the script itself", file=sys.stderr)
        return 2
    if not (options.folder / "images.safetensors").is_file():
        print(f"gpu_check.py: {options.folder} holds no images; --pack {options.folder} makes it", file=sys.stderr)
        return 2
    install(options.folder)
    text = page(options.folder, device)
    print(text)
    if options.page is not None:
        options.page.write_text(text)
    if loaded := sorted(name for name in sys.modules if name == "ray" or name.startswith("ray.")):
        print(f"gpu_check.py: Ray was loaded: {loaded[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
