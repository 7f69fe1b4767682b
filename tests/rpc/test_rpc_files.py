"""Files that the configuration names are read without waiting, and only so much of them."""

import os

import pytest

from broker.rpc.files import read_regular


def test_a_regular_file_is_read(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    assert read_regular(file) == b"abc"
    assert read_regular(file, 3) == b"abc"


def test_a_file_that_is_too_large_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"abcd")
    with pytest.raises(OSError, match="more than 3 bytes"):
        read_regular(file, 3)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "device", "directory", "nothing"])
def test_what_is_no_regular_file_is_refused_at_once(kind, tmp_path):
    path = tmp_path / "it"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    with pytest.raises(OSError):
        read_regular(path)
