import logging
import re

import pytest
import torch

from apdet.checkpoint.run_folder import (
    find_checkpoint,
    holds_run,
    remove_old_checkpoints,
    remove_stale_files,
)
from apdet.errors import UserError


@pytest.fixture
def run(tmp_path):
    """A folder with the checkpoints of a finished training."""
    for name, iteration in (("0000003", 3), ("0000007", 7), ("best", 3), ("final", 9)):
        torch.save({"model": {}, "iteration": iteration}, tmp_path / f"model_{name}.pth")
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    return tmp_path


def test_the_named_checkpoint_is_taken_even_if_there_is_a_newer_one(run, caplog):
    (run / "last_checkpoint").write_text("model_0000003.pth")
    assert find_checkpoint(run) == run / "model_0000003.pth"
    assert not caplog.records


def test_a_folder_without_checkpoints_holds_no_training(tmp_path):
    (tmp_path / "log.txt").touch()
    (tmp_path / "R-50.pth").touch()  # weights to start from
    assert not holds_run(tmp_path)
    assert find_checkpoint(tmp_path) is None
    assert find_checkpoint(tmp_path / "gone") is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (None, "is missing"),
        ("", "is empty"),
        ("model_0000099.pth", "names 'model_0000099.pth', which does not exist"),
        ("../other/model_final.pth", "which is not a file in this folder"),
        ("/tmp/model_final.pth", "which is not a file in this folder"),
        ("model\0.pth", "which is not a file in this folder"),
        ("..", "which does not exist"),
        ("m" * 300, "which does not exist"),
    ],
)
def test_without_a_useful_name_the_newest_checkpoint_is_taken(run, caplog, name, problem):
    tag = run / "last_checkpoint"
    tag.unlink() if name is None else tag.write_text(name)
    with caplog.at_level(logging.WARNING):
        assert holds_run(run)
        assert find_checkpoint(run) == run / "model_final.pth"
    (record,) = caplog.records
    assert problem in record.message
    assert "model_final.pth" in record.message


def damage(path, how):
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = bytes(byte ^ 255 for byte in content[middle : middle + 16])
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[:middle],
            "flipped": content[:middle] + flipped + content[middle + 16 :],
        }[how]
    )


@pytest.mark.parametrize("how", ["empty", "cut", "flipped"])
def test_a_broken_checkpoint_is_passed_over_for_the_newest_whole_one(tmp_path, caplog, how):
    for iteration in (3, 7, 11):
        weights = {"w": torch.full((1000,), iteration)}
        torch.save({"model": weights}, tmp_path / f"model_{iteration:07d}.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000011.pth")
    damage(tmp_path / "model_0000011.pth", how)
    with caplog.at_level(logging.WARNING):
        assert find_checkpoint(tmp_path) == tmp_path / "model_0000007.pth"
    assert re.search(r"model_0000011.pth: .*Going on from the newest whole", caplog.text)
    damage(tmp_path / "model_0000007.pth", how)
    assert find_checkpoint(tmp_path) == tmp_path / "model_0000003.pth"
    damage(tmp_path / "model_0000003.pth", how)
    with pytest.raises(UserError, match="holds no other whole checkpoint"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [[1], 3, torch.ones(2), {"model": [1]}, {"foo": {}}])
def test_a_file_of_other_content_is_no_checkpoint(tmp_path, content):
    torch.save({"model": {"w": torch.ones(3)}}, tmp_path / "model_0000003.pth")
    for name in ("best", "final"):
        torch.save(content, tmp_path / f"model_{name}.pth")
    assert find_checkpoint(tmp_path) == tmp_path / "model_0000003.pth"


def test_a_name_without_any_checkpoint_is_an_error(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_0000007.pth")
    with pytest.raises(UserError, match=r"model_0000007\.pth', which does not exist\. "):
        find_checkpoint(tmp_path)


def test_old_periodic_checkpoints_are_removed_but_never_the_named_one(tmp_path):
    names = [f"model_{i:07d}.pth" for i in (3, 7, 11, 15)] + ["model_best.pth", "model_final.pth"]
    for name in [*names, "model_zoo.pth"]:
        (tmp_path / name).touch()
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    remove_old_checkpoints(tmp_path, keep=2)
    left = {path.name for path in tmp_path.glob("*.pth")}
    assert left == {*names, "model_zoo.pth"} - {"model_0000007.pth"}


def test_only_incomplete_checkpoints_are_stale(tmp_path):
    stale = {"model_0000009.pth.71.tmp", "model_best.pth.tmp"}
    stale |= {"last_checkpoint.71.tmp", "last_checkpoint.tmp"}
    for name in (*stale, "model_0000003.pth", "notes.tmp"):
        (tmp_path / name).touch()
    remove_stale_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model_0000003.pth", "notes.tmp"}
