import json
from argparse import Namespace

import pytest

from apdet.inference.selection import Selection
from apdet.inference.settings import settings_of
from apdet.inference.sources import number_sources


@pytest.fixture
def settings(tmp_path):
    """A function that makes the settings of arguments; the content of the model file is "m"."""

    def of(threshold=0.5, images=("/a.jpg", "/b.jpg"), model="m", **changes):
        (tmp_path / "model.pth").write_text(model)
        given = {"config_file": "", "calibrated": False, "tta": False, "batch": 1, "bits": None}
        given["no_pictures"] = False
        arguments = vars(Namespace(**{**given, "model": tmp_path / "model.pth", **changes}))
        return settings_of(arguments, Selection(threshold, [0, 1]), number_sources(images))

    return of


def test_settings_survive_being_written(settings):
    assert json.loads(json.dumps(settings())) == settings()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"threshold": 0.25}, "--threshold"),
        ({"images": ["/a.jpg"]}, "list of images"),
        ({"images": ["/b.jpg", "/a.jpg"]}, "list of images"),
        ({"model": "n"}, "model"),
        ({"config_file": "digits/retinanet_ap.yaml"}, "--config-file"),  # comes with apdet
        ({"batch": 2}, "--batch"),
        ({"tta": True}, "--tta"),
        ({"calibrated": True}, "--calibrated"),
        ({"bits": 12}, "--bits"),
        ({"no_pictures": True}, "--no-pictures"),
    ],
)
def test_each_change_that_changes_the_predictions_shows(settings, changes, key):
    before, after = settings(), settings(**changes)
    assert [name for name in before if before[name] != after[name]] == [key]
