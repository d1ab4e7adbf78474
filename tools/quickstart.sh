#!/usr/bin/env bash
# Set up the environment if need be, write the digits data set, train RetinaNet with the AP-loss on
# it and evaluate it. Interrupted, it goes on where it was; arguments override keys of the config.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
PY="${APDET_VENV:-.venv}/bin/python"
"$PY" -m apdet.data.digits --out datasets/digits
exec "$PY" tools/train_net.py --config-file configs/digits/retinanet_ap.yaml --resume "$@"
