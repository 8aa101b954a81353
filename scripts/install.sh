#!/usr/bin/env bash
# Installs torch, fairseq and this package into .venv. Run it again to continue after an interruption.
# Variables:
#   VENV     the environment (default: .venv in the repository)
#   PYTHON   the interpreter for a new environment, 3.10 to 3.13 (default: python3, or the newest of these that is found)
#   TORCH    pip's argument for torch, with options (default: torch==2.13.0)
#   NUMPY    pip's argument for NumPy (default: a version for that torch; 1.23.5 for torch 2.0.1 on Python 3.10)
#   FAIRSEQ  pip's argument for fairseq (default: fairseq==0.12.2; or its repository, git+https://…)
# If a variable is not set, an existing environment keeps its version.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
python=$venv/bin/python
stamp=$venv/langspec_lora.stamp
log=$venv/langspec_lora.log
lock=$venv/langspec_lora.lock
started=$SECONDS
child=
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0

fail() {
    printf 'install.sh: error: %s\n' "$*" >&2
    exit 1
}

trap '[[ -z $child ]] || kill "$child" 2>/dev/null || true' EXIT

# Runs a command, writes its output to the log and shows the elapsed seconds.
step() { # step NAME COMMAND…
    local name=$1 from=$SECONDS said=$SECONDS
    shift
    printf '\n== %s: %s\n' "$name" "$*" >>"$log"
    "$@" >>"$log" 2>&1 &
    child=$!
    while kill -0 "$child" 2>/dev/null; do
        if [[ -t 1 ]]; then
            printf '\r\033[K%s … %d s  %.60s' "$name" $((SECONDS - from)) "$(tail -n 1 "$log" | tr -d '\r')"
        elif ((SECONDS - said >= 15)); then
            said=$SECONDS
            printf '%s … %d s\n' "$name" $((SECONDS - from))
        fi
        sleep 0.2
    done
    if wait "$child"; then
        child=
        [[ ! -t 1 ]] || printf '\r\033[K'
        printf '%s: %d s\n' "$name" $((SECONDS - from))
    else
        child=
        [[ ! -t 1 ]] || printf '\r\033[K'
        explain "$name"
    fi
}

python_version() { # python_version [INTERPRETER]
    "${1:-$python}" -c 'import platform; print(platform.python_version())'
}

# Ends the script with the reason why pip failed, in one line.
explain() { # explain NAME
    local output reason
    output=$(awk '/^== /{text=""} {text=text $0 "\n"} END{printf "%s", text}' "$log")
    if grep -qiE 'No space left on device|Disk quota exceeded' <<<"$output"; then
        reason="the disk is full: $(df -Ph "$venv" | awk 'NR==2{print $4 " free on " $6}'), and pip unpacks in ${TMPDIR:-/tmp}; make room"
    elif grep -qiE 'NewConnectionError|ConnectTimeoutError|ReadTimeoutError|Temporary failure in name resolution|Network is unreachable|Max retries exceeded|ProxyError' <<<"$output"; then
        reason="the package index cannot be reached; check the network, the proxy or pip's index-url"
    elif grep -q 'from versions: none' <<<"$output"; then
        reason="the package index has no version of it for Python $(python_version); check the network, the proxy or pip's index-url, or choose another PYTHON"
    elif grep -q 'No matching distribution found' <<<"$output"; then
        reason="$(grep -o 'No matching distribution found.*' <<<"$output" | head -n 1) on Python $(python_version); choose another version or another PYTHON"
    else
        reason=$(grep -iE '^ *(error|fatal)' <<<"$output" | tail -n 1 || true)
    fi
    fail "$1 failed: ${reason:-see the end of its output} (the whole output is in $log)"
}

runs() { # runs COMMAND: whether COMMAND is a supported Python
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

choose_python() {
    local candidate
    if [[ -n ${PYTHON:-} ]]; then
        command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON not found; give an interpreter, such as PYTHON=python3.12"
        runs "$PYTHON" || fail "PYTHON=$PYTHON is $("$PYTHON" --version 2>&1 | head -n 1); give Python 3.10, 3.11, 3.12 or 3.13"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
        if runs "$candidate"; then
            PYTHON=$candidate
            return
        fi
    done
    fail "Python 3.10, 3.11, 3.12 or 3.13 not found; install one, or give it as PYTHON=/path/to/python3.12"
}

check_venv() {
    local version old
    if [[ -e $venv && ! -f $venv/pyvenv.cfg && -n $(find "$venv" -type f ! -name 'langspec_lora.*' -print -quit) ]]; then
        fail "$venv is not a Python environment, but contains files; give another folder as VENV=…"
    fi
    if [[ ! -e $python && ! -L $python ]]; then
        choose_python
        return
    fi
    version=$(python_version 2>/dev/null) ||
        fail "$python does not run; remove $venv and run this again"
    old=$(recorded venv)
    [[ -z $old || $old == "$(cd "$venv" && pwd -P)" ]] ||
        fail "$venv was moved from $old, so its commands do not run; remove it and run this again"
    [[ -n ${PYTHON:-} ]] || return 0
    choose_python
    [[ $version == "$(python_version "$PYTHON")" ]] ||
        fail "$venv has Python $version, but PYTHON=$PYTHON is another version; remove $venv, or give another folder as VENV=…"
}

make_venv() {
    local version
    [[ -n ${PYTHON:-} ]] || choose_python
    version=$(python_version "$PYTHON")
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$PYTHON has no venv module; on Debian and Ubuntu: apt install python${version%.*}-venv"
    step "Python $version environment in $venv" "$PYTHON" -m venv "$venv"
}

# If an installation was killed, the package has no RECORD, but pip considers it installed.
remove_half_installed() {
    local packages info
    packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    for info in "$packages"/*.dist-info; do
        [[ ! -d $info || -e $info/RECORD ]] || rm -r "$info"
    done
}

check_compiler() {
    "$python" - <<'PY' || exit 1
import os, pathlib, shutil, sys, sysconfig

for variable in ("CC", "CXX"):
    command = (os.environ.get(variable) or sysconfig.get_config_var(variable) or variable).split()[0]
    if not shutil.which(command):
        sys.exit(
            f"install.sh: error: no C++ compiler ({command} not found), but fairseq has to be compiled; "
            "on Debian and Ubuntu: apt install build-essential"
        )
if not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists():
    sys.exit(
        "install.sh: error: Python.h not found, but fairseq has to be compiled; "
        f"on Debian and Ubuntu: apt install python{sys.version_info[0]}.{sys.version_info[1]}-dev"
    )
PY
}

recorded() { # recorded NAME: the value in the stamp of the last run
    [[ ! -f $stamp ]] || sed -n "s/^$1=//p" "$stamp"
}

# torch up to 2.2 was compiled for NumPy 1.
numpy_for_torch() {
    "$python" - <<'PY'
import sys
from importlib.metadata import version

if tuple(int(part) for part in version("torch").split(".")[:2]) >= (2, 3):
    print("numpy>=1.23")
else:
    print("numpy==1.23.5" if sys.version_info < (3, 11) else "numpy>=1.23,<2")
PY
}

# The package that provides fairseq: fairseq itself, or a fork under another name.
fairseq_distribution() {
    "$python" -c 'from importlib.metadata import packages_distributions as of; print(*of().get("fairseq", [])[:1])'
}

# Missing requirements of the installed fairseq, such as scikit-learn for its main branch. The versions of hydra-core and
# omegaconf that it asks for cannot be installed, torch and NumPy were chosen above, and torchaudio is for speech.
further_requirements() {
    "$python" - "$(fairseq_distribution)" <<'PY'
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version

for requirement in requires(sys.argv[1]) or []:
    name = re.match(r"[\w.-]+", requirement)[0].lower()
    if ";" in requirement or name in ("hydra-core", "omegaconf", "torch", "torchaudio", "numpy"):
        continue
    try:
        version(name)
    except PackageNotFoundError:
        print(requirement.replace(" ", ""))
PY
}

choices() {
    printf '%s\n' "TORCH=$torch" "NUMPY=$numpy" "FAIRSEQ=$fairseq" "venv=$(cd "$venv" && pwd -P)"
}

# Until this run ends, the stamp records only the chosen versions, not a complete installation.
forget_inputs() {
    local chosen
    chosen=$(grep -E '^(TORCH|NUMPY|FAIRSEQ|venv)=' "$stamp" || true)
    printf '%s\n' "$chosen" >"$stamp"
}

inputs() {
    choices
    printf '%s\n' "python=$(python_version)" "project=$root"
    cat "$root/setup.py" "$root/pyproject.toml" "$root"/langspec_lora/compat/*.pth | cksum
}

check_venv
mkdir -p "$venv" 2>/dev/null || fail "$venv cannot be created; give a writable folder as VENV=…"
if command -v flock >/dev/null; then
    exec 9>"$lock"
    flock -n 9 || { echo "another installation into $venv is running; waiting for it" && flock 9; }
fi
torch=${TORCH:-$(recorded TORCH)}
torch=${torch:-torch==2.13.0}
fairseq=${FAIRSEQ:-$(recorded FAIRSEQ)}
fairseq=${fairseq:-fairseq==0.12.2}
numpy=${NUMPY:-}
[[ -n $numpy || $torch != "$(recorded TORCH)" ]] || numpy=$(recorded NUMPY)
if [[ -f $stamp && $(inputs) == "$(cat "$stamp")" ]]; then
    echo "everything is installed in $venv (Python $(python_version), $torch, $fairseq)"
    exit 0
fi

: >"$log"
"$python" -m pip --version >/dev/null 2>&1 || make_venv
[[ ! -f $stamp ]] || forget_inputs
remove_half_installed
if "$python" -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) >= (21, 3))'; then
    step "pip 21.3 or later" "$python" -m pip install --upgrade pip
fi
read -r -a torch_words <<<"$torch"
step "$torch" "$python" -m pip install "${torch_words[@]}"
numpy=${numpy:-$(numpy_for_torch)}
choices >"$stamp"
step "langspec_lora and requirements of fairseq" "$python" -m pip install "$numpy" -e "${root}[test,lint,hf]"
if [[ -z $(fairseq_distribution) || -n ${FAIRSEQ:-} ]]; then
    check_compiler
    # fairseq's own requirements can no longer be met; see setup.py.
    step "$fairseq" "$python" -m pip install --no-deps "$fairseq"
fi
mapfile -t more < <(further_requirements)
((${#more[@]} == 0)) || step "further requirements of fairseq" "$python" -m pip install "${more[@]}"
"$venv/bin/langspec-lora" doctor
inputs >"$stamp"
echo "installed in $venv in $((SECONDS - started)) s"
