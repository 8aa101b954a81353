"""Small languages, small models, and the plain per-language reference that the plugin is held against."""

from __future__ import annotations

import inspect
import random
import shlex
from argparse import Namespace
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path

import pytest
import torch
from fairseq import options, tasks
from fairseq.data import Dictionary, indexed_dataset
from fairseq.dataclass.utils import _set_legacy_defaults
from fairseq.distributed import utils as distributed_utils
from fairseq.models import ARCH_MODEL_REGISTRY
from torch import Tensor, nn

from langspec_lora.data.binarise import binarise, multi_parallel
from langspec_lora.data.vocabulary import dictionary_text, train_sentencepiece
from langspec_lora.tasks import translation  # noqa: F401  (registers task, model and architectures)

LANGUAGES = ("en", "fr", "nl", "wo", "sd")
LEVELS = "high: [en, fr]\nmed: [nl]\nlow: [wo, sd]\n"
PAIRS = tuple(f"{a}-{b}" for a, b in permutations(LANGUAGES, 2))
WORDS = 12
SIZES = {"train": 120, "valid": 12, "test": 12}


def computes_half_on_cpu() -> bool:
    """Whether this torch does; from 2.1 on."""
    try:
        torch.nn.functional.layer_norm(torch.zeros(2, 2, dtype=torch.float16), (2,))
    except RuntimeError:
        return False
    return True


needs_half_on_cpu = pytest.mark.skipif(not computes_half_on_cpu(), reason="this torch has no half precision on a CPU")
needs_processes_on_cpu = pytest.mark.skipif(
    "device_count" in inspect.getsource(distributed_utils._infer_torch_distributed_launch_init),
    reason="fairseq's main divides by the number of GPUs when it starts several processes",
)
GLOO_SENDS_BOOLS = "mmap" in inspect.signature(torch.load).parameters
"""Whether torch's own wrapper can send the masks with the model at its start on a CPU: not before torch 2.1."""


def sentences(split: str) -> list[list[int]]:
    """The meanings of a split: lists of concept numbers."""
    draw = random.Random(split)
    return [[draw.randrange(WORDS) for _ in range(draw.randint(2, 7))] for _ in range(SIZES[split])]


def write_text(folder: Path) -> None:
    """Writes ``SPLIT.LANG``: each language has its own words, and every second one speaks backwards."""
    for split in SIZES:
        for number, name in enumerate(LANGUAGES):
            lines = (
                " ".join(f"{name}{word}" for word in (meaning[::-1] if number % 2 else meaning))
                for meaning in sentences(split)
            )
            (folder / f"{split}.{name}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_dictionary(path: Path) -> None:
    """Writes a dictionary that holds all words and then all language tokens, as M2M100's does."""
    words = [f"{name}{word}" for name in LANGUAGES for word in range(WORDS)] + [f"__{name}__" for name in LANGUAGES]
    path.write_text("".join(f"{word} 1\n" for word in words), encoding="utf-8")


def write_data(folder: Path) -> Path:
    """Writes text, dictionary, levels and the binarised folder ``bin`` (with fairseq's own builder).

    Returns:
        The binarised folder; ``dict.txt``, ``levels.yaml`` and the text lie beside it.
    """
    write_text(folder)
    write_dictionary(folder / "dict.txt")
    (folder / "levels.yaml").write_text(LEVELS, encoding="utf-8")
    binary = folder / "bin"
    binary.mkdir()
    for name in LANGUAGES:
        write_dictionary(binary / f"dict.{name}.txt")
    dictionary = Dictionary.load(str(folder / "dict.txt"))
    for split in SIZES:
        for pair in PAIRS:
            for side in pair.split("-"):
                _write_side(binary / f"{split}.{pair}.{side}", folder / f"{split}.{side}", dictionary)
    return binary


def _write_side(prefix: Path, text: Path, dictionary: Dictionary) -> None:
    builder = indexed_dataset.make_builder(f"{prefix}.bin", impl="mmap", vocab_size=len(dictionary))
    for line in text.read_text(encoding="utf-8").splitlines():
        builder.add_item(dictionary.encode_line(line, add_if_not_exist=False))
    builder.finalize(f"{prefix}.idx")


def write_home(folder: Path) -> Path:
    """Writes raw text, its SentencePiece model and dictionary, and ``data-bin``, as ``prepare-flores`` lays them out.

    Returns:
        The folder.
    """
    (folder / "mono").mkdir()
    write_text(folder / "mono")
    lines = [line for path in sorted((folder / "mono").glob("train.*")) for line in path.read_text().splitlines()]
    (folder / "spm.model").write_bytes(train_sentencepiece(lines, 90))
    (folder / "dict.txt").write_text(dictionary_text((folder / "spm.model").read_bytes(), LANGUAGES))
    (folder / "levels.yaml").write_text(LEVELS)
    files = {split: {name: folder / "mono" / f"{split}.{name}" for name in LANGUAGES} for split in SIZES}
    bitexts = [bitext for split in files for bitext in multi_parallel(split, files[split])]
    binarise(bitexts, folder / "dict.txt", folder / "data-bin", spm_model=folder / "spm.model")
    return folder


TINY = shlex.split(
    "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 16 --decoder-embed-dim 16 --encoder-ffn-embed-dim 24 "
    "--decoder-ffn-embed-dim 24 --encoder-attention-heads 2 --decoder-attention-heads 2 "
    "--share-all-embeddings --share-decoder-input-output-embed"
)


def base_flags(data: Path, *more: str) -> list[str]:
    """Flags that every training command on the toy data has."""
    return [
        str(data),
        *("--langs", ",".join(LANGUAGES), "--lang-pairs", ",".join(PAIRS)),
        *("--encoder-langtok", "src", "--decoder-langtok", "--fixed-dictionary", str(data.parent / "dict.txt")),
        *("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.2"),
        *("--max-tokens", "400", "--required-batch-size-multiple", "1", "--num-workers", "0", "--dropout", "0"),
        *TINY,
        *more,
    ]


def plugin_flags(data: Path, *more: str) -> list[str]:
    """Flags of the plugin's task and model; ranks differ by level."""
    return base_flags(
        data,
        *("--task", "translation_multi_simple_epoch_lora", "--arch", "langspec_m2m100_lora_tiny"),
        *("--lang-resources", str(data.parent / "levels.yaml")),
        *("--high-rank", "2", "--med-rank", "3", "--low-rank", "4"),
        *more,
    )


def parse(flags: list[str]) -> Namespace:
    """Parses the flags of a training command as ``fairseq-train`` does."""
    return options.parse_args_and_arch(options.get_training_parser(), flags)


def build(flags: list[str], translates: bool = False) -> tuple[tasks.FairseqTask, nn.Module]:
    """Builds task and model as ``fairseq-train`` does, or a command that translates."""
    args = parse(flags)
    args.no_save |= "--save-dir" not in flags  # tests that run at once would wait for each other's folder
    if translates:
        args.path = None  # which training commands do not have
    task = tasks.setup_task(task_settings(args))
    torch.manual_seed(1)
    return task, task.build_model(model_settings(args))


def task_settings(args: Namespace) -> Namespace:
    """What a fairseq command hands to a task.

    fairseq itself takes half a second for that, because Hydra composes the settings of all else too; ``test_task.py``
    compares.
    """
    settings = Namespace(**vars(args))
    _set_legacy_defaults(settings, tasks.TASK_REGISTRY[args.task])
    return settings


def model_settings(args: Namespace) -> Namespace:
    """What a fairseq command hands to a model; see :func:`task_settings`."""
    settings = Namespace(**vars(args))
    _set_legacy_defaults(settings, ARCH_MODEL_REGISTRY[args.arch])
    return settings


def randomise_adapters(model: nn.Module, scale: float = 0.3) -> None:
    """Fills the B matrices, which start at zero."""
    torch.manual_seed(2)
    for linear in model.adapters.linears.values():
        nn.init.normal_(linear.lora_B, std=scale)


def mixed_batch(task: tasks.FairseqTask, split: str = "valid", size: int = 14) -> dict:
    """A batch that mixes directions, as fairseq collates it."""
    if split not in task.datasets:
        task.load_dataset(split)
    dataset = task.dataset(split)
    step = max(1, len(dataset) // size)
    return dataset.collater([dataset[index] for index in range(0, len(dataset), step)][:size])


def forward(model: nn.Module, batch: dict) -> Tensor:
    """Logits ``(batch, tgt_len, vocabulary)`` of the plugin's model."""
    languages = {"src_lang_id": batch["net_input"]["src_lang_id"], "tgt_lang_id": batch["tgt_lang_id"]}
    return model(**{**batch["net_input"], **languages})[0]


class PerLanguageReference:
    """The stock fairseq Transformer, run for one sentence at a time with the sentence's adapters added to its weights.

    Independent of the plugin's forward pass: W + B_l A_l is formed here, slice by slice of the packed tensors, and
    handed to stock fairseq code.

    Args:
        task: the task, with its dictionary.
        model: the plugin's model, whose weights and adapters are copied.
        flags: the flags that the model was built from.
        key_of: the number of the adapter that a side (``src``, …) selects, from source and target language id, or a
            list of numbers and weights; by default that of the source or of the target.
        ranks_of: the ranks of a side's adapters; by default those of the languages.
    """

    def __init__(
        self,
        task: tasks.FairseqTask,
        model: nn.Module,
        flags: list[str],
        key_of: Callable[[str, int, int], int | list[tuple[int, float]]] = lambda side, source, target: (
            source if side == "src" else target
        ),
        ranks_of: Callable[[str], Sequence[int]] | None = None,
    ) -> None:
        from fairseq.models.transformer import TransformerModel

        args = parse(flags)
        args.checkpoint_activations = args.offload_activations = False
        self.stock = TransformerModel.build_model(args, task)
        self.names = model.adapters.config.languages.names
        self.key_of = key_of or (lambda side, source, target: source if side == "src" else target)
        ranks_of = ranks_of or (lambda side: model.adapters.config.languages.ranks)
        self.weights = {name: value.detach() for name, value in model.state_dict().items() if "lora_" not in name}
        self.weights = {name: value for name, value in self.weights.items() if not name.startswith("adapters.")}
        self.stock.load_state_dict(dict(self.weights), strict=True)
        self.sites = {}
        for site, linear in model.adapters.linears.items():
            path = next(name for name, module in model.named_modules() if module is linear)
            start = 0
            adapters = []
            for rank in ranks_of(linear.side):
                adapters.append(
                    tuple(
                        packed.detach()[start : start + rank].clone().requires_grad_()
                        for packed in (linear.lora_A, linear.lora_B)
                    )
                )
                start += rank
            self.sites[path] = (site, linear.side, linear.slice, adapters)

    def merged(self, source: int, target: int) -> dict[str, Tensor]:
        """The adapted weights of one direction, by name."""
        weights = {}
        for path, (_, side, part, adapters) in self.sites.items():
            keys = self.key_of(side, source, target)
            keys = [(keys, 1.0)] if isinstance(keys, int) else keys
            update = sum(share * adapters[key][1].T @ adapters[key][0] for key, share in keys)  # (d_out, d_in)
            base = self.weights[f"{path}.weight"]
            if part is not None:
                whole = torch.zeros_like(base)
                whole[part, part] = update
                update = whole
            weights[f"{path}.weight"] = base + update
        return weights

    def train(self, mode: bool) -> PerLanguageReference:
        """Sets the mode of the stock model, off its fused path, which skips dropout and padding details."""
        self.stock.train(mode)
        for layer in self.stock.encoder.layers:
            layer.ever_training = True
        return self

    def logits(self, batch: dict) -> Tensor:
        """Logits ``(batch, tgt_len, vocabulary)``, sentence by sentence."""
        rows = []
        for row in range(len(batch["id"])):
            net_input = {
                key: batch["net_input"][key][row : row + 1]
                for key in ("src_tokens", "src_lengths", "prev_output_tokens")
            }
            source, target = int(batch["net_input"]["src_lang_id"][row]), int(batch["tgt_lang_id"][row])
            output = torch.func.functional_call(self.stock, self.merged(source, target), (), net_input)
            rows.append(output[0])
        return torch.cat(rows)

    def gradients(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Gradients of all adapters, packed as the plugin packs them, by the path of their linear."""
        packed = {}
        for path, (_, _, _, adapters) in self.sites.items():
            packed[path] = tuple(
                torch.cat(
                    [
                        torch.zeros_like(adapter[i]) if adapter[i].grad is None else adapter[i].grad
                        for adapter in adapters
                    ]
                )
                for i in (0, 1)
            )
        return packed
