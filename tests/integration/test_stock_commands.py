"""fairseq's own commands, unmodified and without the plugin, in the environment that the tests run in."""

from __future__ import annotations

import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import toy

COMMANDS = Path(sys.executable).parent
WORDS = ["the", "cat", "dog", "sees", "a", "red", "house", "man", "reads", "one", "old", "book"]
TINY = shlex.split("""
    --arch transformer_iwslt_de_en --encoder-layers 1 --decoder-layers 1 --encoder-attention-heads 2
    --decoder-attention-heads 2 --encoder-embed-dim 16 --decoder-embed-dim 16 --encoder-ffn-embed-dim 16
    --decoder-ffn-embed-dim 16 --optimizer adam --lr 0.001 --criterion label_smoothed_cross_entropy
    --max-tokens 100 --required-batch-size-multiple 1 --cpu --log-format simple
    --eval-bleu --eval-bleu-args '{"max_len_b": 5}'
""")
# fairseq's main leaves out a last batch whose size is no multiple of 8, in translation too.
OPTIONS = ("--max-len-b", 5, "--cpu", "--required-batch-size-multiple", 1)


def fairseq(command: str, *arguments: object, stdin: str | None = None) -> str:
    """Runs a command of the environment and returns what it printed."""
    done = subprocess.run(
        [COMMANDS / command, *map(str, arguments)],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Ten sentences to train on and three to translate, each word of the source spelt backwards."""
    folder = tmp_path_factory.mktemp("a corpus")
    draw = random.Random(3)
    for split, size in (("train", 10), ("valid", 3)):
        sentences = [draw.choices(WORDS, k=6) for _ in range(size)]
        (folder / f"{split}.en").write_text("".join(f"{' '.join(words)}\n" for words in sentences))
        mirrored = [" ".join(word[::-1] for word in words) for words in sentences]
        (folder / f"{split}.xx").write_text("".join(f"{line}\n" for line in mirrored))
    return folder


@pytest.fixture(scope="module")
def data_bin(corpus) -> Path:
    prefixes = ["--trainpref", corpus / "train", "--validpref", corpus / "valid", "--testpref", corpus / "valid"]
    fairseq("fairseq-preprocess", "-s", "xx", "-t", "en", *prefixes, "--destdir", corpus / "data-bin", "--workers", 2)
    return corpus / "data-bin"


@pytest.fixture(scope="module")
def checkpoint(data_bin) -> Path:
    """A checkpoint of two updates, with n-gram counts of its validation in it."""
    fairseq("fairseq-train", data_bin, *TINY, "--max-update", 2, "--save-dir", data_bin.parent / "checkpoints")
    return data_bin.parent / "checkpoints" / "checkpoint_last.pt"


def test_preprocess_writes_a_dictionary_of_every_word(data_bin):
    held = {line.split()[0] for line in (data_bin / "dict.en.txt").read_text().splitlines()}
    assert set((data_bin.parent / "train.en").read_text().split()) <= held


def test_generate_translates_every_sentence_of_a_trained_checkpoint(data_bin, checkpoint):
    output = fairseq("fairseq-generate", data_bin, "--path", checkpoint, "--beam", 2, *OPTIONS)
    assert {int(number) for number in re.findall(r"^H-(\d+)\t", output, re.M)} == {0, 1, 2}
    assert "Hydra" not in output


def test_interactive_translates_its_standard_input(data_bin, checkpoint):
    languages = ["-s", "xx", "-t", "en"]
    output = fairseq("fairseq-interactive", data_bin, "--path", checkpoint, *languages, *OPTIONS, stdin="eht tac\n")
    assert "S-0\teht tac\n" in output
    assert output.count("\nH-0\t") == 1


@toy.needs_processes_on_cpu
def test_two_processes_resume_from_the_checkpoint_of_one(data_bin, checkpoint):
    """Where the first process reads the checkpoint and sends it to the second through ``torch.load``."""
    output = fairseq(
        "torchrun",
        *("--standalone", "--nproc_per_node", 2, COMMANDS / "fairseq-train", data_bin, *TINY),
        *("--max-update", 3, "--restore-file", checkpoint, "--save-dir", data_bin.parent / "resumed"),
        *("--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp"),
    )
    assert "training on 2 devices" in output
    assert re.search(r"Loaded checkpoint .* \(epoch \d+ @ 2 updates\)", output)
    assert (data_bin.parent / "resumed" / "checkpoint_last.pt").exists()
