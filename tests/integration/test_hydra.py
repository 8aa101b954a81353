"""``fairseq-hydra-train`` trains what ``fairseq-train`` trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fairseq import tasks
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.initialize import add_defaults
from fairseq_cli import train as fairseq_train
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from langspec_lora.tasks import hydra as plugin  # noqa: F401  (fairseq imports it with the user-dir)
from tests.bad_input import refusal_of
from tests.evaluations import run_stock
from tests.trainings import PLUGIN, command, run

YAML = """
# @package _group_
common: {{user_dir: '{plugin}', seed: 2, cpu: true, log_format: simple}}
checkpoint: {{save_dir: '{save}', no_epoch_checkpoints: true}}
dataset: {{max_tokens: 900, required_batch_size_multiple: 1, num_workers: 0, disable_validation: true}}
optimization: {{lr: [0.003], max_epoch: 2, clip_norm: 1.0, update_freq: [1, 2]}}
criterion: {{_name: label_smoothed_cross_entropy, label_smoothing: 0.2}}
optimizer: {{_name: adam, adam_betas: '(0.9, 0.98)'}}
lr_scheduler: {{_name: inverse_sqrt, warmup_updates: 2}}
task:
  _name: translation_multi_simple_epoch_lora
  data: '{data}'
  langs: [en, fr, nl, wo, sd]
  lang_pairs: en-fr,wo-nl
  encoder_langtok: src
  decoder_langtok: true
  fixed_dictionary: '{data}/../dict.txt'
  sampling_method: temperature
  sampling_temperature: 5.0
  pruning: true
  pruning_t1: 1
  pruning_t2: 1
model:
  _name: langspec_m2m100_lora_tiny
  encoder_layers: 1
  dropout: 0.1
  share_all_embeddings: true
  lang_resources: '{data}/../levels.yaml'
  high_rank: 2
"""
FLAGS = (
    *("--seed", "2", "--cpu", "--log-format", "simple", "--no-epoch-checkpoints", "--max-tokens", "900"),
    *("--required-batch-size-multiple", "1", "--num-workers", "0", "--disable-validation", "--lr", "0.003"),
    *("--max-epoch", "2", "--clip-norm", "1.0", "--update-freq", "1,2", "--criterion", "label_smoothed_cross_entropy"),
    *("--label-smoothing", "0.2", "--optimizer", "adam", "--adam-betas", "(0.9, 0.98)"),
    *("--lr-scheduler", "inverse_sqrt", "--warmup-updates", "2", "--task", "translation_multi_simple_epoch_lora"),
    *("--langs", "en,fr,nl,wo,sd", "--lang-pairs", "en-fr,wo-nl", "--encoder-langtok", "src", "--decoder-langtok"),
    *("--sampling-method", "temperature", "--sampling-temperature", "5.0", "--pruning", "True", "--pruning-t1", "1"),
    *("--pruning-t2", "1", "--arch", "langspec_m2m100_lora_tiny", "--encoder-layers", "1", "--dropout", "0.1"),
    *("--share-all-embeddings", "--high-rank", "2"),
)


@pytest.fixture
def settings(toy_data, tmp_path) -> Path:
    """A folder with settings of Hydra, ``small.yaml``."""
    folder = tmp_path / "settings"
    folder.mkdir()
    text = YAML.format(plugin=PLUGIN, save=tmp_path / "hydra", data=toy_data)
    (folder / "small.yaml").write_text(text)
    return folder


def composed(folder: Path, *changes: str):
    """The settings as ``fairseq_cli.hydra_train`` hands them on."""
    parts = OmegaConf.load(folder / "small.yaml"), OmegaConf.from_dotlist(list(changes))
    cfg = OmegaConf.merge(OmegaConf.structured(FairseqConfig), *parts)
    add_defaults(cfg)
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    OmegaConf.set_struct(cfg, True)
    return cfg


def test_hydra_trains_the_same_bits_as_flags(settings, toy_data, tmp_path) -> None:
    log = run(command("fairseq-hydra-train"), "--config-dir", str(settings), "--config-name", "small", cwd=tmp_path)
    assert "pruning | epoch 2" in log
    flags = [str(toy_data), "--fixed-dictionary", f"{toy_data}/../dict.txt", *FLAGS]
    flags += ["--lang-resources", f"{toy_data}/../levels.yaml", "--save-dir", str(tmp_path / "flags")]
    with pytest.MonkeyPatch.context() as patch:
        run_stock(patch, fairseq_train, *flags, "--user-dir", str(PLUGIN))
    ours, theirs = (_stored(tmp_path / name / "checkpoint_last.pt") for name in ("hydra", "flags"))
    assert ours["model"].keys() == theirs["model"].keys()
    for name, value in ours["model"].items():
        if not name.endswith("_float_tensor"):  # memory that fairseq leaves uninitialised
            assert torch.equal(value, theirs["model"][name]), name
    for section in ("task", "model"):
        here, there = (vars(state["cfg"][section]) for state in (ours, theirs))
        differing = {name for name in here.keys() | there.keys() if here.get(name) != there.get(name)}
        assert differing <= {"save_dir", "distributed_num_procs", "no_progress_bar"}
    assert ours["optimizer_history"][-1]["num_updates"] == theirs["optimizer_history"][-1]["num_updates"] > 3


def _stored(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=False)  # our own file


WRONG = {
    "model._name=nothing": "model._name nothing is unknown; give an architecture, such as langspec_m2m100_lora_base",
    "model._name=null": "model._name is missing; give an architecture",
    "task.data=null": "task.data is missing; give the folder of the binarised data",
    "task.langz=en": "task.langz is no setting of this task; 'fairseq-train",
    "model.depth=3": "model.depth is no setting of this model",
    "model.encoder_layers=many": "argument --encoder-layers: invalid int value: 'many'; correct that setting",
    "task.pruning_t2=0": "--pruning-t2 0: expected",
}


@pytest.mark.parametrize("change", WRONG)
def test_wrong_setting_is_named_in_a_sentence(settings, change) -> None:
    def build() -> None:
        cfg = composed(settings, change)
        task = tasks.setup_task(cfg.task)
        task.build_model(cfg.model)

    assert WRONG[change] in refusal_of(build)


def test_settings_reach_task_and_model_and_hydra_is_not_disturbed(settings) -> None:
    cfg = composed(settings, "task.langs=[en,fr]", "task.lang_pairs=en-fr", "dataset.batch_size=7", "model.high_rank=3")
    marker = object()
    GlobalHydra.instance().hydra = marker
    try:
        task = tasks.setup_task(cfg.task)
        assert GlobalHydra.instance().hydra is marker
    finally:
        GlobalHydra.instance().clear()
    assert task.langs == ["en", "fr"]
    assert task.args is cfg.task
    assert (task.args.batch_size, task.args.max_tokens, task.args.max_tokens_valid) == (7, 900, 900)
    assert (cfg.model.high_rank, cfg.model.encoder_layers, cfg.model.decoder_layers) == (3, 1, 2)
    assert cfg.optimizer._name == "adam"


def test_other_tasks_of_fairseq_are_built_as_before() -> None:
    with pytest.raises(AssertionError, match="Could not infer task type"):
        tasks.setup_task(OmegaConf.create({"_name": "nothing"}))
