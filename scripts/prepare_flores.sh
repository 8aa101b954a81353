#!/usr/bin/env bash
# Binarises FLORES-101 for all directions of a set of languages and writes it to the folder --out:
#   scripts/prepare_flores.sh --out DIR [--languages configs/languages/twelve.yaml] [--from UNPACKED_ARCHIVE]
#                             [--spm MODEL --dict FILE | --vocab-size N] [--valid-lines N] [--apart]
# Without --from, the archive is downloaded; without --spm and --dict (M2M100's), new ones are trained.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
use_environment

languages=(--languages "$root/configs/languages/twelve.yaml")
for argument in "$@"; do
    [[ $argument != --languages && $argument != --languages=* ]] || languages=()
done
langspec_lora prepare-flores ${languages[@]+"${languages[@]}"} "$@"
