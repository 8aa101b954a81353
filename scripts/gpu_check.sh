#!/usr/bin/env bash
# Checks on one GPU, in at most eight minutes, what tests on a CPU cannot show; see scripts/gpu_check/__main__.py.
# Usage: scripts/gpu_check.sh [OUT=gpu-check] [--device cpu] [--only CHECK…]
# Writes OUT/gpu-check.json and OUT/gpu-check.md. Exit code: 0 all passed, 1 a check failed, 2 wrong flags, 77 no GPU.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
[[ ! -d $venv/bin ]] || export PATH=$venv/bin:$PATH
exec env PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" python3 "$root/scripts/gpu_check" "$@"
