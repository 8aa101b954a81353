"""fairseq with our adapters against ``transformers`` with PEFT, for random M2M100s that ``transformers`` made."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from fairseq.dataclass.configs import GenerationConfig
from torch import Tensor, nn

from langspec_lora.cli.main import main
from langspec_lora.pruning.blocks import all_keys, group_blocks
from langspec_lora.pruning.magnitude import apply_masks, prune_smallest
from tests import hf, toy
from tests.bad_input import write_checkpoint

peft = pytest.importorskip("peft", reason="needs the extra hf: peft is not installed")

LIMIT = 30
CASES = {
    "even, whole, dense": ("even", (), 0.3, 0.0),
    "even, slice, pruned": ("even", ("--dim", "6", "--start-idx", "3"), 0.4, 0.9),
    "uneven, whole, pruned": ("uneven", ("--encoder-activation-direction", "tgt_src_tgt_src"), 0.25, 0.7),
    "uneven, slice, dense": ("uneven", ("--dim", "20", "--decoder-activation-direction", "src_tgt_src"), 0.3, 0.0),
    "uneven, A/r": ("uneven", ("--lora-alpha", "5"), 0.2, 0.0),
    "even, slice, A/√r, pruned": (
        "even",
        ("--dim", "6", "--start-idx", "3", "--lora-alpha", "3", "--lora-scaling", "root"),
        0.3,
        0.8,
    ),
    "unscaled, some sites": (
        "unscaled",
        ("--encoder-lora-layer", "1", "--encoder-lora-position", "q_fc1", "--decoder-lora-position", "crossk_v_fc2"),
        0.4,
        0.5,
    ),
}
"""Size, flags of the adapters, standard deviation of B, share of it that is pruned."""


@pytest.fixture(scope="module")
def homes(tmp_path_factory) -> dict[str, hf.Home]:
    return {size: hf.write_home(tmp_path_factory.mktemp(size), size) for size in hf.SIZES}


@dataclass(frozen=True)
class Adapted:
    """A random base model with random adapters, in fairseq."""

    home: hf.Home
    task: object
    model: nn.Module
    checkpoint: Path


@pytest.fixture(scope="module", params=CASES)
def adapted(homes, request, tmp_path_factory) -> Adapted:
    size, flags, scale, ratio = CASES[request.param]
    home = homes[size]
    flags = hf.adapted_flags(home, *flags)
    task, model = toy.build(flags)
    model.load_state_dict(torch.load(home.fairseq / "model.pt", weights_only=False)["model"])
    toy.randomise_adapters(model, scale)
    if ratio:
        for blocks in group_blocks(model.adapters.linears, all_keys(model.adapters.linears.values()), "language"):
            prune_smallest(blocks, ratio)
        apply_masks(model.adapters.linears.values())
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.pt"
    write_checkpoint(path, flags, lambda state: state.update(model=model.state_dict()))
    return Adapted(home, task, model.eval(), path)


def run(*command: object) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        assert main([str(word) for word in command]) == 0
    return output.getvalue()


def batch_of(adapted: Adapted, source: str, target: str) -> hf.Batch:
    tokens = (hf.language_token(adapted.home, name) for name in (source, target))
    first = hf.language_token(adapted.home, "af")  # before it stand the pieces
    return hf.random_batch(*tokens, vocabulary=first, sentences=16)


@torch.no_grad()
def our_logits(adapted: Adapted, batch: hf.Batch, source: str, target: str) -> Tensor:
    ids = {"src_lang_id": source, "tgt_lang_id": target}
    ids = {key: torch.full((len(batch.left), 1), toy.LANGUAGES.index(name)) for key, name in ids.items()}
    return adapted.model(batch.left, batch.lengths, batch.targets, **ids)[0][batch.targets.ne(1)]


@torch.no_grad()
def their_logits(model: nn.Module, batch: hf.Batch) -> Tensor:
    mask = batch.right.ne(1).long()
    output = model(input_ids=batch.right, attention_mask=mask, decoder_input_ids=batch.targets)
    return output.logits[batch.targets.ne(1)]


def our_hypotheses(adapted: Adapted, batch: hf.Batch, source: str, target: str, beam: int) -> list[list[list[int]]]:
    """All finished hypotheses of each sentence, best first, by fairseq's own generator, as our task calls it."""
    from fairseq.sequence_generator import SequenceGenerator

    # --unnormalized: the score is the sum. fairseq counts the forced language token's probability into it and into the
    # length, transformers counts neither; in a sum that is the same for all hypotheses of a sentence.
    generator = SequenceGenerator(
        [adapted.model],
        adapted.task.target_dictionary,
        beam_size=beam,
        max_len_b=LIMIT,
        normalize_scores=False,
    )
    net_input = {"src_tokens": batch.left, "src_lengths": batch.lengths}
    ids = {"src_lang_id": source, "tgt_lang_id": target}
    ids = {key: torch.full((len(batch.left), 1), toy.LANGUAGES.index(name)) for key, name in ids.items()}
    net_input["src_lang_id"] = ids["src_lang_id"]
    sample = {"id": torch.arange(len(batch.left)), "net_input": net_input, "tgt_lang_id": ids["tgt_lang_id"]}
    found = adapted.task.inference_step(generator, [adapted.model], sample)
    return [[hypothesis["tokens"].tolist() for hypothesis in beams] for beams in found]


def their_hypotheses(model: nn.Module, batch: hf.Batch, token: int, beam: int) -> list[list[int]]:
    output = model.generate(
        input_ids=batch.right,
        attention_mask=batch.right.ne(1).long(),
        forced_bos_token_id=token,
        num_beams=beam,
        do_sample=False,
        length_penalty=0.0,
        early_stopping=True,
        suppress_tokens=[1],
        max_length=LIMIT + 2,
    )
    lines = (row[1:].tolist() for row in output)
    return [line[: line.index(2) + 1] if 2 in line else line for line in lines]


SIDES = [("en", "wo"), ("wo", "nl")]


@pytest.mark.parametrize("direction", SIDES, ids="-".join)
def test_a_direction_computes_the_same_with_peft(adapted, direction, tmp_path) -> None:
    source, target = direction
    run("export", adapted.checkpoint, "--format", "huggingface", "--out", tmp_path / "base")
    run("export", adapted.checkpoint, "--format", "peft", "-s", source, "-t", target, "--out", tmp_path / "lora")
    base = hf.transformers.M2M100ForConditionalGeneration.from_pretrained(tmp_path / "base").eval()
    batch = batch_of(adapted, source, target)
    plain = their_logits(base, batch)
    model = peft.PeftModel.from_pretrained(base, tmp_path / "lora").eval()
    check_same(adapted, model, batch, source, target)
    assert (plain - their_logits(model, batch)).abs().max() > 0.1  # the adapters have an effect


@pytest.mark.parametrize("direction", SIDES, ids="-".join)
def test_a_direction_computes_the_same_merged_into_a_folder(adapted, direction, tmp_path) -> None:
    source, target = direction
    files = ("--fixed-dictionary", adapted.home.fairseq / "dict.txt")
    files = (*files, "--sentencepiece-model", adapted.home.fairseq / "sentencepiece.bpe.model")
    command = ("export", adapted.checkpoint, "--format", "huggingface", "-s", source, "-t", target, *files)
    run(*command, "--out", tmp_path / "model")
    model = hf.transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model").eval()
    batch = batch_of(adapted, source, target)
    check_same(adapted, model, batch, source, target)
    generation = model.generation_config
    assert generation.forced_bos_token_id == hf.language_token(adapted.home, target)
    fairseq = GenerationConfig()  # the defaults of fairseq-generate
    assert (generation.num_beams, generation.max_length) == (fairseq.beam, fairseq.max_len_b)
    assert generation.early_stopping is (not fairseq.no_early_stop)
    assert generation.suppress_tokens == [adapted.task.target_dictionary.pad()]


def check_same(adapted: Adapted, model: nn.Module, batch: hf.Batch, source: str, target: str) -> None:
    ours, theirs = our_logits(adapted, batch, source, target), their_logits(model, batch)
    assert ours.std() > 1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    token = hf.language_token(adapted.home, target)
    # At the limit fairseq makes a hypothesis end, transformers cuts it.
    greedy = [beams[0][:LIMIT] for beams in our_hypotheses(adapted, batch, source, target, beam=1)]
    assert greedy == [line[:LIMIT] for line in their_hypotheses(model, batch, token, beam=1)]
    # It also counts that end in, so that the best of five is the same only where all five have ended before.
    found = our_hypotheses(adapted, batch, source, target, beam=5)
    expected = their_hypotheses(model, batch, token, beam=5)
    ended = [number for number, beams in enumerate(found) if max(map(len, beams)) < LIMIT]
    assert len(ended) >= 8
    assert len({tuple(expected[number]) for number in ended}) > 2
    assert len({tuple(line) for line in greedy}) > 3
    assert [found[number][0] for number in ended] == [expected[number] for number in ended]
    assert all(line[0] == token for line in (*greedy, *expected))
