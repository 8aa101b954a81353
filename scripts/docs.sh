#!/usr/bin/env bash
# Builds the manual as a website in build/docs; any warning is an error. Arguments are passed to mkdocs build. Installs first
# if necessary (VENV, PYTHON, TORCH, NUMPY and FAIRSEQ as in install.sh).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
"$root/scripts/install.sh"
[[ $venv == /* ]] || venv=$PWD/$venv
cd "$root"
"$venv/bin/python" -c 'import material, mkdocs, mkdocs_jupyter, mkdocstrings_handlers.python' 2>/dev/null ||
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[docs]"
export COLUMNS=110 # the width of the commands' help texts
export PATH="$venv/bin:$PATH" # the tour runs commands
export NO_MKDOCS_2_WARNING=1 # a notice of the theme about other software
"$venv/bin/python" -m mkdocs build --strict "$@"
echo "the manual is in $root/build/docs; open index.html"
