import pytest
from conftest import CONFIGS
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.pascal_voc import CLASS_NAMES, load_voc_instances

from apdet.config import load_config
from apdet.config.datasets import register_datasets
from apdet.data.builtin import VOC_SPLITS, datasets_root, register_voc
from apdet.errors import UserError


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_voc()
    return tmp_path


def test_voc_is_read_under_detectron2s_names_as_detectron2_reads_it(root, voc):
    voc2007 = type(voc)(root / "VOC2007")
    voc2007.add("000005", [("chair", 3, 4, 20, 25), ("cat", 1, 1, 40, 30)])
    voc2007.add("000007", [("dog", 2, 2, 9, 9, 1)]).split("trainval", "000005", "000007")
    ours = DatasetCatalog.get("voc_2007_trainval")
    theirs = load_voc_instances(str(voc2007.root), "trainval", CLASS_NAMES)
    for our, their in zip(ours, theirs, strict=True):
        for key in ("file_name", "image_id", "height", "width"):
            assert our[key] == their[key]
        for box, other in zip(our["annotations"], their["annotations"], strict=True):
            assert {key: box[key] for key in other} == other
    assert [a["iscrowd"] for image in ours for a in image["annotations"]] == [0, 0, 1]


def test_the_test_set_of_2012_needs_no_annotations(root, voc):
    voc2012 = type(voc)(root / "VOC2012")
    voc2012.add("2008_000001").split("test", "2008_000001")
    (voc2012.xml / "2008_000001.xml").unlink()
    (image,) = DatasetCatalog.get("voc_2012_test")
    assert "annotations" not in image
    assert not MetadataCatalog.get("voc_2012_test").annotated


def test_the_root_may_start_from_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DETECTRON2_DATASETS", "~/data")
    assert datasets_root() == tmp_path / "data"


@pytest.mark.parametrize("name", VOC_SPLITS)
def test_a_missing_folder_is_named_with_the_variable_that_moves_it(root, name):
    year, _ = VOC_SPLITS[name]
    with pytest.raises(UserError, match=rf"VOC{year}: no such folder; .*DETECTRON2_DATASETS"):
        DatasetCatalog.get(name)


def test_a_missing_coco_is_named_before_a_model_is_built():
    cfg = load_config(CONFIGS / "COCO" / "retinanet_R50_512_ap.yaml")
    with pytest.raises(UserError, match=r"instances_train2017\.json: .*DETECTRON2_DATASETS"):
        register_datasets(cfg)
