import os
import resource
from contextlib import closing

import pytest

from apdet.errors import UserError
from apdet.inference.progress import PROGRESS, Progress

SETTINGS = {"--threshold": 0.5, "--batch": 2}


def entry(index):
    return {"index": index, "width": 4, "height": 3, "highest": 0.5, "results": []}


def indices_in(folder):
    with closing(Progress(str(folder), SETTINGS)) as progress:
        return [found["index"] for found in progress.entries()]


@pytest.fixture
def folder(tmp_path):
    """A folder with the predictions of three batches, whose images are not in order."""
    with closing(Progress(str(tmp_path), SETTINGS)) as progress:
        for batch in ([1, 4], [0], [2, 3]):
            progress.add([entry(index) for index in batch])
    return tmp_path


def test_entries_come_back_in_the_order_of_the_images(folder):
    assert indices_in(folder) == [0, 1, 2, 3, 4]


def test_wherever_the_file_ends_whole_batches_remain_and_the_rest_can_be_added(folder):
    path = folder / PROGRESS
    whole = path.read_bytes()
    ends = [place for place, byte in enumerate(whole, 1) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        num_lines = sum(end <= size for end in ends)
        expected = [[], [], [], [1, 4], [0, 1, 4], [0, 1, 4], [0, 1, 2, 3, 4]][num_lines]
        assert indices_in(folder) == expected
        with closing(Progress(str(folder), SETTINGS)) as progress:
            assert [index for index in range(5) if index in progress] == expected
            progress.add([entry(7)])
        assert indices_in(folder) == [*expected, 7]


def test_other_settings_are_refused_by_name_and_change_nothing(folder):
    before = (folder / PROGRESS).read_bytes()
    with pytest.raises(UserError, match=r"another --threshold \(0.5, and now it is 0.25\)"):
        Progress(str(folder), {**SETTINGS, "--threshold": 0.25})
    assert (folder / PROGRESS).read_bytes() == before
    assert len(indices_in(folder)) == 5  # the lock is released


@pytest.mark.parametrize("line", [b"\0\0\0\n", b"[]\n", b'{"index": 1}\n', b"3\n"])
@pytest.mark.parametrize("place", [0, 2])
def test_a_broken_line_is_refused(folder, line, place):
    lines = (folder / PROGRESS).read_bytes().splitlines(keepends=True)
    lines[place] = line
    (folder / PROGRESS).write_bytes(b"".join(lines))
    with pytest.raises(UserError, match=r"progress.jsonl: broken after \d+ bytes"):
        Progress(str(folder), SETTINGS)


def test_two_processes_do_not_write_to_one_file(folder):
    with (
        closing(Progress(str(folder), SETTINGS)),
        pytest.raises(UserError, match="in use by another process"),
    ):
        Progress(str(folder), SETTINGS)


def test_a_full_disk_leaves_the_batches_before(folder):
    progress = Progress(str(folder), SETTINGS)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = os.path.getsize(folder / PROGRESS)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 9, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"), closing(progress):
            progress.add([entry(8), entry(9)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.path.getsize(folder / PROGRESS) == size + 9
    assert indices_in(folder) == [0, 1, 2, 3, 4]


def test_a_pipe_in_its_place_is_refused(tmp_path):
    os.mkfifo(tmp_path / PROGRESS)
    with pytest.raises(UserError, match="a named pipe"):
        Progress(str(tmp_path), SETTINGS)
