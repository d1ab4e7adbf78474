"""Errors name the config keys of arguments: the table is complete and true."""

import ast
import string
from pathlib import Path

import pytest
from conftest import CONFIGS
from detectron2.config import get_cfg

import apdet
from apdet.config import add_apdet_config
from apdet.config.lazy import load_lazy_config
from apdet.config.lazy_plan import lazy_key
from apdet.config.names import SHARED, YAML_ONLY, naming, yaml_key
from apdet.errors import ArgumentError, UserError

PACKAGE = Path(apdet.__file__).parent
EXAMPLE = str(CONFIGS / "lazy" / "digits_retinanet_ap.py")


def named_arguments():
    """ "owner.argument" and the place of each argument that an ArgumentError in apdet names."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for call in _calls(tree):
            template = _template(call)
            if template is None:
                continue
            raising = call if _name(call) == "ArgumentError" else _call_in_helper(tree)
            owner = raising.args[0].value
            values = {keyword.arg for keyword in [*call.keywords, *raising.keywords]}
            for _, field, _, _ in string.Formatter().parse(template):
                if field and field not in values:
                    yield f"{owner}.{field}", f"{path.name}:{call.lineno}"


def _calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _call_in_helper(tree):
    """The call of ArgumentError in a file's helper `_error(template, **values)`."""
    helpers = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "_error"]
    (call,) = [c for c in _calls(helpers[0]) if _name(c) == "ArgumentError"]
    return call


def _name(call):
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def _template(call):
    """The template of an ArgumentError, or of a file's own `_error(template, **values)`."""
    position = {"ArgumentError": 1, "_error": 0}.get(_name(call))
    if position is None or len(call.args) <= position:
        return None
    if _name(call) == "ArgumentError" and not isinstance(call.args[0], ast.Constant):
        return None
    template = call.args[position]
    return template.value if isinstance(template, ast.Constant) else None


def test_every_argument_that_an_error_names_has_a_key():
    places = dict(named_arguments())
    assert len(places) > 15
    missing = {name: place for name, place in places.items() if not yaml_key(*name.split("."))}
    assert not missing


def test_every_key_of_the_table_exists():
    cfg = get_cfg()
    add_apdet_config(cfg)
    for key in [*(yaml for yaml, _ in SHARED.values()), *YAML_ONLY.values()]:
        node = cfg
        for part in key.rpartition(" ")[2].split("."):  # "`classes: [...]` of an entry of KEY"
            assert part in node, key
            node = node[part]
    lazy = load_lazy_config(EXAMPLE)
    for _, key in SHARED.values():
        *parents, last = key.rpartition(" ")[2].split(".")
        node = lazy
        for part in parents:
            node = node[part] if node is not None else None
        assert node is None or last in node, key


def test_an_argument_of_a_python_config_has_the_path_of_its_call():
    cfg = load_lazy_config(EXAMPLE)
    assert lazy_key(cfg, "ClsLoss", "loss") == "model.cls_loss.loss"
    # RankingRetinaNet inherits it from this base.
    assert lazy_key(cfg, "RankingDenseDetector", "loss_normalizer") == "model.loss_normalizer"
    assert lazy_key(cfg, "Checkpointer", "weights") == "train.init_checkpoint"
    assert lazy_key(cfg, "BoxMapper", "image_format") is None  # of training or of test?
    assert lazy_key(cfg, "SSDVGG16", "input_size") is None


@pytest.mark.parametrize(
    ("key_of", "expected"),
    [
        (yaml_key, "MODEL.CLS_LOSS.NAME is '{x}'; or set bins to 3"),
        (lambda owner, argument: None, "loss is '{x}'; or set bins to 3"),
    ],
)
def test_an_error_names_keys_where_there_are_some(key_of, expected):
    error = ArgumentError("ClsLoss", "{loss} is {value!r}; or set {bins} to {count}",
                          value="{x}", count=3)  # fmt: skip
    assert str(error) == "loss is '{x}'; or set bins to 3"
    with pytest.raises(UserError) as caught, naming(key_of):
        raise error
    assert str(caught.value) == expected
