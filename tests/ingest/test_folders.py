"""Image folders, ImageNet and TinyImageNet, from trees of JPEGs; torchvision is the oracle of order and transform."""

import numpy as np
import pytest
import torchvision
from conformance import read
from layouts import WNIDS, WORDS, pixels, write_folders, write_image, write_tinyimagenet
from PIL import Image

from ice_ray.errors import UserError
from ice_ray.ingest.datasets import open_dataset


@pytest.mark.parametrize("name", ["imagefolder", "imagenet"])
def test_order_and_classes_are_torchvision_s(tmp_path, name):
    write_folders(tmp_path)
    oracle = torchvision.datasets.ImageFolder(tmp_path / "train")
    dataset = open_dataset(f"{name}:{tmp_path}")
    assert list(dataset.class_names) == oracle.classes
    assert dataset.labels["train"].tolist() == oracle.targets
    names = [row.name for row in read(dataset, "train", range(len(oracle)))]
    assert names == [file for file, _ in oracle.samples]


@pytest.mark.parametrize(("height", "width"), [(300, 400), (401, 300), (256, 256), (100, 90)])
@pytest.mark.parametrize(("size", "shorter"), [(None, 256), (64, 73)])
def test_imagenet_is_resized_and_cropped_as_torchvision_does(tmp_path, height, width, size, shorter):
    write_folders(tmp_path, ("train",), height, width)
    (row,) = read(open_dataset(f"imagenet:{tmp_path}", size), "train", [1])
    transforms = torchvision.transforms
    oracle = transforms.Compose([transforms.Resize(shorter), transforms.CenterCrop(size or 224)])
    assert np.array_equal(row.pixels, np.asarray(oracle(Image.open(row.name))))


def test_imagefolder_keeps_as_much_of_an_image_as_a_square_can(tmp_path):
    write_folders(tmp_path, ("train",), 40, 60)
    (row,) = read(open_dataset(f"imagefolder:{tmp_path}", 40), "train", [0])
    assert np.array_equal(row.pixels, np.asarray(Image.open(row.name))[:, 10:50])


def test_grey_jpegs_become_rgb(tmp_path):
    write_folders(tmp_path)
    write_image(tmp_path / "train" / WNIDS[0] / "0.jpeg", pixels(1)[0][..., 0])
    (row,) = read(open_dataset(f"imagefolder:{tmp_path}", 8), "train", [0])
    assert row.name.endswith("0.jpeg")
    assert np.array_equal(row.pixels[..., 0], row.pixels[..., 2])


def test_a_flat_validation_split_is_refused_with_the_way_to_arrange_it(tmp_path):
    write_folders(tmp_path, ("train",))
    write_image(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", pixels(1)[0])
    with pytest.raises(UserError, match=r"val is flat: move each image into a folder of its class, val/CLASS/"):
        open_dataset(f"imagenet:{tmp_path}")


def test_imagenet_s_test_images_have_no_labels_and_are_left_alone(tmp_path):
    write_folders(tmp_path)
    write_image(tmp_path / "test" / "ILSVRC2012_test_00000001.JPEG", pixels(1)[0])
    assert set(open_dataset(f"imagenet:{tmp_path}").labels) == {"train", "val"}
    with pytest.raises(UserError, match="test is flat"):
        open_dataset(f"imagefolder:{tmp_path}")


def test_words_name_imagenet_s_classes_where_they_are_there(tmp_path):
    write_folders(tmp_path)
    (tmp_path / "words.txt").write_text(f"{WNIDS[1]}\ttabby, tabby cat\n")
    assert open_dataset(f"imagenet:{tmp_path}").class_names == (WNIDS[0], "tabby, tabby cat", WNIDS[2])


def test_classes_that_training_does_not_know_and_splits_without_images(tmp_path):
    write_folders(tmp_path)
    (tmp_path / "val" / "bird").mkdir()
    with pytest.raises(UserError, match="class folder 'bird'"):
        open_dataset(f"imagefolder:{tmp_path}")
    (tmp_path / "other" / "train" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match="no training images"):
        open_dataset(f"imagefolder:{tmp_path / 'other'}")
    with pytest.raises(UserError, match="no folder train/"):
        open_dataset(f"imagenet:{tmp_path / 'val'}")


def test_a_class_that_is_never_asked_about_is_said(tmp_path):
    write_folders(tmp_path)
    for file in (tmp_path / "val" / WNIDS[1]).iterdir():
        file.unlink()
    assert open_dataset(f"imagefolder:{tmp_path}").notes == (f"split val has no images of class '{WNIDS[1]}'",)


def test_tinyimagenet_as_published(tmp_path):
    """The oracle: torchvision's order of the training folders, and the annotations as they were written."""
    write_tinyimagenet(tmp_path)
    dataset = open_dataset(f"tinyimagenet:{tmp_path}")
    oracle = torchvision.datasets.ImageFolder(tmp_path / "train")
    assert dataset.class_names == tuple(WORDS[wnid] for wnid in oracle.classes)
    assert dataset.labels["train"].tolist() == oracle.targets
    assert [row.name for row in read(dataset, "train", range(12))] == [file for file, _ in oracle.samples]
    assert dataset.labels["val"].tolist() == [2, 1, 0, 2, 1, 0]
    assert set(dataset.labels) == {"train", "val"}
    (row,) = read(dataset, "val", [4])
    assert row.name.endswith("val/images/val_4.JPEG")
    assert np.array_equal(row.pixels, np.asarray(Image.open(row.name)))
    assert (dataset.pad, dataset.flip) == (0, False)


def test_tinyimagenet_s_validation_images_arranged_by_class(tmp_path):
    write_tinyimagenet(tmp_path)
    (tmp_path / "val").rename(tmp_path / "published")
    for number, wnid in enumerate(reversed(WNIDS)):
        write_image(tmp_path / "val" / wnid / "images" / f"val_{number}.JPEG", pixels(1)[0])
    assert open_dataset(f"tinyimagenet:{tmp_path}").labels["val"].tolist() == [0, 1, 2]


def change(path, old, new):
    path.write_text(path.read_text().replace(old, new))


DAMAGES = {
    "class gone": (lambda root: (root / "train" / WNIDS[1]).rename(root / "gone"), f"lacks class '{WNIDS[1]}'"),
    "class too many": (lambda root: (root / "train" / "n999").mkdir(), "has class 'n999'"),
    "unknown class": (
        lambda root: change(root / "val" / "val_annotations.txt", WNIDS[2], "n999"),
        r"val_annotations.txt, line 1: class 'n999'",
    ),
    "image gone": (
        lambda root: (root / "val" / "images" / "val_2.JPEG").unlink(),
        r"line 3: no image 'val_2.JPEG'",
    ),
    "no annotations": (lambda root: (root / "val" / "val_annotations.txt").unlink(), r"needs val_annotations.txt"),
    "half a line": (
        lambda root: (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\n"),
        r"line 1: class '' is not",
    ),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_a_tinyimagenet_that_is_not_whole_is_refused(tmp_path, damage, said):
    write_tinyimagenet(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=said):
        open_dataset(f"tinyimagenet:{tmp_path}")
