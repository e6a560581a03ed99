"""Images of any number of channels, uint8 or float32: what Preprocessing does to them, and what it refuses."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ice_ray.data.batches import Shard, evaluation_batches, normalised, training_batches
from ice_ray.data.config import IMAGENET_MEAN, IMAGENET_STD
from ice_ray.data.images import ImageSet, Preprocessing, PruningData
from ice_ray.errors import UserError


def some(channels: int, dtype: torch.dtype = torch.uint8, count: int = 12, size: int = 5) -> ImageSet:
    drawn = torch.Generator().manual_seed(channels)
    pixels = torch.randint(0, 256, (count, size, size + 1, channels), generator=drawn, dtype=torch.uint8)
    return ImageSet(pixels if dtype == torch.uint8 else pixels.float() / 100 - 1, torch.arange(count) % 3)


@given(channels=st.integers(1, 6), channels_last=st.booleans())
def test_floats_are_taken_as_they_come(channels, channels_last):
    images = some(channels, torch.float32)
    chosen = Preprocessing(channels_last=channels_last)
    (pixels, _), *_ = evaluation_batches(images, chosen, 12, Shard())
    assert torch.equal(pixels, images.images.permute(0, 3, 1, 2))
    assert torch.equal(normalised(images, chosen), pixels)
    assert pixels.is_contiguous() or channels_last


@given(channels=st.integers(1, 6))
def test_every_channel_has_its_own_mean_and_std(channels):
    images = some(channels)
    mean, std = torch.linspace(0.1, 0.6, channels), torch.linspace(0.2, 0.5, channels)
    pixels = normalised(images, Preprocessing(mean.tolist(), std.tolist()))
    torch.testing.assert_close(pixels, ((images.images.float() / 255 - mean) / std).permute(0, 3, 1, 2))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_floats_are_cropped_and_flipped_as_bytes_are(channels):
    """Of images that hold the same numbers: also beyond the border, where both are zero."""
    stored = some(channels, count=40)
    floats = ImageSet(stored.images.float(), stored.labels)
    plain = Preprocessing((0.0,) * channels, (1 / 255,) * channels, pad=2, flip=True)
    both = (training_batches(images, plain, 8, (0, "k"), Shard()) for images in (stored, floats))
    for (one, labels, _), (other, others, _) in zip(*both, strict=True):
        torch.testing.assert_close(one, other)
        assert torch.equal(labels, others)


def test_mean_and_std_go_with_the_images():
    one, three, floats = some(1), some(3), some(1, torch.float32)
    assert PruningData(three, three).preprocessing == Preprocessing(IMAGENET_MEAN, IMAGENET_STD)
    with pytest.raises(
        UserError,
        match=r"^preprocessing: mean and std have 3 values, and the uint8 images have 1 channel: give mean and",
    ):
        PruningData(one, one)
    given_one = Preprocessing((0.1307,), (0.3081,), pad=1)
    assert PruningData(one, one, given_one).preprocessing == given_one
    with pytest.raises(UserError, match="have 1 value, and the uint8 images have 3 channels"):
        PruningData(three, three, given_one)
    as_they_come = PruningData(floats, floats, Preprocessing(pad=1))
    for kept in (as_they_come, dataclasses.replace(as_they_come, final=floats)):
        assert kept.preprocessing == Preprocessing((), (), pad=1)
    with pytest.raises(UserError, match=r"^preprocessing: mean and std are for uint8 images, and these are floats"):
        PruningData(floats, floats, given_one)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mean": (0.5, 0.5), "std": (0.2, 0.2, 0.2)}, "mean has 2 values and std has 3 values"),
        ({"mean": (0.5, 0.5, 0.5)}, "mean is given alone: give both mean and std"),
        ({"std": (0.5, 0.5, 0.5)}, "std is given alone: give both mean and std"),
        ({"mean": 0.5, "std": 0.5}, r"mean=0.5 must be numbers, one a channel: mean=\(0.5,\) for one channel"),
        ({"mean": (0.5,) * 3, "std": "abc"}, "std='abc' must be numbers"),
        ({"mean": (123.7, 116.3, 103.5), "std": (0.2,) * 3}, r"must be in \[0, 1\], of pixels in \[0, 1\]"),
        ({"mean": (0.5,) * 3, "std": (0.2, 0.0, 0.2)}, r"must be in \(0, 1\]"),
        ({"mean": (0.5,) * 3, "std": (0.2, float("nan"), 0.2)}, r"must be in \(0, 1\]"),
        ({"pad": -1}, "pad -1 must be at least 0"),
    ],
    ids=str,
)
def test_what_is_no_preprocessing_is_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        Preprocessing(**wrong)


def test_data_that_are_no_images_are_refused():
    with pytest.raises(
        UserError, match=r"data\.validation is of type int: give an ImageSet, or use ice_ray\.given_data"
    ):
        PruningData(some(3), 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_fingerprint_follows_every_value(dtype):
    images = some(2, dtype)
    other = ImageSet(images.images.clone(), images.labels)
    assert images.fingerprint() == other.fingerprint()
    other.images[3, 2, 1, 0] += 1
    assert images.fingerprint() != other.fingerprint()
    assert images.fingerprint() != ImageSet(images.images, 2 - images.labels).fingerprint()
