"""The code on the page docs/plug_in.md does what the page says."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.structures import Boxes, Instances, pairwise_iou

from apdet.cli.train import main
from apdet.modeling import named_loss
from apdet.modeling.named_loss import allow_custom_code, bind_loss

ROOT = Path(__file__).parent.parent
DETECTOR, LOOP, LOSS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "plug_in.md").read_text(), re.DOTALL | re.MULTILINE
)


@pytest.fixture
def point_detector(tmp_path, monkeypatch):
    """The module of the page's detector; it is forgotten afterwards."""
    (tmp_path / "page_detector.py").write_text(DETECTOR)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield importlib.import_module("page_detector")
    META_ARCH_REGISTRY._obj_map.pop("PointDetector")
    sys.modules.pop("page_detector")


def image(box, label):
    instances = Instances((64, 64), gt_boxes=Boxes(torch.tensor([box])))
    instances.gt_classes = torch.tensor([label])
    return {"image": 255 * torch.rand(3, 64, 64), "instances": instances}


@pytest.mark.parametrize("loss", ["ap_loss", "ohem_loss"])
def test_the_detector_of_the_page_learns_two_images_by_heart(cfg, point_detector, loss):
    cfg.MODEL.META_ARCHITECTURE = "PointDetector"
    cfg.MODEL.CLS_LOSS.NAME = loss
    model = build_model(cfg).train()
    assert isinstance(model, point_detector.PointDetector)
    batch = [image([4.0, 6, 30, 33], 0), image([30.0, 24, 60, 50], 2)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        losses = model(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert losses.keys() == {"loss_cls", "loss_size"}
    with torch.no_grad():
        # As in training: so few steps teach BatchNorm no statistics.
        for module in model.modules():
            module.training = isinstance(module, torch.nn.BatchNorm2d)
        detections = [x["instances"] for x in model(batch)]
    for found, truth in zip(detections, batch, strict=True):
        best = found[found.scores.argmax().item()]
        assert best.pred_classes.item() == truth["instances"].gt_classes.item()
        assert pairwise_iou(best.pred_boxes, truth["instances"].gt_boxes).item() > 0.5


def test_the_loop_in_plain_torch_learns_without_detectron2():
    blocked = "import sys; sys.modules['detectron2'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + LOOP], capture_output=True, text=True, check=True, cwd=ROOT
    )
    # Red alone ranks them with an AP of 70.8, of which a ramp of two logits shows less.
    assert 50 < float(done.stdout.removeprefix("AP ")) < 71


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A working directory that holds the page's loss."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "my_losses.py").write_text(LOSS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(named_loss, "_custom_code_is_allowed", False)
    yield
    for name in ("my_package.my_losses", "my_package"):
        sys.modules.pop(name, None)


LOSS_NAME = "my_package.my_losses:squared_hinge_loss"


def test_the_loss_of_the_page_is_what_its_docstring_says(workplace):
    allow_custom_code()
    loss = bind_loss(LOSS_NAME, {"margin": 2.0})
    logits = torch.tensor([3.0, 1.0, -3.0, 0.5, 9.0])
    targets = torch.tensor([1, 1, 0, 0, -1])
    assert loss(logits, targets, normalizer=2.0) == (0 + 1 + 0 + 2.5**2) / 2


def test_it_trains_from_the_command_line_when_it_is_allowed(config, output, workplace):
    keys = ["MODEL.CLS_LOSS.NAME", LOSS_NAME, "SOLVER.MAX_ITER", "1"]
    with pytest.raises(SystemExit, match="call with --allow-custom-code"):
        main(["--config-file", config, *keys])
    main(["--config-file", config, "--allow-custom-code", "--resume", *keys])
    assert (output / "model_final.pth").exists()
