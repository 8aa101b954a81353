#!/usr/bin/env bash
# Installs if necessary (VENV, PYTHON, TORCH, NUMPY and FAIRSEQ as in install.sh), then runs everything on a built-in example:
# data, base model, fine-tuning with and without pruning, translation of all directions, table and heat maps. It writes to
# quickstart/ or the given folder. Run it again to continue after an interruption.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
"$root/scripts/install.sh"
[[ $venv == /* ]] || venv=$PWD/$venv
[[ $# -gt 0 ]] || set -- "$root/quickstart"
exec "$venv/bin/python" -m langspec_lora.example.quickstart "$@"
