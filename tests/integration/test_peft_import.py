"""LoRAs that PEFT itself made and saved, as adapters of languages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils
from safetensors import torch as safetensors

from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.cli.main import main
from langspec_lora.convert.merged import merged_weights
from tests import hf, toy
from tests.bad_input import PREFIX
from tests.integration.test_huggingface import run, their_logits

peft = pytest.importorskip("peft", reason="needs the extra hf: peft is not installed")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> hf.Home:
    return hf.write_home(tmp_path_factory.mktemp("home"), "uneven")


def write_lora(home: hf.Home, folder: Path, **settings) -> object:
    """Saves a random LoRA on the model and returns it as PEFT computes it."""
    base = hf.transformers.M2M100ForConditionalGeneration.from_pretrained(home.huggingface)
    defaults = {"r": 3, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj", "fc1"], "task_type": "SEQ_2_SEQ_LM"}
    torch.manual_seed(8)
    model = peft.get_peft_model(base, peft.LoraConfig(**{**defaults, **settings}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    return model.eval()


@pytest.fixture(scope="module")
def lora(home, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    write_lora(home, folder)
    return folder


COMMON = ("--from", "peft", "-s", "en", "-t", "wo")


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({}, ()),
        ({"rank_pattern": {"fc1": 5, r"decoder.layers.\d.self_attn.q_proj": 2}, "alpha_pattern": {"v_proj": 7}}, ()),
        ({"target_modules": r".*decoder.*\.(k_proj|fc2)"}, ("--decoder-activation-direction", "tgt_src_tgt")),
        ({"layers_to_transform": [1, 2]}, ("--encoder-activation-direction", "tgt_tgt_tgt_tgt")),
    ],
    ids=["plain", "patterns", "decoder", "some layers"],
)
def test_a_lora_becomes_adapters_with_the_same_outputs(home, tmp_path, settings, flags) -> None:
    model = write_lora(home, tmp_path / "lora", **settings)
    out = tmp_path / "adapted.pt"
    said = run("import", tmp_path / "lora", *COMMON, *flags, "--base", home.fairseq / "model.pt", "--out", out)
    assert f"trained on {home.huggingface}" in said
    batch = hf.random_batch(hf.language_token(home, "en"), hf.language_token(home, "wo"), 30)
    theirs = their_logits(model, batch)
    ours = logits_of(out, home, batch)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    with model.disable_adapter():
        assert (their_logits(model, batch) - theirs).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_lora_of_any_precision_is_scaled_as_peft_scales_it(home, tmp_path, dtype) -> None:
    write_lora(home, tmp_path / "lora", lora_alpha=7)  # times 7 / 3, which half precision has to round
    path = tmp_path / "lora" / "adapter_model.safetensors"
    safetensors.save_file({name: tensor.to(dtype) for name, tensor in safetensors.load_file(path).items()}, path)
    out = tmp_path / "adapted.pt"
    run("import", tmp_path / "lora", *COMMON, "--base", home.fairseq / "model.pt", "--out", out)
    base = hf.transformers.M2M100ForConditionalGeneration.from_pretrained(home.huggingface)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "lora").merge_and_unload().state_dict()
    source = StoredModel(out)
    ours = merged_weights(source.base, source.adapters, "en", "wo")
    changed = [name for name, weight in theirs.items() if not torch.equal(weight, before[name])]
    assert len(changed) == 4 * 3 + 3 * 5
    for name in changed:
        here = name.removeprefix("model.")
        added, expected = ours[here] - source.base[here], theirs[name] - before[name]
        torch.testing.assert_close(added, expected, atol=1e-6 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("init", ["gaussian", "orthogonal", "eva", "mica", False])
def test_ways_to_start_that_leave_the_base_alone_are_taken(home, tmp_path, init) -> None:
    if init == "mica" and not hasattr(peft.tuners.lora.LoraLayer, "mica_init"):
        pytest.skip("this PEFT does not know MiCA")
    model = write_lora(home, tmp_path / "lora", r=4, init_lora_weights=init)
    out = tmp_path / "adapted.pt"
    run("import", tmp_path / "lora", *COMMON, "--base", home.fairseq / "model.pt", "--out", out)
    batch = hf.random_batch(hf.language_token(home, "en"), hf.language_token(home, "wo"), 30)
    torch.testing.assert_close(logits_of(out, home, batch), their_logits(model, batch), atol=1e-4, rtol=0)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_ways_to_start_that_change_the_base_are_refused(home, tmp_path, init) -> None:
    write_lora(home, tmp_path / "lora", init_lora_weights=init)
    out = tmp_path / "out.pt"
    message = refusal("import", tmp_path / "lora", *COMMON, "--base", home.fairseq / "model.pt", "--out", out)
    assert f"init_lora_weights={init!r}, which also changes the base model" in message


@torch.no_grad()
def logits_of(checkpoint: Path, home: hf.Home, batch: hf.Batch) -> torch.Tensor:
    """Logits of a checkpoint as ``fairseq-generate`` loads it."""
    task, _ = toy.build(hf.adapted_flags(home, "--langs", "en,wo", "--lang-pairs", "en-wo,wo-en"))
    models, _ = checkpoint_utils.load_model_ensemble([str(checkpoint)], task=task)
    ids = {"src_lang_id": torch.tensor([0]), "tgt_lang_id": torch.tensor([1])}
    output = models[0].eval()(batch.left, batch.lengths, batch.targets, **ids)[0]
    return output[batch.targets.ne(1)]


def test_each_layer_of_a_lora_becomes_part_of_the_adapter_of_its_language(home, lora, tmp_path) -> None:
    out = tmp_path / "adapted.pt"
    run("import", lora, *COMMON, "--base", home.fairseq / "model.pt", "--out", out)
    adapters = StoredModel(out).adapters
    assert adapters.languages.names == ("en", "wo")
    assert adapters.languages.levels == ("high", "low")
    assert adapters.languages.ranks == (3, 3)
    assert {site.position for site in adapters.packed} == {"q", "v", "crossq", "crossv", "fc1"}
    lived = {
        name: {site[:2] for site in adapters.packed if adapters.adapter(site, name)[1].any()} for name in ("en", "wo")
    }
    assert lived["en"] == {("encoder", layer) for layer in (0, 1, 2)}
    assert lived["wo"] == {("encoder", 3), *(("decoder", layer) for layer in (0, 1, 2))}
    assert all(
        matrices.a.abs().min() > 0 for matrices in adapters.packed.values()
    )  # rows without values can be trained


def test_an_exported_direction_comes_back(home, lora, tmp_path) -> None:
    first, again = tmp_path / "first.pt", tmp_path / "again.pt"
    base = ("--base", home.fairseq / "model.pt")
    run("import", lora, *COMMON, *base, "--out", first)
    run("export", first, "--format", "peft", "-s", "en", "-t", "wo", "--out", tmp_path / "lora")
    run("import", tmp_path / "lora", *COMMON, *base, "--out", again)
    adapters, others = StoredModel(first).adapters, StoredModel(again).adapters
    assert adapters.packed.keys() == others.packed.keys()
    for site, matrices in adapters.packed.items():
        assert torch.equal(matrices.b, others.packed[site].b)


def test_all_directions_are_written_at_once(home, lora, tmp_path) -> None:
    out = tmp_path / "adapted.pt"
    run("import", lora, *COMMON, "--base", home.fairseq / "model.pt", "--out", out)
    run("export", out, "--format", "peft", "--all", "--out", tmp_path / "loras")
    assert {path.name for path in (tmp_path / "loras").iterdir()} == {"en-wo", "wo-en"}
    run("export", out, "--format", "peft", "-s", "en", "-t", "wo", "--out", tmp_path / "one")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "loras" / "en-wo" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def refusal(*command: object) -> str:
    with pytest.raises(SystemExit) as refused:
        main([str(word) for word in command])
    assert refused.value.code.startswith(PREFIX)
    return refused.value.code


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"use_dora": True}, "use_dora=True, which adapters cannot express"),
        ({"use_rslora": True}, "use_rslora=True, which adapters cannot express"),
        ({"bias": "all"}, "bias='all'; adapters have no biases"),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save=['lm_head']"),
        (
            {"target_modules": ["out_proj"]},
            ".out_proj, which adapters cannot; expected only q_proj, k_proj, v_proj, fc1, fc2",
        ),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head"),
        ({"target_modules": ["q_proj", "shared"]}, "which is not part of a plain LoRA on linear layers"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_lora_that_computes_more_is_named_and_refused(home, tmp_path, settings, expected) -> None:
    write_lora(home, tmp_path / "lora", **settings)
    out = tmp_path / "out.pt"
    message = refusal("import", tmp_path / "lora", *COMMON, "--base", home.fairseq / "model.pt", "--out", out)
    assert expected in message
    assert not out.exists()


def change(folder: Path, **settings) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_wrong_folders_are_refused_in_one_sentence(home, lora, tmp_path) -> None:
    base, out = ("--base", home.fairseq / "model.pt"), ("--out", tmp_path / "out.pt")

    def message(**settings) -> str:
        folder = tmp_path / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(lora, folder)
        change(folder, **settings)
        return refusal("import", folder, *COMMON, *base, *out)

    assert "describes a 'IA3' adapter" in message(peft_type="IA3")
    assert "init_lora_weights='pissa', which also changes the base model" in message(init_lora_weights="pissa")
    assert "invented_option=1, which adapters cannot express" in message(invented_option=1)
    assert "rank 3 at" in message(r=4)
    assert "lora_alpha is -1" in message(lora_alpha=-1)
    assert "rank_pattern is not a table of names" in message(rank_pattern={"(": 3})
    assert "alpha_pattern is not a table of names" in message(alpha_pattern=[3])
    assert "lora_alpha is nan" in message(lora_alpha=float("nan"))
    assert "lora_alpha is 1000" in message(lora_alpha=10**400)
    for pattern in ("(.*.*.*.*.*.*.*.*.*.*.*.*)*Z", "(a+)+", "a*b*c*", "x" * 301):
        assert "too complex" in message(alpha_pattern={pattern: 3})
    assert "give two different ones" in refusal("import", lora, "--from", "peft", "-s", "en", "-t", "en", *base, *out)
    assert "--from peft needs --base" in refusal("import", lora, *COMMON, *out)
    assert "adapter_config.json: No such file" in refusal("import", tmp_path, *COMMON, *base, *out)
    assert "no resource level for xx" in refusal("import", lora, "--from", "peft", "-s", "en", "-t", "xx", *base, *out)
    short = ("--encoder-activation-direction", "src")
    assert "for each of the 4 encoder layers, joined by _; got 1" in refusal(
        "import", lora, *COMMON, *short, *base, *out
    )
    (tmp_path / "out.pt").write_text("mine")
    assert "already exists" in refusal("import", lora, *COMMON, *base, *out)
    assert (tmp_path / "out.pt").read_text() == "mine"


def test_a_lora_on_another_model_is_refused(lora, tmp_path_factory, tmp_path) -> None:
    other = hf.write_home(tmp_path_factory.mktemp("other"), "even")
    message = refusal("import", lora, *COMMON, "--base", other.fairseq / "model.pt", "--out", tmp_path / "out.pt")
    assert "belongs to another model" in message


@pytest.mark.parametrize("damage", ["cut", "hostile"])
def test_damaged_and_hostile_weights_are_refused(home, lora, tmp_path, damage) -> None:
    shutil.copytree(lora, tmp_path / "lora")
    path = tmp_path / "lora" / "adapter_model.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
        expected = "is damaged"
    else:
        path.unlink()
        torch.save(Hostile(tmp_path / "ran"), tmp_path / "lora" / "adapter_model.bin")
        expected = "was refused"
    out = ("--base", home.fairseq / "model.pt", "--out", tmp_path / "out.pt")
    assert expected in refusal("import", tmp_path / "lora", *COMMON, *out)
    assert not (tmp_path / "ran").exists()


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)
