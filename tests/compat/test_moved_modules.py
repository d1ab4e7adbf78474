"""Modules and names of 0.1 by their former paths."""

import importlib
import importlib.util
import json
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.utils.registry import locate

from apdet.compat import renamed
from apdet.compat.moved_modules import MOVED, REMOVED

# {module of 0.1: its functions and classes, and what packages import}
PUBLIC_NAMES = json.loads(
    (Path(__file__).parents[1] / "artefacts_0_1" / "public_names.json").read_text()
)
# What 0.1 had for a whole config or for itself alone, and what does its work now, if anything does.
GONE = {
    "apdet.checkpoint.build_checkpointer": "apdet.checkpoint.Checkpointer",
    "apdet.class_transfer.training_classes": "apdet.checkpoint.training_classes",
    "apdet.class_transfer.weights_classes": "apdet.checkpoint.resolve_weights_classes",
    "apdet.data.augmentation.build_augmentation": "apdet.data.augmentation.training_augmentation",
    "apdet.data.coco.load_coco": "apdet.data.coco.read_coco",
    "apdet.data.digits.Source": "",
    "apdet.data.register.register_datasets": "apdet.config.datasets.register_datasets",
    "apdet.evaluation.write_report": "apdet.report.write_report",
    "apdet.lazy_config.as_yaml_config": "",
    "apdet.lazy_config.in_lazy_names": "apdet.config.names.naming",
    "apdet.losses.binning.BinnedScores": "apdet.losses.ranking.binning.binned_scores.BinnedScores",
    "apdet.losses.binning.Searched": "apdet.losses.ranking.binning.search.SearchedScores",
    "apdet.losses.checks.fault_of": "apdet.losses.checks.find_error",
    "apdet.losses.compiled.Compiled": "apdet.losses.ranking.binning.compiled.CompiledScores",
    "apdet.losses.grid.Gridded": "apdet.losses.ranking.binning.gridded.GriddedScores",
    "apdet.losses.grid.below": "apdet.losses.ranking.binning.gridded.below",
    "apdet.losses.rank_sums.blame_sums": "apdet.losses.ranking.rank_sums.Windows",
    "apdet.losses.rank_sums.rank_sums": "apdet.losses.ranking.rank_sums.Windows",
    "apdet.modeling.dense.decode_levels": "apdet.modeling.RankingDenseDetector",
    "apdet.modeling.dense.dense_kwargs": "apdet.modeling.RankingDenseDetector",
    "apdet.modeling.dense.detect": "apdet.modeling.RankingDenseDetector",
    "apdet.modeling.dense.first_normalizer": "apdet.modeling.RankingDenseDetector",
    "apdet.modeling.dense.level_thresholds": "apdet.modeling.RankingDenseDetector",
    "apdet.modeling.dense.update_normalizer": "apdet.modeling.RankingDenseDetector",
    "apdet.modeling.named_loss.is_softmax": "apdet.losses.interface.interface_of",
    "apdet.modeling.test_time_augmentation.merge": "apdet.modeling.dense_tta.merge",
}


@pytest.fixture
def forget():
    """Forget the former paths, so that importing one works as for the first time."""

    def forget_former_paths():
        for former in MOVED:
            sys.modules.pop(former, None)
            parent, _, name = former.rpartition(".")
            if parent in sys.modules:
                vars(sys.modules[parent]).pop(name, None)

    forget_former_paths()
    yield
    forget_former_paths()


@pytest.mark.parametrize("former", MOVED)
def test_a_former_path_gives_the_present_module_itself_and_a_warning(former, forget):
    if MOVED[former].endswith("numba_kernels"):
        pytest.importorskip("numba")
    present = importlib.import_module(MOVED[former])
    name, spec = present.__name__, present.__spec__
    with pytest.warns(DeprecationWarning, match=f"{former} is now {MOVED[former]}"):
        module = importlib.import_module(former)
    assert module is present
    assert sys.modules[former] is present
    parent, _, attribute = former.rpartition(".")
    assert getattr(sys.modules[parent], attribute) is present
    # The present module does not take on the identity of the former one.
    assert (module.__name__, module.__spec__) == (name, spec)


def test_every_form_of_import_works_and_the_warning_is_of_the_line_that_imports(forget):
    from apdet.losses.ranking import steps as present

    with pytest.warns(DeprecationWarning, match=r"apdet\.losses\.steps is now") as warned:
        import apdet.losses.steps as former
    assert warned[0].filename == __file__
    from apdet.losses import steps
    from apdet.losses.steps import build_step

    assert former is steps is present
    assert build_step is present.build_step


def test_a_class_by_its_former_dotted_name_is_located(forget):
    from apdet.modeling.backbones.vgg import SSDVGG16

    with pytest.warns(DeprecationWarning, match=r"is now apdet\.modeling\.backbones\.vgg"):
        assert pydoc.locate("apdet.modeling.vgg.SSDVGG16") is SSDVGG16
    assert locate("apdet.modeling.vgg.SSDVGG16") is SSDVGG16


@pytest.mark.parametrize("former", REMOVED)
def test_a_module_without_successor_says_what_to_use(former):
    with pytest.raises(ModuleNotFoundError, match=f"{former} of apdet 0.1 is gone: "):
        importlib.import_module(former)


def test_a_module_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'apdet\.never_was'"):
        importlib.import_module("apdet.never_was")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_public_names_of_0_1_are_where_they_were(module):
    if module in REMOVED:
        pytest.skip("announced by the module itself")
    if module.endswith("native_kernels"):
        pytest.importorskip("numba")
    imported = importlib.import_module(module)
    missing = [
        name
        for name in PUBLIC_NAMES[module]
        if f"{module}.{name}" not in GONE and not hasattr(imported, name)
    ]
    assert missing == []


@pytest.mark.parametrize("successor", sorted({name for name in GONE.values() if name}))
def test_what_does_the_work_of_a_name_that_is_gone_exists(successor):
    assert pydoc.locate(successor) is not None


def test_importing_apdet_imports_neither_torch_nor_detectron2():
    code = """
import sys, apdet
heavy = {"torch", "detectron2", "numpy", "omegaconf"} & set(sys.modules)
assert not heavy, heavy
assert {name for name in sys.modules if name.startswith("apdet")} == {
    "apdet", "apdet.compat", "apdet.compat.renamed", "apdet.compat.moved_modules"
}
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_former_name_in_a_module_gives_the_present_object_and_a_warning(monkeypatch):
    module = type(sys)("module_of_a_test")
    module.present = object()
    module.__getattr__ = renamed("module_of_a_test", former="present", moved="pydoc.locate")
    monkeypatch.setitem(sys.modules, "module_of_a_test", module)
    with pytest.warns(DeprecationWarning, match=r"module_of_a_test\.former is now present"):
        assert module.former is module.present
    with pytest.warns(DeprecationWarning, match=r"module_of_a_test\.moved is now pydoc\.locate"):
        assert module.moved is pydoc.locate
    with pytest.raises(AttributeError, match=r"'module_of_a_test' has no attribute 'other'"):
        _ = module.other
