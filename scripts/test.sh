#!/usr/bin/env bash
# Runs all tests, on up to four cores; its arguments go to pytest, which then has one. Installs first where that has not
# been done (VENV, PYTHON, TORCH, NUMPY and FAIRSEQ as in install.sh). Tests on real text take FLORES-101 from $FLORES101.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
"$root/scripts/install.sh"
[[ $venv == /* ]] || venv=$PWD/$venv
cd "$root"
(($#)) || set -- --numprocesses auto --maxprocesses 4 --dist loadfile
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # several processes whose sums share cores wait for each other
exec "$venv/bin/python" -m pytest "$@"
