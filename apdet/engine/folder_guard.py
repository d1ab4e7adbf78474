"""The hook that ends a training whose output folder was removed."""

import errno
import os
import weakref

from detectron2.engine import HookBase

from apdet.files import storage_error


class FolderGuard(HookBase):
    """Raises an error if the output folder was removed, even if something made it anew.

    An evaluation makes the folder anew, and the training would go on without its checkpoints. So
    one such hook comes before the evaluations, and one after them.
    """

    def __init__(self, folder: str):
        """Set up the hook.

        Args:
            folder: the output folder, which exists when the training begins.
        """
        self.folder = folder

    def before_train(self) -> None:
        # As long as it is open, a new folder is not mistaken for it.
        self._descriptor = os.open(self.folder, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def after_step(self) -> None:
        try:
            is_same = os.path.samestat(os.stat(self.folder), os.fstat(self._descriptor))
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise storage_error(OSError(errno.ENOENT, "it was removed"), self.folder)

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # else another error ended the training
            self.after_step()
