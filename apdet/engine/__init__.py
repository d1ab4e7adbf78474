"""Training and evaluation: Detectron2's loop with exact resuming, a dry run and a report."""

from apdet.platforms import require_posix

require_posix()  # before modules of Python are imported that Windows does not have

from apdet.engine.trainer import Trainer  # noqa: E402

__all__ = ["Trainer"]
