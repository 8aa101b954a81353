#!/usr/bin/env bash
# Runs the published training command. If you run it again, training continues from the last checkpoint. Variables:
#   DATA_BIN   the binarised data                             (required)
#   BASE       the checkpoint to fine-tune, such as M2M100's  (required)
#   SAVE_DIR   the folder for checkpoints                     (required)
#   LANGS                              languages (default: those of the data)
#   LANG_PAIRS                         directions, or a file that lists them (default: all directions of the data between LANGS)
#   LANG_RESOURCES                     YAML file of resource levels (default: the paper's twelve)
#   DICT                               the dictionary (default: that of the data)
#   ARCH, ENCODER_LAYERS, DECODER_LAYERS, DIM    sizes (default: those of BASE)
#   HIGH_RANK, MED_RANK, LOW_RANK
#   PRUNING, PRUNING_T1, PRUNING_T2, TARGET_PRUNING_RATIO
#   LR, MAX_TOKENS, UPDATE_FREQ, MAX_EPOCH, SEED
#   PRECISION                          --amp (default on a GPU), --fp16, --bf16, or empty (default on a CPU)
# Arguments are passed to fairseq-train after the published flags, so they override these. With --adapter-key or
# --weight-learning, which decide themselves what selects the adapters of a layer, the published directions are left out.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

for name in DATA_BIN BASE SAVE_DIR; do
    [[ -n ${!name:-} ]] || fail "$name is not set; run $name=… ${0##*/}"
done
[[ -d $DATA_BIN ]] || fail "DATA_BIN=$DATA_BIN is not a folder; give binarised data, for example from scripts/prepare_flores.sh"
[[ -f $BASE ]] || fail "BASE=$BASE is not a file; give the checkpoint to fine-tune"

use_environment
SIZES=
[[ -z ${ARCH:-} ]] || SIZES=" " # given ARCH, its sizes apply
[[ ${ARCH:-} != *_tiny ]] || DIM=${DIM:-0}
take_defaults --base "$BASE"
for name in ENCODER_LAYERS DECODER_LAYERS; do
    [[ ${!name} =~ ^[1-9][0-9]*$ ]] || fail "$name=${!name}: expected a number of layers of at least 1"
done

joined() { # joined WORD…: WORD_WORD_…
    local IFS=_
    printf '%s' "$*"
}

layer_list() { # layer_list N: 0_1_…_N-1
    local layer list=()
    for ((layer = 0; layer < $1; layer++)); do list+=("$layer"); done
    joined "${list[@]}"
}

directions() { # directions N BY_SOURCE: src for the first layers, tgt for the others
    local layer list=()
    for ((layer = 0; layer < $1; layer++)); do
        if ((layer < $2)); then list+=(src); else list+=(tgt); fi
    done
    joined "${list[@]}"
}

read -ra sizes <<<"$SIZES"
if [[ -z ${PRECISION+set} ]]; then
    if has_gpu; then PRECISION=--amp; else PRECISION=; fi
fi
sides=(
    --encoder-activation-direction "$(directions "$ENCODER_LAYERS" $((ENCODER_LAYERS * 3 / 4)))"
    --decoder-activation-direction "$(directions "$DECODER_LAYERS" 0)"
)
for word in "$@"; do
    case $word in --adapter-key | --adapter-key=* | --weight-learning | --weight-learning=*) sides=() ;; esac
done
optional=()
[[ -z ${LANG_RESOURCES:-} ]] || optional+=(--lang-resources "$LANG_RESOURCES")
[[ -z ${DICT:-} ]] || optional+=(--fixed-dictionary "$DICT")

shorten_lang_pairs "$SAVE_DIR"
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-0}
exec fairseq-train "$DATA_BIN" \
    --update-freq "${UPDATE_FREQ:-4}" --seed "${SEED:-2}" --ddp-backend=no_c10d ${PRECISION:+"$PRECISION"} \
    --user-dir "$root/langspec_lora" \
    --finetune-from-model "$BASE" \
    --arch "$ARCH" ${sizes[@]+"${sizes[@]}"} \
    --task translation_multi_simple_epoch_lora \
    --sampling-method "temperature" --sampling-temperature 5.0 \
    --encoder-langtok src --decoder-langtok \
    --langs "$LANGS" --lang-pairs "$LANG_PAIRS" \
    --criterion label_smoothed_cross_entropy --label-smoothing 0.2 \
    --optimizer adam --adam-eps 1e-08 --adam-betas '(0.9, 0.98)' \
    --lr-scheduler inverse_sqrt --lr "${LR:-3e-03}" --warmup-updates 1 \
    --max-tokens "${MAX_TOKENS:-4000}" --max-epoch "${MAX_EPOCH:-15}" --required-batch-size-multiple 1 \
    --keep-last-epochs 15 --log-interval 2 --log-format simple \
    --save-dir "$SAVE_DIR" \
    --decoder-layerdrop 0 --decoder-layers "$DECODER_LAYERS" --decoder-normalize-before \
    --dropout 0.1 \
    --encoder-layerdrop 0 --encoder-layers "$ENCODER_LAYERS" --encoder-normalize-before \
    --share-all-embeddings --share-decoder-input-output-embed \
    --add-lora True --freeze-original-parameters True \
    --encoder-lora-layer "$(layer_list "$ENCODER_LAYERS")" \
    --encoder-lora-position "q_k_v_fc1_fc2" \
    --decoder-lora-layer "$(layer_list "$DECODER_LAYERS")" \
    --decoder-lora-position "q_k_v_crossq_crossk_crossv_fc1_fc2" \
    --dim "$DIM" --high-rank "${HIGH_RANK:-2}" --med-rank "${MED_RANK:-2}" --low-rank "${LOW_RANK:-8}" \
    ${sides[@]+"${sides[@]}"} \
    --language-num "$(tr ',' '\n' <<<"$LANGS" | grep -c .)" \
    --pruning "${PRUNING:-True}" --pruning-t1 "${PRUNING_T1:-2}" --pruning-t2 "${PRUNING_T2:-10}" \
    --target-pruning-ratio "${TARGET_PRUNING_RATIO:-0.9}" \
    ${optional[@]+"${optional[@]}"} \
    "$@"
