import errno
import subprocess
import sys
from pathlib import Path

import pytest

from apdet.errors import UserError
from apdet.files import naming_file, whole_file


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("former")

    def write_half():
        with whole_file(path) as file:
            file.write(b"half of it")
            file.flush()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "former"
    with whole_file(path) as file:
        file.write(b"new")
        assert path.read_text() == "former"
    assert path.read_text() == "new"
    assert [other.name for other in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_an_error_that_names_the_file_and_the_remedy(full_file):
    with pytest.raises(UserError) as caught, naming_file("metrics.json"):
        Path(full_file).write_text("text")
    message = str(caught.value)
    assert message.startswith("metrics.json: No space left on device; free space, then call again")
    assert "\n" not in message


def test_an_error_that_names_its_own_file_keeps_the_name(tmp_path):
    gone = tmp_path / "gone" / "file"
    with pytest.raises(UserError, match=f"{gone}: No such file or directory"), naming_file("other"):
        gone.write_text("text")


def test_an_error_that_is_not_one_of_files_blames_none():
    with pytest.raises(UserError) as caught, naming_file("output"):
        raise OSError(errno.EMFILE, "Too many open files")
    assert str(caught.value).startswith("Too many open files; raise the limit of open files")


def test_two_processes_may_write_a_file_at_the_same_time(tmp_path):
    path = tmp_path / "results.json"
    code = f"from apdet.files import whole_file\nwith whole_file({str(path)!r}) as file: pass"
    with whole_file(path) as file:
        file.write(b"ours")
        subprocess.run([sys.executable, "-c", code], check=True)
        assert path.read_bytes() == b""
    assert path.read_bytes() == b"ours"


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="a bug"), naming_file("file"):
        raise RuntimeError("a bug")


def test_a_checkpoint_that_grows_too_large_leaves_the_former_one(tmp_path):
    code = f"""
import resource, torch
from torch import nn
from apdet.checkpoint import Checkpointer
checkpointer = Checkpointer(nn.Linear(200, 200), {str(tmp_path)!r})
checkpointer.save("model_0000001")
for limit in (150_000, 50_000, 64):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        checkpointer.save("model_0000001")
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    reason = f"{tmp_path}/model_0000001.pth: File too large; raise the limit of file sizes"
    assert [line.startswith(reason) for line in lines] == [True] * 3
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model_0000001.pth", "last_checkpoint"}
    assert (tmp_path / "model_0000001.pth").stat().st_size > 160_000
