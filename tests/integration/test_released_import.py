"""``langspec-lora import --from lslo``: checkpoints of the released implementation, written here as it writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils
from torch import nn
from torch.nn.utils import prune

from tests import toy
from tests.bad_input import set_up_generation, write_checkpoint
from tests.integration.test_export import load, refusal, run

IDS = {
    "en": 0, "fr": 1, "it": 2, "de": 3, "nl": 4, "zh": 5, "ja": 6, "ko": 7, "oc": 8, "or": 9, "sd": 10, "wo": 11,
}  # fmt: skip
"""The table of the released code, as its authors published it."""

RANKS = (2,) * 4 + (3,) * 4 + (4,) * 4  # by id: high, med, low
POSITIONS = {
    "encoder": ("q", "k", "v", "fc1", "fc2"),
    "decoder": ("q", "k", "v", "crossq", "crossk", "crossv", "fc1", "fc2"),
}
LINEARS = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "crossq": "encoder_attn.q_proj",
    "crossk": "encoder_attn.k_proj", "crossv": "encoder_attn.v_proj", "fc1": "fc1", "fc2": "fc2",
}  # fmt: skip
SITES = [(stack, layer, name) for stack, names in POSITIONS.items() for layer in range(2) for name in names]


@pytest.fixture(scope="module")
def base(toy_data, tmp_path_factory) -> Path:
    flags = toy.plugin_flags(toy_data, "--dim", "12", "--start-idx", "1")
    return write_checkpoint(tmp_path_factory.mktemp("base") / "base.pt", flags)


@pytest.fixture
def levels(toy_data) -> Path:
    return toy_data.parent / "levels.yaml"


def entry(site: tuple[str, int, str], language: int, part: str) -> str:
    return f"{site[0]}.layers.{site[1]}.{site[2]}_lora.lang_spec_lora.{language}.lora_{part}"


def released(base: Path, path: Path, ranks: Sequence[int] | Mapping[int, int] = RANKS, **arguments) -> dict:
    """Writes a checkpoint as the released implementation does, of random adapters, on the base of another.

    Args:
        base: a checkpoint of ours with that base.
        path: the file.
        ranks: by id.
        **arguments: of the training.
    """
    torch.manual_seed(8)
    state = load(base)
    model = {name: value for name, value in state["model"].items() if "lora" not in name and "adapters." not in name}
    for site in SITES:
        for language, rank in ranks.items() if isinstance(ranks, Mapping) else enumerate(ranks):
            model[entry(site, language, "a")] = torch.randn(12, rank) * 0.3
            model[entry(site, language, "b")] = torch.randn(rank, 12) * 0.3
    args = state["args"]
    for name in ("adapter_languages", "add_lora", "lora_init", "lang_resources", "pruning_scope"):
        delattr(args, name)
    vars(args).update({"global_pruning": False, **arguments})
    torch.save({**state, "model": model}, path)
    return model


def change(path: Path, entries: Mapping[str, torch.Tensor | None]) -> None:
    """Changes entries of a checkpoint, or takes them out."""
    state = load(path)
    state["model"].update(entries)
    state["model"] = {name: value for name, value in state["model"].items() if value is not None}
    torch.save(state, path)


def imported(path: Path, levels: Path | None, out: Path, *more: str) -> dict:
    run("import", path, "--from", "lslo", *(["--lang-resources", levels] if levels else []), "--out", out, *more)
    return load(out)


def rows(state: dict, site: tuple[str, int, str], language: str, part: str) -> torch.Tensor:
    """A language's rows of a packed tensor, counted by hand."""
    names = [name for name in state["args"].langs if name in IDS]
    start = sum(RANKS[IDS[name]] for name in names[: names.index(language)])
    packed = state["model"][f"{site[0]}.layers.{site[1]}.{LINEARS[site[2]]}.lora_{part}"]
    return packed[start : start + RANKS[IDS[language]]]


def test_released_checkpoint_computes_x_a_b_beside_each_linear(base, levels, toy_data, tmp_path) -> None:
    model = released(base, tmp_path / "lslo.pt")
    imported(tmp_path / "lslo.pt", levels, tmp_path / "ours.pt")
    loaded = checkpoint_utils.load_model_ensemble(
        [str(tmp_path / "ours.pt")], task=set_up_generation(toy_data, tmp_path / "ours.pt")
    )[0][0].eval()
    modules = dict(loaded.named_modules())
    loaded.adapters.bind_languages(toy.LANGUAGES, toy.LANGUAGES)
    tested = 0
    for site in SITES:
        stack, layer, position = site
        linear = modules[f"{stack}.layers.{layer}.{LINEARS[position]}"]
        by_source = stack == "encoder" and layer == 0
        x = torch.randn(3, 2, linear.in_features)
        loaded.adapters.routing.set_batch(torch.tensor([1, 4]), torch.tensor([3, 0]))  # from fr and sd into wo and en
        actual = linear(x)
        for sentence, language in enumerate(("fr", "sd") if by_source else ("wo", "en")):
            expected = x[:, sentence] @ linear.weight.T + linear.bias
            a, b = (model[entry(site, IDS[language], part)] for part in "ab")
            update = x[:, sentence, 1:13] @ a @ b
            expected[:, 1:13] += update
            torch.testing.assert_close(actual[:, sentence], expected, rtol=1e-4, atol=1e-5)
            assert update.abs().max() > 0.01
            tested += 1
    assert tested == 2 * 26


@pytest.mark.parametrize("stored", ["wo,sd,nl,fr,en", "de,en,ko", list(reversed(IDS)), ["it"]], ids=str)
def test_the_order_of_langs_does_not_matter(stored, base, tmp_path, capsys) -> None:
    model = released(base, tmp_path / "lslo.pt", langs=stored)
    names = stored.split(",") if isinstance(stored, str) else stored
    state = imported(tmp_path / "lslo.pt", None, tmp_path / "ours.pt")
    assert state["args"].langs == names
    for name in names:
        for site in SITES:
            assert torch.equal(rows(state, site, name, "A"), model[entry(site, IDS[name], "a")].t())
            assert torch.equal(rows(state, site, name, "B"), model[entry(site, IDS[name], "b")])
    said = capsys.readouterr().err
    assert ("not the order of --langs" in said) == (names != ["it"])
    assert ("left out" in said) == (len(names) < 12)


def test_langs_chooses_what_is_taken_over(base, tmp_path) -> None:
    released(base, tmp_path / "lslo.pt", langs="en,fr,it,wo")
    state = imported(tmp_path / "lslo.pt", None, tmp_path / "ours.pt", "--langs", "wo,fr")
    assert '"names": ["wo", "fr"]' in state["args"].adapter_languages
    assert state["args"].arch == "langspec_m2m100_lora_tiny"
    assert state["args"].langs == ["en", "fr", "it", "wo"]  # of which the dictionary may get its tokens


def test_changed_tables_need_all_languages_by_their_ids(base, tmp_path, capsys) -> None:
    names = [*IDS, "xx"]
    levels = tmp_path / "levels.yaml"
    levels.write_text("high: [en, fr, it, de]\nmed: [nl, zh, ja, ko]\nlow: [oc, or, sd, wo, xx]\n")
    model = released(base, tmp_path / "lslo.pt", (*RANKS, 4), langs=names, arch="of_their_own")
    command = ["import", tmp_path / "lslo.pt", "--from", "lslo", "--lang-resources", levels, "--out", tmp_path / "o.pt"]
    message = refusal(*command)
    assert "adapters for 13 languages, ids 0 to 12" in message
    assert "in the order of their ids" in message
    assert "adapters for 13 languages" in refusal(*command, "--langs", "en,fr,xx")
    moved = ["fr", "en", *names[2:]]
    run(*command, "--langs", ",".join(moved))
    assert "fr 0 (not 1), en 1 (not 0)" in capsys.readouterr().err
    state = load(tmp_path / "o.pt")
    assert state["args"].arch == "langspec_transformer_lora"  # which the sizes among the arguments make any other
    site = SITES[0]
    packed = state["model"]["encoder.layers.0.self_attn.q_proj.lora_B"]
    assert torch.equal(packed, torch.cat([model[entry(site, number, "b")] for number in range(13)]))


def test_ranks_that_contradict_the_training_are_refused(base, tmp_path) -> None:
    """Adapters in the order of --langs, as a changed code may have them, are told by their ranks."""
    names = ["wo", *(name for name in IDS if name != "wo")]
    released(base, tmp_path / "lslo.pt", [RANKS[IDS[name]] for name in names], langs=names)
    command = ["import", tmp_path / "lslo.pt", "--from", "lslo", "--out", tmp_path / "ours.pt"]
    expected = "en has id 0, whose adapter has rank 4, but languages of its level were trained with --high-rank 2"
    assert expected in refusal(*command)
    assert not (tmp_path / "ours.pt").exists()


def test_zeros_of_a_released_checkpoint_that_was_pruned_stay_pruned(base, levels, tmp_path) -> None:
    released(base, tmp_path / "lslo.pt", global_pruning=True)
    name = entry(SITES[0], IDS["en"], "b")
    b = load(tmp_path / "lslo.pt")["model"][name]
    b[0, :5] = 0
    change(tmp_path / "lslo.pt", {name: b})
    ours = imported(tmp_path / "lslo.pt", levels, tmp_path / "ours.pt")["model"]
    mask = torch.ones(15, 12, dtype=torch.uint8)
    mask[0, :5] = 0
    assert torch.equal(ours["encoder.layers.0.self_attn.q_proj.lora_mask"], mask)
    assert ours["adapters.mask_epoch"].tolist() == [1]  # in which it was saved
    torch.save({**load(tmp_path / "lslo.pt"), "extra_state": {}}, tmp_path / "bare.pt")
    assert imported(tmp_path / "bare.pt", levels, tmp_path / "b.pt")["model"]["adapters.mask_epoch"].tolist() == [0]


def test_zeros_that_nothing_has_trained_are_not_pruned(base, levels, tmp_path) -> None:
    """nl stood in no direction, sd never was a source; of wo one matrix lost all its entries."""
    released(base, tmp_path / "lslo.pt", pruning=True)
    model = load(tmp_path / "lslo.pt")["model"]
    by_source = [site for site in SITES if site[:2] == ("encoder", 0)]
    untrained = [("nl", site) for site in SITES] + [("sd", site) for site in by_source]
    zeros = [*untrained, ("wo", SITES[3])]
    change(tmp_path / "lslo.pt", {n: model[n] * 0 for n in (entry(p, IDS[name], "b") for name, p in zeros)})
    state = imported(tmp_path / "lslo.pt", levels, tmp_path / "ours.pt")
    for name in toy.LANGUAGES:
        for site in SITES:
            expected = 0 if (name, site) == ("wo", SITES[3]) else 1
            assert bool((rows(state, site, name, "mask") == expected).all()), (name, site)


def test_a_checkpoint_saved_before_its_validation_has_the_masked_product(base, levels, tmp_path, capsys) -> None:
    """The entries are those that torch.nn.utils.prune itself makes."""
    model = released(base, tmp_path / "lslo.pt", global_pruning=True)
    entries: dict[str, torch.Tensor | None] = {}
    kept = {}
    for site in SITES:
        for language in IDS.values():
            name = entry(site, language, "b")
            module = nn.Module()
            module.lora_b = nn.Parameter(model[name].clone())
            mask = torch.rand(model[name].shape).round()
            mask[0, 0], module.lora_b.data[0, 0] = 1, 0  # alive, though it is zero
            prune.custom_from_mask(module, "lora_b", mask)
            prefix = name.removesuffix("lora_b")
            entries |= {f"{prefix}{key}": value for key, value in module.state_dict().items()} | {name: None}
            kept[site, language] = module.lora_b.detach(), module.lora_b_mask
    assert set(entries) == {entry(p, i, part) for p in SITES for i in range(12) for part in ("b", "b_orig", "b_mask")}
    change(tmp_path / "lslo.pt", entries)
    state = imported(tmp_path / "lslo.pt", levels, tmp_path / "ours.pt")
    assert "saved before a validation" in capsys.readouterr().err
    for name in toy.LANGUAGES:
        for site in SITES:
            weight, mask = kept[site, IDS[name]]
            assert torch.equal(rows(state, site, name, "B"), weight)
            assert torch.equal(rows(state, site, name, "mask"), mask.to(torch.uint8))
    assert not any("_orig" in name or "lang_spec" in name for name in state["model"])


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"a": None}, "the adapter of en (id 0) at decoder.1.crossv consists of lora_b; expected lora_a and lora_b"),
        ({"a": None, "b": None}, "consists of nothing; expected"),
        ({"b": None, "b_orig": torch.ones(2, 12)}, "consists of lora_a, lora_b_orig; expected"),
        (
            {"b_orig": torch.ones(2, 12), "b_mask": torch.ones(2, 12)},
            "consists of lora_a, lora_b, lora_b_mask, lora_b_",
        ),
        ({"b": None, "b_orig": torch.ones(2, 12), "b_mask": torch.ones(2, 11)}, "is not a mask of zeros and ones"),
        ({"b": None, "b_orig": torch.ones(2, 12), "b_mask": torch.ones(2, 12) / 2}, "is not a mask of zeros and ones"),
        ({"b": torch.ones(3, 12)}, "has shapes (12, 2) and (3, 12); expected D × rank"),
        ({"a": torch.ones(12, 3), "b": torch.ones(3, 12)}, "expected rank 2 and widths"),
        ({"a": torch.ones(11, 2)}, "expected rank 2 and widths"),
        ({"b": torch.ones(24)}, "expected D × rank and rank × D"),
    ],
)
def test_adapters_of_other_parts_or_sizes_are_named(entries, expected, base, levels, tmp_path) -> None:
    released(base, tmp_path / "lslo.pt")
    change(tmp_path / "lslo.pt", {entry(("decoder", 1, "crossv"), 0, part): value for part, value in entries.items()})
    out = ["--out", tmp_path / "ours.pt"]
    assert expected in refusal("import", tmp_path / "lslo.pt", "--from", "lslo", "--lang-resources", levels, *out)
    assert not (tmp_path / "ours.pt").exists()


def test_damaged_or_other_checkpoints_are_named(base, levels, tmp_path) -> None:
    command = ["import", tmp_path / "lslo.pt", "--from", "lslo", "--lang-resources", levels, "--out", tmp_path / "o.pt"]
    assert "holds no adapters of the released implementation" in refusal("import", base, *command[2:])
    released(base, tmp_path / "lslo.pt", {0: 2, 1: 2, 4: 3, 11: 4})
    assert "the adapter of sd (id 10) at " in refusal(*command)
    run(*command, "--langs", "en,fr,nl,wo", "--overwrite")
    released(base, tmp_path / "lslo.pt")
    assert "names 'en' twice" in refusal(*command, "--overwrite", "--langs", "en,fr,en")
    assert "no resource level for it" in refusal(*command, "--overwrite", "--langs", "en,it")
    change(tmp_path / "lslo.pt", {f"encoder.layers.{n}.q_lora.other.lora_a": torch.ones(2, 12) for n in (1, 0)})
    words = "holds encoder.layers.0.q_lora.other.lora_a, which the released implementation does not have"
    assert words in refusal(*command, "--overwrite")
    released(base, tmp_path / "lslo.pt", dim="wide")
    assert "its argument dim is 'wide'" in refusal(*command, "--overwrite")
    released(base, tmp_path / "lslo.pt", encoder_layers=1, encoder_activation_direction="src")
    assert "adapts encoder.1.fc1, but its arguments say 1 encoder layers" in refusal(*command, "--overwrite")
    released(base, tmp_path / "lslo.pt")
    state = load(tmp_path / "lslo.pt")
    del state["args"].encoder_activation_direction
    torch.save(state, tmp_path / "lslo.pt")
    assert "holds incomplete training arguments" in refusal(*command, "--overwrite")
