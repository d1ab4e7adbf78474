"""Checkpoints that run no code when loaded, are whole when written, and fit the model."""

import collections
import logging
import os
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from torch import nn

from apdet.checkpoint.class_transfer import take_over_classes, training_classes, weights_classes
from apdet.checkpoint.weights_file import read_torch
from apdet.errors import UserError

logger = logging.getLogger(__name__)

# All that a pickled dict of numpy arrays, such as Detectron2's model zoo, is made of.
_PICKLE_GLOBALS = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),  # how Python 3 writes bytes in protocol 2
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles dicts of numpy arrays, and refuses whatever could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PICKLE_GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no weights need")
        return super().find_class(module, name)


def load_array_pickle(filename: str) -> dict[str, Any]:
    """Load a ``.pkl`` of numpy arrays, the format of Detectron2's model zoo, without running code.

    Raises:
        UserError: a file that is broken, or that asks for anything else than arrays.
    """
    try:
        with open(filename, "rb") as file:
            data = _ArrayUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a broken pickle may raise any
        raise UserError(f"{filename}: not a pickle of weights: {error}") from error
    if not isinstance(data, collections.abc.Mapping):
        raise UserError(f"{filename}: holds a {type(data).__name__}, not a mapping of weights")
    return data


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer; safe to load from, safe to interrupt, strict about what fits.

    Args:
        allow_mismatch: whether weights of another shape than the model's are left out with a
            warning; else they are an error.
        classes: of the model. They are saved beside it, and when a training starts from weights
            whose classes are known, rows of the classification layer go where theirs are.
        weights_classes: those of the weights to start from; empty: those saved beside them.
        model, save_dir, checkpointables: as in :class:`DetectionCheckpointer`.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        allow_mismatch: bool = False,
        classes: Sequence[str] = (),
        weights_classes: Sequence[str] = (),
        **checkpointables,
    ):
        super().__init__(model, save_dir, **checkpointables)
        self.allow_mismatch = allow_mismatch
        self.classes, self.weights_classes = list(classes), list(weights_classes)
        self._strict = False
        self._path = ""

    def load(self, path: str, checkpointables: list[str] | None = None, *, strict: bool = False):
        """Load weights, and the state of ``checkpointables``, from ``path``; empty: from nowhere.

        Args:
            path: a checkpoint of ours, or any that Detectron2 reads, e.g. of its model zoo.
            checkpointables: what else to load than the model; None: all that the file holds.
            strict: whether each weight of the model must be in the file, and none besides; all
                are loaded as they are then, whatever their classes.

        Raises:
            UserError: a file that is missing, broken, not mere data, or does not fit the model.
        """
        self._strict, self._path = strict, path
        if path and "://" not in path and not os.path.isfile(path):
            raise UserError(
                f"{path}: no such checkpoint; see MODEL.WEIGHTS and OUTPUT_DIR "
                "(tools/convert_weights.py makes some of ImageNet weights)"
            )
        try:
            return super().load(path, checkpointables)
        except OSError as error:
            self._parsed_url_during_load = None
            raise UserError(
                f"{path}: cannot be read: {error}. Download it by hand and name the file: "
                "MODEL.WEIGHTS <file>"
            ) from error

    def resume_or_load(self, path: str, *, resume: bool = True):
        """Resume from the last checkpoint of the folder if there is one, else load ``path``."""
        if resume and self.has_checkpoint():
            return self.load(self.get_checkpoint_file(), strict=True)
        return self.load(path, checkpointables=[])

    def save(self, name: str, **kwargs) -> None:
        """Write ``name``.pth in one piece, and make it the checkpoint to resume from.

        Raises:
            FloatingPointError: a weight that is NaN or infinite; nothing is written then.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        state = self.model.state_dict()
        bad = [key for key, weight in state.items() if not torch.isfinite(weight).all()]
        if bad:
            raise FloatingPointError(f"{len(bad)} weights are NaN or infinite, {bad[0]} the first")
        data = {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        if self.classes:
            data["classes"] = self.classes
        path = os.path.join(self.save_dir, f"{name}.pth")
        # A process killed while it writes must leave the former file as it was.
        torch.save({"model": state, **data, **kwargs}, f"{path}.tmp")
        os.replace(f"{path}.tmp", path)
        logger.info("Saved %s", path)
        self.tag_last_checkpoint(f"{name}.pth")

    def load_to_evaluate(self, weights: str, *, resume: bool) -> None:
        """Load the model's weights, all of them, or with ``resume`` the last checkpoint's.

        Raises:
            UserError: there are none, or as :meth:`load`.
        """
        last = self.get_checkpoint_file() if resume else ""
        if not (last or weights):
            raise UserError(
                "--eval-only needs MODEL.WEIGHTS <checkpoint>, or --resume for the last one"
            )
        self.load(last or weights, checkpointables=[], strict=True)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Make the file the one to resume from."""
        tag = os.path.join(self.save_dir, "last_checkpoint")
        with open(f"{tag}.tmp", "w") as file:
            file.write(last_filename_basename)
        os.replace(f"{tag}.tmp", tag)

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pyth"):  # of pycls
            weights = self._torch_load(filename).get("model_state", {})
            return {"model": weights, "__author__": "pycls", "matching_heuristics": True}
        if not filename.endswith(".pkl"):
            return super()._load_file(filename)
        data = load_array_pickle(filename)
        if "model" in data and "__author__" in data:
            return data
        # Of Caffe2, as the ImageNet backbones are: names are matched by Detectron2's heuristics.
        blobs = data.get("blobs", data)
        weights = {key: blob for key, blob in blobs.items() if not key.endswith("_momentum")}
        return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}

    def _torch_load(self, f: str) -> dict[str, Any]:
        return read_torch(f)

    def _load_model(self, checkpoint: dict[str, Any]):
        theirs = self.weights_classes or checkpoint.get("classes")
        # By that name, another program's file may hold anything.
        if self.classes and theirs and isinstance(theirs, list) and not self._strict:
            self._convert_ndarray_to_tensor(checkpoint["model"])
            try:
                take_over_classes(
                    checkpoint["model"],
                    self.model,
                    [str(name) for name in theirs],
                    self.classes,
                    by_key=bool(self.weights_classes),
                    allow_mismatch=self.allow_mismatch,
                )
            except UserError as error:
                raise UserError(f"{self._path}: {error}") from error
        return super()._load_model(checkpoint)

    def _log_incompatible_keys(self, incompatible) -> None:
        missing, unexpected = incompatible.missing_keys, incompatible.unexpected_keys
        shapes = incompatible.incorrect_shapes
        problems = []
        if shapes and not self.allow_mismatch:
            rows = [f"{key}: {theirs} there, {ours} here" for key, theirs, ours in shapes]
            problems.append(_listing("weights of another shape (another class count?)", rows))
        # load_state_dict reports a weight whose shape did not fit as missing, too.
        lost = [key for key in missing if key not in {shape[0] for shape in shapes}]
        if self._strict or len(missing) == len(self.model.state_dict()):
            problems += [_listing("weights that the checkpoint lacks", lost)] if lost else []
            problems += [_listing("weights that the model lacks", unexpected)] if unexpected else []
        if problems:
            raise UserError(
                f"{self._path}: a checkpoint of another model than this config's.\n"
                + "\n".join(problems)
                + "\nGive MODEL.WEIGHTS a checkpoint of this model, or, to start from what fits, "
                "set MODEL.ALLOW_WEIGHT_MISMATCH True"
            )
        super()._log_incompatible_keys(incompatible)


def build_checkpointer(
    cfg: CfgNode, model: nn.Module, save_dir: str = "", **checkpointables
) -> Checkpointer:
    """The checkpointer of a training, as strict about weights and classes as ``cfg.MODEL`` says.

    Raises:
        UserError: a MODEL.WEIGHTS_CLASSES that is neither a data set nor a list of classes.
    """
    return Checkpointer(
        model,
        save_dir,
        allow_mismatch=cfg.MODEL.ALLOW_WEIGHT_MISMATCH,
        classes=training_classes(cfg),
        weights_classes=weights_classes(cfg),
        **checkpointables,
    )


def _listing(what: str, rows: list[str], limit: int = 12) -> str:
    shown = [f"    {row}" for row in rows[:limit]]
    if len(rows) > limit:
        shown.append(f"    and {len(rows) - limit} more")
    return "\n".join([f"  {len(rows)} {what}:", *shown])
