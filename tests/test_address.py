"""What names a place, and what does not; that an address has the parts of a path."""

import pickle
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ice_ray.address import Address, LocalPath, storage_path
from ice_ray.errors import UserError

NAMES = st.text("abc.-_ é%?", min_size=1, max_size=8).filter(lambda name: name not in (".", "..") and "?" not in name)


@pytest.mark.parametrize("text", ["runs", "/data/runs", "a b/c", "", "s3", "c:x"])
def test_what_is_no_address_is_a_path(text):
    assert storage_path(text) == Path(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [("file:///data/my%20runs", "/data/my runs"), ("file://localhost/a", "/a"), ("file:///", "/")],
)
def test_a_file_s_address_is_a_plain_path(text, path):
    assert storage_path(text) == Path(path)
    assert isinstance(storage_path(text), LocalPath)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("ftp://host/x", "unknown kind of address 'ftp'"),
        ("hdfs://host/x", "unknown kind of address 'hdfs'"),
        ("s3:/bucket", "unknown kind of address 's3'"),
        ("s3://", "unknown kind of address 's3'"),
        ("s3:///x", "is no address"),
        ("s3://bucket//x", "is no address"),
        ("s3://bucket/../x", "is no address"),
        ("gs://bucket/a\nb", "is no address"),
        ("file://host/x", "is no folder of this machine"),
        ("s3://bucket/x?access_key=sesame", "not 'access_key'"),
        ("gs://bucket/x?region=eu", "not 'region'"),
        ("s3://user:sesame@bucket/x", "a user or a password"),
        ("s3://user:ses/ame@bucket/x", "a user or a password"),
        ("s3://bucket/x?endpoint_override=user:sesame@host", "a user or a password"),
        ("ftp://user:sesame@host/x", "a user or a password"),
        ("file://user:sesame@localhost/x", "a user or a password"),
    ],
)
def test_what_is_no_place_is_refused_and_no_password_repeated(text, fault):
    with pytest.raises(UserError, match=fault) as refusal:
        storage_path(text)
    assert "ame" not in str(refusal.value).replace("name", "")


@given(parts=st.lists(NAMES, min_size=1, max_size=4))
def test_its_parts_are_those_of_a_path(parts):
    path, address = PurePosixPath("bucket", *parts), storage_path("s3://bucket")
    for part in parts:
        address = address / part
    assert (address.name, address.stem, address.suffix) == (path.name, path.stem, path.suffix)
    assert str(address.parent) == f"s3://{path.parent}"
    assert str(address.bucket) == "s3://bucket"
    assert storage_path(str(address)) == address == address.resolve()
    assert pickle.loads(pickle.dumps(address)) == address


def test_how_the_store_is_reached_stays_with_what_lies_below():
    address = storage_path("s3://bucket/runs/?scheme=http&endpoint_override=localhost:9000")
    below = address / "a" / "best.json"
    assert str(below) == "s3://bucket/runs/a/best.json?endpoint_override=localhost%3A9000&scheme=http"
    assert storage_path(str(below)).parent.parent == address
    assert isinstance(below, Address)


def test_a_folder_is_not_asked(tmp_path):
    storage_path(tmp_path / "nowhere").check("--storage")
