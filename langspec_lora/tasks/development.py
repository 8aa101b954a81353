"""Scores of translations of validation text while a model trains: a sample over all directions, BLEU and chrF++.

All processes translate a part of the sample and exchange the texts, so each computes the scores that one process would.
"""

from __future__ import annotations

import logging
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from fairseq import utils
from fairseq.distributed import utils as distributed
from sacrebleu.metrics import BLEU, CHRF

from langspec_lora.data.language_ids import LanguageIdDataset
from langspec_lora.data.plain_text import plain_text
from langspec_lora.errors import UserError
from langspec_lora.generation import MAX_TOKENS
from langspec_lora.languages import LEVELS
from langspec_lora.naming import some_of
from langspec_lora.tasks.checks.scores import score_names

logger = logging.getLogger(__name__)


class Place(NamedTuple):
    """A sentence of the sample.

    Attributes:
        direction: index of its direction's dataset.
        example: index in that dataset.
        size: the length of the longer side, in tokens.
    """

    direction: int
    example: int
    size: int


class Pair(NamedTuple):
    """A translated sentence.

    Attributes:
        place: its number in the sample.
        hypothesis: the translation.
        reference: what it is scored against.
    """

    place: int
    hypothesis: str
    reference: str


def choose(directions: Sequence[tuple[int, int]], counts: Sequence[int], number: int) -> list[tuple[int, int]]:
    """Chooses a sample: the same for the same data, and balanced over directions.

    If there are fewer sentences than directions, languages are balanced, both as sources and as targets: the directions
    follow each other such that each language has its turn before one has its second. The sentences of a direction are
    spread evenly over its text, and differ between directions, as multi-parallel text has the same in all.

    Args:
        directions: source and target language ids.
        counts: the number of sentences of each direction.
        number: how many sentences to choose, fewer if there are not so many.

    Returns:
        Pairs of direction and sentence.
    """
    languages = 1 + max((max(pair) for pair in directions), default=0)
    order = sorted(range(len(directions)), key=lambda i: (_turn(*directions[i], languages), directions[i]))
    quotas, left = dict.fromkeys(order, 0), min(number, sum(counts))
    open_ = [i for i in order if counts[i]]
    while left:
        share = max(1, left // len(open_))
        for i in open_:
            taken = min(share, counts[i] - quotas[i], left)
            quotas[i] += taken
            left -= taken
        open_ = [i for i in open_ if quotas[i] < counts[i]]
    chosen = []
    for turn, i in enumerate(order):
        every = counts[i] / quotas[i] if quotas[i] else 0
        chosen += sorted((i, (int(k * every) + turn) % counts[i]) for k in range(quotas[i]))
    return chosen


def _turn(source: int, target: int, languages: int) -> int:
    return (target - source) % languages


class DevelopmentScores:
    """Translates and scores the same sample at each validation.

    Args:
        task: the task; its validation data are loaded.
        levels: resource levels by language name; languages without one are in no group.

    Raises:
        UserError: ``--best-checkpoint-metric`` names a group of which the sample has no sentence.
    """

    def __init__(self, task: Any, levels: Mapping[str, str]) -> None:
        self._args: Namespace = task.args
        self._task, self._levels = task, levels
        self._parts: list[LanguageIdDataset] = list(task.datasets[self._args.valid_subset.split(",")[0]].datasets)
        self._sample = self._choose()
        self._metrics = {"bleu": BLEU(tokenize=self._args.eval_tokenize, force=True), "chrf": CHRF(word_order=2)}
        self._dictionary = task.target_dictionary
        self._check_best()
        used = {self._parts[place.direction].target_id for place in self._sample}
        directions = len({place.direction for place in self._sample})
        logger.info(
            "development scores | %d sentences of %d directions into %d languages at each validation",
            *(len(self._sample), directions, len(used)),
        )

    def score(self, model: torch.nn.Module, between: Callable[[], None]) -> dict[str, float]:
        """Translates the sample and scores it; all processes of a training call this together.

        Args:
            model: the model that trains; afterwards it is in the mode in which it was.
            between: called between the batches, equally often in all processes.

        Returns:
            By name: ``bleu`` and ``chrf`` over the whole sample, and those of each group of directions, such as
            ``chrf_high_low``. Empty if the sample is.
        """
        trains = model.training
        try:
            mine = self._translate(model, between)
        finally:
            model.train(trains)
        pairs = [pair for part in _from_all_processes(mine) for pair in part]
        pairs.sort()
        groups = self._groups(pairs)
        scores = {
            f"{name}{group}": metric.corpus_score([p.hypothesis for p in found], [[p.reference for p in found]]).score
            for name, metric in self._metrics.items()
            for group, found in groups.items()
        }
        return {name: round(score, 2) for name, score in scores.items()}

    @property
    def signatures(self) -> dict[str, str]:
        """How sacrebleu computes the scores, known once it has; and how the sentences were made."""
        search = f"beam {self._args.eval_beam}, at most {self._args.eval_max_len} tokens"
        made = {name: str(metric.get_signature()) for name, metric in self._metrics.items()}
        return {**made, "search": search, "sentences": str(len(self._sample))}

    def _check_best(self) -> None:
        metric, groups = (
            self._args.best_checkpoint_metric,
            self._groups([Pair(n, "", "") for n in range(len(self._sample))]),
        )
        names = [f"{name}{group}" for name in self._metrics for group in groups]
        if metric in score_names(self._args) and metric not in names:
            raise UserError(
                f"--best-checkpoint-metric {metric}: the sample of --eval-translations {self._args.eval_translations} "
                f"has {some_of(names)}; name one of them, or raise the number of sentences"
            )

    def _choose(self) -> list[Place]:
        directions = [(part.source_id, part.target_id) for part in self._parts]
        limits = np.array([self._args.max_source_positions, self._args.max_target_positions])
        chosen = choose(directions, [len(part) for part in self._parts], self._args.eval_translations)
        by_direction: dict[int, list[int]] = defaultdict(list)
        for direction, example in chosen:
            by_direction[direction].append(example)
        places = []
        for direction, examples in by_direction.items():
            sizes = self._parts[direction].sizes[examples].reshape(len(examples), -1)
            fits = np.all(sizes <= limits[: sizes.shape[1]], axis=1, keepdims=True)[:, 0]  # fairseq skips the others
            longest = sizes.max(axis=1)
            places += [Place(direction, n, int(longest[k])) for k, n in enumerate(examples) if fits[k]]
        return places

    def _batches(self, processes: int) -> list[list[int]]:
        """Numbers of sentences of the sample, the longest first; of the same lengths, and some for each process."""
        tokens = self._args.max_tokens_valid or self._args.max_tokens or MAX_TOKENS
        most = self._args.batch_size_valid or self._args.batch_size or len(self._sample)
        most = max(1, min(int(most), -(-len(self._sample) // processes)))
        batches: list[list[int]] = []
        for number in sorted(range(len(self._sample)), key=lambda n: (-self._sample[n].size, n)):
            last = batches[-1] if batches else []
            if last and len(last) < most and self._sample[last[0]].size * (len(last) + 1) <= int(tokens):
                last.append(number)
            else:
                batches.append([number])
        return batches

    def _translate(self, model: torch.nn.Module, between: Callable[[], None]) -> list[Pair]:
        """This process's part of the sample, translated."""
        search = Namespace(beam=self._args.eval_beam, max_len_b=self._args.eval_max_len, max_len_a=0)
        generator = self._task.build_generator([model], search)
        rank, processes = _place_among_processes()
        batches = self._batches(processes)
        model.eval()
        pairs: list[Pair] = []
        for start in range(0, len(batches), processes):
            for batch in batches[start : start + processes][rank : rank + 1]:
                pairs += self._translate_batch(generator, model, batch)
            between()
        return pairs

    def _translate_batch(self, generator: Any, model: torch.nn.Module, batch: list[int]) -> Iterator[Pair]:
        places = [self._sample[number] for number in batch]
        examples = [
            {**self._parts[place.direction][place.example], "id": number}
            for place, number in zip(places, batch, strict=True)
        ]
        sample = self._parts[places[0].direction].collater(examples)
        device = next(model.parameters()).device
        if device.type == "cuda":
            sample = utils.move_to_cuda(sample, device)
        try:
            with torch.no_grad():
                results = self._task.inference_step(generator, [model], sample)
        except RuntimeError as error:
            if "out of memory" not in str(error) or len(batch) == 1:
                raise
            results = None
        if results is None:  # outside the except clause, which would keep what fills the memory
            torch.cuda.empty_cache()
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                yield from self._translate_batch(generator, model, half)
            return
        for number, beams, target in zip(sample["id"].tolist(), results, sample["target"].cpu(), strict=True):
            language = self._task.langs[self._parts[self._sample[number].direction].target_id]
            reference = utils.strip_pad(target, self._dictionary.pad()).int()
            hypothesis = beams[0]["tokens"].int().cpu()
            yield Pair(number, self._text(hypothesis, language), self._text(reference, language, escape_unk=True))

    def _text(self, tokens: torch.Tensor, language: str, **options: Any) -> str:
        """The text as ``evaluate`` and ``fairseq-generate`` make it: without the language's token, if there are any."""
        _, spec = self._args.langtoks["main"]
        ignored = {self._task.data_manager.get_decoder_langtok(language, spec)} if spec else set()
        remove_bpe = self._args.eval_remove_bpe
        return plain_text(self._dictionary, tokens, remove_bpe, extra_symbols_to_ignore=ignored, **options)

    def _groups(self, pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
        """The sentences over all, under an empty name, and by the levels of their languages, such as ``_high_low``."""
        groups: dict[str, list[Pair]] = {"": list(pairs)} if pairs else {}
        by_levels = defaultdict(list)
        for pair in pairs:
            part = self._parts[self._sample[pair.place].direction]
            levels = [self._levels.get(self._task.langs[i]) for i in (part.source_id, part.target_id)]
            if None not in levels:
                by_levels[tuple(levels)].append(pair)
        order = [(source, target) for source in LEVELS for target in LEVELS if (source, target) in by_levels]
        return groups | {f"_{source}_{target}": by_levels[source, target] for source, target in order}


def _place_among_processes() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return distributed.get_data_parallel_rank(), distributed.get_data_parallel_world_size()


def _from_all_processes(mine: list[Pair]) -> list[list[Pair]]:
    _, count = _place_among_processes()
    if count == 1:
        return [mine]
    parts: list[list[Pair]] = [[]] * count
    torch.distributed.all_gather_object(parts, mine, group=distributed.get_data_parallel_group())
    return parts
