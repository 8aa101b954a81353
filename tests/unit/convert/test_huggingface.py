"""The commands that import and export folders of transformers and PEFT: their flags, and what they tell the user."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.cli.main import main
from tests.hf_home import IMPORTED, LORA, MODEL, TOKENIZER, names_in


def run(capsys, *command: object) -> tuple[list[str], str]:
    """The files that a command says it has written, and what it told the user besides."""
    capsys.readouterr()
    assert main([str(word) for word in command]) == 0
    printed = capsys.readouterr()
    return printed.out.splitlines(), printed.err


def refusal(*command: object) -> str:
    with pytest.raises(SystemExit) as refused:
        main([str(word) for word in command])
    return str(refused.value.code)


def test_an_import_says_what_became_of_the_tokens_and_how_to_train(home, tmp_path, capsys) -> None:
    command = ("import", home.theirs, "--from", "huggingface", "--out", tmp_path / "out")
    written, said = run(capsys, *command)
    assert [line for line in written if str(tmp_path) in line] == written
    assert all(any(str(tmp_path / "out" / name) in line for line in written) for name in IMPORTED)
    assert "languages that were added to the tokenizer: gsw-BE (as gsw_BE)" in said
    assert "added tokens that are not languages: word" in said
    start = f"fine-tune it with --finetune-from-model {tmp_path / 'out' / 'model.pt'} --arch langspec_m2m100_lora_"
    assert start in said
    for given, expected in (
        ("none", ["__nl__ 1", "__wo__ 1", "gsw-BE 1", "word 1"]),
        ("word,gsw-BE", ["__nl__ 1", "__wo__ 1", "__gsw_BE__ 1", "__word__ 1"]),
    ):
        run(capsys, *command, "--overwrite", "--added-languages", given)
        assert (tmp_path / "out" / "dict.txt").read_text().splitlines()[-4:] == expected


@pytest.mark.parametrize(
    "flag",
    [
        *(("-s", "en"), ("-t", "wo"), ("--base", "x"), ("--langs", "en"), ("--lang-resources", "x")),
        *(("--encoder-activation-direction", "src"), ("--decoder-activation-direction", "tgt")),
    ],
    ids="=".join,
)
def test_an_import_of_a_base_takes_no_flags_of_adapters(home, tmp_path, flag) -> None:
    long = {"-s": "--source-lang", "-t": "--target-lang"}.get(flag[0], flag[0])
    message = refusal("import", home.theirs, "--from", "huggingface", "--out", tmp_path / "out", *flag)
    assert f"--from huggingface does not take {long}" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flag", [("--langs", "en"), ("--sentencepiece-model", "x"), ("--added-languages", "en")], ids="=".join
)
def test_an_import_of_a_lora_takes_no_flags_of_tokens(home, tmp_path, flag) -> None:
    command = ("import", home.lora, "--from", "peft", "-s", "en", "-t", "wo", "--out", tmp_path / "out.pt")
    message = refusal(*command, "--base", home.ours / "model.pt", *flag)
    assert f"--from peft does not take {flag[0]}" in message


def test_an_imported_lora_is_told_what_it_was_trained_on(home, tmp_path, capsys) -> None:
    assert f"trained on theirs/model: its outputs are the same only if --base {home.ours / 'model.pt'} is" in home.said
    shutil.copytree(home.lora, tmp_path / "lora")
    settings = json.loads((home.lora / "adapter_config.json").read_text())
    del settings["base_model_name_or_path"]
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(settings))
    (tmp_path / "levels.yaml").write_text("high: [xx]\nlow: [yy]\n")
    command = ("import", tmp_path / "lora", "--from", "peft", "-s", "xx", "-t", "yy", "--out", tmp_path / "out.pt")
    command += ("--base", home.ours / "model.pt")
    assert "no resource level for xx" in refusal(*command)
    written, said = run(capsys, *command, "--lang-resources", tmp_path / "levels.yaml")
    assert len(written) == 1
    assert str(tmp_path / "out.pt") in written[0]
    assert "trained on" not in said
    assert StoredModel(tmp_path / "out.pt").adapters.languages.levels == ("high", "low")
    assert "already exists" in refusal(*command, "--lang-resources", tmp_path / "levels.yaml")
    same = ("import", home.lora, "--from", "peft", "-s", "en", "-t", "en", "--base", home.ours / "model.pt")
    assert "give two different ones" in refusal(*same, "--out", tmp_path / "other.pt")
    assert "--from peft needs --base" in refusal(*command[:-2], "--out", tmp_path / "other.pt")


def test_the_directions_of_an_imported_lora_are_those_that_are_given_and_else_the_paper_s(home, tmp_path) -> None:
    adapters = StoredModel(home.ours / "adapted.pt").adapters
    assert adapters.sides == {"encoder": ("tgt", "src"), "decoder": ("tgt", "tgt")}
    site = next(iter(adapters.packed))
    rows = {name: adapters.rows(site, name) for name in ("en", "wo")}
    living = {
        (place.stack, name)
        for place, pairs in adapters.packed.items()
        for name in rows
        if pairs.b[rows[name]].any() and place[1:] == (1, "fc1")
    }
    assert living == {("encoder", "en"), ("decoder", "wo")}
    command = ("import", home.lora, "--from", "peft", "-s", "en", "-t", "wo", "--base", home.ours / "model.pt")
    main([str(word) for word in (*command, "--out", tmp_path / "out.pt")])
    assert StoredModel(tmp_path / "out.pt").adapters.sides == {
        "encoder": ("src", "tgt"),
        "decoder": ("tgt", "tgt"),
    }


def test_all_directions_of_a_checkpoint_are_written_at_once(home, tmp_path, capsys) -> None:
    command = ("export", home.ours / "adapted.pt", "--format", "peft")
    written, _ = run(capsys, *command, "--all", "--out", tmp_path / "all")
    assert names_in(tmp_path / "all") == {"en-wo", "wo-en"}
    expected = [tmp_path / "all" / pair / name for pair in ("en-wo", "wo-en") for name in LORA]
    assert len(written) == len(expected)
    assert all(str(path) in line for path, line in zip(expected, written, strict=True))
    one, _ = run(capsys, *command, "-s", "en", "-t", "wo", "--out", tmp_path / "one")
    assert len(one) == len(LORA)
    for name in LORA:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "all" / "en-wo" / name).read_bytes()
    theirs, again = (load_file(folder / LORA[1]) for folder in (home.lora, tmp_path / "one"))
    for name, value in theirs.items():
        assert torch.equal(again[name], value)
    # Nothing of a direction is written where that of another is there.
    (tmp_path / "all" / "en-wo" / LORA[0]).unlink()
    assert f"{tmp_path / 'all' / 'en-wo'} already contains {LORA[1]}" in refusal(
        *command, "--all", "--out", tmp_path / "all"
    )
    shutil.rmtree(tmp_path / "all" / "en-wo")
    assert f"{tmp_path / 'all' / 'wo-en'} already contains {LORA[0]}" in refusal(
        *command, "--all", "--out", tmp_path / "all"
    )
    assert names_in(tmp_path / "all") == {"wo-en"}
    run(capsys, *command, "--all", "--out", tmp_path / "all", "--overwrite")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--all", "-s", "en"), "--all does not take --source-lang"),
        (("--all", "-t", "wo"), "--all does not take --target-lang"),
        ((), "--format peft without --all needs --source-lang"),
        (("-s", "en"), "--format peft without --all needs --target-lang"),
        (("-s", "en", "-t", "en"), "give two different ones"),
        (("-s", "en", "-t", "nl"), "unknown language 'nl'"),
        (("--all", "--fixed-dictionary", "x"), "--format peft does not take --fixed-dictionary"),
        (("--all", "--spm", "x"), "--format peft does not take --sentencepiece-model"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_an_export_of_loras_names_the_flags_that_it_does_not_take(home, tmp_path, flags, expected) -> None:
    command = ("export", home.ours / "adapted.pt", "--format", "peft", "--out", tmp_path / "out", *flags)
    assert expected in refusal(*command)
    assert not (tmp_path / "out").exists()


def test_a_direction_is_merged_and_the_base_alone_is_said_to_be_that(home, tmp_path, capsys) -> None:
    pytest.importorskip("tokenizers", reason="needs the extra hf: tokenizers is not installed")
    command = ("export", home.ours / "adapted.pt", "--format", "huggingface")
    written, said = run(capsys, *command, "-s", "en", "-t", "wo", "--out", tmp_path / "merged")
    assert "base model alone" not in said
    assert f"the tokenizer is made from {home.ours / 'dict.txt'} and {home.ours / 'sentencepiece.bpe.model'}" in said
    assert names_in(tmp_path / "merged") == {*MODEL, *TOKENIZER}
    assert len(written) == len(MODEL) + len(TOKENIZER)
    assert all(any(str(tmp_path / "merged" / name) in line for line in written) for name in (*MODEL, *TOKENIZER))
    generation = json.loads((tmp_path / "merged" / "generation_config.json").read_text())
    assert generation["forced_bos_token_id"] == home.tokens.index("__wo__")
    settings = json.loads((tmp_path / "merged" / "tokenizer.json").read_text())["post_processor"]
    assert "__en__" in settings["special_tokens"]
    merged, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "merged", home.theirs))
    lora = load_file(home.lora / "adapter_model.safetensors")
    for name, weight in theirs.items():
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        pair = [lora.get(f"{prefix}.lora_{part}.weight") for part in "AB"]
        expected = weight if None in [None if part is None else 0 for part in pair] else weight + pair[1] @ pair[0]
        torch.testing.assert_close(merged[name], expected)
    _, said = run(capsys, *command, "--out", tmp_path / "base")
    assert "this is the base model alone; -s and -t merge the adapters of a direction into it" in said
    assert "begin each text with __xx__" in said
    plain = load_file(tmp_path / "base" / "model.safetensors")
    assert all(torch.equal(plain[name], weight) for name, weight in theirs.items())
    _, said = run(capsys, "export", home.ours / "model.pt", "--format", "huggingface", "--out", tmp_path / "stock")
    assert "base model alone" not in said


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("-s", "en"), "--format huggingface needs --target-lang"),
        (("-t", "en"), "--format huggingface needs --source-lang"),
        (("-s", "en", "-t", "en"), "give two different ones"),
        (("--all",), "--format huggingface does not take --all"),
        (("--fixed-dictionary", "none"), "there is no dictionary none"),
        (("--sentencepiece-model", "none"), "there is no SentencePiece model none"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_an_export_of_a_model_names_the_flags_that_are_wrong(home, tmp_path, flags, expected, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("export", home.ours / "adapted.pt", "--format", "huggingface", "--out", tmp_path / "out", *flags)
    message = refusal(*command)
    assert expected in message or ("none" in expected and "none" in message)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_is_found_gives_way_and_one_that_is_given_does_not(home, tmp_path, capsys) -> None:
    pytest.importorskip("tokenizers", reason="needs the extra hf: tokenizers is not installed")
    place = tmp_path / "place"
    place.mkdir()
    shutil.copy(home.ours / "model.pt", place)
    command = ("export", place / "model.pt", "--format", "huggingface", "--out")
    written, said = run(capsys, *command, tmp_path / "none")
    assert "no tokenizer is written: no dictionary found in" in said
    assert len(written) == len(MODEL)
    for name in ("dict.txt", "sentencepiece.bpe.model"):
        shutil.copy(home.ours / name, place)
    # What is there already stays, but for --overwrite.
    (tmp_path / "full").mkdir()
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / "full" / name).write_text("mine")
    written, said = run(capsys, *command, tmp_path / "full")
    assert f"no tokenizer is written: --out {tmp_path / 'full'} already contains tokenizer_config.json; --over" in said
    assert "is made from" not in said
    assert (tmp_path / "full" / "tokenizer_config.json").read_text() == "mine"
    assert len(written) == len(MODEL)
    written, said = run(capsys, *command, tmp_path / "full", "--overwrite")
    assert "is made from" in said
    assert names_in(tmp_path / "full") == {*MODEL, *TOKENIZER}
    # A dictionary of another model: found, it is left out; given, it is wrong.
    lines = (place / "dict.txt").read_text().splitlines(keepends=True)
    (place / "dict.txt").write_text("".join(lines[:-1]))
    written, said = run(capsys, *command, tmp_path / "short")
    assert f"no tokenizer is written: dictionary {place / 'dict.txt'} has {len(home.tokens) - 1} tokens" in said
    assert names_in(tmp_path / "short") == {*MODEL}
    written, said = run(capsys, *command, tmp_path / "full", "--overwrite")
    assert "no tokenizer is written: dictionary" in said
    assert len(written) == len(MODEL)  # an old tokenizer was not written now
    for flag in (("--fixed-dictionary", place / "dict.txt"), ("--spm", place / "sentencepiece.bpe.model")):
        message = refusal(*command, tmp_path / "out", *flag)
        assert f"has {len(home.tokens) - 1} tokens, but the model has {len(home.tokens)} embeddings" in message
    assert not (tmp_path / "out").exists()
    assert "already contains config.json" in refusal(*command, tmp_path / "short")


def test_a_tokenizer_without_the_direction_is_left_out(home, tmp_path, capsys) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for name in ("adapted.pt", "sentencepiece.bpe.model"):
        shutil.copy(home.ours / name, place)
    text = (home.ours / "dict.txt").read_text()
    command = ("export", place / "adapted.pt", "--format", "huggingface", "-s", "en", "-t", "wo", "--out")
    for language in ("en", "wo"):
        (place / "dict.txt").write_text(text.replace(f"__{language}__", "other"))
        _, said = run(capsys, *command, tmp_path / language)
        assert f"no tokenizer is written: dictionary {place / 'dict.txt'} has no token __{language}__" in said
        assert names_in(tmp_path / language) == {*MODEL}


def test_adapters_alone_are_no_model(home, tmp_path, capsys) -> None:
    run(capsys, "export", home.ours / "adapted.pt", "--format", "adapter", "--out", tmp_path / "adapter")
    for path in (tmp_path / "adapter", tmp_path / "adapter" / "adapter.safetensors"):
        message = refusal("export", path, "--format", "huggingface", "--out", tmp_path / "out")
        assert f"adapter {path}" in message
    assert "no tokenizer" not in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
