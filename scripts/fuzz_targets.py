"""Every file that langspec_lora reads: how a sound one is made, how it is read, and what the reader finds in it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import re
import shutil
import struct
import tarfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import permutations
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from langspec_lora.adapters.adapter_folder import read_adapter_file, write_adapter_folder
from langspec_lora.adapters.entries import language_manifest, read_manifest
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.convert.hf.model import import_model
from langspec_lora.convert.hf.peft_folder import import_lora
from langspec_lora.convert.hf.sentencepiece_model import read_pieces
from langspec_lora.convert.lslo import released_adapters
from langspec_lora.data.binarise import binarise, multi_parallel
from langspec_lora.data.directions import find_directions
from langspec_lora.data.flores import find_splits, read_text
from langspec_lora.data.flores_download import download
from langspec_lora.data.headers import count_sentences, highest_id, sentence_lengths
from langspec_lora.data.vocabulary import check_fit, dictionary_tokens, load_dictionary, load_splitter
from langspec_lora.evaluation.results import decoded, read_run
from langspec_lora.evaluation.scores_file import sealed
from langspec_lora.evaluation.settings import held_sources
from langspec_lora.files import read_lines
from langspec_lora.languages import PAPER_RESOURCES, LanguageTable, Resources, languages_from_json, languages_to_json
from langspec_lora.report.analysis import Request, analyse
from langspec_lora.report.inspection import inspect
from langspec_lora.report.report import terminal_text
from langspec_lora.resources import read_resources

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "tests" / "stored"
LEVELS = (
    "high: [en, fr]\nmed: [nl]\nlow: [wo, sd]\nranks: {wo: 16}\nflores: {en: eng, fr: fra, nl: nld, wo: wol, sd: snd}\n"
)


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Attributes:
        name: what ``--target`` calls it.
        make: writes sound files into a folder.
        files: those that are damaged, with their format.
        read: reads the folder as the commands do.
        as_written: what the files say, read without this package; None where nothing else can say it. A reader that
            accepts a damaged file has to find either what the sound file held or this.
        unchecked: files in a format without a checksum, which is not ours to change, and whether damage (from, to) is
            only to such numbers or names in them that any reader has to believe.
    """

    name: str
    make: Callable[[Path], None]
    files: Mapping[str, str]
    read: Callable[[Path], Any]
    as_written: Callable[[Path], Any] | None = None
    unchecked: Mapping[str, Callable[[bytes, bytes], bool]] = field(default_factory=dict)


def digest(value: Any) -> str:
    """A hash of plain data, tensors, arrays, namespaces and dataclasses, of all bits of their numbers."""
    sha = hashlib.sha256()
    _update(sha, value)
    return sha.hexdigest()[:16]


def _update(sha: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        sha.update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
        sha.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    elif isinstance(value, np.ndarray):
        sha.update(f"array {value.dtype} {value.shape}".encode() + value.tobytes())
    elif isinstance(value, Mapping):
        sha.update(b"{")
        for key in sorted(value, key=repr):
            _update(sha, key)
            _update(sha, value[key])
    elif isinstance(value, Namespace):
        _update(sha, vars(value))
    elif is_dataclass(value) and not isinstance(value, type):
        _update(sha, [getattr(value, part.name) for part in fields(value)])
    elif isinstance(value, (list, tuple)):
        sha.update(b"[")
        for item in value:
            _update(sha, item)
    elif isinstance(value, (set, frozenset)):
        _update(sha, sorted(value, key=repr))
    else:
        sha.update(f"{type(value).__name__} {'' if isinstance(value, PurePath) else repr(value)};".encode())


def _copies(*names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in names:
            origin = STORED / name
            (shutil.copytree if origin.is_dir() else shutil.copy)(origin, folder / origin.name)

    return make


def _hashed_adapter(folder: Path) -> None:
    """The stored adapters, which an earlier version wrote, as this version writes them: with their hash."""
    content = read_adapter_file(STORED / "adapter")
    write_adapter_folder(content, folder / "adapter")
    shutil.copy(STORED / "base.pt", folder)


def _read_model(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        base = None if name == "adapter" else folder / "base.pt"
        stored = StoredModel(folder / name, base)
        found = [stored.adapters, stored.fingerprint, stored.settings, inspect(folder / name, base).content]
        return found if base is None else [*found, stored.base]

    return read


def _make_released(folder: Path) -> None:
    """The stored base with adapters as the released implementation names them, two languages at all its sites."""
    torch.manual_seed(8)
    state = torch.load(STORED / "whole.pt", weights_only=False)  # our own file
    model = {name: value for name, value in state["model"].items() if "lora" not in name and "adapters." not in name}
    for stack, positions in (("encoder", "q k v fc1 fc2"), ("decoder", "q k v crossq crossk crossv fc1 fc2")):
        for layer in range(2):
            for position in positions.split():
                for number, rank in ((0, 2), (11, 4)):
                    name = f"{stack}.layers.{layer}.{position}_lora.lang_spec_lora.{number}.lora_"
                    model |= {f"{name}a": torch.randn(12, rank), f"{name}b": torch.randn(rank, 12)}
    args = state["args"] or state["cfg"]["model"]
    for name in ("adapter_languages", "add_lora", "lora_init", "lang_resources", "pruning_scope"):
        vars(args).pop(name, None)
    vars(args).update(global_pruning=False, pruning=False, dim=12, start_idx=1, high_rank=2, med_rank=3, low_rank=4)
    torch.save({**state, "args": args, "model": model}, folder / "released.pt")


def _read_released(folder: Path) -> Any:
    stored = StoredModel(folder / "released.pt")
    adapters = released_adapters(stored.entries, stored.args, ["en", "wo"], PAPER_RESOURCES, 1, "the checkpoint")
    return adapters, stored.base


def _make_huggingface(folder: Path) -> None:
    from tests.hf_home import make_home

    (folder / "home").mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        home = make_home(folder / "home")
    home.theirs.rename(folder / "theirs")
    (folder / "theirs" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "M2M100Tokenizer", "added_tokens_decoder": {}})
    )
    shutil.rmtree(folder / "home")


def _read_huggingface(folder: Path) -> Any:
    imported = import_model(folder / "theirs", folder / "ours")
    stored = StoredModel(imported.folder / "model.pt")
    text = (imported.folder / "dict.txt").read_text()
    pieces = read_pieces((imported.folder / "sentencepiece.bpe.model").read_bytes())
    return stored.entries, stored.args, text, pieces, imported.languages, imported.flags


def _make_peft(folder: Path) -> None:
    from tests.hf_home import make_home

    (folder / "home").mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        home = make_home(folder / "home")
    home.lora.rename(folder / "lora")
    base = torch.load(home.ours / "model.pt", weights_only=False)["model"]
    torch.save(
        {name: tuple(value.shape) for name, value in base.items() if isinstance(value, Tensor)}, folder / "shapes"
    )
    shutil.rmtree(folder / "home")


def _read_peft(folder: Path) -> Any:
    sides = {"encoder": ("tgt", "src"), "decoder": ("tgt", "tgt")}
    return import_lora(folder / "lora", "en", "wo", torch.load(folder / "shapes"), sides, PAPER_RESOURCES)


def _words(draw: random.Random, language: str) -> str:
    return " ".join(f"{language}{draw.randrange(30)}" for _ in range(draw.randint(3, 9)))


def _make_data(folder: Path) -> None:
    draw = random.Random(0)
    (folder / "dict.txt").write_text("".join(f"{name}{word} 1\n" for name in ("en", "wo") for word in range(30)))
    for name in ("en", "wo"):
        (folder / f"test.{name}").write_text("".join(f"{_words(draw, name)}\n" for _ in range(12)))
    files = {name: folder / f"test.{name}" for name in ("en", "wo")}
    binarise(multi_parallel("test", files), folder / "dict.txt", folder / "bin")
    for link in [path for path in (folder / "bin").iterdir() if path.is_symlink()]:
        content = link.read_bytes()
        link.unlink()
        link.write_bytes(content)
    shutil.rmtree(folder / "bin" / "shared")


def _read_data(folder: Path) -> Any:
    directions = find_directions(folder / "bin", "test")
    prefix = str(folder / "bin" / "test.en-wo.en")
    count = count_sentences(prefix)
    if count is None:
        raise AssertionError("it is taken for another format")
    return directions, count, sentence_lengths(prefix), highest_id(prefix)


def _data_as_written(folder: Path) -> Any:
    """Each sentence cut out of the file by its own offset and length, as fairseq cuts it."""
    index, data = ((folder / "bin" / f"test.en-wo.en.{end}").read_bytes() for end in ("idx", "bin"))
    magic, version, code, count = struct.unpack("<9sQBQ", index[:26])
    width = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8}[code]
    lengths = np.frombuffer(index, np.int32, count, 26)
    offsets = np.frombuffer(index, np.int64, count, 26 + 4 * count)
    assert (magic, version, len(index)) == (b"MMIDIDX\0\0", 1, 26 + 12 * count)
    tokens = []
    for offset, length in zip(offsets.tolist(), lengths.tolist(), strict=True):
        cut = data[offset : offset + length * width]
        assert min(offset, length) >= 0
        assert len(cut) == length * width
        tokens += [int.from_bytes(cut[i : i + width], "little") for i in range(0, len(cut), width)]
    assert offsets.tolist() == [0, *np.cumsum(lengths * width)[:-1].tolist()]
    return find_directions(folder / "bin", "test"), int(count), lengths, max(tokens, default=-1)


def _make_results(folder: Path) -> None:
    from tests.reports import invented_texts, noisy, write_results

    texts = invented_texts(("en", "fr", "wo"), 12)
    for name, keep in (("base", 0.6), ("later", 0.8)):
        run = write_results(folder / name, texts, noisy(texts, keep, 5))
        checkpoint = {"checkpoint": [{"path": "x.pt", "sha256": "0" * 64}], "generation": {"beam": 5}, "subset": "test"}
        sources = {f"{a}-{b}": "1" * 64 for a, b in permutations(texts, 2)}
        content = json.loads((run / "scores.json").read_text())
        (run / "scores.json").write_text(json.dumps(sealed(content)))
        (run / "settings.json").write_text(
            json.dumps({**checkpoint, "sources": sources, "dictionary_sha256": "2" * 64})
        )


def _read_results(folder: Path) -> Any:
    options = {"samples": 100, "mean_samples": 50, "processes": 1}
    found = analyse(Request([folder / "base", folder / "later"], None, folder / "cache.json", **options))
    return terminal_text(found), found.metrics, found.comparisons, found.worst, found.losses, found.means


def _make_cache(folder: Path) -> None:
    _make_results(folder)
    _read_results(folder)


def _scores_as_written(folder: Path) -> Any:
    content = json.loads((folder / "base" / "scores.json").read_bytes())
    return _scores(content["directions"])


def _scores(entries: Mapping[str, Any]) -> Any:
    return {name: {metric: float(entry[metric]) for metric in ("bleu", "chrf")} for name, entry in entries.items()}


def _read_scores(folder: Path) -> Any:
    run = read_run(folder / "base", "base")
    return {str(d): {metric: run.scores[metric][d] for metric in ("bleu", "chrf")} for d in run.entries}


def _read_settings(folder: Path) -> Any:
    base = folder / "base"
    now = {"checkpoint": [{"path": "x.pt", "sha256": "0" * 64}], "generation": {"beam": 5}, "subset": "test"}
    now |= {"dictionary_sha256": "2" * 64, "sources": dict.fromkeys(decoded(base), "1" * 64)}
    return sorted(held_sources(base, now).items())


def _make_text(folder: Path) -> None:
    (folder / "text").write_text("One cat.\nÉn kat, naïve.\r\n三匹の猫\n  نص  \n\nlast", encoding="utf-8")


def _text_as_written(folder: Path) -> list[str]:
    """Lines end with LF, or CR LF; the last may have none."""
    content = (folder / "text").read_bytes()
    lines = content.decode("utf-8").split("\n")
    return [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def _make_dictionary(folder: Path) -> None:
    shutil.copy(STORED / "dict.txt", folder)


def _read_dictionary(folder: Path) -> Any:
    tokens = dictionary_tokens(folder / "dict.txt")
    dictionary = load_dictionary(folder / "dict.txt")
    return dictionary.symbols, dictionary.count, sorted(tokens)


def _dictionary_as_written(folder: Path) -> Any:
    """A line for each token: the token, a space, its count."""
    lines = (folder / "dict.txt").read_bytes().decode("utf-8").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    rows = [line.rstrip().rsplit(" ", 1) for line in (lines[:-1] if lines[-1] == "" else lines)]
    symbols = ["<s>", "<pad>", "</s>", "<unk>", *(token for token, _ in rows)]
    assert len(set(symbols)) == len(symbols)
    return symbols, [1, 1, 1, 1, *(int(count) for _, count in rows)], sorted({token for token, _ in rows})


def _make_sentencepiece(folder: Path) -> None:
    from langspec_lora.data.vocabulary import dictionary_text, train_sentencepiece

    draw = random.Random(0)
    model = train_sentencepiece([_words(draw, name) for name in ("en", "wo", "sd") for _ in range(60)], 60)
    (folder / "spm.model").write_bytes(model)
    (folder / "dict.txt").write_text(dictionary_text(model, ("en", "wo")))


def _read_sentencepiece(folder: Path) -> Any:
    check_fit(folder / "spm.model", folder / "dict.txt")
    splits = load_splitter(folder / "spm.model")
    pieces = read_pieces((folder / "spm.model").read_bytes())
    return [splits(text) for text in ("en1 en2", "wo17  x", "é")], pieces


def _make_yaml(folder: Path) -> None:
    (folder / "levels.yaml").write_text(LEVELS)


def _make_flores(folder: Path) -> None:
    draw = random.Random(0)
    with tarfile.open(folder / "flores101_dataset.tar.gz", "w:gz") as archive:
        for split, lines in (("dev", 5), ("devtest", 6)):
            for code in ("eng", "fra"):
                content = "".join(f"{_words(draw, code)}\n" for _ in range(lines)).encode()
                member = tarfile.TarInfo(f"flores101_dataset/{split}/{code}.{split}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def _read_flores(folder: Path) -> Any:
    unpacked = download("http://invalid/flores101_dataset.tar.gz", folder)
    return read_text(find_splits(unpacked), {"en": "eng", "fr": "fra"})


def _only_numbers(before: bytes, after: bytes) -> bool:
    """Whether only the numbers of a safetensors file differ."""
    start = 8 + int.from_bytes(before[:8], "little")
    return before[:start] == after[:start] and len(before) == len(after)


def _only_token_names(before: bytes, after: bytes) -> bool:
    """Whether a ``tokenizer.json`` has other names of as many tokens, which only its pieces can be compared with."""
    try:
        return json.loads(before).keys() == json.loads(after).keys() and len(
            json.loads(before)["model"]["vocab"]
        ) == len(json.loads(after)["model"]["vocab"])
    except (ValueError, AttributeError, KeyError, TypeError):
        return False


def _languages_as_written(folder: Path) -> Any:
    content = yaml.load((folder / "levels.yaml").read_bytes(), Loader=yaml.BaseLoader)
    levels = {name: level for level in ("high", "med", "low") for name in content.get(level) or ()}
    ranks = {name: int(rank) for name, rank in (content.get("ranks") or {}).items()}
    assert len(levels) == sum(len(content.get(level) or ()) for level in ("high", "med", "low"))
    assert all(isinstance(name, str) for name in levels)
    assert min(ranks.values(), default=1) > 0
    assert set(ranks) <= set(levels)
    return Resources(levels, ranks, content.get("flores") or {})


def _published_as_written(folder: Path) -> Any:
    """A direction's name on a line, then a JSON object, over and over."""
    text, scores = (folder / "all_direction.spbleu").read_text(encoding="utf-8"), {}
    while text.strip():
        name, _, text = text.strip().partition("\n")
        content, end = json.JSONDecoder().raw_decode(text.strip())
        scores[name.strip()], text = (content["score"], content.get("signature", "")), text.strip()[end:]
    assert all(isinstance(score, float) and 0 <= score <= 100 for score, _ in scores.values())
    signatures = {re.sub(r"\|version:[^|]*", "", signature) for _, signature in scores.values()}
    assert len(signatures) <= 1
    return [[name, score, *signatures] for name, (score, _) in scores.items()]


def _read_published(folder: Path) -> Any:
    run = read_run(folder, "published")
    signature = re.sub(r"\|version:[^|]*", "", run.signatures["bleu"])  # sacrebleu's version changes no score
    return [[str(direction), score, signature] for direction, score in run.scores["bleu"].items()]


_TABLE = LanguageTable(("en", "wo", "zh_Hant"), ("high", "low", "med"), (2, 16, 3))


def _make_manifest(folder: Path) -> None:
    (folder / "manifest").write_bytes(bytes(language_manifest(_TABLE).tolist()))
    (folder / "table.json").write_text(languages_to_json(_TABLE))


def _read_manifest(folder: Path) -> Any:
    table = read_manifest(
        torch.frombuffer(bytearray((folder / "manifest").read_bytes() or b" "), dtype=torch.uint8).long()
    )
    return table, languages_from_json((folder / "table.json").read_bytes().decode("utf-8", "replace"))


TARGETS = {
    target.name: target
    for target in (
        Target("checkpoint", _copies("whole.pt", "base.pt"), {"whole.pt": "torch"}, _read_model("whole.pt")),
        Target(
            "adapters-only",
            _copies("adapters_only.pt", "base.pt"),
            {"adapters_only.pt": "torch", "base.pt": "torch"},
            _read_model("adapters_only.pt"),
        ),
        Target("lslo", _make_released, {"released.pt": "torch"}, _read_released),
        Target(
            "adapter",
            _hashed_adapter,
            {"adapter/adapter.safetensors": "safetensors", "adapter/adapter_config.json": "json"},
            _read_model("adapter"),
        ),
        Target(
            "peft",
            _make_peft,
            {"lora/adapter_config.json": "json", "lora/adapter_model.safetensors": "safetensors"},
            _read_peft,
            unchecked={"lora/adapter_model.safetensors": _only_numbers},
        ),
        Target(
            "huggingface",
            _make_huggingface,
            {
                **dict.fromkeys(
                    ("theirs/config.json", "theirs/tokenizer.json", "theirs/tokenizer_config.json"), "json"
                ),
                "theirs/sentencepiece.bpe.model": "protobuf",
                "theirs/model.safetensors": "safetensors",
            },
            _read_huggingface,
            unchecked={
                "theirs/model.safetensors": _only_numbers,
                "theirs/tokenizer.json": _only_token_names,
                "theirs/sentencepiece.bpe.model": lambda before, after: len(before) <= len(after),
            },
        ),
        Target("dictionary", _make_dictionary, {"dict.txt": "text"}, _read_dictionary, _dictionary_as_written),
        Target(
            "sentencepiece",
            _make_sentencepiece,
            {"spm.model": "protobuf", "dict.txt": "text"},
            _read_sentencepiece,
            unchecked={"spm.model": lambda before, after: len(before) <= len(after)},
        ),
        Target(
            "binarised",
            _make_data,
            {"bin/test.en-wo.en.idx": "index", "bin/test.en-wo.en.bin": "bytes"},
            _read_data,
            _data_as_written,
        ),
        Target(
            "languages",
            _make_yaml,
            {"levels.yaml": "yaml"},
            lambda folder: read_resources(folder / "levels.yaml"),
            _languages_as_written,
        ),
        Target("scores", _make_results, {"base/scores.json": "json"}, _read_scores, _scores_as_written),
        Target("settings", _make_results, {"base/settings.json": "json"}, _read_settings),
        Target(
            "report",
            _make_results,
            {"base/scores.json": "json", "later/en-wo.hyp.txt": "text", "base/en-fr.hyp.txt": "text"},
            _read_results,
        ),
        Target("cache", _make_cache, {"cache.json": "json", "report.resamples.bin": "bytes"}, _read_results),
        Target(
            "published",
            _copies("results/all_direction.spbleu"),
            {"all_direction.spbleu": "text"},
            _read_published,
            _published_as_written,
        ),
        Target("text", _make_text, {"text": "text"}, lambda folder: read_lines(folder / "text"), _text_as_written),
        Target("flores", _make_flores, {"flores101_dataset.tar.gz": "tar"}, _read_flores),
        Target("manifest", _make_manifest, {"manifest": "json", "table.json": "json"}, _read_manifest),
    )
}
