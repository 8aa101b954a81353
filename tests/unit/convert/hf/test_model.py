"""Whole folders of transformers, to and from fairseq's weights, on a model of random weights that nothing trains."""

from __future__ import annotations

import io
import json
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import sentencepiece
import torch
from fairseq.dataclass.configs import GenerationConfig
from fairseq.models.transformer.transformer_legacy import base_architecture
from safetensors.torch import load_file
from torch import Tensor

from langspec_lora.convert.hf import model
from langspec_lora.convert.hf.config_json import fairseq_args, huggingface_config
from langspec_lora.convert.hf.model import export_model, exported_files, import_model
from langspec_lora.convert.hf.weights import to_fairseq, to_huggingface
from langspec_lora.errors import UserError
from tests.hf_home import CONFIG, IMPORTED, LANGUAGES, MODEL, TOKENIZER, names_in, state_of


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


def test_tokens_that_are_not_the_pieces_of_the_sentencepiece_model_are_named(home, tmp_path, caplog) -> None:
    import_model(home.theirs, tmp_path / "whole")
    assert not caplog.messages
    theirs = shutil.copytree(home.theirs, tmp_path / "theirs")
    text = (theirs / "tokenizer.json").read_text()
    assert text.count('"o"') == 1
    (theirs / "tokenizer.json").write_text(text.replace('"o"', '"oE"'))
    import_model(theirs, tmp_path / "renamed")
    assert (
        f"the tokenizer of {theirs} lacks 1 of the tokens of {theirs}/sentencepiece.bpe.model, such as 'o'"
        in caplog.text
    )
    assert f"sentencepiece.bpe.model lacks 1 of the tokens of {theirs}, such as 'oE'" in caplog.text
    caplog.clear()
    content = json.loads(text)
    del content["model"]["vocab"]["e"]
    (theirs / "tokenizer.json").write_text(json.dumps(content))
    import_model(theirs, tmp_path / "left_out")
    assert [message.split(", such as ")[1][:3] for message in caplog.messages] == ["'e'"]


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
