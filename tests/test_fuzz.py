"""Whatever is in a file, its reader returns or raises a UserError of one line.

Each test takes a right file and changes its bytes or its values. For a longer search:
``APDET_FUZZ_EXAMPLES=20000 python -m pytest tests/test_fuzz.py``
"""

import copy
import io
import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from coco_dicts import load_coco
from conftest import CONFIGS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from apdet.checkpoint import Checkpointer
from apdet.config import load_config
from apdet.config.choices import check_yaml_choices
from apdet.data.voc import load_voc
from apdet.errors import UserError
from apdet.text import one_line

EXAMPLES = int(os.environ.get("APDET_FUZZ_EXAMPLES", 60))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

XML = """<annotation><filename>a.png</filename><size><width>64</width><height>48</height>
<depth>3</depth></size><object><name>cat</name><difficult>0</difficult><truncated>1</truncated>
<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"""
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
    "categories": [{"id": 7, "name": "cat", "keypoints": ["nose"], "skeleton": [[1, 1]]}],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 7,
            "bbox": [3, 4, 27, 36],
            "area": 972,
            "iscrowd": 0,
            "segmentation": [[3, 4, 30, 4, 30, 40]],
            "keypoints": [10, 11, 2],
            "num_keypoints": 1,
        },
        {
            "id": 2,
            "image_id": 1,
            "category_id": 7,
            "bbox": [0, 0, 9, 9],
            "iscrowd": 1,
            "segmentation": {"size": [48, 64], "counts": [0, 9, 3063]},
            "keypoints": [0, 0, 0],
        },
    ],
}
CONFIG = {
    "MODEL": {"RETINANET": {"NUM_CLASSES": 3, "IOU_THRESHOLDS": [0.4, 0.5]}, "WEIGHTS": ""},
    "DATASETS": {"REGISTER": [{"name": "a", "format": "voc", "root": "x", "classes": ["1", "2"]}]},
    "INPUT": {"MIN_SIZE_TRAIN": [64], "FORMAT": "BGR"},
    "SOLVER": {"BASE_LR": 0.1, "STEPS": [3, 5], "MAX_ITER": 9, "AMP": {"ENABLED": False}},
}

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([[], {}, [[]], "", "1", -1, 1e300, 2**70, "\x00", "\x1b[2J", "../a"]),
)
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@st.composite
def changed_bytes(draw, content):
    """Content of which some parts are cut out, written over or put in."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = start + draw(st.sampled_from([0, 1, 2, 8, 100, 10**6]))
        content = content[:start] + draw(st.binary(max_size=9)) + content[end:]
    return content


@st.composite
def changed_values(draw, content):
    """Content of which some values are others, are missing or are there twice."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        node = content
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if not isinstance(node[key], dict | list) or not draw(st.integers(0, 4)):
                _change(draw, node, key)
                break
            node = node[key]
    return content


def _change(draw, node, key):
    how = draw(st.sampled_from(["other", "other", "missing", "twice"]))
    if how == "other":
        node[key] = copy.deepcopy(draw(values))  # sampled values are shared
    elif how == "missing":
        del node[key]
    elif isinstance(node, list):
        node.append(copy.deepcopy(node[key]))


def reads_or_refuses(read, *paths):
    try:
        return read(*paths)
    except UserError as error:
        message = str(error)
    assert len(one_line(message).splitlines()) == 1, message
    assert len(message) < 2000
    return None


@pytest.fixture
def folder(tmp_path):
    """A folder with one image and its annotations."""
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text(XML)
    return tmp_path


@fuzzed
@given(content=changed_bytes(XML.encode()))
def test_any_xml_is_read_or_refused(folder, content):
    (folder / "a.xml").write_bytes(content)
    dicts = reads_or_refuses(load_voc, folder, folder)
    assert_boxes_are_inside(dicts)


@fuzzed
@given(content=changed_bytes(json.dumps(COCO).encode()) | changed_values(COCO))
def test_any_json_is_read_or_refused(folder, content):
    file = folder / "coco.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    assert_boxes_are_inside(reads_or_refuses(load_coco, file, folder))


def assert_boxes_are_inside(dicts):
    for image in dicts or []:
        for annotation in image.get("annotations", []):
            x0, y0, x1, y1 = annotation["bbox"]
            assert 0 <= x0 < x1 <= 64, annotation
            assert 0 <= y0 < y1 <= 48, annotation


@fuzzed
@given(content=changed_bytes(yaml.safe_dump(CONFIG).encode()) | changed_values(CONFIG))
def test_any_yaml_is_read_or_refused(tmp_path, content):
    file = tmp_path / "c.yaml"
    text = content if isinstance(content, bytes) else yaml.safe_dump(content).encode()
    file.write_bytes(f"_BASE_: {CONFIGS}/digits/retinanet_ap.yaml\n".encode() + text)
    reads_or_refuses(lambda path: check_yaml_choices(load_config(path)), file)


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def small_model():
    return nn.ModuleDict({"backbone": nn.Linear(2, 3), "head": nn.Linear(3, 2)})


def a_checkpoint():
    """A checkpoint with the state of a training, and the objects that load it."""
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    content = {"model": dict(model.state_dict()), "optimizer": optimizer.state_dict()}
    return {**content, "iteration": 3, "classes": ["cat", "dog"]}


@fuzzed
@given(content=changed_bytes(saved(a_checkpoint())) | changed_values(a_checkpoint()))
def test_any_checkpoint_is_loaded_or_refused(tmp_path, content):
    path = Path(tmp_path, "model.pth")
    path.write_bytes(content if isinstance(content, bytes) else saved(content))
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    checkpointer = Checkpointer(model, str(tmp_path), optimizer=optimizer)
    reads_or_refuses(lambda: checkpointer.load(str(path), resuming=True))
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
