"""Dense weights from Hugging Face's format: as fairseq trains from them, with every kind of tokenizer, and refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from fairseq_cli import train
from safetensors.torch import load_file, save_file

from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.convert.hf.model import import_model
from langspec_lora.data.vocabulary import load_splitter
from langspec_lora.errors import UserError
from tests import ROOT, hf, toy
from tests.bad_input import write_checkpoint
from tests.evaluations import run_stock
from tests.integration.test_huggingface import run
from tests.integration.test_peft_import import Hostile, refusal


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> hf.Home:
    return hf.write_home(tmp_path_factory.mktemp("home"), "uneven")


def copy(home: hf.Home, folder: Path, **config) -> Path:
    """A copy of the model folder, with other settings."""
    shutil.copytree(home.huggingface, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


def test_training_starts_from_imported_weights(home, tmp_path, monkeypatch) -> None:
    flags = hf.adapted_flags(home, "--optimizer", "adam", "--lr", "0.003", "--max-update", "1", "--cpu", "--seed", "2")
    flags += ["--finetune-from-model", str(home.fairseq / "model.pt"), "--save-dir", str(tmp_path)]
    flags += ["--user-dir", str(ROOT / "langspec_lora"), "--disable-validation"]
    run_stock(monkeypatch, train, *flags, "--required-batch-size-multiple", "1", "--num-workers", "0")
    state = StoredModel(tmp_path / "checkpoint_last.pt").base
    theirs = load_file(home.huggingface / "model.safetensors")
    assert torch.equal(state["encoder.embed_tokens.weight"], theirs["model.shared.weight"])
    assert torch.equal(state["decoder.layers.2.fc1.weight"], theirs["model.decoder.layers.2.fc1.weight"])


def test_the_dictionary_has_the_ids_of_the_tokenizer(home) -> None:
    from fairseq.data import Dictionary

    dictionary = Dictionary.load(str(home.fairseq / "dict.txt"))
    tokenizer = hf.transformers.M2M100Tokenizer.from_pretrained(home.huggingface, src_lang="wo")
    split = load_splitter(home.fairseq / "sentencepiece.bpe.model")
    lines = [line for name in toy.LANGUAGES for line in (home.data.parent / f"test.{name}").read_text().splitlines()]
    lines += ["words it has never seen", "en1  en2 ", ""]
    for line in lines:
        ids = dictionary.encode_line(split(line), add_if_not_exist=False).tolist()
        assert tokenizer(line).input_ids == [dictionary.index("__wo__"), *ids]
    assert [dictionary.index(f"__{name}__") for name in ("af", "zu")] == [
        tokenizer.get_lang_id(n) for n in ("af", "zu")
    ]
    weights = load_file(home.huggingface / "model.safetensors")
    assert len(dictionary) == len(weights["model.shared.weight"])
    assert dictionary.symbols[-1] == "madeupword0007"


def test_exported_tokenizers_are_those_that_were_imported(home, tmp_path) -> None:
    files = ("--fixed-dictionary", home.fairseq / "dict.txt", "--spm", home.fairseq / "sentencepiece.bpe.model")
    run("export", home.fairseq / "model.pt", "--format", "huggingface", *files, "--out", tmp_path / "out")
    again = hf.transformers.AutoTokenizer.from_pretrained(tmp_path / "out", src_lang="nl")
    first = hf.transformers.AutoTokenizer.from_pretrained(home.huggingface, src_lang="nl")
    assert type(again) is type(first) is hf.transformers.M2M100Tokenizer
    for line in (home.data.parent / "test.nl").read_text().splitlines():
        assert again(line).input_ids == first(line).input_ids
        assert again.decode(again(line).input_ids, skip_special_tokens=True) == line
    assert again.get_lang_id("wo") == first.get_lang_id("wo")
    # And the weights: what went in comes out.
    weights, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", home.huggingface))
    assert weights.keys() == theirs.keys()
    assert all(torch.equal(weights[name], theirs[name]) for name in theirs)


def write_nllb(home: hf.Home, folder: Path, tokens: list[str]) -> hf.transformers.NllbTokenizer:
    """Gives a model folder NLLB-200's tokenizer, as transformers saves it, codes and then the mask at its end."""
    codes = ["wol_Latn", "eng_Latn", "zho_Hans"]
    ids = {token: number for number, token in enumerate([*tokens, *codes, "<mask>"])}
    tokenizer = hf.transformers.NllbTokenizer(vocab=ids, merges=[], extra_special_tokens=codes)
    for name in ("vocab.json", "tokenizer_config.json"):
        (folder / name).unlink()
    tokenizer.save_pretrained(folder)
    return tokenizer


def test_nllb_languages_get_the_tokens_of_fairseq(home, tmp_path) -> None:
    folder = copy(home, tmp_path / "nllb")
    tokens = list(json.loads((folder / "vocab.json").read_text()))
    tokenizer = write_nllb(home, folder, tokens)
    imported = import_model(folder, tmp_path / "out")
    assert imported.languages == ("wol_Latn", "eng_Latn", "zho_Hans")
    lines = (tmp_path / "out" / "dict.txt").read_text().split("\n")
    for code in imported.languages:
        assert 4 + lines.index(f"__{code}__ 1") == tokenizer.convert_tokens_to_ids(code)
    assert 4 + lines.index("<mask> 1") == tokenizer.convert_tokens_to_ids("<mask>")
    assert lines[: len(tokens) - 4] == [f"{token} 1" for token in tokens[4:]]


def test_nllb_is_read_from_its_sentencepiece_model_alone(home, tmp_path) -> None:
    folder = copy(home, tmp_path / "nllb")
    tokens = list(json.loads((folder / "vocab.json").read_text()))
    (folder / "vocab.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "NllbTokenizer"}')
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as CODES

    with pytest.raises(UserError, match=r"has the id \d+, but its weights have"):
        import_model(folder, tmp_path / "out")
    weights = load_file(folder / "model.safetensors")
    rows = len(tokens) + len(CODES) + 1
    more = torch.randn(rows - len(weights["model.shared.weight"]), 24)
    weights["model.shared.weight"] = torch.cat([weights["model.shared.weight"], more])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": rows}))
    assert import_model(folder, tmp_path / "out").languages == tuple(CODES)


def test_other_orders_of_ids_are_permuted(home, tmp_path) -> None:
    """The padding has to be 1; the rest may lie anywhere."""
    folder = copy(home, tmp_path / "other", eos_token_id=3, decoder_start_token_id=3, bos_token_id=7)
    ids = json.loads((folder / "vocab.json").read_text())
    seventh = next(token for token, number in ids.items() if number == 7)
    ids.update({"</s>": 3, "<unk>": 2, "<s>": 7, seventh: 0})
    (folder / "vocab.json").write_text(json.dumps(ids))
    import_model(folder, tmp_path / "out")
    rows = load_file(folder / "model.safetensors")["model.shared.weight"]
    state = torch.load(tmp_path / "out" / "model.pt", weights_only=False)["model"]
    embedding = state["encoder.embed_tokens.weight"]
    tokens = ["<s>", "<pad>", "</s>", "<unk>"]
    tokens += [line.rpartition(" ")[0] for line in (tmp_path / "out" / "dict.txt").read_text().split("\n")[:-1]]
    for token, number in ids.items():
        assert torch.equal(embedding[tokens.index(token)], rows[number])
    assert len(embedding) == len(rows)


@pytest.mark.parametrize("form", ["bin", "sharded", "half"])
def test_weights_are_read_in_every_form(home, tmp_path, form) -> None:
    folder = copy(home, tmp_path / "other")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if form == "bin":  # as early transformers wrote it, every copy of the embedding and the positions with it
        shared = weights["model.shared.weight"]
        names = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
        more = dict.fromkeys(names, shared) | {"model.encoder.embed_positions.weights": torch.zeros(9, 24)}
        torch.save({**weights, **more}, folder / "pytorch_model.bin")
    elif form == "sharded":
        names = sorted(weights)
        parts = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
        for file, held in parts.items():
            save_file({name: weights[name] for name in held}, folder / file)
        index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file({name: value.half() for name, value in weights.items()}, folder / "model.safetensors")
    import_model(folder, tmp_path / "out")
    state = torch.load(tmp_path / "out" / "model.pt", weights_only=False)["model"]
    expected = torch.load(home.fairseq / "model.pt", weights_only=False)["model"]
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name].float(), value.half().float() if form == "half" else value)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "nllb-moe"}, "model of type 'nllb-moe'; expected m2m_100"),
        ({"pad_token_id": 0}, "pad_token_id is 0"),
        ({"decoder_start_token_id": 0}, "decoder_start_token_id is 0"),
        ({"activation_function": "mish"}, "fairseq has no activation 'mish'"),
        ({"encoder_layers": 5}, "model.encoder.layers.4.self_attn.k_proj.weight is missing from"),
        ({"encoder_layers": 3}, "holds model.encoder.layers.3."),
        ({"d_model": 48}, "but its settings say (48, 48)"),
        ({"encoder_ffn_dim": "40"}, "encoder_ffn_dim is '40'"),
        ({"tie_word_embeddings": False}, "its embeddings are not tied"),
        ({"vocab_size": 50}, "but its weights have 50 embeddings"),
        ({"vocab_size": 500}, "but its settings say (500, 24)"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_other_models_are_named_and_refused(home, tmp_path, config, expected) -> None:
    folder = copy(home, tmp_path / "other", **config)
    assert expected in refusal("import", folder, "--from", "huggingface", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_folders_are_refused(home, tmp_path) -> None:
    out = ("--from", "huggingface", "--out", tmp_path / "out")
    number = 0

    def message(change) -> str:
        nonlocal number
        number += 1
        folder = copy(home, tmp_path / f"copy{number}")
        change(folder)
        return refusal("import", folder, *out)

    def drop(name: str):
        return lambda folder: (folder / name).unlink()

    def write(name: str, text: str):
        return lambda folder: (folder / name).write_text(text)

    def hostile(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save({"model.shared.weight": Hostile(tmp_path / "ran")}, folder / "pytorch_model.bin")

    def other_lm_head(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights["lm_head.weight"] = weights["model.shared.weight"] + 1
        save_file(weights, folder / "model.safetensors")

    def escape(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        index = {"weight_map": {"model.shared.weight": "../../etc/passwd"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    assert "config.json: No such file" in message(drop("config.json"))
    assert "is damaged" in message(write("config.json", "{"))
    assert "has no model.safetensors or" in message(drop("model.safetensors"))
    assert "has no sentencepiece.bpe.model" in message(drop("sentencepiece.bpe.model"))
    assert "is no SentencePiece model" in message(write("sentencepiece.bpe.model", "nothing"))
    assert "vocab.json: No such file" in message(drop("vocab.json"))
    assert "has a 'BertTokenizer'" in message(write("tokenizer_config.json", '{"tokenizer_class": "BertTokenizer"}'))
    assert "expected a different id for each token" in message(write("vocab.json", '{"<s>": 0, "<pad>": 0}'))
    assert "its tokenizer has no <s>" in message(write("vocab.json", '{"a": 0}'))
    broken = '{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a\\nb": 4}'
    assert "contains a line break" in message(write("vocab.json", broken))
    assert "is damaged" in message(lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 40))
    assert "was refused" in message(hostile)
    assert not (tmp_path / "ran").exists()
    assert "lm_head.weight differs from model.shared.weight" in message(other_lm_head)
    assert "names a file outside its folder" in message(escape)
    assert "is not a folder" in refusal("import", tmp_path / "none", *out)
    assert "does not take --base" in refusal("import", home.huggingface, *out, "--base", "x")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_nothing_is_overwritten(home, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "dict.txt").write_text("mine")
    (out / "notes").write_text("mine")
    command = ("import", home.huggingface, "--from", "huggingface", "--out", out)
    assert "holds dict.txt already" in refusal(*command)
    assert (out / "dict.txt").read_text() == "mine"
    said = run(*command, "--overwrite")
    assert "--arch langspec_m2m100_lora_" in said
    assert (out / "notes").read_text() == "mine"
    assert read_outline(out / "model.pt").shapes["encoder.embed_tokens.weight"][1] == 24
    export = ("export", out / "model.pt", "--format", "huggingface", "--out", out)
    assert "no tokenizer is written: --out" in run(*export)
    assert "holds config.json already" in refusal(*export)


def test_other_fairseq_models_cannot_be_exported(home, toy_data, tmp_path) -> None:
    post_norm = ("--task", "translation_multi_simple_epoch", "--arch", "transformer")
    post_norm = write_checkpoint(tmp_path / "a.pt", toy.base_flags(toy_data, *post_norm))
    out = ("--format", "huggingface", "--out", tmp_path / "out")
    assert "encoder_normalize_before=False" in refusal("export", post_norm, *out)
    dictionary = ("--fixed-dictionary", toy_data.parent / "dict.txt")
    spm = ("--sentencepiece-model", home.fairseq / "sentencepiece.bpe.model")
    assert "lacks" in refusal("export", home.fairseq / "model.pt", *out, *dictionary)
    dictionary = (*dictionary, *spm)
    assert "lacks" in refusal("export", home.fairseq / "model.pt", *out, *dictionary)
    assert "needs --target-lang" in refusal("export", home.fairseq / "model.pt", *out, "-s", "en")
    assert "holds no adapters" in refusal("export", home.fairseq / "model.pt", *out, "-s", "en", "-t", "wo")
    assert not (tmp_path / "out").exists()
