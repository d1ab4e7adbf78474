"""Packaging of apdet. Metadata only: imports nothing but setuptools, compiles nothing."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "apdet" / "__init__.py").read_text())[1]


class BuildWithConfigs(build_py):
    """Puts ``configs/`` into a wheel as ``apdet/configs``; an editable install needs no copy."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "apdet", "configs")
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(
                ROOT / "configs", target, ignore=shutil.ignore_patterns("__pycache__", ".*")
            )


setup(
    name="apdet",
    version=VERSION,
    description="One-stage object detectors trained by ranking: AP-loss for Detectron2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["apdet", "apdet.*"]),
    package_data={"apdet": ["py.typed"]},
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["apdet = apdet.cli:main"]},
    # Detectron2 is needed by everything but apdet.losses. It is not named here because it has no
    # official release on the package index; README.md says how it is installed.
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "fvcore>=0.1.5,<0.1.6",
        "omegaconf>=2.1,<2.4",
        "pycocotools>=2.0.7",
        "opencv-python>=4.8",
        "numpy>=1.24",
        "Pillow>=10",
        "matplotlib>=3.7",
        "scikit-learn>=1.3",
        "defusedxml>=0.7",
        "PyYAML>=6",
        "tabulate>=0.9",
        "tensorboard>=2.14",
    ],
    extras_require={
        # The losses compiled for the CPU. The tests check them too.
        "fast": ["numba>=0.61"],
        # Files that `apdet convert` reads beside torch's own.
        "convert": ["onnx>=1.16", "safetensors>=0.4"],
        "dev": [
            "numba>=0.61",
            "onnx>=1.16",
            "safetensors>=0.4",
            "scipy>=1.11",
            "setuptools>=70.1",  # a test builds a wheel
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6",
            "mypy==2.4.1",
            "pre-commit>=3.5",
            "ruff==0.17.5",
        ],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
