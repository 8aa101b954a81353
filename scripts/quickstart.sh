#!/usr/bin/env bash
# Installs if necessary (VENV, PYTHON, TORCH, NUMPY and FAIRSEQ as in install.sh), then runs everything on a built-in example:
# the study of configs/recipes/quickstart.yaml, from text to tables. It writes to quickstart/ or the given folder; what follows
# the folder goes to 'langspec-lora study'. Run it again to continue after an interruption.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
"$root/scripts/install.sh"
[[ $venv == /* ]] || venv=$PWD/$venv
out=${1:-$root/quickstart}
[[ $# -eq 0 ]] || shift
[[ $out == /* ]] || out=$PWD/$out
cores=$(getconf _NPROCESSORS_ONLN)
cd "$root" # so that the printed commands can be pasted
exec "$venv/bin/langspec-lora" study configs/recipes/quickstart.yaml --jobs "$((cores < 4 ? cores : 4))" \
    --out "${out#"$root"/}" "$@"
