from conftest import CONFIGS
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from apdet.config import load_config, register_datasets
from apdet.data.digits import write_digits


class Detector:
    num_classes_key = "MODEL.MINE.NUM_KINDS"


def test_the_number_of_classes_is_set_where_the_detector_reads_it(tmp_path, monkeypatch):
    monkeypatch.setitem(META_ARCH_REGISTRY._obj_map, "Detector", Detector)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_digits(tmp_path / "digits", num_train=40, num_test=1, size=64)
    cfg = load_config(CONFIGS / "digits" / "retinanet_ap.yaml")
    cfg.MODEL.MINE = CfgNode({"NUM_KINDS": 3})
    cfg.MODEL.META_ARCHITECTURE = "Detector"
    cfg.freeze()
    register_datasets(cfg)
    assert cfg.MODEL.MINE.NUM_KINDS == 10
    # Detectron2's own detectors, which tell nothing of themselves, read these.
    assert cfg.MODEL.RETINANET.NUM_CLASSES == cfg.MODEL.ROI_HEADS.NUM_CLASSES == 10
    assert cfg.is_frozen()
