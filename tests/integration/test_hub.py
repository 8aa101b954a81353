"""fairseq's own interface for Python and torch.hub, ``TransformerModel.from_pretrained``, on our checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fairseq.hub_utils import GeneratorHubInterface
from fairseq.models.transformer import TransformerModel
from fairseq.sequence_generator import SequenceGenerator

from tests import toy
from tests.bad_input import PREFIX, set_up_generation


def interface(data: Path, checkpoint: Path, **overrides: str) -> GeneratorHubInterface:
    return TransformerModel.from_pretrained(
        str(checkpoint.parent), checkpoint.name, str(data), fixed_dictionary=str(data.parent / "dict.txt"), **overrides
    )


@pytest.mark.parametrize("direction", ["en-wo", "nl-fr"])
def test_hub_translates_as_the_evaluation_does(toy_data, adapted, results, direction) -> None:
    source, target = direction.split("-")
    hub = interface(toy_data, adapted, source_lang=source, target_lang=target)
    lines = (toy_data.parent / f"test.{source}").read_text().splitlines()
    expected = (results / f"{direction}.hyp.txt").read_text().splitlines()
    assert len(set(expected)) > 1
    # The evaluation undoes SentencePiece, whose pieces these words are not: it takes their spaces for its own.
    assert [line.replace(" ", "") for line in hub.translate(lines)] == expected


def test_adapters_decide_what_hub_translates(toy_data, adapted) -> None:
    line = toy_data.parent.joinpath("test.en").read_text().splitlines()[0]
    hubs = [interface(toy_data, adapted, source_lang="en", target_lang=target) for target in ("wo", "fr")]
    assert hubs[0].translate(line) != hubs[1].translate(line)


def test_hub_takes_a_constraint_on_tokens(toy_data, adapted) -> None:
    hub = interface(toy_data, adapted, source_lang="en", target_lang="wo")
    allowed = [hub.tgt_dict.index(name) for name in ("__wo__", "wo3", "wo5", "</s>")]
    hypothesis = hub.generate([hub.encode("en1 en2")], prefix_allowed_tokens_fn=lambda *_: allowed)[0][0]
    assert set(hypothesis["tokens"].tolist()) <= set(allowed)
    assert hypothesis["tokens"][0] == allowed[0]


def test_hub_without_languages_says_what_is_missing(toy_data, adapted) -> None:
    with pytest.raises(SystemExit, match="give --source-lang and --target-lang, or source_lang=") as end:
        interface(toy_data, adapted).translate("en1")
    assert end.value.code.startswith(PREFIX)


class OwnGenerator(SequenceGenerator):
    pass


@pytest.mark.parametrize("keep", [False, True])
def test_generator_is_built_from_all_that_fairseq_takes(toy_data, adapted, keep) -> None:
    task = set_up_generation(toy_data, adapted)
    model = task.build_model(torch.load(adapted, weights_only=False)["cfg"]["model"], from_checkpoint=True)
    args = toy.Namespace(beam=3, keep_inference_langtok=keep)
    generator = task.build_generator([model], args, OwnGenerator, {"eos": 7}, lambda *_: [4])
    assert type(generator) is OwnGenerator
    assert (generator.beam_size, generator.eos) == (3, 7)
    assert type(generator.search).__name__ == "PrefixConstrainedBeamSearch"
    token = task.target_dictionary.index("__wo__")
    assert (token in generator.symbols_to_strip_from_output) == (not keep)
