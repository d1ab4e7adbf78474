"""What a training leaves behind: its results as JSON, its curves, and pictures of detections."""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm

from apdet import __version__
from apdet.errors import UserError
from apdet.evaluation.build import inference_folder
from apdet.evaluation.submission import write_submission
from apdet.report.curves import plot_curves
from apdet.report.pictures import draw_detections

logger = logging.getLogger(__name__)


def write_report(cfg: CfgNode, results: Mapping[str, Any] | None) -> list[Path]:
    """Write ``results.json``, ``curves.png`` and ``detections.png`` to ``cfg.OUTPUT_DIR``.

    The detections are those on the first test set. Predictions on a test set whose annotations are
    not public are packed for its evaluation server, beside them. What cannot be made, as when the
    training was not evaluated, is logged and left out. Only the main process writes.

    Args:
        cfg: the training's.
        results: of the last evaluation, as Detectron2 returns them.

    Returns:
        The files written.

    Raises:
        UserError: the folder cannot be written to.
    """
    if not comm.is_main_process():
        return []
    folder = Path(cfg.OUTPUT_DIR)
    test_sets = list(cfg.DATASETS.TEST)
    paths = [write_results(folder, results or {}, test_sets=test_sets, apdet=__version__)]
    paths.append(_try(plot_curves, folder / "metrics.json", folder / "curves.png"))
    if test_sets:
        predictions = Path(inference_folder(cfg, test_sets[0])) / "coco_instances_results.json"
        picture = folder / "detections.png"
        paths.append(_try(draw_detections, test_sets[0], predictions, picture))
    for tta in (False, True) if cfg.TEST.AUG.ENABLED else (False,):
        for name in test_sets:
            predicted = inference_folder(cfg, name, tta=tta)
            paths.append(_try(write_submission, name, predicted, cfg.MODEL.META_ARCHITECTURE))
    return [path for path in paths if path is not None]


def write_results(output_dir: str | os.PathLike, results: Mapping[str, Any], **extra: Any) -> Path:
    """Write ``{"results": results, **extra}`` to ``results.json``, in one piece; nan becomes null.

    Raises:
        UserError: the folder cannot be written to.
    """
    path = Path(output_dir) / "results.json"
    text = json.dumps(_plain({"results": results, **extra}), indent=2, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whoever reads the file meanwhile finds the former one or this one, never half of it.
        temporary = path.with_suffix(".json.tmp")
        temporary.write_text(text + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot write results.json there: {error}") from error
    return path


def _plain(value: Any) -> Any:
    """The value in what JSON knows; numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy and torch
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _try(make: Callable[..., Path | None], *args: Any) -> Path | None:
    # A picture that fails must not take the end of a long training down with it.
    try:
        return make(*args)
    except UserError as error:
        logger.warning(f"{make.__name__}: {error}")
    except Exception:
        logger.exception(f"{make.__name__} failed")
    return None
