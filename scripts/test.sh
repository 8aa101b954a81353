#!/usr/bin/env bash
# Runs all tests on up to four cores and lists the ten slowest. Arguments are passed to pytest, which then uses one core.
# Installs first if necessary (VENV, PYTHON, TORCH, NUMPY and FAIRSEQ as in install.sh). Tests on real text read FLORES-101
# from the folder in the environment variable FLORES101, and are skipped if it is not set.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
"$root/scripts/install.sh"
[[ $venv == /* ]] || venv=$PWD/$venv
cd "$root"
(($#)) || set -- --durations 10 --numprocesses auto --maxprocesses 4 --dist loadfile
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # several processes with several threads each would wait for each other
exec "$venv/bin/python" -m pytest "$@"
