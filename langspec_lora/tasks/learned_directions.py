"""What a training with learned directions says of them after each epoch: a log line, ``directions.json``, a picture."""

# Imports in functions: matplotlib takes a second, and only one process draws.

from __future__ import annotations

import json
import logging
from pathlib import Path

from langspec_lora.adapters.learned_directions import activation_direction_flags, fixed_sides, learned_layers
from langspec_lora.errors import UserError
from langspec_lora.files import write_whole
from langspec_lora.hooks import TrainingHook
from langspec_lora.models.injected import InjectedAdapters
from langspec_lora.naming import some_of
from langspec_lora.sites import STACKS

logger = logging.getLogger(__name__)

FILE = "directions.json"


class LearnedDirections(TrainingHook):
    """Tells the weights of source and target of each layer.

    Args:
        adapters: the adapters of the model, of which some layers mix those of source and target.
        folder: where to write; None to write nothing, as in all processes but one.
    """

    def __init__(self, adapters: InjectedAdapters, folder: Path | None) -> None:
        self._adapters, self._folder = adapters, folder
        self._trouble = False

    def detailed_metrics(self) -> dict[str, dict[str, float]]:
        """The weight of the source in each layer."""
        weights = self._adapters.mixture_weights()
        return {
            "source_weight_by_layer": {
                f"{stack}.{layer}": round(source, 4) for (stack, layer), (source, _) in weights.items()
            }
        }

    def end_epoch(self, epoch: int) -> None:
        """Logs and writes what has been learned up to now."""
        layers = learned_layers(self._adapters.mixture_weights())
        sides = {stack: config.sides for stack, config in self._adapters.config.stacks.items()}
        flags = activation_direction_flags(fixed_sides(sides, layers))
        shares = (
            f"{stack} {some_of((f'{found.source:.2f}' for found in layers if found.stack == stack), ' ')}"
            for stack in STACKS
            if any(found.stack == stack for found in layers)
        )
        given = some_of((f"{flag} {value}" for flag, value in flags.items()), " ")
        logger.info("directions | epoch %d | weights of the source: %s | %s", epoch, some_of(shares), given)
        if self._folder is None:
            return
        content = {
            "epoch": epoch,
            **{flag.removeprefix("--").replace("-", "_"): value for flag, value in flags.items()},
            "layers": [
                {"stack": found.stack, "layer": found.layer, "source": found.source, "target": 1 - found.source}
                for found in layers
            ],
        }
        from langspec_lora.adapters.direction_picture import draw_directions

        try:
            write_whole(self._folder / FILE, f"{json.dumps(content, indent=1)}\n")
            draw_directions(layers, f"Learned directions after epoch {epoch}", self._folder / "directions")
        except UserError as error:  # the weights are in the checkpoints too
            if not self._trouble:
                logger.warning("directions | not written: %s", error)
            self._trouble = True
