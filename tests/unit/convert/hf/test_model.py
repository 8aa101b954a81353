"""Whole folders of transformers and PEFT, to and from checkpoints, on a model of random weights that nothing trains."""

from __future__ import annotations

import io
import json
import shutil
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from fairseq.dataclass.configs import GenerationConfig
from fairseq.models.transformer.transformer_legacy import base_architecture
from safetensors.torch import load_file, save_file
from torch import Tensor

from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.cli.main import main
from langspec_lora.convert.hf import model
from langspec_lora.convert.hf.config_json import fairseq_args, huggingface_config
from langspec_lora.convert.hf.model import export_model, exported_files, import_model
from langspec_lora.convert.hf.weights import to_fairseq, to_huggingface, weight_shapes
from langspec_lora.errors import UserError

sentencepiece = pytest.importorskip("sentencepiece")

CONFIG = {
    "model_type": "m2m_100",
    "d_model": 6,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 5,
    "decoder_ffn_dim": 7,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
}
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
LANGUAGES = ("en", "nl", "wo")
IMPORTED = ("model.pt", "dict.txt", "sentencepiece.bpe.model")
MODEL = ("config.json", "generation_config.json", "model.safetensors")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "sentencepiece.bpe.model")
LORA = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class Home:
    """A model in both forms.

    Attributes:
        theirs: a folder as transformers writes it.
        ours: the folder that was imported from it, and beside it ``adapted.pt``, with the LoRA as adapters.
        lora: a LoRA on the model.
        tokens: all tokens by id.
        said: what the imports told the user.
    """

    theirs: Path
    ours: Path
    lora: Path
    tokens: list[str]
    said: str


def random_weights(rows: int) -> dict[str, Tensor]:
    torch.manual_seed(5)
    args = fairseq_args(CONFIG, "config.json")
    weights = {f"model.{name}": torch.randn(shape) for name, shape in weight_shapes(args)}
    return {"model.shared.weight": torch.randn(rows, 6), **weights}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Home:
    folder = tmp_path_factory.mktemp("a home")
    theirs, ours, lora = folder / "theirs", folder / "ours", folder / "lora"
    theirs.mkdir()
    lora.mkdir()
    writer = io.BytesIO()
    line = f"abc bcd cde dea eab {' '.join('abcdefghijklmnopqrstuvwxyz')}"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line] * 5), model_writer=writer, vocab_size=70, minloglevel=2, hard_vocab_limit=False,
        normalization_rule_name="identity",
    )  # fmt: skip
    (theirs / "sentencepiece.bpe.model").write_bytes(writer.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=writer.getvalue())
    pieces = [processor.id_to_piece(number) for number in range(3, processor.get_piece_size())]
    tokens = [*SPECIALS, *pieces, *(f"__{name}__" for name in LANGUAGES), "gsw-BE", "word"]
    ids = {token: number for number, token in enumerate(tokens)}
    added = [{"content": token, "id": ids[token], "special": False} for token in ("gsw-BE", "word")]
    vocabulary = {token: ids[token] for token in tokens[:-2]}
    (theirs / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": added}))
    (theirs / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": len(tokens)}))
    save_file(random_weights(len(tokens)), theirs / "model.safetensors")
    name = "base_model.model.model.{}.layers.1.fc1.lora_{}.weight"
    matrices = {name.format(stack, "A"): torch.randn(2, 6) for stack in ("encoder", "decoder")}
    matrices |= {name.format(stack, "B"): torch.randn(size, 2) for stack, size in (("encoder", 5), ("decoder", 7))}
    save_file(matrices, lora / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "theirs/model"}
    (lora / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.MonkeyPatch.context() as patch:
        said = io.StringIO()
        patch.setattr("sys.stderr", said)
        assert main(["import", str(theirs), "--from", "huggingface", "--out", str(ours)]) == 0
        base = ("--base", str(ours / "model.pt"), "--out", str(ours / "adapted.pt"))
        directions = ("--encoder-activation-direction", "tgt_src", "--decoder-activation-direction", "tgt_tgt")
        assert main(["import", str(lora), "--from", "peft", "-s", "en", "-t", "wo", *base, *directions]) == 0
    tokens[-2] = "__gsw_BE__"
    return Home(theirs, ours, lora, tokens, said.getvalue())


def state_of(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=False)["model"]


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_imported_folder_is_a_base_model_of_fairseq(home, tmp_path) -> None:
    imported = import_model(home.theirs, tmp_path / "out")
    assert names_in(tmp_path / "out") == {*IMPORTED}
    assert imported.folder == tmp_path / "out"
    assert imported.languages == (*LANGUAGES, "gsw_BE")
    assert imported.flags.startswith("--arch langspec_m2m100_lora_")
    assert any("gsw-BE (as gsw_BE)" in remark for remark in imported.remarks)
    dictionary = "".join(f"{token} 1\n" for token in home.tokens[4:])
    assert (tmp_path / "out" / "dict.txt").read_bytes() == dictionary.encode()
    spm = (home.theirs / "sentencepiece.bpe.model").read_bytes()
    assert (tmp_path / "out" / "sentencepiece.bpe.model").read_bytes() == spm
    checkpoint = torch.load(tmp_path / "out" / "model.pt", weights_only=False)
    args = fairseq_args(CONFIG, "config.json")
    expected = to_fairseq(load_file(home.theirs / "model.safetensors"), args, range(len(home.tokens)), "it")
    assert checkpoint["model"].keys() == expected.keys()
    assert all(torch.equal(checkpoint["model"][name], value) for name, value in expected.items())
    args.langs = ",".join(imported.languages)
    base_architecture(args)  # the defaults of what a config.json does not say
    own = vars(checkpoint["args"])
    assert {name: own[name] for name in vars(args)} == vars(args)


def test_a_dictionary_is_utf_8_in_any_locale(home, tmp_path, monkeypatch) -> None:
    stock = Path.write_text
    monkeypatch.setattr(Path, "write_text", lambda path, text, encoding="ascii": stock(path, text, encoding))
    import_model(home.theirs, tmp_path / "out")
    assert "▁" in (tmp_path / "out" / "dict.txt").read_bytes().decode()


def test_a_sentencepiece_model_may_be_given(home, tmp_path) -> None:
    shutil.copytree(home.theirs, tmp_path / "theirs")
    (tmp_path / "theirs" / "sentencepiece.bpe.model").rename(tmp_path / "given.model")
    with pytest.raises(UserError, match="or give it as --sentencepiece-model"):
        import_model(tmp_path / "theirs", tmp_path / "out")
    import_model(tmp_path / "theirs", tmp_path / "out", tmp_path / "given.model")
    assert names_in(tmp_path / "out") == {*IMPORTED}
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["другие слова и буквы"]), model_writer=writer, vocab_size=30, minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    (tmp_path / "other.model").write_bytes(writer.getvalue())
    with pytest.raises(UserError, match=r"dict\.txt lacks \d+ of the \d+ pieces of the SentencePiece model"):
        import_model(home.theirs, tmp_path / "another", tmp_path / "other.model")
    assert not (tmp_path / "another").exists()


def test_an_import_replaces_files_only_where_it_is_told_to(home, tmp_path) -> None:
    for name in IMPORTED:
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(UserError, match=f"already contains {name}"):
            import_model(home.theirs, folder)
        assert (folder / name).read_text() == "mine"
        with pytest.raises(UserError, match=f"already contains {name}"):  # before anything is read
            import_model(tmp_path / "none", folder)
    import_model(home.theirs, folder, overwrite=True)
    assert names_in(folder) == {*IMPORTED}


@pytest.mark.parametrize("rows", [0, -1, 2**31, 2.0, "9", None, [9]])
def test_a_number_of_embeddings_that_is_none_is_refused(home, tmp_path, rows) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": rows}))
    with pytest.raises(UserError) as refused:
        import_model(tmp_path, tmp_path / "out")
    source = tmp_path / "config.json"
    assert str(refused.value) == f"{source}: vocab_size is {rows!r}; expected the number of embeddings"


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (2**31 - 1, 2**31 - 1), ("left out", 128112)])
def test_a_number_of_embeddings_that_is_left_out_is_transformers_own(tmp_path, monkeypatch, rows, expected) -> None:
    found = []

    def read_vocabulary(folder, rows, added_languages):
        found.append(rows)
        raise UserError("that far")

    monkeypatch.setattr(model, "read_vocabulary", read_vocabulary)
    sizes = {} if rows == "left out" else {"vocab_size": rows}
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **sizes}))
    with pytest.raises(UserError, match="that far"):
        import_model(tmp_path, tmp_path / "out")
    assert found == [expected]
    transformers = pytest.importorskip("transformers", reason="needs the extra hf: transformers is not installed")
    assert transformers.M2M100Config().vocab_size == 128112


def test_what_is_no_folder_is_said(tmp_path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(UserError, match=f"^{path} is not a folder; give one that transformers wrote"):
            import_model(path, tmp_path / "out")


@pytest.fixture
def state(home) -> dict[str, Tensor]:
    return state_of(home.ours / "model.pt")


@pytest.fixture
def args(home) -> Namespace:
    return torch.load(home.ours / "model.pt", weights_only=False)["args"]


@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "float32"), (torch.float16, "float16")])
def test_an_exported_folder_holds_all_that_transformers_reads(home, state, args, tmp_path, dtype, name) -> None:
    weights = {key: value.to(dtype) if value.dim() > 1 or "bias" in key else value for key, value in state.items()}
    assert export_model(weights, args, tmp_path / "out", "it") is None
    assert names_in(tmp_path / "out") == {*MODEL} == {*exported_files(False)}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {**huggingface_config(args, len(home.tokens), "it"), "dtype": name}
    search = GenerationConfig()  # the defaults of fairseq-generate
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == {
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "num_beams": search.beam,
        "max_length": search.max_len_b,
        "early_stopping": not search.no_early_stop,
        "suppress_tokens": [1],
    }
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    expected = to_huggingface(weights, args, "it")
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], value) for key, value in expected.items())


@pytest.mark.parametrize("languages", [("en", "wo"), (None, None), ("en", None)], ids=str)
def test_a_tokenizer_makes_generation_begin_with_the_target_language(home, state, args, tmp_path, languages) -> None:
    pytest.importorskip("tokenizers", reason="needs the extra hf: tokenizers is not installed")
    files = (home.ours / "dict.txt", home.ours / "sentencepiece.bpe.model")
    remark = export_model(state, args, tmp_path / "out", "it", languages, files)
    assert (remark is None) == (languages[0] is not None)
    assert names_in(tmp_path / "out") == {*MODEL, *TOKENIZER}
    assert names_in(tmp_path / "out") < {*exported_files(True)}
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    expected = None if languages[1] is None else home.tokens.index("__wo__")
    assert generation.get("forced_bos_token_id") == expected
    assert "begin each text with __xx__" in export_model(state, args, tmp_path / "any", "it", tokenizer=files)
    assert export_model(state, args, tmp_path / "plain", "it", languages) is None
    assert "forced_bos_token_id" not in json.loads((tmp_path / "plain" / "generation_config.json").read_text())


def test_a_model_without_embeddings_has_none(home, state, args, tmp_path) -> None:
    state = {name: value for name, value in state.items() if "embed_tokens" not in name}
    files = (home.ours / "dict.txt", home.ours / "sentencepiece.bpe.model")
    with pytest.raises(UserError, match=f"has {len(home.tokens)} tokens, but the model has 0 embeddings"):
        export_model(state, args, tmp_path / "out", "it", tokenizer=files)
    with pytest.raises(UserError, match=r"has no encoder\.embed_tokens\.weight"):
        export_model(state, args, tmp_path / "out", "it")
    assert not (tmp_path / "out").exists()


def test_an_export_replaces_files_only_where_it_is_told_to(state, args, tmp_path) -> None:
    for name in MODEL:
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(UserError, match=f"already contains {name}"):
            export_model(state, args, folder, "it")
        assert (folder / name).read_text() == "mine"
    export_model(state, args, folder, "it", overwrite=True)
    assert names_in(folder) == {*MODEL}


# The commands.


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
    rows = {name: adapters.rows(name) for name in ("en", "wo")}
    living = {
        (site.stack, name)
        for site, matrices in adapters.packed.items()
        for name in rows
        if matrices.b[rows[name]].any() and site[1:] == (1, "fc1")
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
