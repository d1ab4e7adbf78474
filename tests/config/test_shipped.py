"""Configs that come with apdet are found by name, and their data from where one works."""

from pathlib import Path

import pytest
from conftest import CONFIGS, exit_message

from apdet.cli.train import main
from apdet.config import load_config, read_config
from apdet.config.shipped import SHIPPED_CONFIGS, find_config, is_shipped
from apdet.errors import UserError


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A working folder, with no other place for data than its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    return tmp_path


def roots(cfg):
    return {entry["root"] for entry in cfg.DATASETS.REGISTER}


def test_a_shipped_config_is_found_by_its_name(workplace):
    assert CONFIGS.resolve() == SHIPPED_CONFIGS
    by_name = load_config("digits/retinanet_ap.yaml")
    assert by_name == load_config(CONFIGS / "digits" / "retinanet_ap.yaml")
    assert read_config("lazy/digits_retinanet_ap.py").path == str(
        SHIPPED_CONFIGS / "lazy" / "digits_retinanet_ap.py"
    )
    assert is_shipped(CONFIGS / "digits" / "retinanet_ap.yaml")
    assert find_config("digits/retinanet_app.yaml") is None


def test_a_config_of_the_user_wins_over_a_shipped_one_of_the_same_name(workplace):
    Path("digits").mkdir()
    Path("digits", "retinanet_ap.yaml").write_text("SEED: 123")
    assert load_config("digits/retinanet_ap.yaml").SEED == 123


def test_a_base_is_the_users_own_or_else_a_shipped_one(workplace):
    leaf = workplace / "mine" / "leaf.yaml"
    leaf.parent.mkdir()
    leaf.write_text("_BASE_: Base-RetinaNet-AP.yaml\nSEED: 5")
    cfg = load_config(leaf)
    assert (cfg.SEED, cfg.MODEL.META_ARCHITECTURE) == (5, "RankingRetinaNet")
    (leaf.parent / "Base-RetinaNet-AP.yaml").write_text("OUTPUT_DIR: elsewhere")
    cfg = load_config(leaf)
    assert (cfg.OUTPUT_DIR, cfg.MODEL.META_ARCHITECTURE) == ("elsewhere", "GeneralizedRCNN")


def test_of_several_bases_the_later_ones_are_over_the_earlier(workplace):
    (workplace / "a.yaml").write_text("SEED: 1\nVIS_PERIOD: 1")
    (workplace / "b.yaml").write_text("SEED: 2\nSOLVER: {MAX_ITER: 2}")
    (workplace / "c.yaml").write_text("_BASE_: [a.yaml, b.yaml]\nSOLVER: {BASE_LR: 3.0}")
    cfg = load_config("c.yaml")
    assert (cfg.SEED, cfg.VIS_PERIOD, cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (2, 1, 2, 3.0)


@pytest.mark.parametrize("base", ["gone.yaml", "3", "[[a]]"])
def test_a_base_that_is_not_there_is_named_with_the_file_that_asks_for_it(workplace, base):
    (workplace / "leaf.yaml").write_text(f"_BASE_: {base}")
    with pytest.raises(UserError, match=r"leaf\.yaml: its _BASE_ .*: no such config file"):
        load_config("leaf.yaml")


def test_a_key_cannot_be_a_mapping_here_and_a_value_in_the_base(workplace):
    (workplace / "a.yaml").write_text("SOLVER: 1")
    (workplace / "b.yaml").write_text("_BASE_: a.yaml\nSOLVER: {MAX_ITER: 2}")
    with pytest.raises(UserError, match=r"b\.yaml: SOLVER is a mapping here and a value in a _BA"):
        load_config("b.yaml")


def test_data_of_shipped_configs_starts_from_the_working_folder_or_the_environment(
    workplace, monkeypatch
):
    assert roots(load_config("digits/retinanet_ap.yaml")) == {
        str(workplace / "datasets" / "digits")
    }
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data")
    assert roots(load_config("digits/retinanet_ap.yaml")) == {"/data/digits"}
    lazy = read_config("lazy/digits_retinanet_ap.py").content
    assert {entry["root"] for entry in lazy.datasets.register} == {"/data/digits"}


def test_without_the_data_the_error_names_the_folder_that_is_missing(workplace):
    message = exit_message(main, ["--config-file", "digits/retinanet_ap.yaml", "--dry-run"])
    assert f"{workplace}/datasets/digits: no such folder" in message
