#!/usr/bin/env bash
# Set up the environment if need be, and run the tests; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
# Small models gain nothing from threads; processes that share cores lose by them.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "${APDET_VENV:-.venv}/bin/python" -m pytest "$@"
