# shellcheck shell=bash
# Functions of train.sh, evaluate.sh and prepare_flores.sh, which source this file.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() { # fail WORDS…
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Puts the environment's programs first in PATH: VENV, or .venv if scripts/install.sh has created it.
use_environment() {
    local venv=${VENV:-$root/.venv}
    if [[ -d $venv/bin ]]; then
        export PATH=$venv/bin:$PATH
    elif [[ -n ${VENV:-} ]]; then
        fail "VENV=$VENV is not an environment (it has no bin folder); run scripts/install.sh, or give another VENV"
    fi
    command -v fairseq-train >/dev/null || fail "fairseq-train not found; run scripts/install.sh first"
}

langspec_lora() { # langspec_lora COMMAND…: the command line of this folder, installed or not
    PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} python3 -m langspec_lora.cli.main "$@"
}

# Sets variables that are not set, from the data and the model. If LANG_PAIRS is a file, it is replaced by the file's content.
take_defaults() { # take_defaults --base FILE | --checkpoint FILE
    local found name value given=()
    [[ -z ${LANGS:-} ]] || given+=(--langs "$LANGS")
    [[ -z ${LANG_PAIRS:-} ]] || given+=(--lang-pairs "$LANG_PAIRS")
    [[ -z ${LANG_RESOURCES:-} || $1 != --base ]] || given+=(--lang-resources "$LANG_RESOURCES")
    found=$(langspec_lora defaults "$DATA_BIN" "$@" ${given[@]+"${given[@]}"}) || exit 1
    unset LANG_PAIRS
    while IFS='=' read -r name value; do
        [[ -n ${!name:-} ]] || printf -v "$name" '%s' "$value"
    done <<<"$found"
}

# Writes directions that are too long for one argument (128 KiB on Linux, about 150 languages) into a file of this folder,
# whose name LANG_PAIRS then is: fairseq reads either.
shorten_lang_pairs() { # shorten_lang_pairs FOLDER
    ((${#LANG_PAIRS} > 100000)) || return 0
    mkdir -p "$1"
    printf '%s\n' "$LANG_PAIRS" >"$1/lang_pairs.txt"
    LANG_PAIRS=$1/lang_pairs.txt
}

has_gpu() { # whether torch can use a GPU
    python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'
}
