"""Writes all files of the report on a training or an evaluation."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.utils import comm

from apdet import __version__
from apdet.errors import UserError
from apdet.evaluation.build import inference_folder
from apdet.evaluation.coco import PREDICTIONS
from apdet.evaluation.submission import write_submission
from apdet.report.curves import plot_curves
from apdet.report.pictures import draw_detections
from apdet.report.results import write_results

logger = logging.getLogger(__name__)


def write_report(
    output_dir: str | os.PathLike,
    results: Mapping[str, Any] | None,
    *,
    test_sets: Sequence[str],
    val_sets: Sequence[str] = (),
    tta: bool = False,
    method: str = "apdet",
) -> list[Path]:
    """Write ``results.json``, ``curves.png``, ``detections.png`` and the submission archives.

    The picture shows detections on the first test set, above the score threshold that is best on
    the first validation set. If there are only test sets or only validation sets, these serve for
    both. Predictions on a test set without public annotations are packed for its evaluation server.
    A file that cannot be made is logged and left out, for example because the training was not
    evaluated. Only the main process writes.

    Args:
        output_dir: the folder of the training.
        results: the results of the last evaluation, as Detectron2 returns them.
        test_sets: the names of registered data sets.
        val_sets: the names of the validation sets.
        tta: whether there are also predictions with test-time augmentation.
        method: the name of the detector in submission archives, in letters and digits.

    Returns:
        The paths of the files that were written. Empty in other processes than the main one.

    Raises:
        UserError: the folder cannot be written to.
    """
    if not comm.is_main_process():
        return []
    folder, test_sets = Path(output_dir), list(test_sets)
    paths: list[Path | None] = [
        write_results(
            folder,
            results or {},
            test_sets=test_sets,
            validation_sets=list(val_sets),
            apdet=__version__,
        ),
        _make_or_log(plot_curves, folder / "metrics.json", folder / "curves.png"),
    ]
    predictions = {
        name: Path(inference_folder(folder, name), PREDICTIONS) for name in (*test_sets, *val_sets)
    }
    for shown in list(predictions)[:1]:
        picture = folder / "detections.png"
        validation = (val_sets[0], predictions[val_sets[0]]) if val_sets else None
        paths.append(
            _make_or_log(draw_detections, shown, predictions[shown], picture, validation=validation)
        )
    for with_tta in (False, True) if tta else (False,):
        for name in test_sets:
            predicted = inference_folder(folder, name, tta=with_tta)
            paths.append(_make_or_log(write_submission, name, predicted, method))
    return [path for path in paths if path is not None]


def _make_or_log(make: Callable[..., Path | None], *args: Any, **options: Any) -> Path | None:
    """Make one file and log any error, because a picture must not end a long training."""
    try:
        return make(*args, **options)
    except (UserError, OSError) as error:
        logger.warning(f"{make.__name__}: {error}")
    except Exception:
        logger.exception(f"{make.__name__} failed")
    return None
