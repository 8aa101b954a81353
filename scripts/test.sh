#!/usr/bin/env bash
# Runs all tests; its arguments go to pytest. Installs first where that has not been done (VENV, PYTHON, TORCH, NUMPY and
# FAIRSEQ as in install.sh). Tests on real text take FLORES-101 from $FLORES101.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
"$root/scripts/install.sh"
[[ $venv == /* ]] || venv=$PWD/$venv
cd "$root"
exec "$venv/bin/python" -m pytest "$@"
