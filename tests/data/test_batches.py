"""Batches: every image once, the same images whatever the number of processes, crops that are crops."""

import pytest
import torch

from ice_ray.data.batches import Shard, evaluation_batches, training_batches
from ice_ray.data.images import ImageSet, Preprocessing
from ice_ray.errors import UserError

PLAIN = Preprocessing(mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255))


def numbered(count: int, size: int = 6) -> ImageSet:
    """Images whose every pixel is different, labels that number them."""
    images = torch.arange(count * size * size * 3).remainder(251).to(torch.uint8).view(count, size, size, 3)
    return ImageSet(images, torch.arange(count))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", [10, 12, 37])
def test_evaluation_sees_every_image_once_and_pads_nothing(world, count):
    images = numbered(count)
    seen = [
        label
        for rank in range(world)
        for _, labels in evaluation_batches(images, PLAIN, 5, Shard(rank, world))
        for label in labels.tolist()
    ]
    assert sorted(seen) == list(range(count))


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_very_batches_of_one(world):
    """The rows of a global batch, crops and flips included, are the same however they are divided."""
    images, augmented = numbered(50), Preprocessing(pad=2, flip=True)
    whole = list(training_batches(images, augmented, 12, (0, "k"), Shard()))
    parts = [list(training_batches(images, augmented, 12, (0, "k"), Shard(rank, world))) for rank in range(world)]
    for number, (pixels, labels, rows) in enumerate(whole):
        assert rows == len(labels)
        if number >= len(parts[0]):
            assert rows < 2 * world
            continue
        for rank in range(world):
            assert torch.equal(pixels[rank::world], parts[rank][number][0])
            assert torch.equal(labels[rank::world], parts[rank][number][1])


def test_an_epoch_is_a_permutation_and_keys_differ():
    images = numbered(40)
    epochs = [
        [label for _, labels, _ in training_batches(images, PLAIN, 8, (0, key), Shard()) for label in labels.tolist()]
        for key in ("a", "a", "b")
    ]
    assert sorted(epochs[0]) == list(range(40))
    assert epochs[0] == epochs[1] != epochs[2]


def test_a_last_batch_too_small_for_batch_norm_is_left_out():
    assert [rows for _, _, rows in training_batches(numbered(17), PLAIN, 8, (0,), Shard())] == [8, 8]
    assert [rows for _, _, rows in training_batches(numbered(19), PLAIN, 8, (0,), Shard(0, 2))] == [8, 8]


def test_every_augmented_image_is_a_crop_of_its_own_padded_original():
    """Oracle: slicing the padded image at every offset, mirrored or not. All offsets and both mirrors occur."""
    images, pad = numbered(400, size=4), 1
    augmented = Preprocessing(mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255), pad=pad, flip=True)
    padded = torch.nn.functional.pad(images.images, (0, 0, pad, pad, pad, pad))
    seen = set()
    for pixels, labels, _ in training_batches(images, augmented, 100, (0, "crop"), Shard()):
        for picture, label in zip(pixels.permute(0, 2, 3, 1), labels, strict=True):
            crops = {
                (top, left, mirror): crop.flip(1) if mirror else crop
                for top in range(3)
                for left in range(3)
                for mirror in (False, True)
                for crop in [padded[label, top : top + 4, left : left + 4].float()]
            }
            found = [place for place, crop in crops.items() if torch.allclose(crop, picture)]
            assert len(found) == 1
            seen.add(found[0])
    assert len(seen) == 18


def test_normalisation_and_layout():
    images = numbered(3)
    (pixels, _), *_ = evaluation_batches(images, Preprocessing(), 3, Shard())
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((images.images.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(pixels, expected)
    assert pixels.is_contiguous(memory_format=torch.channels_last)


def test_images_of_the_wrong_kind_are_refused():
    with pytest.raises(UserError, match=r"uint8 or float32 \(N, H, W, C\), not float64"):
        ImageSet(torch.zeros(2, 4, 4, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(UserError, match="labels"):
        ImageSet(torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
