"""Adapters of groups, of directions, and of all languages: trained, resumed, translated, edited, exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils

from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.cli.main import main
from langspec_lora.keys import keys_of
from tests import toy
from tests.bad_input import set_up_generation, write_checkpoint
from tests.integration.test_export import load, refusal, run
from tests.trainings import train_here

GROUPS = "west: [en, fr, nl]\neast: [wo, sd]\nranks: {east: 5}\n"
PAIRS = ("en-wo", "wo-en", "fr-nl", "nl-sd", "sd-fr")
MIXED = "src_shared"
FLAGS = {
    "group": ("--adapter-key", "group", "--lang-groups", "GROUPS"),
    "direction": ("--adapter-key", "direction", "--lang-pairs", ",".join(PAIRS)),
    "shared": ("--adapter-key", "shared", "--shared-rank", "6"),
    "learned": ("--weight-learning", "True", "--weight-learning-lr", "0.02"),
    "mixed": ("--encoder-activation-direction", MIXED, "--decoder-activation-direction", "shared_tgt"),
}
RANKS = {
    "group": {"src": (7, 5), "tgt": (7, 5)},  # 2 + 2 + 3
    "direction": {"direction": (4, 4, 3, 4, 4)},
    "shared": {"shared": (6,)},
    "learned": {"learned": (2, 2, 3, 4, 4) * 2},
    "mixed": {"src": (2, 2, 3, 4, 4), "tgt": (2, 2, 3, 4, 4), "shared": (15,)},
}
GROUP_OF = (0, 0, 0, 1, 1)


def flags(kind: str, data: Path) -> tuple[str, ...]:
    """The flags of a kind; the groups lie beside the data."""
    path = data.parent / "groups.yaml"
    if not path.exists():
        path.write_text(GROUPS)
    return tuple(str(path) if word == "GROUPS" else word for word in FLAGS[kind])


def key_of(kind: str):
    def key(side: str, source: int, target: int):
        if side == "learned":
            return [(source, 0.5), (target + 5, 0.5)]
        if side == "shared":
            return 0
        if side == "direction":
            return PAIRS.index(f"{toy.LANGUAGES[source]}-{toy.LANGUAGES[target]}")
        language = source if side == "src" else target
        return GROUP_OF[language] if kind == "group" else language

    return key


@pytest.fixture(scope="module", params=FLAGS)
def kind(request) -> str:
    return request.param


def pairs(kind: str) -> list[tuple[str, str]]:
    return [tuple(pair.split("-")) for pair in (PAIRS if kind == "direction" else toy.PAIRS[:8])]


def fill(state: dict) -> None:
    for name, value in state["model"].items():
        if name.endswith(("lora_B", "mixture.logits")):
            value.normal_(generator=torch.Generator().manual_seed(len(name)), std=0.3)


@pytest.fixture(scope="module")
def trained(kind, toy_data, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp(kind) / "model.pt"
    return write_checkpoint(path, [*toy.plugin_flags(toy_data), *flags(kind, toy_data)], fill)


def test_results_and_gradients_are_those_of_stock_fairseq_sentence_by_sentence(kind, toy_data) -> None:
    own = [*toy.plugin_flags(toy_data), *flags(kind, toy_data)]
    task, model = toy.build(own)
    toy.randomise_adapters(model)
    batch = toy.mixed_batch(task, size=9)
    reference = toy.PerLanguageReference(task, model, own, key_of(kind), lambda side: RANKS[kind][side]).train(False)
    logits, expected = toy.forward(model.eval(), batch), reference.logits(batch)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    logits.square().sum().backward()
    expected.square().sum().backward()
    for site, linear in model.adapters.linears.items():
        for parameter, slope in zip((linear.lora_A, linear.lora_B), reference.gradients()[site.path], strict=True):
            torch.testing.assert_close(parameter.grad, slope, rtol=1e-3, atol=2e-4)


def test_learned_weights_get_the_same_gradients_if_activations_are_recomputed(toy_data) -> None:
    own = [*toy.plugin_flags(toy_data), *flags("learned", toy_data)]
    slopes = []
    for more in ((), ("--checkpoint-activations",)):
        task, model = toy.build([*own, *more])
        toy.randomise_adapters(model)
        toy.forward(model.train(), toy.mixed_batch(task, size=9)).square().sum().backward()
        slopes.append(model.adapters.routing.mixture.logits.grad)
    assert slopes[0].abs().min() > 1e-3
    torch.testing.assert_close(*slopes)


def test_weights_that_all_languages_have_rest_if_only_some_train(toy_data) -> None:
    own = [*toy.plugin_flags(toy_data), *flags("learned", toy_data)]
    _, model = toy.build([*own, "--train-languages", "wo,sd"])
    assert not model.adapters.routing.mixture.logits.requires_grad
    _, whole = toy.build(own)
    assert whole.adapters.routing.mixture.logits.requires_grad
    trained = sum(parameter.numel() for parameter in whole.parameters() if parameter.requires_grad)
    assert trained == whole.adapters.count == 2 * 13_440 + 8  # test_parameters_are_counted_by_language


def logits_of(path: Path, data: Path, direction: tuple[str, str], merged: bool, *more: str) -> torch.Tensor:
    source, target = direction
    task = set_up_generation(data, path, "--lang-pairs", f"{source}-{target}", "-s", source, "-t", target, *more)
    model = checkpoint_utils.load_model_ensemble([str(path)], task=task)[0][0].eval()
    batch = toy.mixed_batch(toy.build(toy.plugin_flags(data))[0])["net_input"]
    ids = [toy.LANGUAGES.index(name) for name in direction]
    languages = {"src_lang_id": torch.tensor(ids[:1]), "tgt_lang_id": torch.tensor(ids[1:])}
    with torch.no_grad(), model.adapters.merged(*ids) if merged else torch.enable_grad():
        return model(**{**batch, **languages})[0].detach()


def test_merged_exported_and_folded_models_compute_the_same(kind, trained, toy_data, tmp_path) -> None:
    direction = pairs(kind)[0]
    expected = logits_of(trained, toy_data, direction, merged=False)
    torch.testing.assert_close(logits_of(trained, toy_data, direction, merged=True), expected, rtol=1e-4, atol=1e-5)
    run("export", trained, "--format", "adapter", "--out", tmp_path / "folder")
    run("import", tmp_path / "folder", "--from", "adapter", "--base", trained, "--out", tmp_path / "again.pt")
    assert torch.equal(logits_of(tmp_path / "again.pt", toy_data, direction, merged=False), expected)
    run(
        "export", trained, "--format", "merged", "-s", direction[0], "-t", direction[1], "--out", tmp_path / "merged.pt"
    )
    merged = load(tmp_path / "merged.pt")["model"]
    stored = StoredModel(trained)
    for site in stored.adapters.packed:
        a, b = stored.adapters.matrices(site, *direction)
        weight = stored.base[f"{site.path}.weight"]
        torch.testing.assert_close(merged[f"{site.path}.weight"], weight + b.t() @ a)
    run("export", trained, "--format", "peft", "--all", "--out", tmp_path / "peft")
    count = len(PAIRS) if kind == "direction" else len(toy.PAIRS)
    assert len(list((tmp_path / "peft").glob("*-*/adapter_config.json"))) == count


def test_an_inspection_counts_by_what_the_adapters_belong_to(kind, trained, capsys) -> None:
    run("inspect", trained, "--json")
    found = json.loads(capsys.readouterr().out)["adapters"]
    names = {
        "group": ["west", "east"],
        "direction": list(PAIRS),
        "shared": ["all languages"],
        "learned": [f"{name} as {what}" for what in ("source", "target") for name in toy.LANGUAGES],
        "mixed": [*toy.LANGUAGES, "all languages"],
    }
    listed = found["languages" if kind == "learned" else "keys"]
    assert sorted(entry["name"] for entry in listed) == sorted(names[kind])
    size = {"q": 32, "k": 32, "v": 32, "crossq": 32, "crossk": 32, "crossv": 32, "fc1": 40, "fc2": 40}
    rows = {side: sum(ranks) for side, ranks in RANKS[kind].items()}
    stored = StoredModel(trained).adapters
    assert found["parameters"] == sum(rows[stored.side(site)] * size[site.position] for site in stored.packed)
    run("inspect", trained)
    title = {"group": "Groups", "direction": "Directions", "shared": "Shared", "mixed": "Keys"}.get(kind, "Languages")
    assert f"## {title}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["direction", "learned", "mixed"])
def test_a_training_prunes_and_resumes(kind, toy_data, tmp_path) -> None:
    own = (*flags(kind, toy_data), "--pruning-t1", "1", "--pruning-t2", "1", "--target-pruning-ratio", "0.5")
    for folder, epochs in (("whole", 2), ("parts", 1), ("parts", 2)):
        train_here(toy_data, tmp_path / folder, *own, "--max-epoch", epochs)
    whole, parts = (load(tmp_path / name / "checkpoint_last.pt")["model"] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items() if not name.endswith("_float_tensor"))
    adapters = StoredModel(tmp_path / "whole" / "checkpoint_last.pt").adapters
    pruned = {}
    for site, (_, b, mask) in adapters.packed.items():
        assert not b[mask == 0].any()
        keys, start = adapters.keys(site), 0
        for name, rank in zip(keys.names, keys.ranks, strict=True):
            pruned.setdefault(name.split(" as ")[0], []).append(mask[start : start + rank].flatten())
            start += rank
    if kind == "learned":
        written = [json.loads((tmp_path / name / "directions.json").read_text()) for name in ("whole", "parts")]
        assert written[0] == written[1]
        layers = {(found["stack"], found["layer"]): found["source"] for found in written[0]["layers"]}
        assert layers == {layer: pytest.approx(adapters.weights(layer)[0], abs=1e-6) for layer in adapters.mixture}
        assert len({round(share, 6) for share in layers.values()}) == 4  # they have learned
        words = ["src" if layers["encoder", layer] > 0.5 else "tgt" for layer in (0, 1)]
        assert written[0]["encoder_activation_direction"] == "_".join(words)
        last = json.loads((tmp_path / "whole" / "curves.jsonl").read_text().splitlines()[-1])
        assert last["source_weight_by_layer"]["decoder.1"] == pytest.approx(layers["decoder", 1], abs=1e-4)
        assert (tmp_path / "whole" / "directions.png").stat().st_size > 1000
    for name, masks in pruned.items():
        share = 1 - torch.cat(masks).float().mean()
        assert abs(float(share) - 0.5) < 0.01, name


def test_what_the_flags_cannot_mean_is_refused(toy_data, tmp_path) -> None:
    def said(*words: str) -> str:
        with pytest.raises(SystemExit) as refused:
            toy.build([*toy.plugin_flags(toy_data), *words])
        return str(refused.value)

    groups = tmp_path / "groups.yaml"
    groups.write_text("west: [en, fr, nl]\neast: [wo]\n")
    assert "leaves out sd; put every language" in said("--adapter-key", "group", "--lang-groups", str(groups))
    assert "--adapter-key group needs --lang-groups" in said("--adapter-key", "group")
    assert "is for --adapter-key group, but the key is language" in said("--lang-groups", str(groups))
    both = said("--adapter-key", "shared", "--encoder-activation-direction", "src_src")
    assert "--adapter-key shared decides what selects the adapters of every layer" in both
    learns = ("--weight-learning", "True")
    fixed = said(*learns, "--encoder-activation-direction", "src_src")
    assert "--weight-learning True decides what selects the adapters of every layer" in fixed
    assert "but with --adapter-key shared neither does" in said(*learns, "--adapter-key", "shared")
    assert "expected a learning rate above 0" in said(*learns, "--weight-learning-lr", "0")
    assert "expected language, group, direction or shared" in said("--adapter-key", "pair")
    assert "rank 0 was given" in said("--adapter-key", "shared", "--shared-rank", "0")
    assert "rank 900 of the shared adapter exceeds" in said("--adapter-key", "shared", "--shared-rank", "900")
    part = said(*flags("group", toy_data), "--train-languages", "en,fr")
    assert "names en without nl, but both share the adapter of group west" in part
    alone = said(*flags("shared", toy_data), "--train-languages", "en")
    assert "nothing would train: --train-languages leaves out languages, but the adapters are shared by all" in alone


def test_learned_directions_are_translated_softly_or_by_the_larger_weight_and_fixed(toy_data, tmp_path, capsys) -> None:
    path = write_checkpoint(tmp_path / "model.pt", [*toy.plugin_flags(toy_data), *flags("learned", toy_data)], fill)
    logits = load(path)["model"]["adapters.routing.mixture.logits"] * (0.02 / 0.25)  # fairseq's default --lr
    sides = ["src" if source > target else "tgt" for source, target in logits.tolist()]
    assert set(sides) == {"src", "tgt"}
    run("fix-directions", path, "--out", tmp_path / "fixed.pt")
    encoder, decoder = "_".join(sides[:2]), "_".join(sides[2:])
    words = f"--encoder-activation-direction {encoder} --decoder-activation-direction {decoder}"
    assert words in capsys.readouterr().out
    fixed = StoredModel(tmp_path / "fixed.pt").adapters
    assert fixed.sides == {"encoder": tuple(sides[:2]), "decoder": tuple(sides[2:])}
    argmax = logits_of(path, toy_data, ("en", "wo"), False, "--directions", "argmax")
    assert not torch.allclose(argmax, logits_of(path, toy_data, ("en", "wo"), False), atol=1e-3)
    for merged in (False, True):
        other = logits_of(tmp_path / "fixed.pt", toy_data, ("en", "wo"), merged)
        torch.testing.assert_close(other, argmax, rtol=1e-4, atol=1e-5)
    assert "directions are fixed already" in refusal(
        "fix-directions", tmp_path / "fixed.pt", "--out", tmp_path / "x.pt"
    )
    toy.build([*toy.plugin_flags(toy_data), *words.split(), "--finetune-from-model", str(tmp_path / "fixed.pt")])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--weight-learning-lr", "0.1"), "--weight-learning-lr 0.1: no effect without --weight-learning True"),
        (("--directions", "argmax"), "--directions argmax: no effect here; it is for translation"),
        (
            ("--weight-learning", "True", "--weight-learning-lr", "0.1", "--optimizer", "sgd"),
            "--weight-learning-lr 0.1: only with --optimizer adam is this the learning rate",
        ),
    ],
)
def test_flags_of_learned_directions_without_effect_are_named(toy_data, caplog, more, words) -> None:
    toy.build([*toy.plugin_flags(toy_data), *more])
    assert words in caplog.text


def test_argmax_without_learned_directions_is_named(toy_data, tmp_path, caplog) -> None:
    path = write_checkpoint(tmp_path / "model.pt", toy.plugin_flags(toy_data), fill)
    logits_of(path, toy_data, ("en", "wo"), False, "--directions", "argmax")
    assert "--directions argmax: no effect, since no layer of the model has learned its direction" in caplog.text


def test_a_direction_that_was_not_trained_is_refused_before_anything_is_decoded(toy_data, tmp_path) -> None:
    path = write_checkpoint(tmp_path / "model.pt", [*toy.plugin_flags(toy_data), *flags("direction", toy_data)], fill)
    words = "each direction has its own adapter, and fr-en was not trained; the model has adapters for en-wo, wo-en"
    with pytest.raises(SystemExit) as refused:
        set_up_generation(toy_data, path, "--lang-pairs", "fr-en", "-s", "fr", "-t", "en")
    assert words in str(refused.value)
    evaluate = ("evaluate", toy_data, "--checkpoint", path, "--out", tmp_path / "out", "--tokenize", "13a")
    assert words in refusal(*evaluate, "--lang-pairs", "en-wo,fr-en")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.hyp.txt"))
    assert words in refusal("export", path, "--format", "merged", "-s", "fr", "-t", "en", "--out", tmp_path / "m.pt")
    run(*evaluate, "--lang-pairs", "en-wo,nl-sd")


def test_languages_join_and_leave_what_they_share(kind, trained, toy_data, tmp_path) -> None:
    levels = tmp_path / "levels.yaml"
    levels.write_text("high: [de]\nlow: [xx]\n")
    groups = tmp_path / "more.yaml"
    groups.write_text("west: [de]\nsouth: [xx]\nranks: {south: 3}\n")
    more = {
        "group": ("--lang-groups", groups),
        "direction": ("--lang-pairs", "de-xx,xx-en,de-sd"),
    }.get(kind, ())
    add = ("add-language", trained, "--langs", "de,xx", "--lang-resources", levels, "--out", tmp_path / "more.pt")
    run(*add, *more)
    before, after = StoredModel(trained).adapters, StoredModel(tmp_path / "more.pt").adapters
    new = {
        "group": {"south": 3},
        "direction": {"de-xx": 4, "xx-en": 4, "de-sd": 4},
        "shared": {},
        "learned": {"de as source": 2, "xx as source": 4, "de as target": 2, "xx as target": 4},
        "mixed": {"de": 2, "xx": 4},
    }[kind]
    for site in before.packed:
        for name in before.keys(site).names:
            assert all(map(torch.equal, before.adapter(site, name), after.adapter(site, name)))
        found = dict(zip(*after.keys(site)[::2], strict=True))
        expected = new if after.side(site) != "shared" else {}
        assert {name: rank for name, rank in found.items() if name not in before.keys(site).names} == expected
        for name in expected:
            a, b = after.adapter(site, name)
            assert a.any()
            assert not b.any()
    run("remove-language", tmp_path / "more.pt", "--langs", "de,xx", "--out", tmp_path / "back.pt")
    back = StoredModel(tmp_path / "back.pt").adapters
    assert back.languages == before.languages
    for site, packed in before.packed.items():
        assert all(map(torch.equal, packed, back.packed[site]))
    if kind == "group":
        assert "say which those of --langs are in as --lang-groups" in refusal(*add[:-1], tmp_path / "x.pt")
    if kind == "direction":
        assert "name those of de, xx as --lang-pairs" in refusal(*add[:-1], tmp_path / "x.pt")
        there = refusal(*add[:-1], tmp_path / "x.pt", "--lang-pairs", "de-xx,xx-de,en-wo")
        assert "--lang-pairs names en-wo, which has an adapter already" in there


def test_shared_adapters_are_not_joined_and_groups_only_if_they_serve_the_same(kind, trained, tmp_path) -> None:
    parts = {"group": ("wo,sd", "en,fr,nl"), "direction": ("fr,nl,sd", "en,wo")}.get(kind, ("wo", "en,fr,nl,sd"))
    for name, removed in zip("ab", parts, strict=True):
        run("remove-language", trained, "--langs", removed, "--out", tmp_path / f"{name}.pt")
    join = ("join", tmp_path / "a.pt", tmp_path / "b.pt", "--out", tmp_path / "joined.pt")
    if kind in ("shared", "mixed"):
        assert "an adapter that all languages share" in refusal(*join)
        return
    run(*join)
    whole, joined = StoredModel(trained).adapters, StoredModel(tmp_path / "joined.pt").adapters
    for site in whole.packed:
        for name in joined.keys(site).names:
            assert all(map(torch.equal, whole.adapter(site, name), joined.adapter(site, name)))
    assert "A and B both have adapters for" in refusal("join", trained, trained, "--out", tmp_path / "x.pt")
    if kind == "group":
        run("remove-language", trained, "--langs", "nl", "--out", tmp_path / "c.pt")
        other = refusal("join", trained, tmp_path / "c.pt", "--prefer", "A", "--out", tmp_path / "x.pt")
        assert "group west is en, fr, nl in A and en, fr in B" in other


def test_rows_follow_their_keys_into_another_order_of_languages(kind, trained, toy_data) -> None:
    """Fine-tuning goes on from a checkpoint with the languages, groups and directions in another order."""
    own = [*toy.plugin_flags(toy_data), *flags(kind, toy_data)]
    names = tuple(reversed(toy.LANGUAGES))
    turned = [*own, "--langs", ",".join(names), "--lang-pairs", ",".join(reversed(PAIRS))]
    _, model = toy.build([*turned, "--finetune-from-model", str(trained)])
    model.load_state_dict(load(trained)["model"])
    expected = StoredModel(trained).adapters
    for site, linear in model.adapters.linears.items():
        keys = model.adapters.config.languages
        start = 0
        for name, _, rank in zip(*keys_of(keys, linear.side), strict=True):
            assert torch.equal(linear.lora_B[start : start + rank], expected.adapter(site, name)[1])
            start += rank
    assert main(["inspect", str(trained)]) == 0
