import os
import pickle
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn

from apdet.checkpoint import Checkpointer, load_array_pickle
from apdet.errors import UserError


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


def model(num_classes=3):
    return nn.ModuleDict({"backbone": nn.Linear(4, 5), "head": nn.Linear(5, num_classes)})


def weights_of(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


@pytest.mark.parametrize("suffix", ["pkl", "pth", "pyth"])
def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, suffix):
    witness, path = tmp_path / "witness", tmp_path / f"evil.{suffix}"
    evil = {"model": {"backbone.weight": Attack(witness)}, "__author__": "evil"}
    if suffix == "pkl":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, path)
    with pytest.raises(UserError, match=rf"evil\.{suffix}: not a"):
        Checkpointer(model()).load(str(path))
    assert not witness.exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_model_zoo_pickle_loads_as_detectron2_loads_it(tmp_path, protocol):
    source, path = model(), tmp_path / "zoo.pkl"
    arrays = {key: value.numpy() for key, value in source.state_dict().items()}
    arrays["scalar"] = np.float32(1.5)
    data = {"model": arrays, "__author__": "Detectron2 Model Zoo"}
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    np.testing.assert_equal(load_array_pickle(str(path)), data)
    del arrays["scalar"]
    path.write_bytes(pickle.dumps(data, protocol=protocol))

    target = model()
    Checkpointer(target).load(str(path))
    torch.testing.assert_close(weights_of(target), weights_of(source))


def test_a_caffe2_pickle_is_matched_by_detectron2s_heuristics(tmp_path):
    path = tmp_path / "R.pkl"
    weight = np.ones((5, 4), dtype=np.float32)
    path.write_bytes(pickle.dumps({"blobs": {"backbone_w": weight, "backbone_w_momentum": weight}}))
    target = model()
    Checkpointer(target).load(str(path))
    assert (target["backbone"].weight == 1).all()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x80\x04\x95", b"<html>"])
@pytest.mark.parametrize("suffix", ["pkl", "pth"])
def test_a_broken_file_is_named(tmp_path, suffix, content):
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"broken\.{suffix}"):
        Checkpointer(model()).load(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.pth: no such checkpoint"):
        Checkpointer(model()).load(str(tmp_path / "gone.pth"))


def test_weights_that_cannot_be_downloaded_are_named(monkeypatch):
    checkpointer = Checkpointer(model())

    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(checkpointer.path_manager, "get_local_path", offline)
    with pytest.raises(UserError, match=r"R-50\.pkl: cannot be read: .*no route.* by hand"):
        checkpointer.load("detectron2://ImageNetPretrained/MSRA/R-50.pkl")


@pytest.mark.parametrize("url", ["foo://weights.pth", "catalog://no_such_model"])
def test_an_address_that_means_nothing_is_named(url):
    with pytest.raises(UserError, match=f"^{url}: cannot be read"):
        Checkpointer(model()).load(url)


def test_the_name_of_a_folder_may_have_a_question_mark(tmp_path):
    folder = tmp_path / "which one?a=b#c"
    folder.mkdir()
    saved, loaded = model(), model()
    Checkpointer(saved, str(folder)).save("model")
    Checkpointer(loaded, str(folder)).resume_or_load("")
    torch.testing.assert_close(weights_of(loaded), weights_of(saved))


def test_another_class_count_is_an_error_that_lists_the_weights(tmp_path):
    Checkpointer(model(7), str(tmp_path)).save("seven")
    path, target = str(tmp_path / "seven.pth"), model(3)
    with pytest.raises(UserError, match=r"head\.weight: \(7, 5\) there, \(3, 5\) here"):
        Checkpointer(target).load(path)
    Checkpointer(target, allow_mismatch=True).load(path)
    saved = torch.load(path, weights_only=True)["model"]
    torch.testing.assert_close(target["backbone"].weight.data, saved["backbone.weight"])


def test_a_backbone_alone_starts_a_training_but_cannot_be_evaluated(tmp_path):
    backbone = nn.ModuleDict({"backbone": nn.Linear(4, 5)})
    Checkpointer(backbone, str(tmp_path)).save("backbone")
    path, target = str(tmp_path / "backbone.pth"), model()
    Checkpointer(target).load(path)
    torch.testing.assert_close(target["backbone"].weight, backbone["backbone"].weight)
    with pytest.raises(UserError, match="head") as caught:
        Checkpointer(target).load(path, strict=True)
    assert "2 weights that the checkpoint lacks: head.weight, head.bias" in str(caught.value)
    assert "Use the config that it was trained with" in str(caught.value)


def test_weights_that_are_not_finite_are_not_saved_over_good_ones(tmp_path):
    module = model()
    checkpointer = Checkpointer(module, str(tmp_path))
    checkpointer.save("model")
    good = weights_of(module)
    with torch.no_grad():
        module["head"].weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"1 weights .* head\.weight the first"):
        checkpointer.save("model")
    saved = torch.load(checkpointer.get_checkpoint_file(), weights_only=True)["model"]
    torch.testing.assert_close(saved, good)


def test_an_interrupted_save_leaves_the_former_checkpoint(tmp_path, monkeypatch):
    module = model()
    checkpointer = Checkpointer(module, str(tmp_path))
    checkpointer.save("model")

    def half_a_file(data, file):
        file.write(b"PK half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half_a_file)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save("model")
    monkeypatch.undo()
    target = model()
    Checkpointer(target, str(tmp_path)).resume_or_load("", resume=True)
    torch.testing.assert_close(weights_of(target), weights_of(module))
