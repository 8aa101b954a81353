"""Dictionaries without language tokens: each language keeps its own, whatever the order and number of ``--langs``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from fairseq import options, tasks
from fairseq_cli import generate, train, validate

from langspec_lora.checkpoints.loading import load_checkpoint
from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.checkpoints.token_order import TokenOrder
from langspec_lora.cli.main import main
from langspec_lora.convert.hf.tokenizer_files import check_tokenizer
from langspec_lora.data.vocabulary import dictionary_text, train_sentencepiece
from langspec_lora.evaluation.evaluate import evaluate
from langspec_lora.generation import GenerationSettings
from langspec_lora.tasks.translation import LanguageSpecificTranslationTask
from tests import ROOT, evaluations, toy
from tests.bad_input import STOCK, refusal_of, set_up_generation, write_checkpoint

IN_ORDER = ",".join(toy.LANGUAGES)
REVERSED = ",".join(reversed(toy.LANGUAGES))
PLUGIN = ("--user-dir", str(ROOT / "langspec_lora"))
OUR_TASK = ("--task", "translation_multi_simple_epoch_lora")


def without_tokens(data: Path) -> str:
    """A dictionary of the toy data as mBART and NLLB have it: the words only."""
    path = data.parent / "nolang.txt"
    words = (data.parent / "dict.txt").read_text().splitlines(keepends=True)
    path.write_text("".join(word for word in words if not word.startswith("__")))
    return str(path)


def symbols_of_stock_fairseq(data: Path, langs: str) -> list[str]:
    """The vocabulary of a model that stock fairseq trains."""
    flags = toy.base_flags(data, *STOCK, "--fixed-dictionary", without_tokens(data), "--langs", langs)
    return tasks.setup_task(toy.task_settings(toy.parse(flags))).source_dictionary.symbols


@pytest.fixture(scope="module")
def stock_base(toy_data, tmp_path_factory) -> Path:
    """A base of stock fairseq whose tokens stand in the reversed order."""
    flags = toy.base_flags(toy_data, *STOCK, "--fixed-dictionary", without_tokens(toy_data), "--langs", REVERSED)
    return write_checkpoint(tmp_path_factory.mktemp("base") / "base.pt", flags)


@pytest.fixture(scope="module")
def fine_tuned(toy_data, stock_base, tmp_path_factory) -> Path:
    """Trained from it with other --langs: another order, and fewer."""
    save = tmp_path_factory.mktemp("tuned")
    few = ("--langs", "nl,en,wo", "--lang-pairs", "en-nl,nl-en,en-wo,wo-en", "--freeze-original-parameters", "False")
    flags = toy.plugin_flags(toy_data, *PLUGIN, "--fixed-dictionary", without_tokens(toy_data), *few)
    return evaluations.train_checkpoint(save, [*flags, "--finetune-from-model", str(stock_base)])


@pytest.mark.parametrize("langs", [IN_ORDER, REVERSED, "wo,en"])
def test_a_translation_has_the_tokens_in_the_order_of_the_checkpoint(toy_data, stock_base, langs) -> None:
    more = ("--fixed-dictionary", without_tokens(toy_data), "--langs", langs, "--lang-pairs", "en-wo,wo-en")
    for parser in (options.get_generation_parser, options.get_interactive_generation_parser):
        task = set_up_generation(toy_data, stock_base, *more, parser=parser)
        assert task.source_dictionary.symbols == symbols_of_stock_fairseq(toy_data, REVERSED)
        assert task.langs == langs.split(",")


@pytest.mark.parametrize("langs", [IN_ORDER, "wo,en"])
def test_a_training_has_the_tokens_in_the_order_of_its_base(toy_data, stock_base, langs, tmp_path) -> None:
    flags = toy.plugin_flags(toy_data, "--fixed-dictionary", without_tokens(toy_data), "--langs", langs)
    flags += ["--lang-pairs", "en-wo,wo-en", "--finetune-from-model", str(stock_base), "--save-dir", str(tmp_path)]
    task, _ = toy.build(flags)
    assert task.source_dictionary.symbols == symbols_of_stock_fairseq(toy_data, REVERSED)


@pytest.mark.parametrize("langs", [IN_ORDER, REVERSED])
def test_a_training_from_nothing_keeps_its_own_order(toy_data, langs) -> None:
    task, _ = toy.build(toy.plugin_flags(toy_data, "--fixed-dictionary", without_tokens(toy_data), "--langs", langs))
    assert task.source_dictionary.symbols == symbols_of_stock_fairseq(toy_data, langs)
    assert task.args.dictionary_langs == langs.split(",")


def test_a_fine_tuned_checkpoint_keeps_its_base_s_order_where_its_own_langs_are_others(toy_data, fine_tuned) -> None:
    more = ("--fixed-dictionary", without_tokens(toy_data), "--langs", "en,wo", "--lang-pairs", "en-wo")
    task = set_up_generation(toy_data, fine_tuned, *more)
    assert task.source_dictionary.symbols == symbols_of_stock_fairseq(toy_data, REVERSED)


def test_every_command_translates_alike_in_any_order(toy_data, fine_tuned, tmp_path, monkeypatch, capsys) -> None:
    common = (
        str(toy_data),
        *PLUGIN,
        "--path",
        str(fine_tuned),
        "--cpu",
        "--max-len-b",
        "8",
        "--beam",
        "2",
        "--remove-bpe",
        "sentencepiece",
    )
    common += ("--fixed-dictionary", without_tokens(toy_data), "--lang-pairs", "nl-en", *OUR_TASK)
    common += ("--encoder-langtok", "src", "--decoder-langtok", "--required-batch-size-multiple", "1")
    found = []
    for langs in ("en,nl,wo", "wo,nl,en"):
        flags = (*common, "--langs", langs, "-s", "nl", "-t", "en", "--gen-subset", "test")
        evaluations.run_stock(monkeypatch, generate, *flags)
        (tmp_path / "printed").write_text(capsys.readouterr().out)
        found.append(evaluations.published_hypotheses(tmp_path / "printed"))
        settings = GenerationSettings(beam=2, max_len_b=8)
        evaluate(
            evaluations.options(
                toy_data,
                fine_tuned,
                tmp_path / langs,
                langs=tuple(langs.split(",")),
                lang_pairs="nl-en",
                dictionary=Path(without_tokens(toy_data)),
                generation=settings,
            )
        )
        found.append((tmp_path / langs / "nl-en.hyp.txt").read_text().splitlines())
    assert len(set(found[0])) > 3
    assert found == [found[0]] * 4


def test_validation_reads_the_order_from_the_checkpoint(toy_data, fine_tuned, monkeypatch, tmp_path) -> None:
    losses: list[tuple[float, int]] = []  # of each batch, with its words
    stock_step = LanguageSpecificTranslationTask.valid_step

    def valid_step(*args):
        loss, words, log = stock_step(*args)
        losses.append((float(log["nll_loss"]), words))
        return loss, words, log

    monkeypatch.setattr(LanguageSpecificTranslationTask, "valid_step", valid_step)
    flags = (str(toy_data), *PLUGIN, *OUR_TASK, "--path", fine_tuned, "--cpu", "--max-tokens", "400")
    evaluations.run_stock(monkeypatch, validate, *flags, "--valid-subset", "valid")
    validated = torch.tensor(losses).sum(0)
    losses.clear()
    # The training command's own validation, of the weights that it starts with and with the order of its base.
    few = ("--langs", "en,nl,wo", "--lang-pairs", "en-nl,nl-en,en-wo,wo-en", "--freeze-original-parameters", "False")
    start = ("--finetune-from-model", fine_tuned, "--max-update", "1", "--optimizer", "adam", "--no-save")
    flags = toy.plugin_flags(toy_data, *PLUGIN, "--fixed-dictionary", without_tokens(toy_data), *few)
    evaluations.run_stock(monkeypatch, train, *flags, *start, "--lr", "1e-12", "--cpu", "--save-dir", tmp_path)
    # Batches differ, as the languages' order decides which sentences of a length come first; their sum does not.
    assert validated.tolist() == pytest.approx(torch.tensor(losses).sum(0).tolist(), rel=1e-4)
    assert validated[1] > 100


def test_an_export_for_stock_fairseq_says_the_order_to_it(toy_data, fine_tuned, tmp_path) -> None:
    merged = tmp_path / "merged.pt"
    main(["export", str(fine_tuned), "--format", "merged", "-s", "nl", "-t", "en", "--out", str(merged)])
    args = load_checkpoint(merged)["args"]
    # What fairseq-validate does: the task of the checkpoint's own arguments.
    args.data, args.fixed_dictionary = str(toy_data), without_tokens(toy_data)
    task = tasks.setup_task(args)
    assert task.source_dictionary.symbols == symbols_of_stock_fairseq(toy_data, REVERSED)
    assert type(task).__name__ == "TranslationMultiSimpleEpochTask"


def test_a_tokenizer_is_checked_against_the_whole_vocabulary(toy_data, fine_tuned, tmp_path) -> None:
    """The dictionary lacks the tokens, the embeddings have them."""
    outline = read_outline(fine_tuned)
    rows = len(symbols_of_stock_fairseq(toy_data, REVERSED))
    spm = tmp_path / "spm.model"
    words = Path(without_tokens(toy_data)).read_text().split()[::2]
    spm.write_bytes(train_sentencepiece([" ".join(words)] * 3, 40))
    pieces = dictionary_text(spm.read_bytes(), ()).splitlines()
    dictionary = tmp_path / "dict.txt"
    padding = [f"madeupword{number:04d} 1" for number in range(rows - len(toy.LANGUAGES) - 4 - len(pieces))]
    dictionary.write_text("".join(f"{line}\n" for line in (*pieces, *padding)))
    order = TokenOrder.of(fine_tuned, outline.model_args)
    tokens = check_tokenizer(dictionary, spm, rows, ("nl", "en"), order)
    assert tokens[-5:] == [f"__{name}__" for name in REVERSED.split(",")]


def test_languages_that_join_and_leave_keep_the_order_of_the_base(toy_data, fine_tuned, tmp_path) -> None:
    more, fewer, again = (str(tmp_path / name) for name in ("more.pt", "fewer.pt", "again.pt"))
    levels = str(toy_data.parent / "levels.yaml")
    main(["add-language", str(fine_tuned), "--langs", "fr", "--lang-resources", levels, "--out", more])
    main(["remove-language", more, "--langs", "nl", "--out", fewer])
    main(["export", fewer, "--format", "adapter", "--out", str(tmp_path / "adapter")])
    main(["import", str(tmp_path / "adapter"), "--from", "adapter", "--base", fewer, "--out", again])
    both = str(tmp_path / "both.pt")
    main(["join", str(fine_tuned), fewer, "--prefer", "A", "--out", both])
    flags = ("--fixed-dictionary", without_tokens(toy_data), "--langs", "wo,en", "--lang-pairs", "en-wo")
    for path in (more, fewer, again, both):
        task = set_up_generation(toy_data, path, *flags)
        assert task.source_dictionary.symbols == symbols_of_stock_fairseq(toy_data, REVERSED), path


def test_an_ensemble_of_different_orders_is_refused_with_both(toy_data, stock_base, tmp_path) -> None:
    flags = toy.base_flags(toy_data, *STOCK, "--fixed-dictionary", without_tokens(toy_data), "--langs", IN_ORDER)
    other = write_checkpoint(tmp_path / "other.pt", flags)
    more = ("--fixed-dictionary", without_tokens(toy_data))
    message = refusal_of(set_up_generation, toy_data, f"{stock_base}:{other}", *more)
    assert REVERSED in message
    assert IN_ORDER in message
    set_up_generation(toy_data, f"{stock_base}:{stock_base}", *more)


def test_an_order_that_no_checkpoint_says_is_warned_of(toy_data, stock_base, tmp_path, caplog) -> None:
    state = load_checkpoint(stock_base)
    state["args"] = Namespace(**{**vars(state["args"]), "langs": None})
    torch.save(state, tmp_path / "silent.pt")
    set_up_generation(toy_data, tmp_path / "silent.pt")
    assert "does not say" not in caplog.text  # this dictionary has the tokens
    set_up_generation(toy_data, tmp_path / "silent.pt", "--fixed-dictionary", without_tokens(toy_data))
    assert (
        f"silent.pt does not say in which order its model has them; using the order of --langs {IN_ORDER}"
        in caplog.text
    )
