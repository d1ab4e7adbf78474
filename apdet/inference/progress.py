"""Keeps the predictions of the images that are done, so that an interrupted run can go on."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from apdet.engine import file_lock
from apdet.errors import UserError
from apdet.files import check_regular_file, unreadable_file

PROGRESS = "progress.jsonl"

# A prediction on one image: "index" of the image, its "width" and "height" in pixels, "results" in
# COCO's format but with the number of the class as "category_id", and "highest", the highest score
# above or below the threshold; None without any detection.
Entry = dict[str, Any]


class Progress:
    """A file of JSON texts, one a line: the settings, and then an entry for each image.

    Only the position of each entry is in memory.

    Attributes:
        failed: {index of an image: why it cannot be read}, of this run.
    """

    def __init__(self, folder: str, settings: Mapping[str, Any]):
        """Open the file, or begin it.

        Args:
            folder: where the file is; the folder exists.
            settings: what the predictions depend on: {name on the command line: value}.

        Raises:
            UserError: the file is of other settings, is broken, or is in use by another process.
        """
        self.path = os.path.join(folder, PROGRESS)
        self.failed: dict[int, str] = {}
        self._places: dict[int, int] = {}  # {index of an image: where its line begins}
        if os.path.lexists(self.path):
            check_regular_file(self.path)
        try:
            self._file = open(self.path, "a+b")  # noqa: SIM115  it stays open during the run
        except OSError as error:
            raise unreadable_file(self.path, error) from error
        try:
            self._begin(settings)
        except BaseException:
            self._file.close()
            raise

    def _begin(self, settings: Mapping[str, Any]) -> None:
        self._lock()
        self._file.seek(0)
        header = self._file.readline()
        if header.endswith(b"\n"):
            self._check_settings(header, settings)
            self._read_places()
        else:  # a new file, or one that was interrupted at once
            self._file.truncate(0)
            self._write([dict(settings)])

    def _lock(self) -> None:
        try:
            file_lock.lock(self._file)
        except BlockingIOError as error:
            raise UserError(
                f"{self.path}: in use by another process; wait until it ends, or name another "
                "folder by --out"
            ) from error
        except OSError:  # a file system without locks
            return

    def _check_settings(self, header: bytes, settings: Mapping[str, Any]) -> None:
        try:
            before = json.loads(header)
            different = [key for key, value in settings.items() if before[key] != value]
        except (ValueError, KeyError, TypeError) as error:
            raise self._broken(0) from error
        for key in different:
            raise UserError(
                f"{self.path}: was begun with another {key} ({before[key]}, and now it is "
                f"{settings[key]}); give the same, or name another folder by --out"
            )

    def _read_places(self) -> None:
        """Find all entries. A batch that was not written to its end is cut off."""
        batch: dict[int, int] = {}
        place = end = self._file.tell()
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                batch[entry["index"]] = place
                place += len(line)
                if not entry["left"]:
                    self._places |= batch
                    batch, end = {}, place
            except (ValueError, KeyError, TypeError) as error:
                raise self._broken(place) from error
        self._file.truncate(end)

    def _broken(self, place: int) -> UserError:
        return UserError(
            f"{self.path}: broken after {place} bytes, so it cannot be resumed; name another "
            "folder by --out"
        )

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, batch: Sequence[Entry]) -> None:
        """Write the entries of a batch. After an interruption, all of them are there, or none."""
        place = self._file.seek(0, os.SEEK_END)
        left = range(len(batch) - 1, -1, -1)
        sizes = self._write([{**entry, "left": n} for entry, n in zip(batch, left, strict=True)])
        for entry, size in zip(batch, sizes, strict=True):
            self._places[entry["index"]] = place
            place += size

    def _write(self, contents: Sequence[dict]) -> list[int]:
        lines = [json.dumps(content).encode() + b"\n" for content in contents]
        self._file.write(b"".join(lines))
        self._file.flush()
        return list(map(len, lines))

    def entries(self) -> Iterator[Entry]:
        """All entries, in the order of the images."""
        for index in sorted(self._places):
            self._file.seek(self._places[index])
            yield json.loads(self._file.readline())

    def close(self) -> None:
        """Close the file, and release the lock."""
        self._file.close()
