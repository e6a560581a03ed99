"""Data as users have them: the same images are the same bits whichever way they come; what is wrong is one line."""

import dataclasses
import random
import time
import warnings
from collections import UserDict, namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torchvision.datasets import FakeData
from torchvision.transforms import v2

from ice_ray import ImageSet, Preprocessing, PruningData, UserError, given_data
from ice_ray.api.data import given_images
from ice_ray.data import reading
from ice_ray.data.config import IMAGENET_MEAN, IMAGENET_STD
from ice_ray.data.reading import ReadImages

Pair = namedtuple("Pair", ["picture", "kind"])


@pytest.fixture(autouse=True)
def warnings_are_faults():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def drawn(count=21, channels=3, height=6, width=7, dtype=torch.uint8, seed=0):
    """(N, C, H, W) images as torch has them, and labels."""
    chance = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, channels, height, width), generator=chance, dtype=torch.uint8)
    images = pixels if dtype == torch.uint8 else (pixels.float() - 127) / 50
    return images, torch.randint(0, 4, (count,), generator=chance)


class Items(Dataset):
    """Whatever a function gives for a number."""

    def __init__(self, item, count=21):
        self.item, self.count = item, count

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        return self.item(number)


class Passing(IterableDataset):
    def __init__(self, pairs):
        self.pairs = pairs

    def __iter__(self):
        return iter(self.pairs)


def as_pairs(images, labels, label=int):
    return [(image, label(number)) for image, number in zip(images, labels, strict=True)]


def stacked_dict(items):
    return {"pixel_values": torch.stack([image for image, _ in items]), "labels": [label for _, label in items]}


WAYS = {
    "tensors": lambda x, y: (x, y),
    "arrays": lambda x, y: [x.numpy(), y.numpy()],
    "labels in a list": lambda x, y: (x, y.tolist()),
    "labels of another type": lambda x, y: (x, y.to(torch.uint8)),
    "labels in a column": lambda x, y: (x, y[:, None]),
    "big-endian labels": lambda x, y: (x, y.numpy().astype(">i4")),
    "an ImageSet": lambda x, y: ImageSet(x.permute(0, 2, 3, 1).contiguous(), y),
    "TensorDataset": TensorDataset,
    "Subset": lambda x, y: Subset(TensorDataset(torch.cat([x, x]), torch.cat([y, y])), range(len(x))),
    "a list of items": as_pairs,
    "items of 0-d tensors": lambda x, y: Items(lambda i: (x[i], y[i]), len(x)),
    "items of arrays": lambda x, y: Items(lambda i: (x[i].numpy(), np.int32(y[i])), len(x)),
    "items of more than two": lambda x, y: Items(lambda i: (x[i], int(y[i]), f"file {i}"), len(x)),
    "items by name": lambda x, y: Items(lambda i: Pair(x[i], int(y[i])), len(x)),
    "items as dicts": lambda x, y: Items(lambda i: {"file": "f", "label": int(y[i]), "image": x[i]}, len(x)),
    "DataLoader": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=8),
    "shuffled, the last batch dropped": lambda x, y: DataLoader(TensorDataset(x, y), 8, shuffle=True, drop_last=True),
    "a batch sampler": lambda x, y: DataLoader(
        TensorDataset(x, y), batch_sampler=BatchSampler(RandomSampler(range(len(x))), 5, drop_last=False)
    ),
    "dicts of a collate_fn": lambda x, y: DataLoader(as_pairs(x, y), 4, collate_fn=stacked_dict),
    "lists of a collate_fn": lambda x, y: DataLoader(
        as_pairs(x, y), 4, collate_fn=lambda items: [*zip(*items, strict=True)]
    ),
    "a mapping that is no dict": lambda x, y: DataLoader(
        as_pairs(x, y), 4, collate_fn=lambda items: UserDict(stacked_dict(items))
    ),
    "an IterableDataset": lambda x, y: Passing(as_pairs(x, y)),
    "a DataLoader of one": lambda x, y: DataLoader(Passing(as_pairs(x, y)), batch_size=5),
    "batches of a Dataset's own": lambda x, y: DataLoader([(x[:9], y[:9]), (x[9:], y[9:])], batch_size=None),
    "a generator of batches": lambda x, y: ((x[i : i + 3], y[i : i + 3]) for i in range(0, len(x), 3)),
}
BYTES_ONLY = {
    "bytes, channels last": lambda x, y: (x.permute(0, 2, 3, 1), y),
    "items with channels last": lambda x, y: Items(lambda i: (x[i].permute(1, 2, 0).numpy(), int(y[i])), len(x)),
}
FLOATS_ONLY = {
    "doubles": lambda x, y: (x.double(), y),
    "items of doubles": lambda x, y: Items(lambda i: (x[i].double().numpy(), int(y[i])), len(x)),
    "that need gradients": lambda x, y: (x.clone().requires_grad_(), y),
}
GREY_ONLY = {
    "no axis of channels": lambda x, y: (x[:, 0], y),
    "items without an axis of channels": lambda x, y: Items(lambda i: (x[i, 0].numpy(), int(y[i])), len(x)),
}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_same_images_are_the_same_bits_whichever_way_they_come(data):
    channels = data.draw(st.integers(1, 5), "channels")
    is_float = data.draw(st.booleans(), "float")
    images, labels = drawn(
        data.draw(st.integers(10, 40), "count"),
        channels,
        data.draw(st.integers(6, 9), "height"),
        data.draw(st.integers(6, 9), "width"),
        torch.float32 if is_float else torch.uint8,
        data.draw(st.integers(0, 3), "seed"),
    )
    ways = WAYS | (FLOATS_ONLY if is_float else BYTES_ONLY) | (GREY_ONLY if channels == 1 else {})
    way = data.draw(st.sampled_from(sorted(ways)), "way")
    found = given_images(ways[way](images, labels), "train")
    expected = ImageSet(images.permute(0, 2, 3, 1).contiguous(), labels)
    assert found.image_shape == images.shape[1:] and found.dtype == images.dtype
    assert found.fingerprint() == expected.fingerprint()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_each_way_does(way, dtype):
    images, labels = drawn(dtype=dtype)
    found = given_images(WAYS[way](images, labels), "train")
    assert torch.equal(found.images.permute(0, 3, 1, 2), images)
    assert torch.equal(found.labels, labels) and found.labels.dtype == torch.int64


def test_nested_lists_and_lists_of_batches_are_images_too():
    images, labels = drawn(dtype=torch.float32)
    batches = list(DataLoader(TensorDataset(images, labels), 4))
    assert len(batches[-1][0]) == 1
    ways = {
        "nested": (images.tolist(), labels.tolist()),
        "nested, of one channel": (images[:, 0].tolist(), labels),
        "batches": batches,
        "two batches": (batches[0], batches[1]),
        "batches as dicts": [{"image": one, "label": other} for one, other in batches],
    }
    for way, given_ in ways.items():
        found = given_images(given_, "train")
        expected = images[: len(found), :1] if "channel" in way else images[: len(found)]
        assert torch.equal(found.images.permute(0, 3, 1, 2), expected), way
        assert torch.equal(found.labels, labels[: len(found)]) and len(found) == (8 if "two" in way else 21), way


@pytest.mark.parametrize("kind", ["items", "batches"])
def test_a_bar_shows_how_far_reading_is_where_that_takes_long(kind, capsys, monkeypatch):
    images, labels = drawn()

    def slow(number):
        time.sleep(0.01)
        return images[number], labels[number]

    def way():
        one_by_one = ((image[None], label[None]) for image, label in map(slow, range(21)))
        return Items(slow) if kind == "items" else one_by_one

    given_images(way(), "train", progress=True)
    assert not capsys.readouterr().err  # it is soon done
    monkeypatch.setattr(reading, "_SECONDS_UNSEEN", 1e-9)
    given_images(way(), "train", progress=True)
    shown = capsys.readouterr().err
    assert "reading train: " in shown and ("21/21" if kind == "items" else "21image") in shown
    assert shown.endswith("\n")
    given_images(way(), "train", progress=False)
    given_images(way(), "train")  # standard error is no terminal here
    assert not capsys.readouterr().err


def test_processes_of_the_loader_read():
    images, labels = drawn()
    loader = DataLoader(TensorDataset(images, labels), 4, num_workers=2, persistent_workers=True, shuffle=True)
    found = given_images(loader, "train")
    assert torch.equal(found.images.permute(0, 3, 1, 2), images)


def test_what_does_not_fit_into_memory_is_read_for_every_pass(monkeypatch):
    images, labels = drawn(dtype=torch.float32)
    loader = DataLoader(TensorDataset(images, labels), 4, num_workers=1)
    held = given_images(loader, "train")
    monkeypatch.setattr(reading, "free_memory", lambda: 1000)
    read = given_images(loader, "train")
    assert isinstance(read, ReadImages) and isinstance(held, ImageSet)
    assert (len(read), read.image_shape, read.dtype) == (len(held), held.image_shape, held.dtype)
    order, sizes = torch.randperm(21), [8, 0, 8, 5]
    for (pixels, numbers), (expected, others) in zip(read.fetch(order, sizes), held.fetch(order, sizes), strict=True):
        assert torch.equal(pixels, expected) and pixels.dtype == expected.dtype and torch.equal(numbers, others)
    assert torch.equal(read.take(torch.tensor([3, 7])).images, held.take(torch.tensor([3, 7])).images)
    with pytest.raises(UserError, match=r"train: after 8 images, 0\.0 GB, there are more than memory holds"):
        given_images(DataLoader(Passing(as_pairs(images, labels)), 8), "train")


CHANCE = {
    "torch": lambda image: image + torch.rand(1),
    "numpy": lambda image: image + np.random.random(),  # noqa: NPY002 - as transforms of others draw
    "random": lambda image: image + random.random(),
    "a flip of every second one": lambda image: image.flip(2) if torch.rand(1) < 0.5 else image,
}


@pytest.mark.parametrize("kind", CHANCE)
@pytest.mark.parametrize("workers", [0, 1])
def test_augmented_items_are_taken_as_they_come(kind, workers):
    images, labels = drawn(dtype=torch.float32, count=40)
    loader = DataLoader(Items(lambda i: (CHANCE[kind](images[i]), int(labels[i])), 40), 16, num_workers=workers)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    with pytest.warns(UserWarning, match="train: items differ when they are read twice.*may not repeat bit for bit"):
        found = given_images(loader, "train")
    assert torch.equal(before[0], torch.get_rng_state())  # the user's own chance is left alone
    assert before[1] == random.getstate() and np.array_equal(before[2], np.random.get_state()[1])  # noqa: NPY002
    one, again, other = (
        torch.cat([pixels for pixels, _ in found.fetch(order, [20, 20])])
        for order in (torch.arange(40), torch.arange(40), torch.arange(39, -1, -1))
    )
    assert torch.equal(one, again)  # all of its chance comes from generators that are seeded by the order
    assert not torch.equal(one, other.flip(0))
    with pytest.warns(UserWarning, match="val: items differ.*they are held as they were read first"):
        assert isinstance(given_images(loader, "val", hold=True), ImageSet)


def test_datasets_of_torchvision_with_their_transforms():
    """MNIST-like, of one channel; and with a transform that flips."""
    normalise = v2.Normalize((0.13,), (0.31,))
    plain = v2.Compose([v2.Grayscale(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), normalise])
    flipping = v2.Compose([v2.RandomHorizontalFlip(), plain])
    parts = [FakeData(40, (3, 12, 12), 10, transform=each) for each in (plain, flipping)]
    data = given_data(DataLoader(parts[0], 8, shuffle=True), DataLoader(Subset(parts[0], range(20)), 8))
    assert data.train.image_shape == (1, 12, 12) and len(data.validation) == 20
    pairs = [parts[0][number] for number in range(40)]
    assert torch.equal(data.train.images.permute(0, 3, 1, 2), torch.stack([image for image, _ in pairs]))
    assert data.train.labels.tolist() == [label for _, label in pairs]
    with pytest.warns(UserWarning, match="they are augmented already"):
        assert isinstance(given_images(parts[1], "train"), ReadImages)
    bare = v2.Compose([v2.Grayscale(), v2.PILToTensor()])
    found = given_images(FakeData(40, (3, 12, 12), 10, transform=bare), "train")
    assert (found.dtype, found.image_shape) == (torch.uint8, (1, 12, 12))
    with pytest.raises(UserError, match=r"its items are PIL images: the transform lacks ToTensor\(\)"):
        given_images(DataLoader(FakeData(40, (3, 12, 12))), "train")


def test_a_sampler_says_which_images_count():
    images, labels = drawn()
    dataset = TensorDataset(images, labels)

    def taken(loader):
        return given_images(loader, "train").images.permute(0, 3, 1, 2)

    assert torch.equal(taken(DataLoader(dataset, 4, sampler=SubsetRandomSampler([9, 2, 5]))), images[[9, 2, 5]])
    for sampler in (WeightedRandomSampler(torch.ones(21), 10), RandomSampler(dataset, replacement=True, num_samples=5)):
        with pytest.warns(UserWarning, match=f"all 21 images of its dataset are taken: its {type(sampler).__name__}'s"):
            assert torch.equal(taken(DataLoader(dataset, 4, sampler=sampler)), images)

    class Own(Sampler):
        def __iter__(self):
            return iter([7, 3, 7, 3, 4])

    with pytest.warns(UserWarning, match="the 3 images that one pass of its sampler Own draws are taken"):
        assert torch.equal(taken(DataLoader(dataset, 4, sampler=Own())), images[[3, 4, 7]])

    class Endless(Sampler):
        def __iter__(self):
            while True:
                yield [1, 6]

    with pytest.warns(UserWarning, match="the 2 images that one pass of its sampler Endless draws"):
        assert torch.equal(taken(DataLoader(dataset, batch_sampler=Endless())), images[[1, 6]])


class Endless(Dataset):
    def __getitem__(self, number):
        return X[number % 21], 1


X, Y = drawn()
PICTURES = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in X]
FLOATS = X.float() / 255
WRONG = {
    "nothing": (None, "train is of type NoneType: give a torch DataLoader or Dataset, (images, labels), a ray.data"),
    "images alone": (X, "train: images alone: give (train_images, train_labels)"),
    "a dict of splits": ({"train": 1, "test": 2}, "train: a dict of train, test: give one of its parts"),
    "empty": ([], "train: there are no images in it"),
    "empty tensors": ((X[:0], Y[:0]), "train: there are no images in it"),
    "fewer labels": ((X, Y[:20]), "train: 21 images (21, 3, 6, 7) and 20 labels"),
    "a number of images": ([X, X, X], "train: a list of 3 Tensors: give a torch DataLoader or Dataset"),
    "without a length": (Endless(), "train: Endless has no __len__, as a map-style Dataset has, nor __iter__"),
    "the batch last": ((X.permute(1, 2, 3, 0), Y), "and 21 labels"),
    "float labels": ((X, Y.float()), "labels are float32: give class numbers, whole numbers from 0 (labels.long())"),
    "one-hot labels": ((X, torch.nn.functional.one_hot(Y, 4)), "labels (21, 4) are one-hot or soft"),
    "mixed up": (
        (X, torch.full((21, 4), 0.25)),
        "labels (21, 4) are one-hot or soft: give class numbers, labels.argmax(1)",
    ),
    "several labels": ((X, Y[:, None].repeat(1, 2) + 3), "labels (21, 2) are several an image"),
    "masks": ((X, X[:, 0]), "labels have shape (21, 6, 7)"),
    "negative labels": ((X, Y - 4), "has the label -"),
    "names": ((X, np.array(["cat"] * 21)), "labels are an array of <U3: give class numbers"),
    "nested lists alone": (FLOATS.tolist(), "train: images alone: give (train_images, train_labels)"),
    "items of nested lists": (
        [(image.tolist(), 1) for image in FLOATS],
        "train: images are nested lists: give tensors, torch.tensor(image) in its __getitem__",
    ),
    "bools": ((X, Y > 1), "labels are bool: give class numbers"),
    "integers": ((X.int(), Y), "images are int32: give uint8 from 0 to 255, or floats that are normalised"),
    "NaN": ((FLOATS / FLOATS.clamp(max=0), Y), "train: image 0 holds NaN or infinity"),
    "NaN somewhere": (
        Items(lambda i: (FLOATS[i] / (0 if i == 17 else 1), 1)),
        "train: image 17 holds NaN or infinity",
    ),
    "float images, channels last": (
        (FLOATS.permute(0, 2, 3, 1), Y),
        "(21, 6, 7, 3) look like (N, H, W, C): give (N, C",
    ),
    "no telling": ((torch.zeros(5, 4, 4, 4, dtype=torch.uint8), Y[:5]), "nobody can say which axis is the channels'"),
    "sparse": ((FLOATS.to_sparse(), Y), "images are a torch.sparse_coo tensor on cpu"),
    "no pixels": ((torch.zeros(21, 3, 0, 5), Y), "have no pixels"),
    "PIL items": (Items(lambda i: (PICTURES[i], 1)), "its items are PIL images: the transform lacks ToTensor()"),
    "PIL batches": (
        DataLoader(Items(lambda i: (PICTURES[i], 1)), collate_fn=lambda items: tuple(zip(*items, strict=True))),
        "images are PIL's: its transform lacks ToTensor()",
    ),
    "sizes": (
        Items(lambda i: (X[i, :, : 3 + i % 2], 1)),
        "items differ in size (got [3, 3, 7] at entry 0 and [3, 4, 7]",
    ),
    "sizes in batches": (
        ((X[:4, :, : 5 + number], Y[:4]) for number in range(2)),
        "images of shapes (3, 5, 7) and (3, 6, 7): bring all to one size",
    ),
    "types by turns": (
        ((X[:4] if n else FLOATS[:4], Y[:4]) for n in range(2)),
        "images are float32 and uint8 by turns",
    ),
    "items that are batches": (Items(lambda i: (X, Y)), "a DataLoader of it with batch_size=None"),
    "no batches": (DataLoader(as_pairs(X, Y), collate_fn=lambda items: items), "collate_fn returns a list of items"),
    "items one by one": (((x, y) for x, y in as_pairs(X, Y)), "wrap it, DataLoader(train, batch_size=64)"),
    "no labels": (Items(lambda i: X[i]), "a batch is a Tensor: give (images, labels)"),
    "other keys": (Items(lambda i: {"photo": X[i], "label": 1}), "no key for the images (image, images, img"),
    "halves of batches": (
        DataLoader(as_pairs(X, Y), 4, collate_fn=lambda items: stacked_dict(items[:2])),
        "collate_fn makes 2 images of",
    ),
    "that raises": (Items(lambda i: 1 / 0), "train: ZeroDivisionError: division by zero"),
    "that raises elsewhere": (
        DataLoader(Items(lambda i: 1 / 0), num_workers=1),
        "train: ZeroDivisionError: division by",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line(name):
    given, said = WRONG[name]
    with pytest.raises(UserError) as raised:
        given_images(given, "train")
    assert said in str(raised.value) and "\n" not in str(raised.value) and len(str(raised.value)) < 400


DTYPES = [
    torch.uint8,
    torch.int8,
    torch.int64,
    torch.float16,
    torch.float32,
    torch.float64,
    torch.bool,
    torch.complex64,
]
SHAPES = st.lists(st.integers(0, 6), max_size=5)
ODD = st.one_of(
    st.builds(lambda shape, dtype: torch.ones(shape).to(dtype), SHAPES, st.sampled_from(DTYPES)),
    st.builds(
        lambda shape, dtype: np.zeros(shape, dtype), SHAPES, st.sampled_from(["u1", ">u2", "f4", "<U3", "O", "M8[s]"])
    ),
    st.sampled_from(
        [None, "cat", 3, 2.5, b"x", float("nan"), {}, [], (), PICTURES[0], [1, 2, 3], [[1], [2, 3]], range(3)]
    ),
)
HOLDERS = {
    "a pair": lambda x, y: (x, y),
    "a list": lambda x, y: [x, y],
    "items": lambda x, y: Items(lambda number: (x, y), 3),
    "items as dicts": lambda x, y: Items(lambda number: {"image": x, "label": y}, 3),
    "items alone": lambda x, y: Items(lambda number: x, 3),
    "a list of items": lambda x, y: [(x, y), (y, x)],
    "batches": lambda x, y: ((x, y) for _ in range(2)),
    "batches of two kinds": lambda x, y: iter([(X, Y), (x, y)]),
    "iterable": lambda x, y: Passing([(x, y)] * 3),
    "a loader": lambda x, y: DataLoader(Items(lambda number: (x, y), 3), collate_fn=lambda items: items[0]),
    "alone": lambda x, y: x,
    "a dict": lambda x, y: {"train": x, "test": y},
}


@settings(max_examples=400, deadline=None)
@given(holder=st.sampled_from(sorted(HOLDERS)), images=ODD, labels=ODD)
def test_whatever_is_given_is_images_or_one_line(holder, images, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = given_images(HOLDERS[holder](images, labels), "train")
        except UserError as error:
            assert "\n" not in str(error) and str(error).startswith("train")
        else:
            assert len(found) and found.dtype in (torch.uint8, torch.float32)
            taken = found.take(torch.arange(len(found)))
            assert taken.labels.min() >= 0 and taken.images.isfinite().all()


@pytest.mark.parametrize("shape", [(3, 0), (0, 0), (3, 1, 0)])
def test_labels_without_a_number(shape):
    with pytest.raises(UserError, match=r"^train: labels have shape \(.*\): give \(N,\), one class number an image$"):
        given_images((X[: shape[0]], torch.zeros(shape, dtype=torch.uint8)), "train")


def test_both_parts_go_together():
    pair, floats = (X, Y), (FLOATS, Y)
    data = given_data(pair, pair)
    assert data.preprocessing == Preprocessing(IMAGENET_MEAN, IMAGENET_STD) and isinstance(data.validation, ImageSet)
    assert given_data(floats, floats).preprocessing.mean == ()
    grey = Preprocessing((0.5,), (0.5,), pad=1)
    assert given_data((X[:, :1], Y), (X[:, :1], Y), preprocessing=grey).preprocessing == grey
    for val, said in [
        (None, "val: no validation images: give images that the model was not trained on"),
        (floats, "val: images are float32, and those of train uint8"),
        ((X[:, :, :5], Y), r"val: images have shape \(3, 5, 7\), and those of train \(3, 6, 7\)"),
        ((X[:1], Y[:1]), "val: 1 image: at least 2 are needed"),
    ]:
        with pytest.raises(UserError, match=said):
            given_data(pair, val)
    with pytest.raises(
        UserError, match=r"preprocessing=\(0\.5, 0\.5\) must be a Preprocessing: ice_ray\.Preprocessing"
    ):
        given_data(pair, pair, preprocessing=(0.5, 0.5))
    with pytest.raises(UserError, match=r"^preprocessing: mean and std are for uint8 images, and these are floats"):
        given_data(floats, floats, preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD))
    with pytest.raises(UserError, match=r"^preprocessing: mean and std are for uint8 images, and these are floats"):
        given_data(given_data(floats, floats), preprocessing=grey)
    with pytest.raises(
        UserError, match="preprocessing: mean and std have 3 values, and the uint8 images have 1 channel"
    ):
        given_data((X[:, :1], Y), (X[:, :1], Y))


def test_images_that_were_not_divided_are_said_to_be_large():
    with pytest.warns(UserWarning, match="train: float images are taken as they come, and these reach 255"):
        given_images((X.float(), Y), "train")


def test_pruning_data_and_names_hold_both_parts():
    data = given_data((X, Y), (X, Y))
    assert given_data(data) is data
    flipped = Preprocessing(flip=True)
    assert given_data(data, preprocessing=flipped) == dataclasses.replace(data, preprocessing=flipped)
    digits = given_data("digits", seed=1)
    assert isinstance(digits, PruningData) and (len(digits.train), digits.preprocessing.pad) == (1258, 1)
    for train in (data, "digits"):
        with pytest.raises(UserError, match=r"val: train is .* leave val out"):
            given_data(train, (X, Y))
    with pytest.raises(UserError, match=r"unknown data 'digit' .nearest: digits"):
        given_data("digit")
