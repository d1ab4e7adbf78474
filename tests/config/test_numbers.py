"""Values have the type of their key and lie in its range, or are refused with the key."""

import pytest
from conftest import CONFIGS

from apdet.config import load_config, read_config
from apdet.config.lazy import load_lazy_config
from apdet.config.ranges import LAZY, YAML, YAML_LISTS
from apdet.errors import UserError

EXAMPLE = str(CONFIGS / "lazy" / "digits_retinanet_ap.py")


@pytest.fixture
def load(tmp_path):
    """Load a config with one key, from a file or from the command line."""

    def load(key, value, *, by_file=True):
        path = tmp_path / "c.yaml"
        *parents, name = key.split(".")
        text = "".join(f"{'  ' * i}{parent}:\n" for i, parent in enumerate(parents))
        path.write_text(f"{text}{'  ' * len(parents)}{name}: {value}\n" if by_file else "SEED: 1")
        return load_config(path, [] if by_file else [key, value])

    return load


@pytest.mark.parametrize("by_file", [True, False])
def test_a_number_is_taken_in_every_spelling(load, by_file):
    solver = load("SOLVER.BASE_LR", "1e-3", by_file=by_file).SOLVER
    assert solver.BASE_LR == 1e-3
    assert load("SOLVER.BASE_LR", "'0.01'", by_file=True).SOLVER.BASE_LR == 0.01
    one = load("SOLVER.BASE_LR", "1", by_file=by_file).SOLVER.BASE_LR
    assert (one, type(one)) == (1, float)
    many = load("SOLVER.MAX_ITER", "1e3", by_file=by_file).SOLVER.MAX_ITER
    assert (many, type(many)) == (1000, int)
    steps = load("SOLVER.STEPS", "[1e3, 2000]", by_file=by_file).SOLVER.STEPS
    assert list(steps) == [1000, 2000]
    assert {type(step) for step in steps} == {int}
    assert load("MODEL.WEIGHTS", "null").MODEL.WEIGHTS == ""  # as ever


@pytest.mark.parametrize("by_file", [True, False])
@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("SOLVER.BASE_LR", "", "a number"),
        ("SOLVER.BASE_LR", "fast", "a number"),
        ("SOLVER.BASE_LR", "True", "a number"),
        ("SOLVER.MAX_ITER", "010", "a whole number"),
        ("SOLVER.MAX_ITER", "1:30", "a whole number"),
        ("SOLVER.MAX_ITER", "1.5", "a whole number"),
        ("SOLVER.STEPS", "7", "a list"),
        ("INPUT.SSD_AUGMENTATION", "1", "True or False"),
        ("OUTPUT_DIR", "2024", "a text"),
        ("DATASETS.TEST", "digits_test", "a list"),
        ("MODEL", "3", "a mapping"),
    ],
)
def test_a_value_of_another_type_is_refused_in_one_short_line(load, by_file, key, value, wanted):
    value = value or ("null" if by_file else "None")
    with pytest.raises(UserError, match=f"{key} is .*; give {wanted}") as caught:
        load(key, value, by_file=by_file)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("SOLVER.BASE_LR", value) for value in (".nan", ".inf", "-0.1", "0.0")],
        *[("SOLVER.MAX_ITER", value) for value in ("0", "-5")],
        *[("SOLVER.CHECKPOINT_PERIOD", value) for value in ("0", "-1")],
        *[("SOLVER.IMS_PER_BATCH", value) for value in ("0", "-4")],
        *[("SOLVER.STEPS", value) for value in ("[0]", "[a]", "[2.5]", "[5, 5]", "[7, 5]")],
        ("SOLVER.WARMUP_ITERS", "-1"),
        ("SOLVER.MOMENTUM", "1.5"),
        ("SOLVER.REFERENCE_WORLD_SIZE", "-1"),
        ("TEST.EVAL_PERIOD", "-1"),
        ("TEST.DETECTIONS_PER_IMAGE", "0"),
        ("TEST.AUG.MIN_SIZES", "[0]"),
        ("DATALOADER.NUM_WORKERS", "-1"),
        ("SEED", "4294967296"),
    ],
)
def test_an_impossible_number_is_refused_when_the_config_is_read(load, key, value):
    with pytest.raises(UserError, match=f"{key} (is|holds) "):
        load(key, value)


def test_keys_that_do_not_fit_each_other_are_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("SOLVER: {MAX_ITER: 10, STEPS: [10]}")
    with pytest.raises(UserError, match=r"SOLVER\.STEPS holds SOLVER\.MAX_ITER, 10"):
        load_config(path)
    path.write_text("SOLVER: {LR_SCHEDULER_NAME: WarmupCosineLR, BASE_LR: 0.1, BASE_LR_END: 0.2}")
    with pytest.raises(UserError, match=r"BASE_LR_END is 0\.2; it cannot be above SOLVER\.BASE_LR"):
        load_config(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_iter=0", "train.max_iter is 0; give a whole number of at least 1"),
        ("train.max_iter=true", "train.max_iter is True; give a whole number"),
        ("train.checkpointer.period=-1", "train.checkpointer.period is -1"),
        ("train.checkpointer=null", "train.checkpointer.period is None"),
        ("train.eval_period=-1", "train.eval_period is -1"),
        ("train.log_period=0", "train.log_period is 0"),
        ("optimizer.lr=nan", "optimizer.lr is nan; give a number above 0"),
        ("optimizer.lr=-0.1", "optimizer.lr is -0.1"),
        ("dataloader.train.total_batch_size=0", "dataloader.train.total_batch_size is 0"),
        ("dataloader.test.num_workers=-1", "dataloader.test.num_workers is -1"),
        ("train.max_iter='${gone}'", "cannot be read .*gone"),
    ],
)
def test_an_impossible_number_of_a_python_config_is_refused(override, message):
    with pytest.raises(UserError, match=message):
        load_lazy_config(EXAMPLE, [override])


def test_every_key_with_a_range_exists_and_its_default_is_allowed(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("SEED: 1")
    cfg = load_config(path)  # checks all defaults
    for key in [*YAML, *YAML_LISTS]:
        node = cfg
        for part in key.split("."):
            node = node[part]
    lazy = load_lazy_config(EXAMPLE)
    for key in LAZY:
        *parents, name = key.split(".")
        node = lazy
        for part in parents:
            node = node[part]
        assert name in node, key


def test_the_last_of_several_values_on_the_command_line_counts_and_the_log_says_so(config, caplog):
    overrides = ["SOLVER.BASE_LR", "0.1", "SEED", "3", "SOLVER.BASE_LR", "0.2"]
    plan = read_config(config, overrides).plan()
    assert plan.schedule.base_lr == 0.2
    said = [r.message for r in caplog.records if "command line" in r.message]
    assert said == ["The command line gives several values of SOLVER.BASE_LR; the last one counts"]
    lazy = read_config(EXAMPLE, ["optimizer.lr=0.1", "optimizer.lr=0.2"])
    assert (lazy.content.optimizer.lr, lazy.repeated) == (0.2, ["optimizer.lr"])
