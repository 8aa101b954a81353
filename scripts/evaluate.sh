#!/usr/bin/env bash
# Runs the published evaluation loop: stock fairseq-generate and sacrebleu for each direction, then prints a table. If you run
# it again, it skips finished directions. (langspec-lora evaluate does the same in one process.) Variables:
#   DATA_BIN     the binarised data              (required)
#   CHECKPOINT   the checkpoint                  (required)
#   OUT          the folder for results          (required)
#   FLORES_MONO  folder of references, test.LANG; or the word "data" for the targets in DATA_BIN, converted to text, which
#                may differ by direction (default: the folder mono in or next to DATA_BIN, else data)
#   DICT         the dictionary (default: that of the data)
#   LANGS        the model's languages (default: those of its training)
#   LANG_PAIRS   directions, or a file that lists them (default: all directions of the data between LANGS)
#   LANG_RESOURCES       YAML file of resource levels, for the table (default: the paper's twelve)
#   BEAM, TOKENIZE       beam size and sacrebleu's tokenizer (default: 5, spm)
#   PRECISION            --fp16 (default on a GPU), or empty (default on a CPU)
# Arguments are passed to fairseq-generate.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

for name in DATA_BIN CHECKPOINT OUT; do
    [[ -n ${!name:-} ]] || fail "$name is not set; run $name=… ${0##*/}"
done
[[ -d $DATA_BIN ]] || fail "DATA_BIN=$DATA_BIN is not a folder; give binarised data, for example from scripts/prepare_flores.sh"
[[ -f $CHECKPOINT ]] || fail "CHECKPOINT=$CHECKPOINT is not a file; give the checkpoint to evaluate"

use_environment
REFERENCES=
take_defaults --checkpoint "$CHECKPOINT" ${FLORES_MONO:+--references "$FLORES_MONO"}
IFS=, read -ra pairs <<<"$LANG_PAIRS"
for name in ${LANGS//,/ }; do
    [[ -n ${DICT:-} || ! -f $DATA_BIN/dict.$name.txt ]] || DICT=$DATA_BIN/dict.$name.txt
done
DICT=${DICT:-$DATA_BIN/dict.${LANGS%%,*}.txt}
BEAM=${BEAM:-5}
TOKENIZE=${TOKENIZE:-spm}
[[ -f $DICT ]] || fail "DICT=$DICT is not a file; give the model's dictionary"

if grep -qE '^<0x[0-9A-F]{2}> ' "$DICT"; then
    echo "note: the model writes rare characters as bytes, such as <0xC3><0xB6> for ö, and fairseq-generate does not decode" \
        "them; langspec-lora evaluate does" >&2
fi
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} python3 -c '
import sys
from langspec_lora.errors import exit_on_user_error
from langspec_lora.tokenizers import require_tokenizer
with exit_on_user_error():
    require_tokenizer(sys.argv[1])
' "$TOKENIZE"
if [[ -z ${PRECISION+set} ]]; then
    if has_gpu; then PRECISION=--fp16; else PRECISION=; fi
fi

# What the results depend on, so that results of different settings are not mixed.
settings=$(
    printf 'checkpoint %s\n' "$(sha256sum <"$CHECKPOINT")"
    printf 'dictionary %s\n' "$(sha256sum <"$DICT")"
    printf 'data %s\nlangs %s\nbeam %s\ntokenize %s\nprecision %s\nflags %s\n' \
        "$(cd "$DATA_BIN" && pwd)" "$LANGS" "$BEAM" "$TOKENIZE" "$PRECISION" "$*"
    printf 'references %s\n' "$(for name in ${REFERENCES:+${LANGS//,/ }}; do
        [[ ! -f $REFERENCES/test.$name ]] || sha256sum <"$REFERENCES/test.$name"
    done | sha256sum)"
)
mkdir -p "$OUT"
if [[ -f $OUT/evaluate.settings ]]; then
    changed=$(diff <(printf '%s\n' "$settings") "$OUT/evaluate.settings" | sed -n 's/^< \([a-z]*\) .*/\1/p' | paste -sd ' ' || true)
    [[ -z $changed ]] || fail "OUT=$OUT has results of other settings (different: $changed); give another folder"
fi
printf '%s\n' "$settings" >"$OUT/evaluate.settings"
shorten_lang_pairs "$OUT"

lines() { # lines H|T FILE: the text of these lines of fairseq-generate's output, sorted by sentence
    { grep -P "^$1-" "$2" || true; } | cut -c 3- | sort -n -k 1 | awk -F "\t" '{print $NF}'
}

export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-0}
number=0
for pair in "${pairs[@]}"; do
    src=${pair%-*} tgt=${pair#*-}
    number=$((number + 1))
    if [[ ! -f $OUT/$pair.score ]]; then
        from=$SECONDS
        fairseq-generate "$DATA_BIN" --user-dir "$root/langspec_lora" \
            --path "$CHECKPOINT" --fixed-dictionary "$DICT" \
            --required-batch-size-multiple 1 \
            --langs "$LANGS" --lang-pairs "$LANG_PAIRS" -s "$src" -t "$tgt" \
            --beam "$BEAM" --remove-bpe 'sentencepiece' \
            --task translation_multi_simple_epoch_lora \
            --decoder-langtok --encoder-langtok src \
            --gen-subset test ${PRECISION:+"$PRECISION"} --dataset-impl mmap \
            --distributed-world-size 1 --distributed-no-spawn "$@" >"$OUT/$pair.raw.part" 2>"$OUT/$pair.log" ||
            fail "fairseq-generate failed for $pair: $(grep . "$OUT/$pair.log" | tail -n 1) (see $OUT/$pair.log)"
        rm "$OUT/$pair.log"
        mv "$OUT/$pair.raw.part" "$OUT/$pair.raw.txt"
        lines H "$OUT/$pair.raw.txt" >"$OUT/$pair.h.part"
        mv "$OUT/$pair.h.part" "$OUT/$pair.spbleu.h"
        if [[ -n $REFERENCES ]]; then
            reference=$REFERENCES/test.$tgt
        else
            reference=$OUT/$pair.ref
            lines T "$OUT/$pair.raw.txt" >"$reference.part"
            mv "$reference.part" "$reference"
        fi
        translated=$(wc -l <"$OUT/$pair.spbleu.h") wanted=$(wc -l <"$reference")
        ((translated == wanted)) ||
            fail "$reference has $wanted lines, but $translated sentences of $pair were translated; give their references"
        sacrebleu "$reference" <"$OUT/$pair.spbleu.h" --tokenize "$TOKENIZE" -w 2 >"$OUT/$pair.score.part"
        mv "$OUT/$pair.score.part" "$OUT/$pair.score"
        printf '%d/%d %s: %s, %d s\n' "$number" "${#pairs[@]}" "$pair" \
            "$(grep -o '"score": [0-9.]*' "$OUT/$pair.score")" $((SECONDS - from))
    fi
done

for pair in "${pairs[@]}"; do
    printf '%s\n' "$pair"
    cat "$OUT/$pair.score"
done >"$OUT/all_direction.part"
mv "$OUT/all_direction.part" "$OUT/all_direction.spbleu"
optional=()
[[ -z ${LANG_RESOURCES:-} ]] || optional+=(--lang-resources "$LANG_RESOURCES")
[[ -z $REFERENCES ]] || optional+=(--references "$REFERENCES")
langspec_lora report "$OUT" ${optional[@]+"${optional[@]}"}
