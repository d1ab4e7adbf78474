import errno
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from apdet.checkpoint import Checkpointer
from apdet.checkpoint.run_folder import find_checkpoint
from apdet.checkpoint.weights_file import read_weights
from apdet.config import read_config
from apdet.config.yaml_file import read_yaml_file
from apdet.data.coco import read_coco
from apdet.data.image import read_image
from apdet.data.image_header import image_size
from apdet.errors import UserError
from apdet.files import check_regular_file, naming_file, whole_file


def test_what_is_no_regular_file_is_refused_by_name(tmp_path):
    pipe, endless, port, file = (tmp_path / name for name in ("pipe", "link", "socket", "file"))
    os.mkfifo(pipe)
    endless.symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(port))
    for path, kind in [
        *((tmp_path, "folder"), (pipe, "named pipe"), (endless, "device"), (port, "socket")),
    ]:
        with pytest.raises(UserError, match=f"^{path}: a {kind}, not a regular file; correct"):
            check_regular_file(path)
    for path in (file, tmp_path / "\0"):
        with pytest.raises(UserError, match=": gone"):
            check_regular_file(path, missing="gone")
    file.write_text("text")
    (tmp_path / "good link").symlink_to(file)
    check_regular_file(tmp_path / "good link")


READERS = {
    "a.pth": lambda path: Checkpointer(nn.Linear(1, 1)).load(path),
    "a.pkl": lambda path: Checkpointer(nn.Linear(1, 1)).load(path),
    "a.onnx": read_weights,
    "a.safetensors": read_weights,
    "a.yaml": read_config,
    "a.py": read_config,
    "b.yaml": read_yaml_file,
    "a.json": lambda path: read_coco(path, os.path.dirname(path)),
    "a.jpg": image_size,
    "b.jpg": lambda path: read_image(path, "BGR"),
    "last_checkpoint": lambda path: find_checkpoint(os.path.dirname(path)),
}


@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_the_end_of_a_pipe(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}:? .*not a regular file"):
        READERS[name](str(tmp_path / name))


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


def test_a_name_in_bytes_is_a_name():
    with pytest.raises(UserError, match=r"^/gone/file: No such file"), naming_file("other"):
        open(b"/gone/file")  # noqa: SIM115


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), OSError("cannot identify x")])
def test_a_folder_is_not_blamed_by_guess_for_an_error_of_an_unknown_file(error):
    with (
        pytest.raises(OSError, match=f"^{re.escape(str(error))}$"),
        naming_file("o", is_guess=True),
    ):
        raise error
    with pytest.raises(UserError, match=r"^metrics\.json: "), naming_file("metrics.json"):
        raise error
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match=r"^output: No space"), naming_file("output", is_guess=True):
        raise full


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
