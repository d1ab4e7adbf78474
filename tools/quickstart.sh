#!/usr/bin/env bash
# Set up the environment if needed, write the digits data set, and train and evaluate RetinaNet with
# the AP-loss on it. An interrupted training continues. Arguments override keys of the config.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
PY="${APDET_VENV:-.venv}/bin/python"
"$PY" -m apdet.data.digits --out datasets/digits
exec "$PY" tools/train_net.py --config-file configs/digits/retinanet_ap.yaml --resume "$@"
