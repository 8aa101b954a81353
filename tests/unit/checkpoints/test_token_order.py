"""The order of language tokens that a checkpoint says; see the integration tests for the commands."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.data.multilingual.multilingual_utils import augment_dictionary

from langspec_lora.checkpoints.token_order import TokenOrder, checkpoint_paths, load_with_tokens, token_orders
from langspec_lora.errors import UserError

PATH = Path("m.pt")


def words(*more: str) -> Dictionary:
    dictionary = Dictionary()
    for word in ("a", "b", *more):
        dictionary.add_symbol(word)
    return dictionary


def test_order_is_that_of_the_vocabulary_before_that_of_the_langs() -> None:
    assert TokenOrder.of(PATH, Namespace(langs="en,wo")) == TokenOrder(PATH, ("en", "wo"))
    both = Namespace(langs="en,wo", dictionary_langs=["wo", "en", "fr"])
    assert TokenOrder.of(PATH, both).languages == ("wo", "en", "fr")
    assert TokenOrder.of(PATH, None) == TokenOrder.of(PATH, Namespace()) == TokenOrder(PATH, ())


def test_style_and_kinds_of_tokens_are_the_checkpoint_s_where_fairseq_knows_them() -> None:
    said = Namespace(
        langs="en", lang_tok_style="mbart", langtoks_specs=["main", "mono_dae"], extra_data={"mono_dae": 1}
    )
    assert TokenOrder.of(PATH, said) == TokenOrder(PATH, ("en",), "mbart", ("main", "mono_dae"), True)
    for said in (
        Namespace(langs="en", lang_tok_style="other", langtoks_specs="main", extra_data=None),
        Namespace(langs="en", lang_tok_style=None, langtoks_specs=[3], extra_data={"denoising": 1}),
        Namespace(langs="en", langtoks_specs=None, extra_data=()),
    ):
        assert TokenOrder.of(PATH, said) == TokenOrder(PATH, ("en",), "multilingual", ("main",), False)


@pytest.mark.parametrize("style", ["multilingual", "mbart"])
@pytest.mark.parametrize("mono", [False, True])
def test_dictionary_gets_what_stock_fairseq_appends(style, mono) -> None:
    order = TokenOrder(PATH, ("wo", "en"), style, ("main", "mono_dae"), mono)
    mine, stock = words(), words()
    order.append(mine)
    augment_dictionary(stock, ["wo", "en"], style, ("main", "mono_dae"), {"mono_dae": ""} if mono else None)
    assert mine.symbols == stock.symbols
    appended = [symbol for symbol in stock.symbols[6:] if symbol != "<mask>"]
    assert order.lacking(words()) == appended
    assert order.lacking(mine) == []
    assert order.lacking(words(appended[0])) == appended[1:]


def test_paths_are_those_of_an_ensemble_and_of_its_shards() -> None:
    assert checkpoint_paths(Namespace(path="a.pt")) == ["a.pt"]
    assert checkpoint_paths(Namespace(path="a.pt:b.pt", checkpoint_suffix="-x")) == ["a-x.pt", "b-x.pt"]
    sharded = Namespace(path="a.pt:b.pt", checkpoint_suffix="", checkpoint_shard_count=2)
    assert checkpoint_paths(sharded) == ["a_part0.pt", "a_part1.pt", "b_part0.pt", "b_part1.pt"]


def save(path: Path, langs: str | None) -> str:
    torch.save({"model": {}, "args": Namespace(langs=langs)}, path)
    return str(path)


def training(**flags: object) -> Namespace:
    resets = {f"reset_{name}": False for name in ("optimizer", "lr_scheduler", "meters", "dataloader")}
    given = {"restore_file": "checkpoint_last.pt", "save_dir": "nowhere", "finetune_from_model": None, **resets}
    return Namespace(**{**given, **flags})


def test_orders_are_those_of_the_checkpoints_in_use(tmp_path) -> None:
    one, two = save(tmp_path / "one.pt", "en,wo"), save(tmp_path / "two.pt", "wo,en")
    assert token_orders(Namespace(path=f"{one}:{two}")) == [
        TokenOrder(Path(one), ("en", "wo")),
        TokenOrder(Path(two), ("wo", "en")),
    ]
    assert token_orders(training(finetune_from_model=one)) == [TokenOrder(Path(one), ("en", "wo"))]
    assert token_orders(training(finetune_from_model=one, path=None)) == [TokenOrder(Path(one), ("en", "wo"))]
    assert token_orders(training()) == token_orders(Namespace()) == token_orders(Namespace(path=None)) == []
    with pytest.raises(UserError, match="was given with --finetune-from-model"):
        token_orders(training(finetune_from_model=one, reset_meters=True))


def test_arguments_that_fairseq_has_prepared_before_say_the_order_themselves() -> None:
    prepared = {"shuffle_instance": True, "langs": ["en", "wo"], "lang_tok_style": "mbart", "langtoks_specs": ["main"]}
    (order,) = token_orders(Namespace(**prepared, path="nowhere.pt"))
    assert (order.languages, order.style, order.specs, order.mono_dae) == (("en", "wo"), "mbart", ("main",), False)
    (order,) = token_orders(Namespace(**prepared, dictionary_langs=["wo", "fr"]))
    assert order.languages == ("wo", "fr")


def loaded(orders: list[TokenOrder], *more: str, langs: tuple[str, ...] = ("en", "wo")) -> list[str]:
    def load(file: str) -> Dictionary:
        assert file == "d.txt"
        return words(*more)

    return load_with_tokens(load, orders, langs, "d.txt").symbols[6:]


def test_tokens_are_appended_in_the_order_of_the_first_checkpoint_that_says_one(caplog) -> None:
    silent, first = TokenOrder(PATH, ()), TokenOrder(Path("one.pt"), ("wo", "en"))
    assert loaded([first]) == loaded([silent, first]) == loaded([first, first]) == ["__wo__", "__en__"]
    assert loaded([]) == []
    assert loaded([first], "__en__") == ["__en__", "__wo__"]
    assert not caplog.records


def test_ensemble_of_different_orders_is_refused_where_the_dictionary_lacks_tokens() -> None:
    orders = [TokenOrder(Path(name), langs) for name, langs in (("one.pt", ("wo", "en")), ("two.pt", ("en", "wo")))]
    assert loaded(orders, "__en__", "__wo__") == ["__en__", "__wo__"]
    for given in (orders, [orders[0], *orders]):
        with pytest.raises(UserError) as refusal:
            loaded(given)
        assert str(refusal.value).startswith(
            "dictionary d.txt has no language tokens, and the checkpoints use different"
        )
        assert "one.pt in the order wo,en, two.pt in the order en,wo; only models with the same" in str(refusal.value)


def test_order_that_no_checkpoint_says_is_warned_of_where_it_matters(caplog) -> None:
    silent = [TokenOrder(Path("old.pt"), ()), TokenOrder(Path("older.pt"), ())]
    assert loaded(silent, "__en__", "__wo__") == ["__en__", "__wo__"]
    assert not caplog.records
    assert loaded(silent) == []
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        "dictionary d.txt has no language tokens, and checkpoint old.pt does not say in which order its model has "
        "them; using the order of --langs en,wo"
    )
