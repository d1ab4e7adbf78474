"""What a fault is done to: a folder with pictures, annotations and a config that trains on them."""

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from faults.pictures import write_coco, write_voc

CONFIGS = Path(__file__).parents[2] / "configs"
ENTRIES = {
    "coco": {"format": "coco", "json": "data.json", "images": "images"},
    "voc": {"format": "voc", "root": ".", "split": "all"},
}


class Setup:
    """A flawless training of two iterations, which starts from a detector that knows the classes.

    The four pictures are both the training set ``tr`` and the test set ``te``. All of them are in
    each batch. So the weights after the training depend on every pixel and on every box.

    Attributes:
        folder: the folder of everything.
        output: the output folder of the training.
        lab: the laboratory, which has trained detectors and runs.
        config: the content of the config file, which is written when the command starts.
        config_text: the text of the config file; None: ``config`` is written.
        rival: another command that runs in the same output folder.
        plug_in: the name of a module that the process imports first; "": none.
        at_the_end: calls what is left to do after the row.
    """

    def __init__(self, folder: Path, layout: str, weights: Path | str, lab: Any) -> None:
        """Write the pictures.

        Args:
            folder: an empty folder.
            layout: "coco" or "voc".
            weights: the checkpoint to start from; "": from scratch.
            lab: the laboratory.
        """
        self.folder, self.output, self.lab = folder, folder / "output", lab
        self.config_text: str | None = None
        self.at_the_end = ExitStack()
        self.plug_in = ""
        self.rival: Any = None
        write = {"coco": write_coco, "voc": write_voc}[layout]
        write(folder)
        self.config: dict[str, Any] = {
            "_BASE_": str(CONFIGS / "digits" / "retinanet_ap.yaml"),
            "MODEL": {
                "DEVICE": "cpu",
                "WEIGHTS": str(weights),
                "FPN": {"OUT_CHANNELS": 16},
                "RESNETS": {
                    "WIDTH_PER_GROUP": 8,
                    "STEM_OUT_CHANNELS": 8,
                    "RES2_OUT_CHANNELS": 16,
                },
            },
            "DATASETS": {
                "REGISTER": [{"name": name, **ENTRIES[layout]} for name in ("tr", "te")],
                "TRAIN": ["tr"],
                "TEST": ["te"],
            },
            "INPUT": {"FIXED_SIZE_TRAIN": [64, 64], "MIN_SIZE_TEST": 64, "MAX_SIZE_TEST": 64},
            "SOLVER": {
                "IMS_PER_BATCH": 4,
                "REFERENCE_BATCH_SIZE": 0,
                "MAX_ITER": 2,
                "BASE_LR": 0.001,
                "LR_SCHEDULER_NAME": "WarmupMultiStepLR",
                "STEPS": [],
                "WARMUP_ITERS": 0,
                "CHECKPOINT_PERIOD": 1000,
            },
            "TEST": {"EVAL_PERIOD": 0},
            "OUTPUT_DIR": str(self.output),
        }

    @property
    def annotations(self) -> Path:
        """The file of annotations in COCO's layout."""
        return self.folder / "data.json"

    def set(self, key: str, value: Any) -> None:
        """Set a key of the config, such as ``SOLVER.MAX_ITER``."""
        node = self.config
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value

    def write_config(self) -> Path:
        """Write the config file."""
        path = self.folder / "config.yaml"
        path.write_text(self.config_text or yaml.safe_dump(self.config, sort_keys=False))
        return path

    def edit_json(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the content of the JSON file in place."""
        content = json.loads(self.annotations.read_text())
        change(content)
        self.annotations.write_text(json.dumps(content))

    def edit_xml(self, stem: str, *replacements: tuple[str, str]) -> None:
        """Replace parts of an XML file. Each part must be there."""
        path = self.folder / "Annotations" / f"{stem}.xml"
        text = path.read_text()
        for old, new in replacements:
            if old not in text:
                raise ValueError(f"{path} does not hold {old!r}")
            text = text.replace(old, new)
        path.write_text(text)

    def copy_run(self, run: Path) -> None:
        """Make the output folder a copy of that of another training."""
        shutil.copytree(run, self.output)
