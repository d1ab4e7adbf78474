#!/usr/bin/env bash
# Install apdet and all its dependencies into an environment, unless they are installed already.
#
#   bash tools/setup_env.sh                      # into .venv, which is made if missing
#   APDET_VENV=/path bash tools/setup_env.sh     # into another environment, made if missing
#   PYTHON=python3.12 bash tools/setup_env.sh    # the interpreter for a new environment
#
# If the environment can import torch, torchvision or detectron2 already, that version is kept.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${APDET_VENV:-$ROOT/.venv}"

fail() {
    echo "setup_env: $1" >&2
    echo "setup_env: what to do: $2" >&2
    exit 1
}

case "$(uname -s)" in
    MINGW* | MSYS* | CYGWIN*) fail "apdet runs on Linux and macOS" "on Windows, use WSL 2" ;;
esac

is_supported() { # is_supported INTERPRETER: whether it runs and is Python 3.11 or newer
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if is_supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer among: ${PYTHON:-python3 python3.13 python3.12 python3.11}" \
        "install one, or name it: PYTHON=/path/to/python3.12 bash tools/setup_env.sh"
}

if [ ! -x "$VENV/bin/python" ]; then
    python="$(find_python)"
    echo "setup_env: making $VENV with $("$python" --version)"
    "$python" -m venv "$VENV" || fail "'$python -m venv $VENV' failed" \
        "read the message above; on Debian and Ubuntu: apt-get install python3-venv"
fi
PY="$VENV/bin/python"
is_supported "$PY" || fail "$PY is older than Python 3.11" \
    "remove $VENV, or name another environment with APDET_VENV"

# The stamp holds everything that decides what is installed. If it is unchanged, nothing is done.
cd "$ROOT"
STAMP="$VENV/.apdet-setup"
WANTED="$ROOT $(cat setup.py constraints.txt third_party/detectron2/{backend.py,pyproject.toml} | cksum)"
imports() { "$PY" -c "import $1" >/dev/null 2>&1; }
if [ "$(cat "$STAMP" 2>/dev/null)" = "$WANTED" ] && imports apdet,detectron2,torch,torchvision; then
    echo "setup_env: $VENV is ready"
    exit 0
fi

constraints="$(mktemp)"
trap 'rm -f "$constraints"' EXIT
cp constraints.txt "$constraints"
for package in torch torchvision; do
    if imports "$package"; then
        version="$("$PY" -c "import importlib.metadata as m; print(m.version('$package'))")"
        echo "setup_env: keeping $package $version, which is there already"
        sed -i.bak "s/^$package==.*/$package==$version/" "$constraints"
    elif [ "$package" = torchvision ] && imports torch; then
        sed -i.bak "/^torchvision==/d" "$constraints" # pip finds the one that fits this torch
    fi
done
packages=(-e ".[dev]")
if imports detectron2; then
    echo "setup_env: keeping the detectron2 that is there already"
else
    packages+=(./third_party/detectron2)
fi

echo "setup_env: installing into $VENV (the first time a few minutes and, with torch, some 5 GB)"
"$PY" -m pip install --quiet --disable-pip-version-check -c "$constraints" "${packages[@]}" ||
    fail "pip could not install apdet into $VENV" \
        "read pip's message above; check the disk space and that the package index can be reached"
imports apdet,detectron2,torch,torchvision ||
    fail "$("$PY" -c 'import apdet, detectron2, torch, torchvision' 2>&1 | tail -n 1)" \
        "remove $VENV and call this script again"
echo "$WANTED" >"$STAMP"
echo "setup_env: $VENV is ready"
