"""What it saves that passes of calibration images begin behind the blocks that are pruned already.

    python benchmarks/passes.py [--threads 1] [--repetitions 3]

All steps of a network, 60% of the filters: chosen by `--criterion residual`, repaired by least squares, from 250
images, nothing trained or measured; with whole passes and with passes from the middle, in turn. The networks must end
with the same bits. Seconds are the processor's.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch
from common import RESULTS, arguments, command, machine, spread, table
from contest import Contestant, cached_images, executor_of, plan_of
from settings import small

from ice_ray.engine import calibrator
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.pipelines.ice import IceConfig
from ice_ray.pipelines.layerwise import choose_removal, removal_action

MODELS = ("cifar-resnet20", "cifar-resnet56")
CONFIG = IceConfig(0.6, calibration_images=250, repair="least-squares")
HELD = calibrator.MOST_BYTES


def executor_for(shared: Path, model: str) -> TorchExecutor:
    """With the benchmarks' usual images."""
    decoded, setting = cached_images(), small(shared, model)
    plan = plan_of(setting, Contestant("", ("--repair", CONFIG.repair)), CONFIG.ratio, 0)
    train, validation = decoded(plan.dataset, plan.replay_rows()[0]), decoded(plan.dataset, plan.search_rows()[1])
    executor = executor_of(plan, plan.replay_settings, train, validation)
    _ = executor.network.resume_points  # found once a process, before its first step
    return executor


def prune(executor: TorchExecutor, held: int) -> tuple[float, dict[str, torch.Tensor]]:
    """All steps: seconds, and what the network has come to."""
    calibrator.MOST_BYTES = held
    executor.rename_root(f"{executor.root}.")  # nothing is known from the run before
    began, snapshot = time.process_time(), executor.root
    for step in executor.network.steps:
        chosen, _ = choose_removal(executor, snapshot, step.number, CONFIG)
        snapshot = executor.run(snapshot, removal_action(chosen, step.number, CONFIG)).snapshot
    return time.process_time() - began, executor.commit(snapshot).tensors


def main() -> None:
    """Run all of it and write the page."""
    parser = arguments(__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [["model", "steps", "whole passes, s", "from the middle, s", "ratio"]]
    for model in MODELS:
        executor = executor_for(options.shared, model)
        whole, middle = [], []
        for _ in range(options.repetitions):
            seconds, expected = prune(executor, 0)
            whole.append(seconds)
            seconds, found = prune(executor, HELD)
            middle.append(seconds)
            if not all(torch.equal(expected[name], tensor) for name, tensor in found.items()):
                raise SystemExit(f"{model}: passes from the middle have changed the network")
            print(model, whole[-1], middle[-1], flush=True)
        ratio = f"{statistics.mean(whole) / statistics.mean(middle):.2f}"
        steps = str(len(executor.network.steps))
        rows.append([model.removeprefix("cifar-"), steps, spread(whole, 1), spread(middle, 1), ratio])
    text = (__doc__ or "").split("    python", 1)[1].split(chr(10), 2)[2].strip()
    page = f"# Passes from the middle\n\n`{command()}`\n\n{text}\n\n{machine()}; {options.repetitions} repetitions.\n\n"
    (RESULTS / "passes.md").write_text(page + table(rows) + "\n")


if __name__ == "__main__":
    main()
