"""The wheel trains outside the checkout: it holds all that it needs, the configs too."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command, cwd, **env):
    """The output of a command that succeeds. It sees no checkout: neither PYTHONPATH nor folder."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**inherited, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the sources, for the build to write into."""
    folder = tmp_path_factory.mktemp("build") / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("apdet", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(ROOT / "LICENSE", folder)
    return folder


def build(what, source, out):
    """Build a "sdist", "wheel" or "editable" by this environment's setuptools; return its path."""
    code = f"import sys, setuptools.build_meta as b; print(b.build_{what}(sys.argv[1]))"
    return Path(out, run(sys.executable, "-c", code, out, cwd=source).splitlines()[-1])


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    """The wheel that pip builds of the source distribution."""
    out = tmp_path_factory.mktemp("dist")
    sdist = build("sdist", source, out)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    run(*pip, "--wheel-dir", out, sdist, cwd=out)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def venv(wheel, tmp_path_factory):
    """An environment that has the wheel, and sees the other packages of this one."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file is searched, but .pth files there are not read: no editable install.
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "others.pth").write_text("\n".join(others))
    pip = [sys.executable, "-m", "pip", "--python", folder, "install", "--no-deps", "--no-index"]
    run(*pip, wheel, cwd=folder)
    return folder


def test_the_wheel_holds_the_packages_the_configs_and_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "apdet = apdet.cli:main" in archive.read(entry_points).decode()
    sources = [
        *(path.relative_to(ROOT) for path in (ROOT / "apdet").rglob("*.py")),
        *(Path("apdet", path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml")),
        *(Path("apdet", path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.py")),
        Path("apdet/py.typed"),
    ]
    assert {path.as_posix() for path in sources} <= names
    assert {name.split("/")[0] for name in names} == {
        "apdet",
        wheel.name.split("-py3")[0] + ".dist-info",
    }


def test_an_editable_install_reads_the_configs_of_the_checkout(source, tmp_path):
    with zipfile.ZipFile(build("editable", source, tmp_path)) as archive:
        assert not any("configs" in name for name in archive.namelist())
    assert not (source / "apdet" / "configs").exists()


def test_the_installed_command_trains_from_an_empty_folder(venv, tmp_path):
    python, env = venv / "bin" / "python", {"OMP_NUM_THREADS": "1"}
    where = run(python, "-c", "import apdet; print(apdet.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(venv)

    digits = ["--out", "datasets/digits", "--train", "30", "--test", "4", "--size", "64"]
    run(python, "-m", "apdet.data.digits", *digits, cwd=tmp_path, **env)
    run(
        venv / "bin" / "apdet", "train", "--config-file", "digits/retinanet_ap.yaml",
        "--device", "cpu", "SOLVER.MAX_ITER", "3", "SOLVER.IMS_PER_BATCH", "2",
        "SOLVER.REFERENCE_BATCH_SIZE", "2", "INPUT.FIXED_SIZE_TRAIN", "(64,64)",
        "INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "64", "OUTPUT_DIR", "output",
        cwd=tmp_path, **env,
    )  # fmt: skip
    assert (tmp_path / "output" / "model_final.pth").exists()
    assert (tmp_path / "output" / "results.json").exists()
