"""What the other benchmarks work on: CIFAR-10 as parquet, and a trained ResNet-20.

    python benchmarks/prepare.py

Downloads CIFAR-10's binary version (170 MB) from its authors and the ResNet-20 that Y. Idelbayev trained on it (1 MB,
91.7% on the test images), compares both with their published checksums, and writes `data/cifar10/train.parquet`,
`data/cifar10/test.parquet` (every image losslessly, as PNG) and `data/resnet20-12fca82f.th`. What is there already
stays. Takes a minute or two. `--depth 56` is for its ResNet-56 (93.4%). Without a network: `--archive
cifar-10-binary.tar.gz` for one that you have, and `--train 100` for a ResNet-20 that is trained here, from nothing, for
so many epochs, into `data/resnet20.safetensors` (a GPU is what that wants).
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
import torch.nn.functional as F
from cifar import accuracy, cifar10
from PIL import Image
from resnet import CifarResNet
from torchvision.datasets.utils import download_url
from training import augmented

ARCHIVE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
CHECKPOINTS = "https://raw.githubusercontent.com/akamaster/pytorch_resnet_cifar10/master/pretrained_models/"
PUBLISHED = {20: "resnet20-12fca82f.th", 56: "resnet56-4bfd9763.th"}
SPLITS = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}


def write_parquet(archive: Path, folder: Path) -> None:
    """`train.parquet` and `test.parquet` of an archive of CIFAR-10's binary version."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as files:
        members = {Path(member.name).name: member for member in files.getmembers() if member.isfile()}
        names = _content(files, members["batches.meta.txt"]).decode().split()
        about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}}}
        for split, parts in SPLITS.items():
            content = b"".join(_content(files, members[part]) for part in parts)
            rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * 32 * 32)  # a label, then three planes
            pixels = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            columns = {"image": [_png(each) for each in pixels], "label": rows[:, 0].astype(np.int64)}
            whole = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(about)})
            pq.write_table(whole, folder / f"{split}.parquet")


def _content(files: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    opened = files.extractfile(member)
    assert opened is not None, "a file, not a folder"
    return opened.read()


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def train(data: Path, epochs: int, depth: int, device: torch.device) -> CifarResNet:
    """A ResNet from nothing: SGD with momentum on cropped and flipped images, along a cosine."""
    images, labels = (each.to(device) for each in cifar10(data, "train"))
    torch.manual_seed(0)
    model = CifarResNet(depth).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(images) // 128
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, epochs * steps, pct_start=0.1)
    for epoch in range(epochs):
        for rows in torch.randperm(len(images), device=device)[: steps * 128].split(128):
            loss = F.cross_entropy(model(augmented(images[rows])), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs}: {accuracy(model, *cifar10(data, 'test')):.2f}% of the test images")
    return model


@contextmanager
def one_line(mend: str) -> Iterator[None]:
    """A download that fails ends the script in one line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise SystemExit(f"prepare.py: the download failed ({error}); {mend}") from error


def options_of(description: str | None) -> argparse.Namespace:
    """What the command line says of what is to be made."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=Path("data"), help="folder of what is made")
    parser.add_argument("--archive", type=Path, help="CIFAR-10's binary version, where it is here already")
    parser.add_argument("--depth", type=int, choices=PUBLISHED, default=20, help="of the ResNet")
    parser.add_argument("--train", type=int, metavar="EPOCHS", help="train the ResNet here instead of downloading it")
    return parser.parse_args()


def prepared(options: argparse.Namespace) -> tuple[Path, Path]:
    """Make what is missing: the folder of CIFAR-10, and the file of weights."""
    into, data = options.into, options.into / "cifar10"
    if not list(data.glob("test*.parquet")):
        if options.archive is None:
            with one_line("--archive FILE takes one that you have"):
                download_url(ARCHIVE, str(into), md5=MD5)
        write_parquet(options.archive or into / Path(ARCHIVE).name, data)
    name = PUBLISHED[options.depth]
    if options.train:
        model = train(data, options.train, options.depth, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        name = f"resnet{options.depth}.safetensors"
        model.cpu().to(memory_format=torch.contiguous_format)
        safetensors.torch.save_file(model.state_dict(), into / name)
    elif not (into / name).exists():
        with one_line("--train EPOCHS trains a network here"):
            # The file's name ends with the first digits of its SHA-256, which are compared.
            torch.hub.download_url_to_file(CHECKPOINTS + name, str(into / name), hash_prefix=name[-11:-3])
    return data, into / name


if __name__ == "__main__":
    print("{} and {} are ready".format(*prepared(options_of(__doc__))))
