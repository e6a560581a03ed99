"""Which files are data, which split they hold, and which are none of it, whatever lies in a folder."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conformance import read
from layouts import JUNK, WNIDS, encoded, pixels, write_folders, write_image, write_parquet, write_tinyimagenet

from ice_ray.errors import UserError
from ice_ray.ingest.datasets import open_dataset
from ice_ray.ingest.roles import assign_roles


def litter(folder) -> None:
    """What systems and tools leave behind, in a folder and in all below it."""
    for each in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        for hidden in (".git", ".ipynb_checkpoints", "__MACOSX", "@eaDir"):
            write_image(each / hidden / "0.JPEG", pixels(1)[0])
            (each / hidden / "test-0.parquet").write_bytes(JUNK)
        for name in (".DS_Store", "._0.JPEG", "._0000.parquet", ".hidden.png"):
            (each / name).write_bytes(JUNK)


@pytest.mark.parametrize("name", ["imagefolder", "imagenet", "tinyimagenet"])
def test_hidden_files_and_folders_are_no_images_and_no_classes(tmp_path, name):
    write = write_tinyimagenet if name == "tinyimagenet" else write_folders
    write(tmp_path / "clean")
    write(tmp_path / ".cache" / "littered")  # what is above the data may be hidden
    litter(tmp_path / ".cache" / "littered")
    clean, littered = (open_dataset(f"{name}:{tmp_path / each}") for each in ("clean", ".cache/littered"))
    assert littered.class_names == clean.class_names
    assert littered.labels_digest == clean.labels_digest
    for split, labels in clean.labels.items():
        pairs = [read(dataset, split, range(len(labels))) for dataset in (clean, littered)]
        assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(*pairs, strict=True))


def test_hidden_files_are_no_parquet(tmp_path):
    for name, labels in (("data/train-0.parquet", [0, 1]), ("data/train-1.parquet", [1]), ("data/test.parquet", [0])):
        write_parquet(tmp_path / ".cache" / name, labels)
    litter(tmp_path / ".cache")
    write_parquet(tmp_path / ".cache" / "data" / "._0000.parquet", [1, 1, 1])
    write_parquet(tmp_path / ".cache" / "_temporary" / "train.parquet", [1, 1, 1])
    dataset = open_dataset(f"parquet:{tmp_path / '.cache'}")
    assert {split: labels.tolist() for split, labels in dataset.labels.items()} == {"train": [0, 1, 1], "test": [0]}


TWICE = {
    "configurations": ("fine/train.parquet", "coarse/train.parquet"),
    "configurations as the Hub converts them": ("fine/train/0000.parquet", "coarse/train/0000.parquet"),
    "configurations by file name": ("fine-train.parquet", "coarse-train.parquet"),
    "cached revisions": ("snapshots/aa1/data/train-0.parquet", "snapshots/bb2/data/train-0.parquet"),
    "two words for one": ("train/0.parquet", "training/0.parquet"),
    "shards of two writings": ("train-00000-of-00001.parquet", "train-00000-of-00002.parquet"),
    "revisions by their hashes": ("train-00000-of-00001-aa1.parquet", "train-00000-of-00001-bb2.parquet"),
    "the same shard of two folders": ("a/train-00000-of-00002.parquet", "b/train-00000-of-00002.parquet"),
    "folder and file": ("train/0.parquet", "train-0.parquet"),
    "no split named": ("aa1/0000.parquet", "bb2/0000.parquet"),
    "partitions": ("config=a/split=train/0.parquet", "config=b/split=train/0.parquet"),
}


@pytest.mark.parametrize("names", TWICE.values(), ids=TWICE)
def test_two_sets_that_hold_one_split_are_refused_by_name(tmp_path, names):
    write_parquet(tmp_path / names[0], [0, 1])
    write_parquet(tmp_path / names[1], [1, 0])
    with pytest.raises(UserError, match="hold split train") as caught:
        open_dataset(f"parquet:{tmp_path}")
    assert all(name in str(caught.value) for name in names)
    (tmp_path / names[1]).unlink()
    assert open_dataset(f"parquet:{tmp_path}").labels["train"].tolist() == [0, 1]


def test_two_held_out_sets_are_refused_too(tmp_path):
    write_parquet(tmp_path / "train.parquet", [0, 1])
    write_parquet(tmp_path / "dev.parquet", [0, 1])
    write_parquet(tmp_path / "validation.parquet", [0, 1])
    with pytest.raises(UserError, match="hold split val"):
        open_dataset(f"parquet:{tmp_path}")
    write_folders(tmp_path / "folders", ("train", "val", "valid"))
    with pytest.raises(UserError, match="'val' and 'valid' both hold split val"):
        open_dataset(f"imagefolder:{tmp_path / 'folders'}")


NAMES = {
    "train": ["train.parquet", "train_0.parquet", "train-00000-of-00005.parquet", "train/a/0.parquet", "TRAIN.parquet",
              "training/0.parquet", "train2017.parquet", "cifar10-train.parquet", "trainData.parquet",
              "TRAINset.parquet", "traindata.parquet", "train.PARQUET", "train-00000-of-00001-dev.parquet",
              "split=train/0.parquet", "x=1/split=training/0.parquet", "train.parquet/part-0.parquet"],
    "val": ["val.parquet", "validation-00000-of-00001.parquet", "valid_1.parquet", "dev/0.parquet", "val/a/b.parquet",
            "split=validation/0.parquet"],
    "test": ["test.parquet", "test/0000.parquet", "testing-1.parquet", "split=test/0.parquet"],
    "": ["valuation.parquet", "trained.parquet", "testimony.parquet", "device/0.parquet", "constrain.parquet",
         "train.metadata/x.txt"],
}  # fmt: skip


@pytest.mark.parametrize(("split", "name"), [(split, name) for split, names in NAMES.items() for name in names])
def test_splits_are_named_by_whole_words(tmp_path, split, name):
    others = [each for each in ("train", "val", "test") if each != split]
    for number, other in enumerate(others):
        write_parquet(tmp_path / "given" / f"{other}.parquet", [0, 1] + [0] * number)
    write_parquet(tmp_path / name, [1, 0, 1, 1, 1])
    dataset = open_dataset(f"parquet:{tmp_path}")
    assert set(dataset.labels) == {*others, split} - {""}
    if split:
        assert dataset.labels[split].tolist() == [1, 0, 1, 1, 1]
    elif name.endswith(".parquet"):
        assert any(name in note for note in dataset.notes)  # left out, and that is said


@pytest.mark.parametrize("name", ["valid_train_map.parquet", "train_test_split/0.parquet", "train-val.parquet"])
def test_a_name_of_two_splits_is_refused(tmp_path, name):
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", [0, 1])
    write_parquet(tmp_path / name, [0, 1, 1])
    with pytest.raises(UserError, match=f"{name}' names two splits"):
        open_dataset(f"parquet:{tmp_path}")


def test_partitions_do_not_train_on_test_rows(tmp_path):
    write_parquet(tmp_path / "split=train" / "part-0.parquet", [0, 1, 0])
    write_parquet(tmp_path / "split=train" / "part-1.parquet", [1])
    write_parquet(tmp_path / "split=test" / "part-0.parquet", [1, 0])
    dataset = open_dataset(f"parquet:{tmp_path}")
    roles = assign_roles(dataset, "test", 0)
    assert (roles.train.split, len(roles.train)) == ("train", 4)
    assert (roles.validation.split, len(roles.validation)) == ("test", 2)


def test_a_partition_named_label_changes_no_label(tmp_path):
    for label in (0, 1):
        write_parquet(tmp_path / "split=train" / f"label={label}" / "0.parquet", [label] * 3)
    assert open_dataset(f"parquet:{tmp_path}").labels["train"].tolist() == [0, 0, 0, 1, 1, 1]


def test_split_folders_of_images_may_be_partitions(tmp_path):
    write_folders(tmp_path, ("split=train", "split=test"))
    assert set(open_dataset(f"imagefolder:{tmp_path}").labels) == {"train", "test"}
    shutil.copytree(tmp_path / "split=train", tmp_path / "train")
    with pytest.raises(UserError, match="both hold split train"):
        open_dataset(f"imagefolder:{tmp_path}")


@pytest.mark.parametrize("name", ["imagefolder", "imagenet", "tinyimagenet"])
def test_a_class_without_training_images_is_refused_by_name(tmp_path, name):
    write = write_tinyimagenet if name == "tinyimagenet" else write_folders
    write(tmp_path)
    for file in (tmp_path / "train" / WNIDS[1]).rglob("*.JPEG"):
        file.rename(file.with_suffix(".gif"))
    with pytest.raises(UserError, match=f"class '{WNIDS[1]}' has no training images"):
        open_dataset(f"{name}:{tmp_path}")


def test_links_are_followed_but_not_in_circles(tmp_path):
    write_folders(tmp_path)
    more = tmp_path / "elsewhere"
    write_image(more / "more.JPEG", pixels(1)[0])
    first = tmp_path / "train" / WNIDS[0]
    (first / "more").symlink_to(more)
    (first / "again").symlink_to(first)
    (first / "up").symlink_to(tmp_path)
    assert open_dataset(f"imagefolder:{tmp_path}").labels["train"].tolist() == [0, 0, 0, 1, 1, 2, 2]
    (tmp_path / "train" / "zebra").symlink_to(tmp_path / "train" / WNIDS[2])
    with pytest.raises(UserError, match=rf"'{WNIDS[2]}' and 'zebra' are one folder"):
        open_dataset(f"imagefolder:{tmp_path}")
    (tmp_path / "train" / "zebra").unlink()
    (tmp_path / "train" / "zebra").symlink_to(tmp_path)
    with pytest.raises(UserError, match="'zebra' is a link to a folder above it"):
        open_dataset(f"imagefolder:{tmp_path}")


def test_parquet_behind_links_is_read_once(tmp_path):
    write_parquet(tmp_path / "store" / "train.parquet", [0, 1])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").symlink_to(tmp_path / "store")
    (tmp_path / "data" / "mine" / "round").symlink_to(tmp_path / "data")
    assert open_dataset(f"parquet:{tmp_path / 'data'}").labels["train"].tolist() == [0, 1]


@pytest.mark.parametrize("broken", [b"", b"PAR1", "cut"])
def test_a_parquet_file_that_is_cut_short_is_named(tmp_path, broken):
    write_parquet(tmp_path / "train-0.parquet", [0, 1])
    write_parquet(tmp_path / "train-1.parquet", [0, 1])
    whole = (tmp_path / "train-1.parquet").read_bytes()
    (tmp_path / "train-1.parquet").write_bytes(whole[: len(whole) // 2] if broken == "cut" else broken)
    with pytest.raises(UserError, match=r"train-1.parquet cannot be read as parquet") as caught:
        open_dataset(f"parquet:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_what_spark_writes_is_read(tmp_path):
    table = pa.table({"image": [encoded(each) for each in pixels(2, 5, 7)], "label": [0, 1]})
    for split in ("train", "test"):
        folder = tmp_path / f"{split}.parquet"
        folder.mkdir()
        pq.write_table(table, folder / "part-00000-c000.snappy.parquet")
        (folder / "_SUCCESS").touch()
    assert set(open_dataset(f"parquet:{tmp_path}").labels) == {"train", "test"}


def test_parts_of_one_whole_may_lie_anywhere(tmp_path):
    write_parquet(tmp_path / "a" / "train-00000-of-00003.parquet", [0, 1])
    write_parquet(tmp_path / "b" / "train-00001-of-00003.parquet", [1, 0])
    dataset = open_dataset(f"parquet:{tmp_path}")
    assert dataset.labels["train"].tolist() == [0, 1, 1, 0]
    assert "split train: 2 of its 3 files are there" in dataset.notes
    write_parquet(tmp_path / "b" / "train-00002-of-00003.parquet", [1, 0])
    assert open_dataset(f"parquet:{tmp_path}").notes == ()


def test_what_names_do_not_say_is_said(tmp_path):
    for name in ("a", "b"):
        write_parquet(tmp_path / f"{name}.parquet", [0, 1])
    assert "all 2 are for training" in open_dataset(f"parquet:{tmp_path}").notes[0]
    write_parquet(tmp_path / "train.parquet", [0, 1])
    write_parquet(tmp_path / "train_old.parquet", [0, 1])
    assert (
        "split train is read from train.parquet and train_old.parquet alike"
        in open_dataset(f"parquet:{tmp_path}").notes
    )


def test_classes_that_no_image_has_are_said(tmp_path):
    write_parquet(tmp_path / "train.parquet", [1, 2, 3])
    assert open_dataset(f"parquet:{tmp_path}").notes == ("split train has no images of class '0'",)


FOLDERS = {
    "capitals": ("Train", "VAL", "Test"),
    "sets": ("training_set", "dev_set", "test_set"),
    "a folder in a folder": ("seg_train/seg_train", "seg_dev/seg_dev", "seg_test/seg_test"),
    "the same again": ("train/train", "valid/valid", "test/test"),
    "partitions": ("split=training", "split=validation", "split=testing"),
    "glued": ("traindata", "valdata", "testdata"),
}


@pytest.mark.parametrize("folders", FOLDERS.values(), ids=FOLDERS)
def test_folders_of_splits_as_people_name_them(tmp_path, folders):
    root = tmp_path / "test-train"  # above the data nothing counts
    write_folders(root, folders)
    dataset = open_dataset(f"imagefolder:{root}")
    assert dataset.class_names == WNIDS
    assert {split: labels.tolist() for split, labels in dataset.labels.items()} == {
        split: [0, 0, 1, 1, 2, 2] for split in ("train", "val", "test")
    }
    for split, folder in zip(("train", "val", "test"), folders, strict=True):
        assert read(dataset, split, [0])[0].name.startswith(f"{root}/{folder}/")


def test_folders_beside_those_of_the_splits_are_said_not_read(tmp_path):
    write_folders(tmp_path, ("train", "train_extra", "val", "train_val"))
    write_image(tmp_path / "test1" / "1.jpg", pixels(1)[0])
    (tmp_path / "annotations").mkdir()
    dataset = open_dataset(f"imagefolder:{tmp_path}")
    assert {split: len(labels) for split, labels in dataset.labels.items()} == {"train": 6, "val": 6}
    assert dataset.notes == tuple(f"folder {name} is left out" for name in ("test1", "train_extra", "train_val"))
    with pytest.raises(UserError, match="no folder train/ in it; it has ILSVRC"):
        write_folders(tmp_path / "above" / "ILSVRC")
        open_dataset(f"imagenet:{tmp_path / 'above'}")


def test_classes_may_have_the_names_of_splits(tmp_path):
    for split in ("train", "test"):
        for name in ("train", "test")[: 1 if split == "test" else 2]:
            write_image(tmp_path / split / name / "0.jpg", pixels(1)[0])
    (tmp_path / "test" / "train").rename(tmp_path / "test" / "test")
    dataset = open_dataset(f"imagefolder:{tmp_path}")
    assert dataset.class_names == ("test", "train")
    assert dataset.labels["test"].tolist() == [0]
