"""The set-up scripts, as far as they can be tried without installing an environment anew."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "third_party" / "detectron2"))
import backend  # noqa: E402


def setup_env(root=ROOT, **env):
    return subprocess.run(
        ["bash", "tools/setup_env.sh"],
        cwd=root,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_old_or_missing_python_is_named_with_the_remedy(tmp_path):
    done = setup_env(PYTHON="no-such-python", APDET_VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert "no Python 3.11 or newer among: no-such-python" in done.stderr
    assert "what to do: install one, or name it: PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_on_windows_it_says_what_to_do_and_makes_nothing(tmp_path):
    uname = tmp_path / "uname"
    uname.write_text("#!/bin/sh\necho MINGW64_NT-10.0-22631\n")
    uname.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = setup_env(PATH=path, APDET_VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert done.stderr.endswith("what to do: on Windows, use WSL 2\n")
    assert not (tmp_path / "venv").exists()


def test_an_environment_that_is_ready_is_left_as_it_is_also_beside_compiled_files(tmp_path):
    root, venv = tmp_path / "clone", tmp_path / "venv"
    sources = ["setup.py", "constraints.txt", "tools/setup_env.sh"]
    sources += [f"third_party/detectron2/{name}" for name in ("backend.py", "pyproject.toml")]
    for name in sources:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    # This very Python, by another name, for a stamp of its own; and it cannot install anything.
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    python.write_text(f'#!/bin/sh\n[ "$2" != pip ] && exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    wanted = [root / name for name in sources if not name.startswith("tools/")]
    content = b"".join(path.read_bytes() for path in wanted)
    checksum = subprocess.run(["cksum"], input=content, capture_output=True, check=True).stdout
    (venv / ".apdet-setup").write_text(f"{root} {checksum.decode()}")

    # Written when the backend is imported, by pip or by a test.
    (root / "third_party" / "detectron2" / "__pycache__").mkdir()
    done = setup_env(root, APDET_VENV=str(venv))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"setup_env: {venv} is ready\n"

    with (root / "constraints.txt").open("a") as file:
        file.write("# another\n")
    done = setup_env(root, APDET_VENV=str(venv))
    assert done.returncode == 1
    assert "pip could not install apdet" in done.stderr


@pytest.mark.parametrize("with_xdist", [True, False])
@pytest.mark.parametrize(
    ("arguments", "in_one_process"),
    [
        ([], False),
        (["-q", "tests/losses", "-k", "interpolation"], False),
        (["--no-header"], False),
        (["-n", "4"], True),
        (["-n4"], True),
        (["-p", "no:xdist"], True),
        (["--pdb"], True),
    ],
)
def test_the_tests_run_on_all_cores_unless_told_otherwise(
    tmp_path, arguments, in_one_process, with_xdist
):
    (tmp_path / "tools").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "tools" / "test.sh", tmp_path / "tools")
    (tmp_path / "tools" / "setup_env.sh").write_text("exit 0\n")
    python = tmp_path / "bin" / "python"  # says what it is called with, and whether it has xdist
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit {int(not with_xdist)}\necho "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", "tools/test.sh", *arguments],
        cwd=tmp_path,
        env={**os.environ, "APDET_VENV": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    processes = ["-n", str(os.cpu_count()), "--dist", "worksteal"]
    if in_one_process or not with_xdist:
        processes = []
    assert done.stdout.split() == ["-m", "pytest", *processes, *arguments]


@pytest.fixture
def source_wheel(tmp_path):
    path = tmp_path / "source.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("detectron2/__init__.py", '__version__ = "0.7.2"\n')
        wheel.writestr("detectron2/engine.py", "x = 1\n")
        wheel.writestr("detectron2/_C.cpython-310-x86_64-linux-gnu.so", b"\x7fELF")
        wheel.writestr("tools/elsewhere.py", "")
        wheel.writestr("sal_detectron2-0.7.2.dist-info/LICENSE", "Apache")
    return path


def test_the_detectron2_wheel_holds_the_python_files_and_a_true_record(
    tmp_path, source_wheel, monkeypatch
):
    monkeypatch.setattr(backend, "_download", lambda folder: source_wheel)
    name = backend.build_wheel(str(tmp_path))
    with zipfile.ZipFile(tmp_path / name) as wheel:
        files = {path: wheel.read(path) for path in wheel.namelist()}
    info = f"detectron2-{backend.VERSION}.dist-info"
    assert set(files) == {
        "detectron2/__init__.py",
        "detectron2/engine.py",
        *(f"{info}/{part}" for part in ("LICENSE", "METADATA", "WHEEL", "RECORD")),
    }
    assert files["detectron2/__init__.py"] == b'__version__ = "0.6"\n'
    lines = files[f"{info}/RECORD"].decode().splitlines()
    size = dict(line.split(",", 1) for line in lines)["detectron2/engine.py"].split(",")[1]
    assert int(size) == len(files["detectron2/engine.py"])


def test_a_wheel_with_another_hash_is_refused(tmp_path, source_wheel, monkeypatch):
    # pip itself does the refusing; served a look-alike, it must not fall back to it.
    fake = tmp_path / "index" / "sal_detectron2-0.7.2-cp310-none-any.whl"
    fake.parent.mkdir()
    fake.write_bytes(source_wheel.read_bytes())
    assert hashlib.sha256(fake.read_bytes()).hexdigest() != backend.SHA256
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(fake.parent))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    with pytest.raises(subprocess.CalledProcessError):
        backend._download(tmp_path)
