"""``python -m langspec_lora.benchmark.memory JOB NAME SETTINGS``: a contender's peak memory on a CPU, in bytes."""

# Imports in functions: transformers and peft are an extra.

from __future__ import annotations

import json
import sys

import torch

from langspec_lora.benchmark.compare import setting_from
from langspec_lora.benchmark.contenders import TRANSLATIONS, UPDATES
from langspec_lora.benchmark.measure import high_water_mark


def main() -> None:
    """Prints the bytes beyond what the imports hold."""
    job, name, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    setting = setting_from(settings)
    if name.startswith("Hugging Face"):
        import peft  # noqa: F401
        import transformers  # noqa: F401

        import langspec_lora.benchmark.huggingface  # noqa: F401
    torch.set_num_threads(settings["threads"])
    imported = high_water_mark()
    run = (UPDATES if job == "update" else TRANSLATIONS)[name](setting)
    for _ in range(2):
        run()
    print(high_water_mark() - imported)


if __name__ == "__main__":
    main()
