"""Which linears can be adapted: their paths in a model that fairseq has built, and their widths."""

from __future__ import annotations

from argparse import Namespace

import pytest
from fairseq.models.transformer import TransformerModel

from langspec_lora.sites import POSITIONS, STACKS, Site, linear_size, sites_of
from tests import toy

UNEQUAL = {"encoder_layers": 2, "encoder_embed_dim": 6, "encoder_ffn_embed_dim": 10}
UNEQUAL |= {"decoder_layers": 1, "decoder_embed_dim": 4, "decoder_ffn_embed_dim": 8}


@pytest.fixture(scope="module")
def stock(toy_data):
    task, _ = toy.build(toy.plugin_flags(toy_data))
    args = toy.parse(toy.base_flags(toy_data, "--arch", "transformer", "--task", "translation_multi_simple_epoch"))
    return args, TransformerModel.build_model(args, task)


def test_every_site_is_a_linear_of_stock_fairseq_of_that_size(stock) -> None:
    args, model = stock
    sites = sites_of({stack: range(2) for stack in STACKS})
    assert len(sites) == len(set(sites)) == 2 * 5 + 2 * 8
    for site in sites:
        linear = model.get_submodule(site.path)
        assert (linear.in_features, linear.out_features) == linear_size(args, site), site


def test_no_other_linear_but_the_outputs_of_attention_is_left_out(stock) -> None:
    adapted = {site.path for site in sites_of({stack: range(2) for stack in STACKS})}
    linears = {name for name, module in stock[1].named_modules() if hasattr(module, "in_features")}
    others = {name for name in linears - adapted if not name.endswith("attn.out_proj")}
    assert others == {"decoder.output_projection"}


@pytest.mark.parametrize(
    ("stack", "position", "size"),
    [
        *(("encoder", position, (6, 6)) for position in "qkv"),
        *(("decoder", position, (4, 4)) for position in ("q", "k", "v", "crossq")),
        *(("decoder", position, (6, 4)) for position in ("crossk", "crossv")),  # which read the encoder's output
        *(("encoder", "fc1", (6, 10)), ("encoder", "fc2", (10, 6))),
        *(("decoder", "fc1", (4, 8)), ("decoder", "fc2", (8, 4))),
    ],
)
def test_linear_has_the_widths_of_its_stack(stack, position, size) -> None:
    assert linear_size(Namespace(**UNEQUAL), Site(stack, 0, position)) == size


def test_sites_come_stack_by_stack_and_layer_by_layer() -> None:
    sites = sites_of({"encoder": (2, 0), "decoder": (1,)}, {"encoder": ("v", "fc1"), "decoder": ("crossk",)})
    assert [str(site) for site in sites] == [
        "encoder.2.v",
        "encoder.2.fc1",
        "encoder.0.v",
        "encoder.0.fc1",
        "decoder.1.crossk",
    ]
    assert sites[-1] == ("decoder", 1, "crossk")
    assert [site.path for site in sites[-2:]] == ["encoder.layers.0.fc1", "decoder.layers.1.encoder_attn.k_proj"]


def test_positions_of_the_two_stacks_name_one_linear_each() -> None:
    for positions in POSITIONS.values():
        assert len(set(positions.values())) == len(positions)
