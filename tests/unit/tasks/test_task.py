"""What the task decides: masks of a new or a resumed run, forced tokens, and what is stripped from the output."""

from __future__ import annotations

from argparse import Namespace
from unittest.mock import Mock

import pytest
import torch
from fairseq.data.multilingual.multilingual_data_manager import MultilingualDatasetManager
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import ModuleProxyWrapper
from fairseq.sequence_generator import SequenceGenerator
from fairseq.trainer import Trainer

from langspec_lora.checkpoints.arguments import TOKEN_ORDER
from langspec_lora.criterion import LabelSmoothedCrossEntropyCriterion
from langspec_lora.lora import FrozenKeys
from langspec_lora.models.injected import InjectedAdapters
from tests import toy
from tests.bad_input import own_copy, refusal_of, write_checkpoint

PRUNING = ("--pruning", "True", "--pruning-t1", "5", "--pruning-t2", "1", "--target-pruning-ratio", "0.5")


@pytest.mark.parametrize("flags_of", [toy.base_flags, toy.plugin_flags])
def test_what_tests_build_from_is_what_fairseq_builds_from(toy_data, flags_of) -> None:
    stock = ("--task", "translation_multi_simple_epoch", "--arch", "transformer")
    args = toy.parse(flags_of(toy_data, *(stock if flags_of is toy.base_flags else ())))
    settings = convert_namespace_to_omegaconf(args)
    assert {**vars(toy.task_settings(args)), "_name": args.task} == vars(settings.task)
    assert {**vars(toy.model_settings(args)), "_name": args.arch} == vars(settings.model)


def prune(state: dict) -> None:
    """Half of each B pruned in epoch 1, as another training of other flags has left it."""
    model = state["model"]
    model["adapters.mask_epoch"].fill_(1)
    for name in (name for name in model if name.endswith("lora_mask")):
        model[name][:, ::2] = 0
        model[name.replace("mask", "B")].fill_(1)[:, ::2] = 0


def alive_after_first_epoch_begins(data, *flags: str) -> set[float]:
    task, model = toy.build(toy.plugin_flags(data, *PRUNING, *flags))
    path = flags[flags.index("--restore-file" if "--restore-file" in flags else "--finetune-from-model") + 1]
    model.load_state_dict(torch.load(path, weights_only=False)["model"], strict=True)
    task.begin_epoch(1, model)
    return {linear.lora_mask.float().mean().item() for linear in model.adapters.linears.values()}


def test_a_new_run_from_a_pruned_checkpoint_chooses_its_masks_and_a_resumed_one_keeps_them(toy_data, tmp_path) -> None:
    pruned = str(write_checkpoint(tmp_path / "pruned.pt", toy.plugin_flags(toy_data), prune))
    save = ("--save-dir", str(tmp_path / "out"))
    assert alive_after_first_epoch_begins(toy_data, *save, "--finetune-from-model", pruned) == {1.0}
    assert alive_after_first_epoch_begins(toy_data, *save, "--restore-file", pruned, "--reset-optimizer") == {1.0}
    assert alive_after_first_epoch_begins(toy_data, *save, "--restore-file", pruned) == {0.5}


def forced(data, *flags: str) -> tuple[torch.Tensor | None, int | None, list[str]]:
    """The first tokens that a batch's hypotheses are given, and what stands in place of the beginning of a sentence."""
    task, model = toy.build(
        toy.plugin_flags(data, "--source-lang", "en", "--target-lang", "wo", *flags), translates=True
    )
    batch = toy.mixed_batch(task)
    generator = Mock()
    task.inference_step(generator, [model.eval()], batch)
    given = generator.generate.call_args.kwargs
    names = [toy.LANGUAGES[language] for language in batch["tgt_lang_id"].view(-1)]
    return given["prefix_tokens"], given.get("bos_token"), names


def test_each_sentence_is_forced_to_begin_with_the_token_of_its_language(toy_data) -> None:
    prefix, start, names = forced(toy_data)
    dictionary = toy.build(toy.plugin_flags(toy_data))[0].target_dictionary
    assert [dictionary[token] for token in prefix.view(-1)] == [f"__{name}__" for name in names]
    assert start is None


def test_a_language_token_that_replaces_the_begin_of_sentence_is_not_forced_again(toy_data) -> None:
    prefix, start, _ = forced(toy_data, "--lang-tok-replacing-bos-eos")
    assert prefix is None
    dictionary = toy.build(toy.plugin_flags(toy_data))[0].target_dictionary
    assert dictionary[start] == "__wo__"  # as fairseq's own task has it


@pytest.mark.parametrize(
    ("flags", "settings", "stripped"),
    [
        ((), {}, toy.LANGUAGES),
        (("--source-lang", "en", "--target-lang", "wo"), {}, ("wo",)),
        ((), {"keep_inference_langtok": True}, ()),
    ],
    ids=["all directions", "one direction", "asked to keep them"],
)
def test_language_tokens_are_stripped_from_the_output(toy_data, flags, settings, stripped) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data, *flags), translates=True)
    generator = task.build_generator([model], Namespace(beam=2, **settings))
    words = {task.target_dictionary[token] for token in generator.symbols_to_strip_from_output}
    assert words == {"</s>", *(f"__{name}__" for name in stripped)}


@pytest.mark.parametrize("flags", [(), ("--source-lang", "en", "--target-lang", "wo")])
def test_without_language_tokens_nothing_is_forced_or_stripped(toy_data, flags) -> None:
    without = [flag for flag in toy.plugin_flags(toy_data, *flags) if flag != "--decoder-langtok"]
    task, model = toy.build(without, translates=True)
    generator = task.build_generator([model], Namespace(beam=2))
    assert generator.symbols_to_strip_from_output == {task.target_dictionary.eos()}
    stand_in = Mock()
    task.inference_step(stand_in, [model.eval()], toy.mixed_batch(task))
    assert stand_in.generate.call_args.kwargs["prefix_tokens"] is None
    line = task.target_dictionary.encode_line("__wo__ wo1", add_if_not_exist=False)
    assert task.target_dictionary.string(line) == "__wo__ wo1"


def test_tokens_forced_by_the_caller_are_kept(toy_data) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data), translates=True)
    generator, prefix = Mock(), torch.tensor([[7, 8]])
    task.inference_step(generator, [model.eval()], toy.mixed_batch(task), prefix, constraints="constraints")
    assert generator.generate.call_args.kwargs["prefix_tokens"] is prefix
    assert generator.generate.call_args.kwargs["constraints"] == "constraints"


class OwnGenerator(SequenceGenerator):
    pass


def test_a_generator_accepts_all_arguments_of_fairseq(toy_data) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data), translates=True)
    generator = task.build_generator([model], Namespace(beam=3), OwnGenerator, {"eos": 7}, lambda *_: [4])
    assert type(generator) is OwnGenerator
    assert (generator.beam_size, generator.eos) == (3, 7)
    assert type(generator.search).__name__ == "PrefixConstrainedBeamSearch"


def test_texts_have_language_tokens_only_in_training(toy_data) -> None:
    texts = {}
    for translates in (False, True):
        flags = ("--source-lang", "en", "--target-lang", "wo") if translates else ()
        task, _ = toy.build(toy.plugin_flags(toy_data, *flags), translates=translates)
        tokens = task.source_dictionary.encode_line("__wo__ wo1 wo2", add_if_not_exist=False)
        texts[translates] = task.target_dictionary.string(tokens), task.source_dictionary.string(tokens)
    assert texts == {False: ("__wo__ wo1 wo2",) * 2, True: ("wo1 wo2", "__wo__ wo1 wo2")}


ONE, MIXED = "en-wo", "en-wo,nl-wo"


@pytest.mark.parametrize(
    ("flags", "pairs", "merges"),
    [
        (("--source-lang", "en", "--target-lang", "wo"), ONE, 2),
        ((), ONE, 0),  # the next batch may well be of another direction
        ((), MIXED, 0),
    ],
)
def test_adapters_are_merged_into_every_model_if_all_batches_have_one_direction(
    toy_data, flags, pairs, merges, monkeypatch
) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data, *flags), translates=True)
    merged = []
    stock = InjectedAdapters.merged
    monkeypatch.setattr(InjectedAdapters, "merged", lambda *args: merged.append(args[1:]) or stock(*args))
    task.inference_step(Mock(), [model.eval(), model], batch_of(task, pairs))
    assert merged == [(0, 3)] * merges  # the ids of en and wo


def batch_of(task, pairs: str) -> dict:
    """Three sentences of each direction."""
    if "valid" not in task.datasets:
        task.load_dataset("valid")
    ids = [tuple(toy.LANGUAGES.index(name) for name in pair.split("-")) for pair in pairs.split(",")]
    datasets = [one for one in task.dataset("valid").datasets if (one.source_id, one.target_id) in ids]
    return datasets[0].collater([dataset[index] for dataset in datasets for index in range(3)])


def test_text_without_ids_has_the_direction_of_the_command_line(toy_data, monkeypatch) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data, "--source-lang", "en", "--target-lang", "wo"), translates=True)
    merged, generator = [], Mock()
    stock = InjectedAdapters.merged
    monkeypatch.setattr(InjectedAdapters, "merged", lambda *args: merged.append(args[1:]) or stock(*args))
    tokens = torch.full((2, 5), 7)
    plain = {"src_tokens": tokens, "src_lengths": torch.tensor([5, 5])}  # as fairseq-interactive makes it
    task.inference_step(generator, [model.eval()], {"net_input": plain})
    given = generator.generate.call_args.args[1]["net_input"]
    assert (given["src_lang_id"].tolist(), given["tgt_lang_id"].tolist()) == ([[0]], [[3]])  # the ids of en and wo
    assert given["src_tokens"] is tokens
    token = task.target_dictionary.index("__wo__")
    assert generator.generate.call_args.kwargs["prefix_tokens"].tolist() == [[token], [token]]
    assert merged == [(0, 3)]


def test_one_of_several_languages_does_not_make_one_direction(toy_data, monkeypatch) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data), translates=True)
    task.one_direction = True  # as langspec-lora evaluate has it for a group of one direction
    monkeypatch.setattr(InjectedAdapters, "merged", lambda *_: pytest.fail("merged"))
    for pairs in ("en-wo,nl-wo", "en-wo,en-nl", "en-wo,nl-fr"):
        task.inference_step(Mock(), [model.eval()], batch_of(task, pairs))


def test_only_assertions_about_lengths_are_explained(toy_data) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data), translates=True)
    generator, batch = Mock(), toy.mixed_batch(task)
    generator.generate.side_effect = AssertionError("min_len cannot be larger than max_len, please adjust these!")
    assert "--min-len exceeds the maximum length of a hypothesis" in refusal_of(
        task.inference_step, generator, [model.eval()], batch
    )
    generator.generate.side_effect = AssertionError("something else")
    with pytest.raises(AssertionError, match="something else"):
        task.inference_step(generator, [model], batch)


class Parallel(torch.nn.Module):
    """Holds a model as torch's DistributedDataParallel does."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.mark.parametrize(
    ("pairs", "sources", "targets"),
    [("en-wo", [0], [3]), ("en-wo,nl-wo", [0, 0, 0, 2, 2, 2], [3]), ("en-wo,en-nl", [0], [2, 2, 2, 3, 3, 3])],
)
def test_a_model_gets_one_id_for_a_side_with_one_language_and_otherwise_all(toy_data, pairs, sources, targets) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data))
    given = []

    def criterion(model: torch.nn.Module, sample: dict) -> tuple[torch.Tensor, int, dict]:
        given.append(sample)
        return torch.zeros((), requires_grad=True), 1, {}

    batch = batch_of(task, pairs)
    task.valid_step(batch, model, criterion)
    task.train_step(batch, ModuleProxyWrapper(Parallel(model)), criterion, Mock(), 0)
    for sample in given:
        net_input = sample["net_input"]
        for name, expected in (("src_lang_id", sources), ("tgt_lang_id", targets)):
            assert sorted(net_input[name].view(-1).tolist()) == expected
            assert net_input[name].shape == (len(expected), 1)
        assert net_input["src_tokens"] is batch["net_input"]["src_tokens"]
        assert sample["target"] is batch["target"]
    given.clear()
    stock = toy.build(toy.base_flags(toy_data, *PLAIN))[1]
    task.valid_step(batch, stock, criterion)
    assert "src_lang_id" not in given[0]["net_input"]
    assert "tgt_lang_id" not in given[0]["net_input"]
    assert given[0]["net_input"].keys() == batch["net_input"].keys() - {"src_lang_id"}
    for other in ({}, {"id": 3}, {"net_input": {"src_tokens": 5}}):  # what a process without data of its own gets
        task.valid_step(other, model, criterion)
        assert given[-1] == other


PLAIN = ("--task", "translation_multi_simple_epoch_lora", "--arch", "transformer")
TRAINING = ("--optimizer", "adam", "--lr", "0.01", "--lr-scheduler", "fixed", "--weight-decay", "0.1", "--cpu")


def rows(model: torch.nn.Module, names: str) -> torch.Tensor:
    """The adapters of some languages, in one row."""
    ids = [toy.LANGUAGES.index(name) for name in names.split(",")]
    parts = [
        packed.detach()[model.adapters.routing.layout.packed["src"].slice(language)].flatten()
        for linear in model.adapters.linears.values()
        for packed in (linear.lora_A, linear.lora_B)
        for language in ids
    ]
    return torch.cat(parts)


def test_languages_that_do_not_train_are_unchanged_by_pruning_and_updates(toy_data) -> None:
    flags = toy.plugin_flags(toy_data, *TRAINING, *PRUNING, "--train-languages", "wo,sd", "--lang-pairs", "wo-sd,sd-wo")
    task, model = toy.build(flags)
    toy.randomise_adapters(model)
    for linear in model.adapters.linears.values():
        linear.lora_mask[:, ::2] = 0  # even if an earlier training has called these entries pruned
    before, trained = rows(model, "en,fr,nl"), rows(model, "wo,sd")
    assert before.count_nonzero() == before.numel()
    cfg = convert_namespace_to_omegaconf(toy.parse(flags))
    trainer = Trainer(cfg, task, model, task.build_criterion(cfg.criterion))
    task.begin_epoch(1, model)  # before the pruning
    trainer.train_step([toy.mixed_batch(task)])  # momentum moves pruned entries from now on
    task.begin_epoch(7, model)  # the last of the pruning
    assert torch.equal(rows(model, "en,fr,nl"), before)
    zeros = rows(model, "wo,sd") == 0
    assert zeros.any()
    trainer.train_step([toy.mixed_batch(task)])
    assert torch.equal(rows(model, "en,fr,nl"), before)
    assert torch.equal(rows(model, "wo,sd") == 0, zeros)
    assert not torch.equal(rows(model, "wo,sd")[~zeros], trained[~zeros])


@pytest.mark.parametrize(
    ("flags", "epoch"),
    [
        ((), 0),
        (("--train-languages", "en,fr,nl,wo,sd"), 0),
        (("--train-languages", "wo,sd", "--lang-pairs", "wo-sd,sd-wo"), 3),
    ],
)
def test_training_without_pruning_lifts_the_masks_of_those_that_train(toy_data, flags, epoch, caplog) -> None:
    with caplog.at_level("INFO", "langspec_lora"):
        task, model = toy.build(toy.plugin_flags(toy_data, *flags))
    model.adapters.mask_epoch.fill_(3)
    for linear in model.adapters.linears.values():
        linear.lora_mask.zero_()
    task.begin_epoch(1, model)
    assert int(model.adapters.mask_epoch) == epoch  # the epoch of masks that are still there
    shares = {linear.lora_mask.float().mean().item() for linear in model.adapters.linears.values()}
    assert all(share == 1 if epoch == 0 else 0 < share < 1 for share in shares)
    assert any(isinstance(hook, FrozenKeys) for hook in task.hooks) == (epoch != 0)
    trainable = rows(model, "en,fr,nl,wo,sd" if epoch == 0 else "wo,sd").numel()
    said = [record.getMessage() for record in caplog.records]
    assert sum(f"| trainable {trainable:,} |" in line for line in said) == 1


@pytest.mark.parametrize("arch", [("--arch", "transformer"), ()])
def test_a_model_without_adapters_trains_as_in_fairseq(toy_data, arch) -> None:
    flags = toy.plugin_flags(toy_data, *TRAINING, *(arch or ("--add-lora", "False")))
    if arch:
        flags = toy.base_flags(toy_data, *PLAIN, *TRAINING)
    task, model = toy.build(flags)
    assert list(task.hooks) == []
    cfg = convert_namespace_to_omegaconf(toy.parse(flags))
    trainer = Trainer(cfg, task, model, task.build_criterion(cfg.criterion))
    task.begin_epoch(1, model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer.train_step([toy.mixed_batch(task)])
    assert not all(map(torch.equal, before, model.parameters()))


def test_arguments_of_fairseqs_commands_reach_its_task(toy_data, monkeypatch) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data))
    handed = {}
    for name in ("begin_epoch", "get_batch_iterator", "build_criterion"):
        owner = next(kind for kind in type(task).__mro__[1:] if name in vars(kind))
        monkeypatch.setattr(
            owner, name, lambda self, *args, name=name, **options: handed.update({name: (args, options)})
        )
    task.begin_epoch(3, model)
    task.build_criterion("criterion", from_checkpoint=True)
    task.get_batch_iterator("dataset", 100, seed=4)
    assert handed == {
        "begin_epoch": ((3, model), {}),
        "build_criterion": (("criterion",), {"from_checkpoint": True}),
        "get_batch_iterator": (("dataset", 100), {"seed": 4}),
    }


def test_different_dictionaries_are_refused(toy_data, tmp_path) -> None:
    data = own_copy(toy_data, tmp_path)
    flags = toy.plugin_flags(data)
    place = flags.index("--fixed-dictionary")
    flags = flags[:place] + flags[place + 2 :]
    toy.build(flags)
    with (data / "dict.nl.txt").open("a") as file:
        file.write("more 1\n")
    words = f"the dictionaries in {data} differ; give one for all languages as --fixed-dictionary"
    assert words in refusal_of(toy.build, flags)


def test_only_assertions_about_dictionaries_are_explained(toy_data, monkeypatch) -> None:
    def prepare(*args: object, **options: object) -> None:
        raise AssertionError("something else")

    monkeypatch.setattr(MultilingualDatasetManager, "prepare", prepare)
    with pytest.raises(AssertionError, match="something else"):
        toy.build(toy.plugin_flags(toy_data))


def test_a_new_model_has_the_language_tokens_in_the_order_of_langs(toy_data) -> None:
    task, _ = toy.build(toy.plugin_flags(toy_data, "--langs", "wo,en", "--lang-pairs", "en-wo,wo-en"))
    assert getattr(task.args, TOKEN_ORDER) == ["wo", "en"]  # as it will be stored


def test_fairseqs_criterion_is_replaced_by_the_one_that_saves_memory(toy_data) -> None:
    flags = toy.plugin_flags(toy_data)
    task, _ = toy.build(flags)
    criterion = task.build_criterion(convert_namespace_to_omegaconf(toy.parse(flags)).criterion)
    assert type(criterion) is LabelSmoothedCrossEntropyCriterion


@pytest.mark.parametrize("content", [b"word one\n", b"word\n", b"caf\xe9 1\n"])
def test_a_damaged_dictionary_is_named(toy_data, tmp_path, content) -> None:
    path = tmp_path / "dict.txt"
    path.write_bytes((toy_data.parent / "dict.txt").read_bytes() + content)
    flags = toy.plugin_flags(toy_data, "--fixed-dictionary", str(path))
    message = refusal_of(toy.build, flags)
    assert f"dictionary {path} " in message
