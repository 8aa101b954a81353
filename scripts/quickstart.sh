#!/usr/bin/env bash
# Installs into .venv (VENV, PYTHON, TORCH, NUMPY and FAIRSEQ as in install.sh), then runs the main job on a built-in
# example, into quickstart/ or the folder given: data, base model, fine-tuning with and without pruning, all directions,
# table and heat maps. Run again, it takes up where it was or says that all is there.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
"$root/scripts/install.sh"
[[ $venv == /* ]] || venv=$PWD/$venv
[[ $# -gt 0 ]] || set -- "$root/quickstart"
exec "$venv/bin/python" -m langspec_lora.example.quickstart "$@"
