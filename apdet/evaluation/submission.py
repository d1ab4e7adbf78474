"""Writes archives for the evaluation servers of test sets without public annotations."""

import io
import logging
import os
import tarfile
import zipfile
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata

from apdet.errors import UserError
from apdet.evaluation.coco import PREDICTIONS
from apdet.evaluation.matching import Detections
from apdet.evaluation.predictions import read_predictions
from apdet.files import whole_file

logger = logging.getLogger(__name__)


def write_submission(dataset_name: str, folder: str | os.PathLike, method: str) -> Path | None:
    """Pack the predictions in a folder for the evaluation server of the data set, if it has one.

    Predictions on ``voc_2012_test`` are packed for VOC's server: ``results_VOC2012_test.tar.gz``.
    Predictions on a test set of COCO are packed for COCO's server:
    ``detections_<set>_<method>_results.zip``.

    Args:
        dataset_name: the name of a registered data set.
        folder: the folder with the evaluator's ``coco_instances_results.json``. The archive is
            written there too.
        method: the name of the detector, in letters and digits.

    Returns:
        The path of the archive; None if the data set has no server.

    Raises:
        UserError: there are no predictions, they are on another data set, or the archive cannot be
            written.
    """
    metadata = MetadataCatalog.get(dataset_name)
    predictions = Path(folder) / PREDICTIONS
    coco_set = _coco_test_set(metadata)
    is_voc = metadata.get("year") is not None and not metadata.get("annotated", True)
    if not is_voc and coco_set is None:
        return None
    if not predictions.is_file():
        raise UserError(f"{predictions}: no predictions there; evaluate on {dataset_name} first")
    if is_voc:
        path = _write_voc(predictions, metadata)
    else:
        path = _write_coco(predictions, f"detections_{coco_set}_{method}_results")
    logger.info(f"Submit {path} to the evaluation server of {'PASCAL VOC' if is_voc else 'COCO'}.")
    return path


def _coco_test_set(metadata: Metadata) -> str | None:
    """COCO's name of a test set, such as "test-dev2017", from the name of its file of images."""
    stem = Path(metadata.get("json_file") or "").stem
    return stem.removeprefix("image_info_") if stem.startswith("image_info_test") else None


def _write_coco(predictions: Path, name: str) -> Path:
    path = predictions.with_name(f"{name}.zip")
    with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(predictions, f"{name}.json")
    return path


def _write_voc(predictions: Path, metadata: Metadata) -> Path:
    image_ids = [image["image_id"] for image in DatasetCatalog.get(metadata.name)]
    detections = read_predictions(predictions, metadata, image_ids)
    year, split = metadata.year, metadata.split
    path = predictions.with_name(f"results_VOC{year}_{split}.tar.gz")
    with whole_file(path) as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for k, name in enumerate(metadata.thing_classes):
            text = "".join(_voc_lines(detections, k)).encode()
            # "comp4" is VOC's name for detection by a model trained on any data.
            entry = tarfile.TarInfo(f"results/VOC{year}/Main/comp4_det_{split}_{name}.txt")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    return path


def _voc_lines(detections: Mapping[Hashable, Detections], k: int) -> Iterator[str]:
    """Format each detection of class k: ``<image id> <score> <xmin> <ymin> <xmax> <ymax>``."""
    for image_id in sorted(detections, key=str):
        boxes, scores, classes = detections[image_id]
        of_class = classes == k
        for (x0, y0, x1, y1), score in zip(boxes[of_class], scores[of_class], strict=True):
            # VOC counts pixels from 1 and includes the last pixel: the inverse of apdet.data.voc.
            # Nine decimals, because training by ranking may give scores that lie close together.
            yield f"{image_id} {score:.9f} {x0 + 1:.3f} {y0 + 1:.3f} {x1:.3f} {y1:.3f}\n"
