#!/usr/bin/env python
"""Measure the time and the peak memory of the start of a training, on a made-up data set.

python tools/benchmark_data.py                                     # 10,000 images in VOC's format
python tools/benchmark_data.py --images 100000 --boxes 7           # 700,000 boxes
python tools/benchmark_data.py --format coco --images 118000 --masks
python tools/benchmark_data.py --classes 5000 --images 5000

The images are links to a few small files, so they need little disk space. The step "parsing" only
parses the annotation files, so no program takes less. The seconds of CPU are also given as ratios
to this step, because ratios depend less on the machine. This needs Linux.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from tabulate import tabulate

from apdet.data.coco import read_coco
from apdet.data.mapper import BoxMapper
from apdet.data.records import Records, to_dataset_dicts
from apdet.data.register import register
from apdet.data.training import resumable_train_loader
from apdet.data.training_images import training_dicts
from apdet.data.voc import read_voc

WIDTH, HEIGHT = 160, 120
NUM_FILES = 16  # different image files; file systems limit the number of links to one
CORNERS = 12  # of a polygon


class Folder:
    """Writes a data set of random boxes to a folder."""

    def __init__(self, root: Path, args: argparse.Namespace):
        self.root, self.args = root, args
        self.rng = np.random.default_rng(args.seed)
        self.images, self.annotations = root / "images", root / "annotations"

    def write(self) -> dict[str, Any]:
        """Write images and annotations, and return the entry for `register`."""
        self.images.mkdir()
        self._write_images()
        write = self._write_coco if self.args.format == "coco" else self._write_voc
        return {"name": "benchmark", "images": str(self.images), **write()}

    def _write_images(self) -> None:
        for number in range(NUM_FILES):
            pixels = self.rng.integers(256, size=(HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(self.root / f"{number}{_suffix(number)}")
        for number in range(self.args.images):
            source = self.root / f"{number % NUM_FILES}{_suffix(number)}"
            os.link(source, self.images / f"{number:06}{_suffix(number)}")

    def _boxes(self) -> Iterator[tuple[int, list[float]]]:
        """The class and the corners of each box of an image."""
        low = self.rng.uniform(0, 0.7, (self.args.boxes, 2))
        high = low + self.rng.uniform(0.05, 0.3, low.shape)
        corners = np.hstack([low, high]) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
        classes = self.rng.integers(self.args.classes, size=len(corners))
        return zip(classes.tolist(), corners.round(2).tolist(), strict=True)

    def _write_voc(self) -> dict[str, Any]:
        self.annotations.mkdir()
        for number in range(self.args.images):
            objects = "".join(
                f"<object><name>class {k}</name><difficult>0</difficult><bndbox><xmin>{x0}</xmin>"
                f"<ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
                for k, (x0, y0, x1, y1) in self._boxes()
            )
            (self.annotations / f"{number:06}.xml").write_text(
                f"<annotation><filename>{number:06}{_suffix(number)}</filename><size><width>{WIDTH}"
                f"</width><height>{HEIGHT}</height></size>{objects}</annotation>"
            )
        return {"format": "voc", "annotations": str(self.annotations)}

    def _write_coco(self) -> dict[str, Any]:
        names = [f"{number:06}{_suffix(number)}" for number in range(self.args.images)]
        content = {
            "images": [
                {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
                for i, name in enumerate(names)
            ],
            "annotations": [
                self._coco_annotation(i, k, box)
                for i in range(len(names))
                for k, box in self._boxes()
            ],
            "categories": [{"id": k, "name": f"class {k}"} for k in range(self.args.classes)],
        }
        for number, annotation in enumerate(content["annotations"], 1):
            annotation["id"] = number
        self.annotations.with_suffix(".json").write_text(json.dumps(content))
        return {"format": "coco", "json": str(self.annotations.with_suffix(".json"))}

    def _coco_annotation(self, image_id: int, k: int, box: list[float]) -> dict[str, Any]:
        x0, y0, x1, y1 = box
        annotation = {
            "image_id": image_id,
            "category_id": k,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0),
            "iscrowd": 0,
        }
        if self.args.masks:
            polygon = self.rng.uniform((x0, y0), (x1, y1), (CORNERS, 2)).round(2).ravel().tolist()
            annotation["segmentation"] = [polygon]
        return annotation


def _suffix(number: int) -> str:
    return (".jpg", ".png")[number % 2]


class Meter:
    """Measures steps: their seconds on the clock, their seconds of CPU and the peak memory."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    @contextmanager
    def measuring(self, step: str) -> Iterator[None]:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak memory
        start, cpu_start = time.perf_counter(), _cpu_seconds()
        yield
        row = {"step": step, "seconds": time.perf_counter() - start}
        row["CPU seconds"] = _cpu_seconds() - cpu_start
        self.rows.append({**row, "peak MiB": _peak_bytes() / 2**20})
        self.rows[-1]["over parsing"] = row["CPU seconds"] / self.rows[0]["CPU seconds"]
        print(f"{step}: {row['seconds']:.1f} s", flush=True)


def _cpu_seconds() -> float:
    """Seconds of CPU of this process and of the processes that it started and that ended."""
    import resource  # not at the top, because Windows does not have it

    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def parse(entry: dict[str, Any]) -> None:
    """Parse the annotation files, and forget their content."""
    gc.disable()  # which would take as long, see apdet/data/garbage.py
    if entry["format"] == "coco":
        json.loads(Path(entry["json"]).read_bytes())
    else:
        for path in Path(entry["annotations"]).iterdir():
            ElementTree.parse(path)
    gc.enable()


def read(entry: dict[str, Any]) -> Records:
    if entry["format"] == "coco":
        return read_coco(entry["json"], entry["images"])
    return read_voc(entry["images"], entry["annotations"])


def measure(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Measure the steps of a start, and return a row for each."""
    meter = Meter()
    with meter.measuring("parsing"):
        parse(entry)
    with meter.measuring("reading annotations"):
        records = read(entry)
    with meter.measuring("image headers, checks"):
        to_dataset_dicts(records, records.class_names, "benchmark")
    del records
    with meter.measuring("register, with both"):
        register([entry], train=["benchmark"], test=["benchmark"])
    with meter.measuring("training list"):
        dicts = training_dicts(["benchmark"])
    with meter.measuring("first batch"):
        mapper = BoxMapper(is_train=True, augmentations=[], image_format="BGR")
        loader = resumable_train_loader(dicts, mapper=mapper, total_batch_size=2, seed=0)
        next(iter(loader))
    return meter.rows


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000, help="default: 10000")
    parser.add_argument("--boxes", type=int, default=7, help="boxes in an image; default: 7")
    parser.add_argument("--classes", type=int, default=20, help="default: 20")
    parser.add_argument("--format", choices=("voc", "coco"), default="voc", help="default: voc")
    parser.add_argument("--masks", action="store_true", help="with polygons; for --format coco")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if sys.platform != "linux":
        sys.exit("error: only Linux tells the peak memory of a step; run this benchmark there")
    with tempfile.TemporaryDirectory() as scratch:
        entry = Folder(Path(scratch), args).write()
        rows = measure(entry)
    print(tabulate(rows, headers="keys", floatfmt=".2f"))


if __name__ == "__main__":
    main()
