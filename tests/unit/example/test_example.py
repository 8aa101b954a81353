"""The example's languages and text: what can be known about them without the code that renders them."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from langspec_lora.cli.main import main
from langspec_lora.errors import UserError
from langspec_lora.example import build
from langspec_lora.example.build import make_example
from langspec_lora.example.corpus import SIZES, Corpus, Sizes, draw_corpus
from langspec_lora.example.grammar import CODES, CONCEPTS, LANGUAGES, Clause, Language, Meaning, NounPhrase
from langspec_lora.resources import read_resources
from tests import ROOT

SMALL = Sizes(pretrain={"high-high": 30, "high-low": 5}, finetune=40, valid=5, test=8, vocabulary=60)
CONTENT = [word for kind in ("nouns", "adjectives", "transitive", "intransitive") for word in CONCEPTS[kind]]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return draw_corpus()


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("made") / "example")


def made(folder: Path, seed: int = 1) -> Path:
    assert make_example(folder, SMALL, seed)
    return folder


def content_words(meaning: Meaning) -> Counter:
    """The content words of a meaning, found by walking over its fields."""
    words: Counter = Counter()

    def walk(value: object) -> None:
        if isinstance(value, str) and value in CONTENT:
            words[value] += 1
        elif isinstance(value, tuple):
            for part in value:
                walk(part)
        elif isinstance(value, (Meaning, Clause, NounPhrase)):
            for part in vars(value).values():
                walk(part)

    walk(meaning)
    return words


class Reader:
    """Recognises the content words of a sentence by their stems, with any affixes that the language has."""

    def __init__(self, language: Language) -> None:
        affixes = {language.lexicon[name] for name in CONCEPTS["grammatical"]}
        affixes |= {affix.translate(str.maketrans("aou", "eei")) for affix in affixes if language.harmony}
        affix = "|".join(map(re.escape, affixes))
        prefix = re.escape(language.lexicon["plural"]) if language.plural == "prefix" else ""
        self._stems = [
            (concept, re.compile(f"(?:{prefix})?{re.escape(language.lexicon[concept])}(?:{affix})*"))
            for concept in CONTENT
        ]
        self._seen: dict[str, frozenset[str]] = {}

    def word(self, word: str) -> frozenset[str]:
        if word not in self._seen:
            self._seen[word] = frozenset(concept for concept, pattern in self._stems if pattern.fullmatch(word))
        return self._seen[word]

    def sentence(self, text: str) -> list[frozenset[str]]:
        """What each content word of a sentence may mean, in the order of the sentence."""
        return [concepts for word in text.removesuffix(".").split() if (concepts := self.word(word))]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_makes_give_the_same_bytes_in_every_file(example, tmp_path):
    again = made(tmp_path / "again")
    assert files(again) == files(example)


def test_another_seed_gives_other_sentences_in_the_same_languages(example, tmp_path):
    other = made(tmp_path / "other", seed=2)
    assert (other / "mono" / "test.du").read_text() != (example / "mono" / "test.du").read_text()
    assert (other / "mono" / "test.du").read_text() == "".join(
        f"{LANGUAGES[0].render(meaning)}\n" for meaning in draw_corpus(SMALL, seed=2).test
    )


def test_held_out_meanings_are_in_no_training_text(corpus):
    training = {m for text in (corpus.finetune, corpus.vocabulary, *corpus.pretrain.values()) for m in text}
    assert not training & {*corpus.test, *corpus.valid}
    assert not {*corpus.test} & {*corpus.valid}
    assert len({*corpus.test}) == SIZES.test


def test_held_out_sentences_are_in_no_training_file(example):
    for code in CODES:
        held_out = {
            line for split in ("test", "valid") for line in (example / "mono" / f"{split}.{code}").open().readlines()
        }
        trained = set((example / "mono" / f"train.{code}").open().readlines())
        for path in (example / "text").glob(f"*.{code}"):
            trained |= set(path.open().readlines())
        assert len(held_out) == SMALL.test + SMALL.valid
        assert not held_out & trained, code


@pytest.mark.parametrize("language", LANGUAGES, ids=CODES)
def test_line_n_says_the_same_in_every_language(language, corpus):
    reader = Reader(language)
    for meaning in corpus.test:
        expected = content_words(meaning)
        found = reader.sentence(language.render(meaning))
        assert len(found) == expected.total()
        for concepts in found:
            # A form may be that of two stems with different affixes; one of them must be meant.
            meant = next(iter(concepts & set(expected)), None)
            assert meant, f"{concepts} is not in {meaning}"


@pytest.mark.parametrize("language", LANGUAGES, ids=CODES)
def test_different_meanings_are_never_said_alike(language, corpus):
    assert len({language.render(meaning) for meaning in corpus.finetune}) == len(corpus.finetune)


def test_no_language_is_another_word_by_word(corpus):
    """A sentence counts as substituted if both have as many words, and their content words in the same order."""
    readers = {language.code: Reader(language) for language in LANGUAGES}
    substituted: dict[tuple[str, str], float] = {}
    for one, other in combinations(LANGUAGES, 2):
        same = 0
        for meaning in corpus.finetune[:200]:
            first, second = one.render(meaning), other.render(meaning)
            orders = (readers[one.code].sentence(first), readers[other.code].sentence(second))
            same += len(first.split()) == len(second.split()) and all(a & b for a, b in zip(*orders, strict=True))
        substituted[one.code, other.code] = same / 200
    assert max(substituted.values()) < 0.5, substituted
    assert sum(substituted.values()) / len(substituted) < 0.2


def test_stems_take_several_forms_more_in_some_languages_than_in_others(corpus):
    forms = {}
    for language in LANGUAGES:
        reader = Reader(language)
        words = {word for meaning in corpus.finetune for word in language.render(meaning).removesuffix(".").split()}
        forms[language.code] = sum(bool(reader.word(word)) for word in words) / len(CONTENT)
    assert min(forms.values()) > 1.1, forms
    assert sorted(forms.values())[6] > 2, forms
    assert max(forms.values()) > 3 * min(forms.values()), forms


def test_relatives_share_more_roots_than_strangers():
    def alike(one: Language, other: Language) -> float:
        return sum(one.lexicon[c] == other.lexicon[c] for c in CONTENT) / len(CONTENT)

    pairs = list(combinations(LANGUAGES, 2))
    related = [alike(a, b) for a, b in pairs if a.family == b.family]
    strange = [alike(a, b) for a, b in pairs if a.family != b.family]
    assert min(related) > max(strange)


def test_low_languages_have_a_few_hundred_pairs_and_high_ones_thousands(corpus):
    levels = {language.code: language.level for language in LANGUAGES}
    pairs: Counter = Counter()
    for pair, meanings in corpus.pretrain.items():
        for code in pair:
            pairs[code] += len(meanings)
    by_level = {level: {pairs[code] for code in CODES if levels[code] == level} for level in ("high", "med", "low")}
    assert max(by_level["low"]) <= 500
    assert min(by_level["med"]) > 5 * max(by_level["low"])
    assert min(by_level["high"]) > 3 * max(by_level["med"])


def test_the_dictionary_ends_with_the_language_tokens_and_stock_fairseq_adds_none(example):
    from fairseq.data import Dictionary
    from fairseq.data.multilingual.multilingual_utils import augment_dictionary

    dictionary = Dictionary.load(str(example / "dict.txt"))
    size = len(dictionary)
    augment_dictionary(dictionary, list(CODES), "multilingual")
    assert len(dictionary) == size
    assert dictionary.symbols[-len(CODES) :] == [f"__{code}__" for code in CODES]


def test_no_token_of_the_text_is_unknown(example):
    import numpy as np
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    for folder in ("pretrain", "finetune"):
        for path in (example / folder / "shared").glob("*.idx"):
            dataset = MMapIndexedDataset(str(path.with_suffix("")))
            assert not any(np.any(dataset[i].numpy() == 3) for i in range(len(dataset))), path


def test_the_folders_hold_the_pairs_that_the_lists_of_directions_name(example):
    for folder, split, count in (("finetune", "train", 132), ("finetune", "test", 132), ("pretrain", "train", 12 + 32)):
        directions = (example / f"{folder}.pairs").read_text().strip().split(",")
        assert len(set(directions)) == len(directions) == count
        for direction in directions:
            source, target = direction.split("-")
            names = [f"{split}.{direction}.{source}.idx", f"{split}.{target}-{source}.{source}.idx"]
            assert any((example / folder / name).exists() for name in names), direction


def test_the_levels_file_names_the_languages_in_their_order():
    levels = read_resources(ROOT / "configs" / "languages" / "example.yaml").levels
    assert dict(levels) == {language.code: language.level for language in LANGUAGES}
    assert tuple(levels) == CODES
    assert Counter(levels.values()) == {"high": 4, "med": 4, "low": 4}


def test_a_folder_that_is_made_is_found_and_left_as_it_is(example, capsys):
    before = files(example)
    assert not make_example(example, SMALL)
    assert files(example) == before


def test_other_content_is_refused_and_kept(example, tmp_path):
    with pytest.raises(UserError, match="holds an example with other seed; remove it"):
        make_example(example, SMALL, seed=5)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="already exists and is not an example"):
        make_example(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_interrupted_make_leaves_no_folder_and_the_next_one_succeeds(tmp_path, example, monkeypatch):
    def stop(*arguments, **keywords):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "train_sentencepiece", stop)
        with pytest.raises(KeyboardInterrupt):
            make_example(tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()
    assert files(made(tmp_path / "out")) == files(example)


def test_the_command_says_that_a_made_example_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build.make_example, "__defaults__", (SMALL, 1))
    assert main(["make-example", str(tmp_path / "out")]) == 0
    assert main(["make-example", str(tmp_path / "out")]) == 0
    assert "complete, made with the same settings" in capsys.readouterr().out
