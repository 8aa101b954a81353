#!/usr/bin/env bash
# Installs into .venv (VENV, PYTHON, TORCH, NUMPY and FAIRSEQ as in install.sh), then runs all steps on a built-in
# example, in quickstart/ or the given folder: data, base model, fine-tuning with and without pruning, translation of all
# directions, table and heat maps. Run it again to continue after an interruption.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
"$root/scripts/install.sh"
[[ $venv == /* ]] || venv=$PWD/$venv
[[ $# -gt 0 ]] || set -- "$root/quickstart"
exec "$venv/bin/python" -m langspec_lora.example.quickstart "$@"
