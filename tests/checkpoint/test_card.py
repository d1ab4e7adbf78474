"""What a model file says of its model."""

import pytest
import torch

from apdet import __version__
from apdet.checkpoint.card import CARD, ModelCard, read_card, write_card
from apdet.errors import UserError

CARDS = [
    ModelCard(),
    ModelCard(config="MODEL: {}\n", metrics={"bbox/AP": 48.7}, evaluated_on="cells_val"),
    ModelCard(calibration={"": [1.0, 0.0, -2.5], "cat": [0.5, 2, 0]}),
    ModelCard(threshold=0.25, class_thresholds={"cat": 0.5, "../dog": 0.125}),
]


@pytest.mark.parametrize("card", CARDS)
def test_a_card_is_read_as_it_was_written(card, tmp_path):
    torch.save({CARD: card.content()}, tmp_path / "model.pth")
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    assert read_card(content, "model.pth") == card
    assert card.version == __version__


def test_a_file_without_a_card_is_one_of_another_program():
    assert read_card({"model": {}}, "model.pth") is None


@pytest.mark.parametrize(
    "change",
    [
        {"config": 3},
        {"config": None},
        {"version": ["1"]},
        {"threshold": "0.5"},
        {"threshold": True},
        {"metrics": [1.0]},
        {"metrics": {"AP": "high"}},
        {"class_thresholds": {3: 0.5}},
        {"class_thresholds": {"cat": None}},
        {"calibration": {"": [1.0, 0.0]}},
        {"calibration": {"": [0.0, 0.0, 1.0]}},
        {"calibration": {"": [-1.0, 2.0, 1.0]}},
        {"calibration": {"": [1.0, float("nan"), 1.0]}},
        {"calibration": {"": [1.0, 1.0, "c"]}},
        {"calibration": [1.0, 1.0, 1.0]},
        {3: "three"},
    ],
)
def test_a_damaged_card_is_refused(change):
    content = {**ModelCard(version="9.1").content(), **change}
    with pytest.raises(UserError, match=r"^model\.pth: what it says of its model cannot be read"):
        read_card({CARD: content}, "model.pth")
    with pytest.raises(UserError, match="written by another program"):
        read_card({CARD: "a text"}, "model.pth")


def test_a_card_of_a_later_version_may_say_more():
    content = {**CARDS[3].content(), "colours": {"cat": "red"}}
    assert read_card({CARD: content}, "model.pth") == CARDS[3]


def test_writing_a_card_changes_nothing_else(tmp_path):
    path = tmp_path / "model.pth"
    before = {"model": {"weight": torch.randn(3)}, "iteration": 7, CARD: CARDS[0].content()}
    torch.save(before, path)
    write_card(path, CARDS[3])
    after = torch.load(path, weights_only=True)
    assert after.pop(CARD) == CARDS[3].content()
    assert after["model"]["weight"].equal(before["model"]["weight"])
    assert after["iteration"] == 7
    assert after.keys() == {"model", "iteration"}


def test_a_card_that_is_there_is_not_written_again(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({CARD: CARDS[1].content()}, path)
    before = path.stat()
    write_card(path, CARDS[1])
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime_ns == before.st_mtime_ns
