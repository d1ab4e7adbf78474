import numpy as np
import pytest
from PIL import Image

from apdet.data.worker_errors import errors_of_workers
from apdet.errors import UserError
from apdet.inference.reading import read_ahead


def mapper(dataset_dict):
    path = dataset_dict["file_name"]
    if "killer" in path:
        raise MemoryError("too large")
    if "broken" in path:
        raise UserError(f"{path}: broken")
    return {"image": np.asarray(Image.open(path)), "bits": dataset_dict["bits"]}


@pytest.mark.parametrize("workers", [0, 2])
def test_images_come_in_order_and_errors_in_their_place(tmp_path, workers):
    paths = [str(tmp_path / name) for name in ("0.png", "broken", "killer", "3.png", "4.png")]
    for index in (0, 3, 4):
        Image.new("L", (2, 2), index).save(paths[index])
    with errors_of_workers():
        read = list(read_ahead(paths, [0, 1, 2, 4], mapper, workers=workers, bits=12))
    assert [r.index for r in read] == [0, 1, 2, 4]
    assert [r.error for r in read] == ["", "broken", "MemoryError: too large", ""]
    assert [r.inputs and int(r.inputs["image"][0, 0]) for r in read] == [0, None, None, 4]
    assert read[0].inputs["bits"] == 12


def test_nothing_is_read_if_nothing_is_left():
    assert list(read_ahead([], [], mapper, workers=2)) == []
