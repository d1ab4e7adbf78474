"""Reads pickles of numpy arrays, the format of Detectron2's model zoo, without running code."""

import collections
import pickle
from typing import Any

from apdet.errors import UserError
from apdet.files import check_regular_file, unreadable_file

# A pickled dict of numpy arrays needs these names and no others.
_ALLOWED = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),  # Python 3 writes bytes with it in protocol 2
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles dicts of numpy arrays, and refuses everything else, which could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no weights need")
        return super().find_class(module, name)


def load_array_pickle(filename: str) -> dict[str, Any]:
    """Load a ``.pkl`` of numpy arrays without running code.

    Raises:
        UserError: the file is broken, or asks for anything other than arrays.
    """
    check_regular_file(filename)
    try:
        with open(filename, "rb") as file:
            data = _ArrayUnpickler(file, encoding="latin1").load()
    except OSError as error:
        raise unreadable_file(filename, error) from error
    except Exception as error:  # a broken pickle may raise any exception
        reason = " ".join(str(error).split())  # on one line
        raise UserError(f"{filename}: not a pickle of weights: {reason}") from error
    if not isinstance(data, collections.abc.Mapping):
        raise UserError(f"{filename}: holds a {type(data).__name__}, not a mapping of weights")
    return dict(data)
