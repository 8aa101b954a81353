"""Languages of Hugging Face's tokenizers: whose ids they are, which tokens name them, and back again."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from langspec_lora.convert.hf.tokenizer_files import write_tokenizer
from langspec_lora.convert.hf.vocabulary import Vocabulary, read_vocabulary
from langspec_lora.errors import UserError
from tests import hf, toy
from tests.integration.test_huggingface import run
from tests.integration.test_peft_import import refusal

transformers = hf.transformers
tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A folder with M2M100's tokenizer."""
    folder = tmp_path_factory.mktemp("plain")
    toy.write_text(folder)
    hf.write_tokenizer(folder, folder)
    return folder


def pieces(plain: Path) -> list[str]:
    return list(json.loads((plain / "vocab.json").read_text()))


def id_in(vocabulary: Vocabulary, token: str) -> int:
    """The id in Hugging Face's tokenizer that a token of the dictionary stands for."""
    return vocabulary.order[vocabulary.tokens.index(token)]


def write_slow_nllb(plain: Path, folder: Path, entries: dict[int, str], **settings) -> Path:
    """A folder as the slow NllbTokenizer of transformers 4.38 and later writes it."""
    folder.mkdir()
    shutil.copy(plain / "sentencepiece.bpe.model", folder)
    entries = {**dict(enumerate(("<s>", "<pad>", "</s>", "<unk>"))), **entries}
    decoder = {
        str(number): {"content": token, "special": number < 4 or "_" in token or token == "<mask>"}
        for number, token in entries.items()
    }
    config = {"tokenizer_class": "NllbTokenizer", "added_tokens_decoder": decoder, "mask_token": "<mask>", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    added = {token: number for number, token in entries.items() if number > 3}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    return folder


def slow_entries(plain: Path) -> dict[int, str]:
    """The ids of transformers 4.46.3: after the pieces the mask, then the codes, then what was added."""
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as CODES

    return dict(enumerate(["<mask>", *CODES, "tyv_Cyrl", "kbd", "gsw-BE", "bonjour"], start=len(pieces(plain))))


def test_slow_nllb_tokenizers_have_the_ids_that_their_files_say(plain, tmp_path) -> None:
    pytest.importorskip("google.protobuf", reason="transformers reads slow tokenizers with protobuf")
    folder = write_slow_nllb(plain, tmp_path / "nllb", slow_entries(plain))
    vocabulary = read_vocabulary(folder, 300)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for token in ("ace_Arab", "eng_Latn", "zul_Latn", "tyv_Cyrl", "kbd"):
        assert id_in(vocabulary, f"__{token}__") == theirs.convert_tokens_to_ids(token) > 3
    assert id_in(vocabulary, "__gsw_BE__") == theirs.convert_tokens_to_ids("gsw-BE")
    for token in ("<mask>", "bonjour", *pieces(plain)):
        assert id_in(vocabulary, token) == theirs.convert_tokens_to_ids(token)
    assert len(vocabulary.languages) == 202 + 3


@pytest.mark.parametrize("file", ["tokenizer_config.json", "added_tokens.json"])
def test_either_file_of_a_slow_tokenizer_is_enough(file, plain, tmp_path) -> None:
    entries = slow_entries(plain)
    folder = write_slow_nllb(plain, tmp_path / "nllb", entries)
    if file == "tokenizer_config.json":
        (folder / "added_tokens.json").unlink()
    else:
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "NllbTokenizer"}')
    vocabulary = read_vocabulary(folder, 300)
    for number, token in entries.items():
        name = token if token in ("<mask>", "bonjour") else f"__{token.replace('-', '_')}__"
        assert id_in(vocabulary, name) == number


def test_early_slow_tokenizers_have_the_built_in_order_and_what_was_added(plain, tmp_path) -> None:
    """Before 4.34 only the ids of new tokens were written; the codes came before the mask."""
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as CODES

    folder = write_slow_nllb(plain, tmp_path / "nllb", {})
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "NllbTokenizer"}')
    first = len(pieces(plain))
    (folder / "added_tokens.json").write_text(json.dumps({"tyv_Cyrl": first + 203}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": [*CODES, "sah_Cyrl"]}))
    vocabulary = read_vocabulary(folder, 300)
    assert [id_in(vocabulary, f"__{code}__") for code in CODES] == list(range(first, first + 202))
    assert id_in(vocabulary, "<mask>") == first + 202
    assert id_in(vocabulary, "__tyv_Cyrl__") == first + 203
    assert "tokens without an id in the tokenizer's files are left out: sah_Cyrl" in " ".join(vocabulary.remarks)


def fast_nllb(plain: Path, *more: str) -> transformers.NllbTokenizer:
    codes = ["wol_Latn", "eng_Latn", "zho_Hans"]
    ids = {token: number for number, token in enumerate([*pieces(plain), *more, *codes, "<mask>"])}
    tokenizer = transformers.NllbTokenizer(vocab=ids, merges=[], extra_special_tokens=codes)
    tokenizer.add_tokens(["tyv_Cyrl", "kbd", "gsw-BE", "bonjour"])
    tokenizer.add_special_tokens({"extra_special_tokens": ["sah_Cyrl"]})
    return tokenizer


def m2m100(plain: Path) -> transformers.M2M100Tokenizer:
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES as CODES

    files = (str(plain / name) for name in ("vocab.json", "sentencepiece.bpe.model"))
    names = [f"__{name}__" for name in CODES["m2m100"]]  # as in the folder of the real one
    tokenizer = transformers.M2M100Tokenizer(*files, additional_special_tokens=names)
    tokenizer.add_tokens(["__tyv__", "kbd", "gsw-BE", "bonjour"])
    return tokenizer


@pytest.mark.parametrize("build", [fast_nllb, m2m100])
def test_added_languages_get_their_ids_their_embeddings_and_a_word(build, plain, tmp_path) -> None:
    """On a model whose embeddings were resized for them, as one does to teach it new languages."""
    tokenizer, folder, out = build(plain), tmp_path / "hf", tmp_path / "out"
    size = len(pieces(plain)) + 108
    model = transformers.M2M100ForConditionalGeneration(
        transformers.M2M100Config(vocab_size=size, d_model=16, **hf.DEFAULTS, encoder_ffn_dim=16, decoder_ffn_dim=16)
    )
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shutil.copy(plain / "sentencepiece.bpe.model", folder)
    said = run("import", folder, "--from", "huggingface", "--out", out)
    rows = load_file(folder / "model.safetensors")["model.shared.weight"]
    ours = torch.load(out / "model.pt", weights_only=False)["model"]["encoder.embed_tokens.weight"]
    lines = (out / "dict.txt").read_text().split("\n")
    tokens = {"kbd": "__kbd__", "gsw-BE": "__gsw_BE__", "bonjour": "bonjour"}
    tokens |= {"__tyv__": "__tyv__", "__wo__": "__wo__"} if build is m2m100 else {}
    own = ("tyv_Cyrl", "sah_Cyrl", "wol_Latn", "eng_Latn")
    tokens |= {} if build is m2m100 else {code: f"__{code}__" for code in own}
    for token, name in tokens.items():
        row = tokenizer.convert_tokens_to_ids(token)
        assert torch.equal(ours[4 + lines.index(f"{name} 1")], rows[row])
    new = "__tyv__ (as tyv), kbd" if build is m2m100 else "tyv_Cyrl, kbd"
    assert f"languages that were added to the tokenizer: {new}, gsw-BE (as gsw_BE)" in said
    assert "added tokens that are not languages: bonjour" in said
    assert "--added-languages" in said


def test_a_flag_says_which_added_tokens_are_languages(plain, tmp_path) -> None:
    fast_nllb(plain).save_pretrained(tmp_path)
    shutil.copy(plain / "sentencepiece.bpe.model", tmp_path)
    own = {"wol_Latn", "eng_Latn", "zho_Hans", "sah_Cyrl"}
    for given, expected in (
        (None, own | {"tyv_Cyrl", "kbd", "gsw_BE"}),
        ([], own),
        (["bonjour", "kbd"], own | {"bonjour", "kbd"}),
    ):
        vocabulary = read_vocabulary(tmp_path, 300, given)
        assert set(vocabulary.languages) == expected
        assert {"tyv_Cyrl", "kbd", "gsw-BE", "bonjour"} - {n.replace("_BE", "-BE") for n in expected} <= {
            *vocabulary.tokens
        }
    with pytest.raises(UserError, match="'xyz', which is not an added token of the tokenizer; it has wol_Latn"):
        read_vocabulary(tmp_path, 300, ["xyz"])


def test_words_and_marks_that_were_added_are_no_languages(plain, tmp_path) -> None:
    words = ["the", "xyz", "foo", "Latn", "<2en>", "e", "english", "EN"]
    tokenizer = fast_nllb(plain, "the")  # a piece of words, though Chitwania Tharu has this code
    tokenizer.add_tokens([*words, "pt-BR", "sr_Latn", "en_XX"])
    tokenizer.save_pretrained(tmp_path)
    shutil.copy(plain / "sentencepiece.bpe.model", tmp_path)
    languages = read_vocabulary(tmp_path, 300).languages
    assert {"pt_BR", "sr_Latn", "en_XX"} <= set(languages)
    assert not set(words) & set(languages)
    with pytest.raises(UserError, match="a language's name may hold only letters, digits, - and _"):
        read_vocabulary(tmp_path, 300, ["<2en>"])


def test_ids_that_contradict_each_other_are_refused(plain, tmp_path) -> None:
    # Without the list of languages M2M100's tokenizer gives a new token the id of the first language.
    files = (str(plain / name) for name in ("vocab.json", "sentencepiece.bpe.model"))
    tokenizer = transformers.M2M100Tokenizer(*files)
    tokenizer.add_tokens(["__tyv__"])
    assert tokenizer.convert_tokens_to_ids("__tyv__") == tokenizer.convert_tokens_to_ids("__af__")
    tokenizer.save_pretrained(tmp_path / "m2m")
    with pytest.raises(UserError, match=r"gives '__tyv__' the id \d+, which '__af__' has; expected"):
        read_vocabulary(tmp_path / "m2m", 300)
    folder = write_slow_nllb(plain, tmp_path / "two", slow_entries(plain))
    (folder / "added_tokens.json").write_text('{"eng_Latn": 290}')
    with pytest.raises(UserError, match=r"'eng_Latn' the id 290, but another file of .* gives it"):
        read_vocabulary(folder, 300)
    for number, text in enumerate(('{"eng_Latn": "x"}', '{"eng_Latn": null}', "[]", "{")):
        folder = write_slow_nllb(plain, tmp_path / f"damaged{number}", slow_entries(plain))
        (folder / "added_tokens.json").write_text(text)
        with pytest.raises(UserError, match="is damaged"):
            read_vocabulary(folder, 300)
    for number, decoder in enumerate(([1], {"x": {"content": "a"}}, {"9": "a"}, {"9": {}})):
        folder = write_slow_nllb(plain, tmp_path / f"decoder{number}", {}, added_tokens_decoder=decoder)
        with pytest.raises(UserError, match="is damaged: its added tokens have no ids"):
            read_vocabulary(folder, 300)


def test_a_tokenizer_that_puts_the_language_last_is_told(plain, tmp_path) -> None:
    folder = write_slow_nllb(plain, tmp_path / "legacy", slow_entries(plain), legacy_behaviour=True)
    assert "legacy_behaviour is true" in " ".join(read_vocabulary(folder, 300).remarks)
    folder = write_slow_nllb(plain, tmp_path / "new", slow_entries(plain), legacy_behaviour=False)
    assert "legacy_behaviour" not in " ".join(read_vocabulary(folder, 300).remarks)


def test_only_imports_from_huggingface_take_the_flag(tmp_path) -> None:
    for form in ("lslo", "adapter", "peft"):
        base = [] if form == "lslo" else ["--base", "x"]
        words = ("import", "x", "--from", form, *base, "--out", tmp_path / "out", "--added-languages", "kbd")
        assert "does not take --added-languages" in refusal(*words)


def test_nllb_exported_again_takes_its_codes_as_source_language(plain, tmp_path) -> None:
    import sentencepiece

    lines = [line for name in toy.LANGUAGES for line in (plain / f"test.{name}").read_text().splitlines()]
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=writer, vocab_size=38, model_type="bpe", minloglevel=2
    )
    splitter = sentencepiece.SentencePieceProcessor(model_proto=writer.getvalue())
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *(splitter.id_to_piece(n) for n in range(3, splitter.get_piece_size()))]
    tokens += ["__wol_Latn__", "__eng_Latn__", "__kbd__", "<mask>"]
    config = transformers.M2M100Config(vocab_size=len(tokens), d_model=16, **hf.DEFAULTS)
    first = tmp_path / "first"
    transformers.M2M100ForConditionalGeneration(config).save_pretrained(first)
    codes = ["wol_Latn", "eng_Latn"]
    ids = {token.strip("_"): number for number, token in enumerate(tokens)}
    own = transformers.NllbTokenizer(vocab=ids, merges=[], extra_special_tokens=codes)
    own.add_tokens(["kbd"])
    own.save_pretrained(first)
    (first / "sentencepiece.bpe.model").write_bytes(writer.getvalue())
    run("import", first, "--from", "huggingface", "--out", tmp_path / "base", "--added-languages", "kbd")
    assert (tmp_path / "base" / "dict.txt").read_text() == "".join(f"{token} 1\n" for token in tokens[4:])
    files = ("--fixed-dictionary", tmp_path / "base" / "dict.txt", "--spm", first / "sentencepiece.bpe.model")
    run("export", tmp_path / "base" / "model.pt", "--format", "huggingface", *files, "--out", tmp_path / "again")
    for language in ("eng_Latn", "wol_Latn", "kbd"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "again", src_lang=language)
        assert type(tokenizer) is transformers.NllbTokenizer
        assert len(tokenizer) == len(tokens)
        for line in [*lines, "words it has never seen", ""]:
            expected = [tokens.index(piece) if piece in tokens else 3 for piece in splitter.encode(line, out_type=str)]
            assert tokenizer(line).input_ids == [tokens.index(f"__{language}__"), *expected, 2]
    alone = tokenizers.Tokenizer.from_file(str(tmp_path / "again" / "tokenizer.json"))
    assert alone.encode(lines[0]).ids == [tokens.index("__eng_Latn__"), *tokenizer(lines[0]).input_ids[1:]]
    (tmp_path / "wol").mkdir()
    write_tokenizer(tmp_path / "wol", tokens, first / "sentencepiece.bpe.model", ("wol_Latn", "eng_Latn"))
    wolof = transformers.AutoTokenizer.from_pretrained(tmp_path / "wol")
    both = wolof(lines[0], text_target=lines[1])
    assert (both.input_ids[0], both.labels[0]) == (tokens.index("__wol_Latn__"), tokens.index("__eng_Latn__"))
    line = tokenizer(lines[0], text_target=lines[1])
    assert tokenizer.decode(line.input_ids, skip_special_tokens=True) == lines[0]


def test_an_export_finds_dictionary_and_sentencepiece_model_as_translate_does(plain, tmp_path) -> None:
    first, base = tmp_path / "first", tmp_path / "base"
    config = transformers.M2M100Config(vocab_size=len(pieces(plain)) + 108, d_model=16, **hf.DEFAULTS)
    transformers.M2M100ForConditionalGeneration(config).save_pretrained(first)
    for name in ("vocab.json", "tokenizer_config.json", "sentencepiece.bpe.model"):
        shutil.copy(plain / name, first)
    run("import", first, "--from", "huggingface", "--out", base)

    def files(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def export(checkpoint: Path, name: str, *more: object) -> tuple[str, dict[str, bytes]]:
        said = run("export", checkpoint, "--format", "huggingface", "--out", tmp_path / name, *more)
        return said, files(tmp_path / name)

    dictionary, spm = base / "dict.txt", base / "sentencepiece.bpe.model"
    said, given = export(base / "model.pt", "given", "--fixed-dictionary", dictionary, "--spm", spm)
    assert "vocab.json" in given
    assert "the tokenizer is made from" not in said
    said, found = export(base / "model.pt", "found")
    assert found == given
    assert f"the tokenizer is made from {dictionary} and {spm}" in said
    assert export(base / "model.pt", "half", "--spm", spm)[1] == given

    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(base / "model.pt", alone)
    said, without = export(alone / "model.pt", "without")
    assert "no tokenizer is written: no dictionary found in" in said
    assert without == {name: given[name] for name in ("config.json", "generation_config.json", "model.safetensors")}
    shutil.copy(spm, alone)
    (alone / "dict.txt").write_text("".join(dictionary.read_text().splitlines(keepends=True)[:-1]))
    said, without = export(alone / "model.pt", "short")
    assert "no tokenizer is written: dictionary" in said
    assert "vocab.json" not in without
    refused = ("export", alone / "model.pt", "--format", "huggingface", "--out", tmp_path / "out")
    assert "tokens, but the model" in refusal(*refused, "--fixed-dictionary", alone / "dict.txt")
    (alone / "sentencepiece.bpe.model").unlink()
    assert "no SentencePiece model found in" in refusal(*refused, "--fixed-dictionary", dictionary)
