"""Whether sacrebleu can tokenize, checked before anything is decoded.

The tokenizers behind spBLEU need a SentencePiece model that sacrebleu downloads at first use, which without a network
fails after all the decoding. Here nothing is downloaded.
"""

# Imports in functions: sacrebleu takes start-up time, and the command line reads this module.

from __future__ import annotations

from pathlib import Path

from langspec_lora.errors import UserError
from langspec_lora.naming import some_of


def tokenizer_models() -> dict[str, Path]:
    """Where sacrebleu looks for the model of each tokenizer that needs one.

    Returns:
        Tokenizer name (``flores101``, ``flores200``, ``spm``, …) to the path of its model, present or not.
    """
    from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
    from sacrebleu.utils import SACREBLEU_DIR

    folder = Path(SACREBLEU_DIR) / "models"
    return {name: folder / Path(model["url"]).name for name, model in SPM_MODELS.items()}


def require_tokenizer(name: str) -> None:
    """Makes sure that sacrebleu can tokenize by that name, without a download.

    Args:
        name: what ``sacrebleu --tokenize`` takes, such as ``flores101``, ``13a`` or ``char``.

    Raises:
        UserError: sacrebleu knows no such tokenizer, its model file is missing or cannot be read, or a package that
            it needs is not installed.
    """
    from sacrebleu.metrics import BLEU
    from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS

    if name not in BLEU.TOKENIZERS:
        raise UserError(f"sacrebleu has no tokenizer {name!r}; choose one of {some_of(BLEU.TOKENIZERS)}")
    model = tokenizer_models().get(name)
    if model and not model.is_file():
        raise UserError(
            f"the SentencePiece model of sacrebleu's tokenizer {name!r} was not found; save "
            f"{SPM_MODELS[name]['url']} as {model} (or set SACREBLEU to the folder that holds models/{model.name}), "
            "or choose the tokenizer char or 13a"
        )
    try:
        BLEU(tokenize=name)
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        fix = f"replace the damaged file {model}" if model else "install what it names"
        raise UserError(
            f"sacrebleu's tokenizer {name!r} cannot be used: {reason}; {fix}, or choose the tokenizer char or 13a"
        ) from error
