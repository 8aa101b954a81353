"""Small trainings on the example, which take minutes on a CPU: for checks of a machine, benchmarks and tests.

The base is pretrained with the stock task and architecture, then fine-tuned with the published training command with
small sizes. It is smaller than the base of the quickstart: its adapters have more parameters than the base has.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from langspec_lora.example.grammar import CODES

LEVELS = Path("configs/languages/example.yaml")
EPOCHS = 15

_LANGS = ",".join(CODES)
_MODEL = """
    --encoder-embed-dim 64 --decoder-embed-dim 64 --encoder-ffn-embed-dim 128 --decoder-ffn-embed-dim 128
    --encoder-attention-heads 4 --decoder-attention-heads 4
"""
_OUTPUT = """
    --required-batch-size-multiple 1 --num-workers 0 --disable-validation --no-epoch-checkpoints
    --log-interval 20 --log-format simple --cpu --save-dir {out}
"""
_PRETRAIN = f"""
{{data}} --task translation_multi_simple_epoch --langs {_LANGS} --lang-pairs {{data}}.pairs
    --encoder-langtok src --decoder-langtok
    --sampling-method temperature --sampling-temperature 2.0 --virtual-data-size 6000
    --arch transformer {_MODEL} --encoder-layers 2 --encoder-normalize-before
    --decoder-layers 2 --decoder-normalize-before --share-all-embeddings --dropout 0.0
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1
    --optimizer adam --adam-betas '(0.9, 0.98)' --lr-scheduler inverse_sqrt --lr 0.008 --warmup-updates 200
    --max-tokens 1000 --max-epoch {EPOCHS} --seed 1 {_OUTPUT}
"""
_FINETUNE = f"""
{{data}} --update-freq 1 --ddp-backend no_c10d --user-dir langspec_lora --finetune-from-model {{base}}
    --arch langspec_m2m100_lora_tiny --task translation_multi_simple_epoch_lora
    --sampling-method temperature --sampling-temperature 5.0 --virtual-data-size 2500
    --encoder-langtok src --decoder-langtok --langs {_LANGS} --lang-pairs {{data}}.pairs
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1
    --optimizer adam --adam-eps 1e-08 --adam-betas '(0.9, 0.98)' --lr-scheduler inverse_sqrt --lr 0.01
    --warmup-updates 100 --max-tokens 1000 --max-epoch {EPOCHS} --seed 2
    {_MODEL} --decoder-layerdrop 0 --decoder-layers 2 --decoder-normalize-before --dropout 0.0
    --encoder-layerdrop 0 --encoder-layers 2 --encoder-normalize-before
    --share-all-embeddings --share-decoder-input-output-embed
    --add-lora True --freeze-original-parameters True
    --encoder-lora-layer 0_1 --encoder-lora-position q_k_v_fc1_fc2
    --decoder-lora-layer 0_1 --decoder-lora-position q_k_v_crossq_crossk_crossv_fc1_fc2
    --dim 64 --high-rank 8 --med-rank 8 --low-rank 16 --lang-resources {LEVELS}
    --encoder-activation-direction src_tgt --decoder-activation-direction tgt_tgt --language-num {len(CODES)}
"""
_WITH_PRUNING = "--pruning True --pruning-t1 2 --pruning-t2 10 --target-pruning-ratio 0.9"
_WITHOUT_PRUNING = "--pruning False"


def pretrain_flags(data: Path, out: Path) -> list[str]:
    """Flags of ``fairseq-train`` that train the base model."""
    return _filled(_PRETRAIN, data=data, out=out)


def finetune_flags(data: Path, base: Path, out: Path, pruning: bool) -> list[str]:
    """Flags of the published training command with small sizes."""
    template = f"{_FINETUNE} {_WITH_PRUNING if pruning else _WITHOUT_PRUNING} {_OUTPUT}"
    return _filled(template, data=data, base=base, out=out)


def _filled(template: str, **paths: Path) -> list[str]:
    return [argument.format(**paths) for argument in shlex.split(template)]
