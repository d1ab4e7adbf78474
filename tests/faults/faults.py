"""The table of all faults, by kind."""

from faults import (
    choosing,
    classes,
    coco,
    configs,
    dividing,
    evaluation,
    last_checkpoint,
    pixels,
    refusals,
    resuming,
    sharing,
    signals,
    storage,
    voc,
    weights,
    yaml_keys,
)

TABLE = {
    "COCO annotations": coco.ROWS,
    "VOC annotations": voc.ROWS,
    "dividing a folder": dividing.ROWS,
    "pixels": pixels.ROWS,
    "classes of checkpoints": classes.ROWS,
    "weights": weights.ROWS,
    "last checkpoint": last_checkpoint.ROWS,
    "resuming": resuming.ROWS,
    "keys of YAML": yaml_keys.ROWS,
    "keys of the config": configs.ROWS,
    "impossible values and unreadable files": refusals.ROWS,
    "evaluation": evaluation.ROWS,
    "choosing the best": choosing.ROWS,
    "signals": signals.ROWS,
    "sharing a folder": sharing.ROWS,
    "storage": storage.ROWS,
}
