#!/usr/bin/env bash
# Checks the style of all Python files and shell scripts and the types of the package. It changes nothing. Installs first if
# necessary.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
"$root/scripts/install.sh"
[[ $venv == /* ]] || venv=$PWD/$venv
cd "$root"
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
"$venv/bin/shellcheck" scripts/*.sh .ci/run
