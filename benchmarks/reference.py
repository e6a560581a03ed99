"""The reference run: from nothing to a pruned network, and its figures beside the published ones.

    python benchmarks/reference.py [--depth 20] [--archive FILE] [--train EPOCHS]

Makes what `prepare.py` makes, with the same options: CIFAR-10, and a ResNet-20 (or --depth 56) that is published, or
trained here. Then it prunes that to 0.387 (0.382) of its multiply-adds with ice_ray's defaults, from 1,000 training
images whose labels are not looked at, on one thread, and prints what `peers.py` measures of the same run: accuracy on
all test images, and processor seconds. One and the same processor and versions give the same accuracy.
"""

from __future__ import annotations

import json
import time

import torch
from cifar import accuracy, cifar10
from common import RESULTS, Row
from contenders import CONTENDERS, Task
from prepare import options_of, prepared
from resnet import trained

SHARES, SETTING = {20: 0.387, 56: 0.382}, "without labels, 1,000 images"


def published(depth: int) -> Row | None:
    """What the page of results has of this run, if it has it."""
    file = RESULTS / f"peers-resnet{depth}.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    asked = {"tool": "ice_ray", "setting": SETTING, "share": SHARES[depth], "seed": 0, "images": 0}
    return next((row for row in rows if asked.items() <= row["key"].items()), None)


def main() -> None:
    """Make what is missing, prune, and say what came out."""
    options = options_of(__doc__)
    folder, weights = prepared(options)
    torch.set_num_threads(1)
    dense, test = trained(weights, options.depth), cifar10(folder, "test")
    task = Task(dense, cifar10(folder, "train"), test, SHARES[options.depth], seed=0)
    begun = time.process_time()
    pruned = CONTENDERS["ice_ray"].settings[SETTING](task)
    seconds = time.process_time() - begun
    print(
        f"ResNet-{options.depth}, {task.share} of the multiply-adds: {accuracy(dense, *test):.2f}% to "
        f"{accuracy(pruned, *test):.2f}% of the test images, in {seconds:.0f} processor seconds"
    )
    row = None if options.train else published(options.depth)
    if row is not None:
        print(f"published: {row['whole']:.2f}% in {row['seconds']:.0f} processor seconds, {row['machine']}")


if __name__ == "__main__":
    main()
