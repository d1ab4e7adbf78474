"""Files that are broken, or hold anything but weights, are named with what is wrong with them."""

import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from apdet.checkpoint import Checkpointer
from apdet.checkpoint.weights_file import read_weights, read_whole
from apdet.errors import UserError


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


def detector():
    return nn.ModuleDict({"backbone": nn.Linear(40, 50), "head": nn.Linear(50, 3)})


def error_of(path, read=None):
    """The one line with which a file is refused."""
    with pytest.raises(UserError) as caught:
        (read or Checkpointer(detector()).load)(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "weights_only" not in message
    return message


@pytest.fixture
def whole(tmp_path):
    """A checkpoint of a training."""
    model = detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model["head"](model["backbone"](torch.ones(1, 40))).sum().backward()
    optimizer.step()
    Checkpointer(model, str(tmp_path), optimizer=optimizer).save("whole")
    return tmp_path / "whole.pth"


READERS = {"load": None, "read_whole": read_whole, "read_weights": read_weights}


@pytest.mark.parametrize("reader", READERS)
def test_a_whole_checkpoint_is_read(whole, reader):
    (READERS[reader] or Checkpointer(detector()).load)(str(whole))


@pytest.mark.parametrize("reader", READERS)
def test_any_damaged_weight_is_found_by_its_checksum(whole, reader):
    content = whole.read_bytes()
    with zipfile.ZipFile(whole) as archive:
        parts = [part for part in archive.infolist() if "/data/" in part.filename]
    assert len(parts) == 8  # of the weights and of their momentum
    for part in parts:
        lengths = content[part.header_offset + 26 : part.header_offset + 30]
        start = part.header_offset + 30 + sum(struct.unpack("<HH", lengths))
        damaged = bytearray(content)
        damaged[start : start + 4] = b"\x11\x22\x33\x44"
        whole.write_bytes(damaged)
        message = error_of(whole, READERS[reader])
        assert f"its part {part.filename} has another checksum" in message


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("size", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_called_so(whole, reader, size):
    content = whole.read_bytes()
    whole.write_bytes(content[: int(size * len(content))])
    assert "it is truncated" in error_of(whole, READERS[reader])


def test_an_empty_checkpoint_is_called_so(tmp_path):
    (tmp_path / "empty.pth").touch()
    assert "it is empty" in error_of(tmp_path / "empty.pth")


def test_the_checksums_of_files_of_old_versions_of_torch_are_not_asked_for(tmp_path):
    torch.save(detector().state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    Checkpointer(detector()).load(str(tmp_path / "old.pth"))


def write_archive(path, witness):
    torch.save({"model": Attack(witness)}, path)


def write_legacy(path, witness):
    torch.save({"model": Attack(witness)}, path, _use_new_zipfile_serialization=False)


def write_pickle(path, witness):
    path.write_bytes(pickle.dumps({"model": Attack(witness)}))


def write_torchscript(path, witness):
    torch.jit.script(nn.Linear(2, 2)).save(path)


def write_tar(path, witness):
    (path.parent / "storages").touch()
    with tarfile.open(path, "w") as tar:
        tar.add(path.parent / "storages", "storages")


def write_module(path, witness):
    torch.save(nn.Linear(2, 2), path)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (write_archive, r"asks for posix.mkdir"),
        (write_legacy, r"asks for posix.mkdir"),
        (write_pickle, "another format than torch.save"),
        (write_torchscript, "TorchScript archive, which holds code"),
        (write_tar, "tar archive"),
        (write_module, r"asks for torch.nn.modules.linear.Linear"),
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "pyth"])
def test_code_is_not_run_and_nobody_is_told_to_run_it(tmp_path, write, reason, suffix):
    path, witness = tmp_path / f"evil.{suffix}", tmp_path / "witness"
    write(path, witness)
    assert reason in error_of(path)
    assert not witness.exists()


OBJECTS = np.array([None, "a"], dtype=object)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not weights by their names"),
        (torch.ones(3), "holds a Tensor, not weights"),
        ("abc", "holds a str, not weights"),
        (None, "holds a NoneType, not weights"),
        ({"model": [torch.ones(3)]}, "holds a list, not weights"),
        ({"model": "abc"}, "holds a str, not weights"),
        ({"model": None}, "holds a NoneType, not weights"),
        ({"model": torch.ones(3)}, "holds a Tensor, not weights"),
        ({"model": {1: torch.ones(3)}}, "1 is a Tensor, not a weight by its name"),
        ({"model": {"a": "b"}}, "'a' is a str, not a weight by its name"),
        ({"model": {"a": [1.0]}}, "'a' is a list, not a weight"),
        ({"state_dict": {"a": torch.ones(3)}}, "'state_dict' is a dict, not a weight"),
        ({}, "0 of the 0 weights of the file fit the 4 weights of this model"),
        ({"model": {}}, "0 of the 0 weights of the file fit the 4 weights of this model"),
    ],
)
def test_a_pth_file_without_weights_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "odd.pth")
    assert message in error_of(tmp_path / "odd.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not a mapping of weights"),
        ({"blobs": "abc"}, "holds a str, not weights by their names"),
        ({"blobs": {"a": "b"}}, "'a' is a str, not a weight"),
        ({3: np.ones(3)}, "3 is a ndarray, not a weight by its name"),
        ({"a": OBJECTS}, "'a' is no array of numbers"),
        ({"a": np.array(["b", "c"])}, "'a' is no array of numbers"),
        ({"model": [1], "__author__": "x"}, "holds a list, not weights"),
        ({"model": {"a": 1.0}, "__author__": "x"}, "'a' is a float, not a weight"),
    ],
)
def test_a_pickle_without_weights_is_refused(tmp_path, content, message):
    (tmp_path / "odd.pkl").write_bytes(pickle.dumps(content))
    assert message in error_of(tmp_path / "odd.pkl")


@pytest.mark.parametrize("content", [[1], {"model": {}}, {"model_state": "abc"}])
def test_a_pyth_file_without_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "odd.pyth")
    assert "not weights by their names" in error_of(tmp_path / "odd.pyth")


ODD = {
    "sparse": lambda weight: weight.to_sparse(),
    "quantised": lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
    "without values": lambda weight: weight.to("meta"),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("reader", ["load", "read_whole"])
def test_a_tensor_that_is_not_plain_is_refused(tmp_path, odd, reader):
    weights = detector().state_dict()
    weights["head.weight"] = ODD[odd](weights["head.weight"])
    torch.save({"model": weights}, tmp_path / "odd.pth")
    message = error_of(tmp_path / "odd.pth", READERS[reader])
    assert odd in message
    assert "head.weight" in message


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64])
def test_a_weight_that_is_no_real_number_is_refused(tmp_path, kind):
    weights = detector().state_dict()
    weights["head.weight"] = weights["head.weight"].to(kind)
    torch.save({"model": weights}, tmp_path / "odd.pth")
    assert "head.weight is of type" in error_of(tmp_path / "odd.pth")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_weight_of_another_precision_is_loaded(tmp_path, kind):
    weights = {key: weight.to(kind) for key, weight in detector().state_dict().items()}
    torch.save({"model": weights}, tmp_path / "other.pth")
    model = detector()
    Checkpointer(model).load(str(tmp_path / "other.pth"), strict=True)
    torch.testing.assert_close(model["head"].weight.to(kind), weights["head.weight"])


def test_a_file_of_torch_with_the_name_of_a_pickle_is_refused(tmp_path):
    torch.save({"model": detector().state_dict()}, tmp_path / "zoo.pkl", pickle_protocol=2)
    assert "not a pickle of weights" in error_of(tmp_path / "zoo.pkl")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("key", ["head.weight", "norm.running_var"])
@pytest.mark.parametrize("strict", [False, True])
def test_a_weight_or_buffer_that_is_not_finite_is_refused(tmp_path, key, value, strict):
    model = nn.ModuleDict({"norm": nn.BatchNorm2d(2), "head": nn.Linear(2, 2)})
    weights = model.state_dict()
    weights[key].flatten()[1] = value
    torch.save({"model": weights}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match=rf"bad\.pth: 1 weights are NaN or infinite, {key} the f"):
        Checkpointer(model).load(str(tmp_path / "bad.pth"), strict=strict)


@pytest.mark.parametrize("strict", [False, True])
def test_a_negative_variance_is_refused(tmp_path, strict):
    model = nn.ModuleDict({"norm": nn.BatchNorm2d(2)})
    model["norm"].running_mean[0] = -1.0  # a mean may be negative
    Checkpointer(model, save_dir=str(tmp_path)).save("good")
    Checkpointer(model).load(str(tmp_path / "good.pth"), strict=strict)
    model["norm"].running_var[1] = -1e-6
    Checkpointer(model, save_dir=str(tmp_path)).save("bad")
    with pytest.raises(UserError, match=r"bad\.pth: norm\.running_var is negative"):
        Checkpointer(model).load(str(tmp_path / "bad.pth"), strict=strict)


def test_a_weight_that_overflows_the_models_type_is_refused(tmp_path):
    model = detector()
    weights = {key: weight.double() for key, weight in model.state_dict().items()}
    weights["head.bias"][0] = 1e300
    torch.save({"model": weights}, tmp_path / "big.pth")
    with pytest.raises(UserError, match=r"head\.bias the first"):
        Checkpointer(model).load(str(tmp_path / "big.pth"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.ones(2)}, "holds no weights by the name 'model'"),
        (
            {"model": {"a": torch.tensor([1.0, torch.nan])}},
            "1 tensors have NaN or infinity, model.a",
        ),
        (
            {"model": {}, "trainer": {"state": [{"step": torch.tensor(torch.inf)}]}},
            "1 tensors have NaN or infinity, trainer.state.0.step",
        ),
    ],
)
def test_read_whole_finds_what_cannot_be_resumed_from(tmp_path, content, message):
    torch.save(content, tmp_path / "odd.pth")
    assert message in error_of(tmp_path / "odd.pth", read_whole)


def test_read_whole_names_a_missing_file(tmp_path):
    assert "no such file" in error_of(tmp_path / "gone.pth", read_whole)
