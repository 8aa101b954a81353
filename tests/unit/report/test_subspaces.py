"""``langspec-lora subspaces``: what it says of checkpoints, and that the flags it prints fit their budget."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from langspec_lora.adapters.adapter_folder import AdapterFile, write_adapter_folder
from langspec_lora.adapters.budget import count_parameters
from langspec_lora.adapters.packed import Adapters, PackedMatrices
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.cli.main import main
from langspec_lora.keys import keys_of, with_directions
from langspec_lora.languages import LanguageTable
from langspec_lora.report.heat_map import Matrix, draw
from langspec_lora.report.subspace_files import maps
from langspec_lora.report.subspace_tables import as_text, suggestion_files
from langspec_lora.report.subspaces import estimate
from langspec_lora.resources import read_resources
from langspec_lora.sites import Site
from tests import toy
from tests.bad_input import write_checkpoint
from tests.integration.test_adapter_keys import FLAGS, flags
from tests.unit.adapters.test_adapter_folder import make

PRUNED = ("--pruning", "True", "--pruning-scope", "layer", "--target-pruning-ratio", "0.5")
NEEDS = dict(zip(toy.LANGUAGES, (0.5, 1.0, 1.5, 2.0, 3.0), strict=True))
"""How large the entries of B are, by language."""


def pruned_by_layer(seed: int, share: float = 0.5) -> Callable[[dict], None]:
    """Changes a checkpoint: entries of B by :data:`NEEDS`, the smaller half of each layer pruned."""

    def change(state: dict) -> None:
        torch.manual_seed(seed)
        model = state["model"]
        names = [name for name in model if name.endswith("lora_B")]
        by_layer: dict[str, list[str]] = {}
        for name in names:
            model[name] = torch.randn(model[name].shape) * sizes(model[name].size(0))[:, None]
            by_layer.setdefault(".".join(name.split(".")[:3]), []).append(name)
        for members in by_layer.values():
            magnitude = torch.cat([model[name].abs().flatten() for name in members])
            bound = magnitude.sort().values[round(share * len(magnitude)) - 1] if share else -1.0
            for name in members:
                lives = model[name].abs() > bound
                model[name] = model[name] * lives
                model[name.replace("lora_B", "lora_mask")] = lives.to(torch.uint8)

    def sizes(rows: int) -> torch.Tensor:
        if rows == 15:  # 2 + 2 + 3 + 4 + 4
            return torch.cat([torch.full((r,), NEEDS[n]) for n, r in zip(toy.LANGUAGES, (2, 2, 3, 4, 4), strict=True)])
        return torch.linspace(0.5, 3, rows)

    return change


def write(path: Path, data: Path, *more: str, seed: int = 1, share: float = 0.5) -> Path:
    own = ("--seed", str(seed)) if "--seed" not in more else ()
    return write_checkpoint(path, toy.plugin_flags(data, *PRUNED, *own, *more), pruned_by_layer(seed, share))


@pytest.fixture(scope="module")
def seeds(toy_data, tmp_path_factory) -> list[Path]:
    """Three checkpoints that differ in their seed."""
    folder = tmp_path_factory.mktemp("seeds")
    return [write(folder / f"seed{seed}.pt", toy_data, seed=seed) for seed in (1, 2, 3)]


def refused(*words: object) -> str:
    with pytest.raises(SystemExit) as end:
        main(["subspaces", *map(str, words)])
    return str(end.value.code)


def told(capsys, *words: object) -> str:
    assert main(["subspaces", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_the_figures_are_those_of_the_checkpoints(seeds, capsys) -> None:
    content = json.loads(told(capsys, *seeds, "--json"))
    states = [torch.load(path, weights_only=False)["model"] for path in seeds]
    rows = {"en": (0, 2), "fr": (2, 4), "nl": (4, 7), "wo": (7, 11), "sd": (11, 15)}
    for entry in content["keys"]:
        start, end = rows[entry["name"]]
        shares = []
        for state in states:
            masks = [value[start:end].numpy() for name, value in state.items() if name.endswith("lora_mask")]
            shares.append(sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks))
        assert entry["surviving"]["each"] == pytest.approx(shares)
        assert entry["surviving"]["mean"] == pytest.approx(sum(shares) / 3)
        assert entry["surviving"]["sd"] == pytest.approx((sum((s - sum(shares) / 3) ** 2 for s in shares) / 2) ** 0.5)
    means = [entry["surviving"]["mean"] for entry in content["keys"]]
    assert means == sorted(means)  # as NEEDS
    assert [own["over"] for own in content["agreement"]] == ["keys", "keys × layers", "layers", "positions"]
    assert content["agreement"][0]["spearman"] == content["agreement"][0]["kendall"] == [1.0] * 3
    assert content["compared_by"]["keys"] == content["compared_by"]["positions"] == "what survives"
    assert content["compared_by"]["layers"] == "effective rank"  # the same share of each is pruned


def test_the_text_has_the_figures_with_their_spread(seeds, capsys) -> None:
    content, text = json.loads(told(capsys, *seeds, "--json")), told(capsys, *seeds)
    for entry in content["keys"]:
        mean, spread = (100 * entry["surviving"][name] for name in ("mean", "sd"))
        assert re.search(rf"^\| {entry['name']} +\| .*{mean:.1f} ± {spread:.1f} %", text, re.M)
    assert re.search(r"^\| languages +\| +5 \| +what survives \| +1\.00 \| +1\.00 \| +1\.00 \| +1\.00 \|$", text, re.M)
    single = told(capsys, seeds[0])
    assert "±" not in single
    assert "agree" not in single


def flag_lines(text: str) -> list[tuple[int, list[str]]]:
    """The parameters and the flags of each suggestion in a text."""
    found = re.findall(r"([0-9,]+) parameters.*:\n\n    (--.*)\n", text)
    return [(int(size.replace(",", "")), shlex.split(line)) for size, line in found]


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Pictures take half a second each; one test draws them."""
    monkeypatch.setattr("langspec_lora.report.subspace_files.draw", lambda matrix, stem, title: [])


def draw_levels(matrix: Matrix, stem: Path, title: str) -> list[Path]:
    """Draws the small maps and leaves the others empty."""
    if stem.name.endswith("level"):
        return draw(matrix, stem, title)
    paths = [stem.with_name(f"{stem.name}.{end}") for end in ("png", "svg")]
    for path in paths:
        path.touch()
    return paths


@pytest.mark.parametrize(
    ("kind", "budget"),
    [("language", None), *((kind, 9_000 if number % 2 else None) for number, kind in enumerate(FLAGS))],
)
def test_the_flags_that_are_printed_fit_the_budget(kind, budget, toy_data, tmp_path, capsys, undrawn) -> None:
    own = flags(kind, toy_data) if kind in FLAGS else ()
    path = write(tmp_path / "ck.pt", toy_data, *own)
    whole = sum(a.numel() + b.numel() for a, b, _ in StoredModel(path).adapters.packed.values())
    given = [] if budget is None else ["--budget", budget]
    text = told(capsys, path, *given, "--out", tmp_path / "a folder", "--keep", "0.7")
    lines = flag_lines(text)
    assert len(lines) in (2, 3)
    for size, words in lines:
        command = toy.plugin_flags(toy_data, *own, *words)
        args = toy.parse(command)
        assert count_parameters(args) == size
        assert size <= (budget or whole)
        assert size > 0.75 * (budget or whole)
    _, model = toy.build(command)  # of the last, which leaves out most
    entries = [value for name, value in model.named_parameters() if name.endswith(("lora_A", "lora_B"))]
    assert sum(value.numel() for value in entries) == size


def test_one_more_rank_would_exceed_the_budget(seeds, capsys) -> None:
    content = json.loads(told(capsys, seeds[0], "--budget", "20k", "--json"))
    unit = 896  # parameters of a language and a unit of rank, see test_parameters_are_counted_by_language
    (ranks,) = content["suggestions"][0]["ranks"].values()
    assert sum(ranks.values()) == 20_000 // unit
    shares = {entry["name"]: entry["surviving"]["mean"] * entry["rank"] for entry in content["keys"]}
    total = sum(shares.values())
    for name, rank in ranks.items():
        assert abs(rank - sum(ranks.values()) * shares[name] / total) < 1.5


def test_what_a_suggestion_leaves_out_survives_least(seeds, capsys) -> None:
    content = json.loads(told(capsys, *seeds, "--json", "--keep", "0.6"))
    shares = {f"{own['stack']} {own['position']}": own["surviving"]["mean"] for own in content["positions"]}
    (own,) = (each for each in content["suggestions"] if each["name"] == "positions")
    kept = shares.keys() - own["left_out"]
    assert own["left_out"]
    assert max(shares[name] for name in own["left_out"]) <= min(shares[name] for name in kept)
    assert own["held"] >= 0.6
    flagged = {
        f"{stack} {name}"
        for stack in ("encoder", "decoder")
        for name in own["flags"][f"{stack}_lora_position"].split("_")
    }
    assert flagged == kept


def test_a_stack_without_a_part_to_keep_is_left_out_by_its_flag(toy_data, tmp_path, capsys) -> None:
    def only_the_decoder(state: dict) -> None:
        pruned_by_layer(1)(state)
        for name, value in state["model"].items():
            if name.startswith("encoder") and name.endswith(("lora_B", "lora_mask")):
                value.zero_()

    path = write_checkpoint(tmp_path / "ck.pt", toy.plugin_flags(toy_data, *PRUNED), only_the_decoder)
    lines = flag_lines(told(capsys, path, "--keep", "1"))
    words = lines[1][1]
    assert words[words.index("--encoder-lora-layer") + 1] == "none"
    assert "--encoder-lora-position" not in words
    args = toy.parse(toy.plugin_flags(toy_data, *words[2:], "--high-rank", "1", "--med-rank", "1", "--low-rank", "1"))
    assert count_parameters(args) > 0


REMARKS = {
    ("--pruning", "False"): (0.0, "nothing of B is pruned"),
    ("--pruning-scope", "language"): (0.5, "of each language the same share survives, whatever it needs"),
    ("--pruning-scope", "matrix"): (0.5, "so the same share of each survives"),
    ("--target-pruning-ratio", "0.9"): (0.5, "pruning was not complete: 50.0 % of B survives, and the target is 10 %"),
    ("--train-languages", "wo,sd"): (0.5, "left out, as they did not train (--train-languages): en, fr, nl"),
}


@pytest.mark.parametrize("more", REMARKS, ids=" ".join)
def test_what_the_figures_cannot_tell_is_said(more, toy_data, tmp_path, capsys) -> None:
    share, expected = REMARKS[more]
    path = write(tmp_path / "ck.pt", toy_data, *more, share=share)
    text = told(capsys, path)
    assert expected in text
    assert ("demand" in text) == (more[0] in ("--target-pruning-ratio", "--train-languages"))
    if share == 0:
        assert "of B survives |" not in text
    if more[0] == "--train-languages":
        assert not re.search(r"^\| en ", text, re.M)
        assert re.search(r"ranks: \{en: 2, fr: 2, nl: 3, wo: \d+, sd: \d+\}", text)


def test_adapter_folders_tell_by_their_figures_what_competed(seeds, tmp_path, capsys) -> None:
    stored = StoredModel(seeds[0])
    folder = tmp_path / "adapter"
    write_adapter_folder(AdapterFile(stored.adapters, "sha256:" + "ab" * 32, {"arch": "x"}), folder)
    of_folder, of_checkpoint = (json.loads(told(capsys, path, "--json")) for path in (folder, seeds[0]))
    for same in ("compared_by", "keys", "layers", "positions", "suggestions"):
        assert of_folder[same] == of_checkpoint[same]
    assert of_folder["pruning_scope"] is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("group", "ranks 5 to 7, .* equal ranks \\(in the file of groups\\)"),
        ("mixed", "ranks 2 to 4, "),
        ("shared", None),
    ],
)
def test_unequal_ranks_are_named_where_they_compete(kind, expected, toy_data, tmp_path, capsys) -> None:
    text = told(capsys, write(tmp_path / "ck.pt", toy_data, *flags(kind, toy_data)))
    assert bool(re.search(f"the adapters were trained with {expected}", text)) == (expected is not None)
    assert ("were trained with" in text) == (expected is not None)


def test_untrained_languages_and_equal_seeds_are_named(toy_data, tmp_path, capsys) -> None:
    def without_wo(state: dict) -> None:
        pruned_by_layer(1)(state)
        for name, value in state["model"].items():
            if name.endswith(("lora_B", "lora_mask")):
                value[7:11] = 0

    path = write_checkpoint(tmp_path / "ck.pt", toy.plugin_flags(toy_data, *PRUNED), without_wo)
    text = told(capsys, path)
    assert "B is zero everywhere for wo: no direction trained it" in text
    assert re.search(r"ranks: \{.*wo: 1,", text)
    one, other = (
        write_checkpoint(
            tmp_path / f"{epoch}.pt", toy.plugin_flags(toy_data, *PRUNED, "--seed", "7"), pruned_by_layer(epoch)
        )
        for epoch in (4, 5)
    )
    assert f"{other} and checkpoint {one} were both trained with --seed 7" in told(capsys, one, other)


OTHERS = {
    "ranks": (("--high-rank", "1"), r"has adapters for .* of ranks 1/1/3/4/4, and .* of ranks 2/2/3/4/4"),
    "scope": (("--pruning-scope", "matrix"), "was pruned with --pruning-scope matrix, but .* with layer"),
    "sites": (("--decoder-lora-layer", "0"), r"has no adapters at decoder.1"),
    "trained languages": (("--train-languages", "wo"), "trained other languages"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_checkpoints_of_other_configurations_are_refused_in_a_sentence(what, seeds, toy_data, tmp_path) -> None:
    more, expected = OTHERS[what]
    message = refused(seeds[0], write(tmp_path / "other.pt", toy_data, *more, seed=9))
    assert re.search(expected, message)
    assert message.endswith("give checkpoints of trainings that differ in --seed only")
    assert "\n" not in message


def test_checkpoints_that_cannot_be_compared_are_refused(seeds, toy_data, tmp_path) -> None:
    less = write(tmp_path / "less.pt", toy_data, seed=9, share=0.4)
    assert "60.0 % of B survives, but 50.0 % in" in refused(seeds[0], less)
    assert "holds the same adapters as" in refused(seeds[0], seeds[1], seeds[0])
    base = write_checkpoint(tmp_path / "base.pt", toy.plugin_flags(toy_data, "--add-lora", "False"))
    assert "holds no adapters" in refused(base)


def test_all_mistakes_are_told_together_before_a_file_is_read(seeds, tmp_path) -> None:
    (tmp_path / "ranks.yaml").write_text("mine")
    message = refused(tmp_path / "none.pt", "--budget", "0", "--keep", "2", "--out", tmp_path)
    for expected in ("--budget 0: expected a number", "--keep 2: expected a share", "already contains ranks.yaml"):
        assert expected in message
    assert "3. " in message
    assert refused(seeds[0], "--budget", "4k").startswith("langspec-lora: error: --budget 4,000 is below rank 1")
    assert "none.pt" in refused(seeds[0], tmp_path / "none.pt")
    assert (tmp_path / "ranks.yaml").read_text() == "mine"


def test_the_files_are_written_and_old_ones_replaced_only_on_request(seeds, tmp_path, capsys, monkeypatch) -> None:
    out = tmp_path / "out"
    (out / "mine.txt").parent.mkdir()
    (out / "mine.txt").write_text("mine")
    monkeypatch.setattr("langspec_lora.report.subspace_files.draw", draw_levels)
    told(capsys, *seeds, "--out", out)
    names = {path.name for path in out.iterdir()}
    parts = [f"{what}.{part}" for what in ("survival", "effective-rank") for part in ("layer", "position", "level")]
    drawn = {f"{part}.{end}" for part in parts for end in ("png", "svg")}
    assert names - {"ranks.layers.yaml"} == {
        "mine.txt", "ranks.yaml", "ranks.positions.yaml", "subspaces.json", "subspaces.csv", *drawn,
    }  # fmt: skip
    rows = list(csv.DictReader((out / "subspaces.csv").read_text().splitlines()))
    assert len(rows) == 5 * 26
    adapters = [StoredModel(path).adapters for path in seeds]
    for row in rows[::11]:
        site = Site(row["stack"], int(row["layer"]), row["position"])
        for number, own in enumerate(adapters, start=1):
            mask = own.packed[site].mask[own.rows(site, row["key"])]
            assert float(row[f"survives {number}"]) == pytest.approx(float(mask.float().mean()), abs=1e-5)
    (out / "ranks.layers.yaml").write_text("old")
    assert "already contains" in refused(seeds[0], "--out", out)
    monkeypatch.setattr("langspec_lora.report.subspace_files.draw", lambda matrix, stem, title: [])
    told(capsys, *seeds, "--out", out, "--keep", "1", "--overwrite")
    assert {path.name for path in out.iterdir()} == {"mine.txt", "ranks.yaml", "subspaces.json", "subspaces.csv"}


def of_many(languages: LanguageTable, sides: tuple[str, str] = ("src", "tgt")) -> Adapters:
    torch.manual_seed(3)
    packed = {}
    for site in (Site("encoder", 0, "q"), Site("encoder", 0, "fc1"), Site("decoder", 0, "fc2")):
        rows = sum(keys_of(languages, sides[site.stack == "decoder"]).ranks)
        mask = (torch.rand(rows, 6) < torch.rand(rows, 1)).to(torch.uint8)
        packed[site] = PackedMatrices(torch.randn(rows, 5), torch.randn(rows, 6) * mask, mask)
    return Adapters(languages, {"encoder": sides[:1], "decoder": sides[1:]}, 0, 0, packed, 3)


def stored(adapters: Adapters, folder: Path) -> Path:
    write_adapter_folder(AdapterFile(adapters, "sha256:" + "ab" * 32, {"arch": "x"}), folder)
    return folder


def test_two_hundred_languages_fill_no_screen_twice(tmp_path) -> None:
    names = tuple(f"l{number:03}" for number in range(200))
    path = stored(of_many(LanguageTable(names, ("high", "low") * 100, (1, 3) * 100)), tmp_path / "many")
    found = estimate([path])
    text = as_text(found, None)
    assert len(text.splitlines()) < 80
    assert max(map(len, text.splitlines())) < 500
    assert "12 that use most, 12 that use least, of 200" in text
    listed = re.findall(r"^\| (l\d+) ", text, re.M)
    shares = {
        key: found.subspaces.surviving(cells)[0] for key, cells in found.subspaces.groups(lambda c: c.key).items()
    }
    order = sorted(shares, key=shares.__getitem__, reverse=True)
    assert listed == [*order[:12], *order[-12:]]
    (tmp_path / "ranks.yaml").write_text(suggestion_files(found)["ranks.yaml"])
    assert read_resources(tmp_path / "ranks.yaml").ranks.keys() == set(names)


def test_adapters_of_hundreds_of_directions_are_mapped_by_level(tmp_path) -> None:
    names = tuple(f"l{number:02}" for number in range(21))
    pairs = [(one, other) for one in names for other in names if one != other]
    languages = with_directions(LanguageTable(names, ("high", "med", "low") * 7, (1, 1, 2) * 7), pairs)
    path = stored(of_many(languages, ("direction", "direction")), tmp_path / "many")
    found = estimate([path])
    text = as_text(found, None)
    assert "## Directions: 12 that use most, 12 that use least, of 420" in text
    drawn = maps(found)
    assert drawn["survival.position"].title == "What survives of B, in %: level × position"
    assert list(drawn["survival.position"].rows) == ["high", "med", "low"]
    assert list(drawn["survival.position"].columns) == [("encoder", "q"), ("encoder", "fc1"), ("decoder", "fc2")]
    (tmp_path / "ranks.yaml").write_text(suggestion_files(found)["ranks.yaml"])
    resources = read_resources(tmp_path / "ranks.yaml")
    ranks = {
        pair: max(resources.ranks[one], resources.ranks[other]) for one, other in pairs for pair in [f"{one}-{other}"]
    }
    budget = sum(languages.direction_ranks.values()) * 33
    assert sum(ranks.values()) * 33 <= budget  # three sites of 5 + 6 features


def test_names_that_yaml_reads_otherwise_come_back(tmp_path) -> None:
    names = ("no", "y", "null", "1e3", "中", "~", "0x1", "#a")
    found = estimate([stored(of_many(LanguageTable(names, ("high",) * 8, (2,) * 8)), tmp_path / "odd")])
    (tmp_path / "ranks.yaml").write_text(suggestion_files(found)["ranks.yaml"], encoding="utf-8")
    resources = read_resources(tmp_path / "ranks.yaml")
    assert tuple(resources.levels) == tuple(resources.ranks) == names


def test_ranks_never_exceed_the_widest_layer(tmp_path) -> None:
    found = estimate([stored(make(0.5).adapters, tmp_path / "small")], budget=10**9)
    assert set(found.suggestions[0].ranks.values()) == {23}
    assert np.isfinite(found.suggestions[0].parameters)
