#!/usr/bin/env bash
# Set up the environment if needed, and run the tests on all cores. Arguments are passed to pytest.
#
#   bash tools/test.sh tests/losses -k interpolation
#   bash tools/test.sh -n 4          # four processes
#   bash tools/test.sh -p no:xdist   # one process; also with --pdb
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
PY="${APDET_VENV:-.venv}/bin/python"
# Small models gain nothing from threads, and processes that share cores become slower.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

processes=()
if "$PY" -c "import xdist" >/dev/null 2>&1; then
    processes=(-n "$(getconf _NPROCESSORS_ONLN)" --dist worksteal)  # nproc would obey OMP_NUM_THREADS
fi
for argument in "$@"; do
    case "$argument" in
        -n* | --numprocesses* | --pdb | *no:xdist) processes=() ;;
    esac
done
exec "$PY" -m pytest ${processes[@]+"${processes[@]}"} "$@"
