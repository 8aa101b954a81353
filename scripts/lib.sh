# shellcheck shell=bash
# What train.sh, evaluate.sh and prepare_flores.sh share; sourced by them.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() { # fail WORDS…
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Puts the environment's programs first: VENV, or .venv where scripts/install.sh has made it, or else PATH as it is.
use_environment() {
    local venv=${VENV:-$root/.venv}
    if [[ -d $venv/bin ]]; then
        export PATH=$venv/bin:$PATH
    elif [[ -n ${VENV:-} ]]; then
        fail "VENV=$VENV is no environment (it has no bin); run scripts/install.sh, or give another"
    fi
    command -v fairseq-train >/dev/null || fail "fairseq-train is not found; run scripts/install.sh first"
}

langspec_lora() { # langspec_lora COMMAND…: this folder's command line, installed or not
    PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} python3 -m langspec_lora.cli.main "$@"
}

all_pairs() { # all_pairs A,B,…: every ordered pair, as A-B,B-A,…
    local names pairs=() source target
    IFS=, read -ra names <<<"$1"
    for source in "${names[@]}"; do
        for target in "${names[@]}"; do
            [[ $source == "$target" ]] || pairs+=("$source-$target")
        done
    done
    (
        IFS=,
        printf '%s' "${pairs[*]}"
    )
}

has_gpu() { # whether torch can use a GPU
    python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'
}
