"""The shell scripts: their syntax, their style, and the commands they put together."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from itertools import combinations, permutations
from pathlib import Path

import pytest
import sacrebleu
import torch
import yaml

from langspec_lora.errors import UserError
from langspec_lora.tasks.defaults import training_defaults
from tests import ROOT, toy

pytestmark = pytest.mark.slow

SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
TWELVE = ("en", "fr", "it", "de", "nl", "zh", "ja", "ko", "oc", "or", "sd", "wo")
SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_parses_the_script(script) -> None:
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run([SHELLCHECK, *SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# Prints three hypotheses out of order, among other lines, and leaves a mark for each call.
GENERATE = r"""
echo "$*" >>calls
printf '%s\n' "$@" >arguments
[[ ! -e broken ]] || { echo "first line" >&2; echo "RuntimeError: broken" >&2; exit 1; }
printf 'S-2\tx\nH-2\t-0.1\tthe third line here\nD-2\t-0.1\tno\nH-10\t-0.3\t\nH-0\t-0.2\tthe first line here\nP-0\t1\n'
[[ ! -e pairwise ]] || case "$*" in
*"-t fr"*) printf 'T-10\t\nT-2\tthe third line here\nT-0\tthe first line here\n' ;;
*) printf 'T-10\t\nT-2\tthe third line here\nT-0\tsomething else that was said\n' ;;
esac
"""


# Half of what sacrebleu prints, where the test says so.
SACREBLEU = """
[[ ! -e disk-full ]] || {{ echo '{{ "score": 1'; exit 1; }}
exec "{python}" -m sacrebleu "$@"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Programs that print their arguments in place of fairseq's, in a folder with a space in its name."""
    programs = tmp_path / "some venv" / "bin"
    programs.mkdir(parents=True)
    texts = {
        "fairseq-train": 'printf "%s\\n" "$@"',
        "fairseq-generate": GENERATE,
        "python3": f'exec "{sys.executable}" "$@"',
        "sacrebleu": SACREBLEU.format(python=sys.executable),
    }
    for name, text in texts.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (programs / name).chmod(0o755)
    return {**os.environ, "VENV": str(tmp_path / "some venv"), "PRECISION": ""}


def write_data(folder: Path, split: str, languages: Sequence[str]) -> Path:
    """Files of the names that binarised data have, for all directions, each bitext under one of its two names."""
    folder.mkdir(exist_ok=True)
    for source, target in combinations(sorted(languages), 2):
        for side in (source, target):
            for suffix in ("idx", "bin"):
                (folder / f"{split}.{source}-{target}.{side}.{suffix}").touch()
    return folder


def write_base(path: Path, layers: tuple[int, int] = (12, 12), width: int = 1024, ffn: int = 4096, heads: int = 16):
    """A checkpoint with the layers of a model and its arguments, without its weights' numbers."""
    weight = torch.zeros(ffn, width, dtype=torch.float16)  # saved once for all
    names = [
        f"{stack}.layers.{layer}.fc1.weight"
        for stack, count in zip(("encoder", "decoder"), layers, strict=True)
        for layer in range(count)
    ]
    args = Namespace(encoder_attention_heads=heads, decoder_attention_heads=heads, langs=["wo", "en", "xx"])
    torch.save({"args": args, "model": dict.fromkeys(names, weight)}, path)


def arguments(environment: dict[str, str], tmp_path: Path, *more: str, **variables: str) -> list[str]:
    """The arguments that train.sh hands to fairseq-train, of the paper's data and model unless others are there."""
    if not (tmp_path / "the data").is_dir():
        write_data(tmp_path / "the data", "train", TWELVE)
    if not (tmp_path / "the base.pt").is_file():
        write_base(tmp_path / "the base.pt")
    given = {"DATA_BIN": "the data", "BASE": "the base.pt", "SAVE_DIR": "to save", **variables}
    command = ["bash", ROOT / "scripts" / "train.sh", *more]
    done = subprocess.run(
        command, cwd=tmp_path, env={**environment, **given}, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def value(args: list[str], flag: str) -> str:
    return args[len(args) - args[::-1].index(flag)]


def test_train_script_gives_the_published_command(environment, tmp_path) -> None:
    args = arguments(environment, tmp_path)
    names = list(TWELVE)
    assert args[0] == "the data"
    published = {
        "--update-freq": "4",
        "--seed": "2",
        "--finetune-from-model": "the base.pt",
        "--arch": "langspec_m2m100_lora_base",
        "--sampling-temperature": "5.0",
        "--langs": ",".join(names),
        "--label-smoothing": "0.2",
        "--adam-betas": "(0.9, 0.98)",
        "--lr": "3e-03",
        "--max-tokens": "4000",
        "--max-epoch": "15",
        "--save-dir": "to save",
        "--decoder-layers": "12",
        "--encoder-lora-layer": "0_1_2_3_4_5_6_7_8_9_10_11",
        "--encoder-lora-position": "q_k_v_fc1_fc2",
        "--decoder-lora-position": "q_k_v_crossq_crossk_crossv_fc1_fc2",
        "--dim": "1024",
        "--high-rank": "2",
        "--med-rank": "2",
        "--low-rank": "8",
        "--encoder-activation-direction": "src_src_src_src_src_src_src_src_src_tgt_tgt_tgt",
        "--decoder-activation-direction": "tgt_tgt_tgt_tgt_tgt_tgt_tgt_tgt_tgt_tgt_tgt_tgt",
        "--language-num": "12",
        "--pruning": "True",
        "--pruning-t1": "2",
        "--pruning-t2": "10",
        "--target-pruning-ratio": "0.9",
    }
    assert {flag: value(args, flag) for flag in published} == published
    assert value(args, "--lang-pairs").split(",") == [f"{a}-{b}" for a, b in permutations(names, 2)]
    assert "--ddp-backend=no_c10d" in args
    assert "--amp" not in args
    assert "" not in args


def test_train_script_makes_lists_for_other_sizes_and_hands_on_its_arguments(environment, tmp_path) -> None:
    sizes = {"LANGS": "en,wo", "ENCODER_LAYERS": "6", "DECODER_LAYERS": "2", "DIM": "0", "PRECISION": "--amp"}
    args = arguments(environment, tmp_path, "--max-epoch", "1", "--tensorboard-logdir", "a b", **sizes)
    assert value(args, "--encoder-activation-direction") == "src_src_src_src_tgt_tgt"
    assert value(args, "--decoder-activation-direction") == "tgt_tgt"
    assert value(args, "--decoder-lora-layer") == "0_1"
    assert value(args, "--language-num") == "2"
    assert value(args, "--lang-pairs") == "en-wo,wo-en"
    assert value(args, "--dim") == "0"
    assert args[-4:] == ["--max-epoch", "1", "--tensorboard-logdir", "a b"]
    assert "--amp" in args


@pytest.mark.parametrize(
    "more", [("--adapter-key", "shared"), ("--adapter-key=direction",), ("--weight-learning", "True")]
)
def test_train_script_leaves_the_directions_to_what_decides_them(environment, tmp_path, more) -> None:
    args = arguments(environment, tmp_path, *more)
    assert args[-len(more) :] == list(more)
    assert not any(word.endswith("-activation-direction") for word in args)


def test_train_script_trains_all_languages_and_directions_of_the_data(environment, tmp_path) -> None:
    write_data(tmp_path / "the data", "train", ["zz", "wo", "en", "aa"])
    (tmp_path / "the data" / "train.aa-wo.aa.bin").unlink()
    args = arguments(environment, tmp_path)
    assert value(args, "--langs") == "en,wo,aa,zz"  # the paper's first, as ids have no other reason to change
    assert value(args, "--language-num") == "4"
    directions = [f"{a}-{b}" for a, b in permutations(["en", "wo", "aa", "zz"], 2) if {a, b} != {"aa", "wo"}]
    assert value(args, "--lang-pairs").split(",") == directions
    levels = tmp_path / "my levels.yaml"
    levels.write_text("high: [zz, aa]\nlow: [wo, en]\n")
    assert value(arguments(environment, tmp_path, LANG_RESOURCES=str(levels)), "--langs") == "zz,aa,wo,en"


def test_train_script_follows_the_thirty_languages_of_its_data(environment, tmp_path) -> None:
    levels = ROOT / "configs" / "languages" / "thirty.yaml"
    thirty = [name for names in yaml.safe_load(levels.read_text(encoding="utf-8")).values() for name in names][:30]
    write_data(tmp_path / "the data", "train", thirty)
    args = arguments(environment, tmp_path, LANG_RESOURCES=str(levels))
    assert value(args, "--langs").split(",") == thirty
    assert len(set(value(args, "--lang-pairs").split(","))) == 870


def test_train_script_gives_directions_that_are_too_long_for_an_argument_in_a_file(environment, tmp_path) -> None:
    names = [f"a_language_with_a_long_name_{number:014}" for number in range(40)]
    (tmp_path / "levels.yaml").write_text(f"low: [{', '.join(names)}]\n")
    write_data(tmp_path / "the data", "train", names)
    args = arguments(environment, tmp_path, LANG_RESOURCES="levels.yaml")
    given = tmp_path / value(args, "--lang-pairs")
    assert given.parent == tmp_path / value(args, "--save-dir")
    assert set(given.read_text().strip().split(",")) == {f"{a}-{b}" for a in names for b in names if a != b}
    assert given.stat().st_size > 128 * 1024


def test_train_script_says_which_languages_of_the_data_it_leaves_out(environment, tmp_path) -> None:
    write_data(tmp_path / "the data", "train", ["en", "wo", "xx"])
    write_base(tmp_path / "the base.pt")
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "train.sh"],
        cwd=tmp_path,
        env={**environment, "DATA_BIN": "the data", "BASE": "the base.pt", "SAVE_DIR": "s", "LANGS": "en,wo"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert value(done.stdout.splitlines(), "--lang-pairs") == "en-wo,wo-en"
    assert "note: the data also have xx, which are not among the given languages: not trained" in done.stderr
    with pytest.raises(UserError, match="the data have no direction between en, yy; give other languages"):
        training_defaults(tmp_path / "the data", tmp_path / "the base.pt", langs="en,yy")


@pytest.mark.parametrize("text", ["en-wo,wo-en\n", "en-wo\nwo-en\n", "en-wo,\nwo-en,\n"])
def test_train_script_takes_a_file_of_directions(environment, tmp_path, text) -> None:
    (tmp_path / "my pairs.txt").write_text(text)
    args = arguments(environment, tmp_path, LANG_PAIRS="my pairs.txt")
    assert value(args, "--langs") == "en,wo"
    assert value(args, "--lang-pairs") == "en-wo,wo-en"


def test_train_script_takes_the_sizes_of_the_base(environment, tmp_path) -> None:
    write_base(tmp_path / "the base.pt", layers=(6, 3), width=512, ffn=1536, heads=8)
    args = arguments(environment, tmp_path, LANGS="en,wo")
    assert value(args, "--encoder-layers") == "6"
    assert value(args, "--decoder-lora-layer") == "0_1_2"
    assert value(args, "--dim") == "512"
    parsed = toy.parse([*args, "--optimizer", "adam"])  # by fairseq, so that its architecture fills in the rest
    sizes = ("layers", "embed_dim", "ffn_embed_dim", "attention_heads")
    assert [getattr(parsed, f"encoder_{size}") for size in sizes] == [6, 512, 1536, 8]
    assert [getattr(parsed, f"decoder_{size}") for size in sizes] == [3, 512, 1536, 8]
    told = arguments(
        environment, tmp_path, LANGS="en,wo", ARCH="langspec_m2m100_lora_base", DIM="8", DECODER_LAYERS="2"
    )
    assert value(told, "--arch") == "langspec_m2m100_lora_base"
    assert "--encoder-embed-dim" not in told
    assert (value(told, "--dim"), value(told, "--decoder-layers")) == ("8", "2")


EVALUATION = {"DATA_BIN": ".", "CHECKPOINT": "here.pt", "OUT": "out", "LANGS": "en,fr", "LANG_PAIRS": "en-fr"}


@pytest.mark.parametrize(
    ("script", "variables", "words"),
    [
        ("train.sh", {}, "DATA_BIN is not set"),
        ("train.sh", {"DATA_BIN": "nowhere", "BASE": "x", "SAVE_DIR": "y"}, "DATA_BIN=nowhere is not a folder"),
        ("train.sh", {"DATA_BIN": ".", "BASE": "nowhere.pt", "SAVE_DIR": "y"}, "BASE=nowhere.pt is not a file"),
        (
            "evaluate.sh",
            {"DATA_BIN": ".", "CHECKPOINT": "nowhere.pt", "OUT": "out"},
            "CHECKPOINT=nowhere.pt is not a file",
        ),
        ("evaluate.sh", {**EVALUATION, "DICT": "no.txt"}, "DICT=no.txt"),
        ("evaluate.sh", {**EVALUATION, "FLORES_MONO": "nowhere"}, "nowhere/test.fr not found"),
        ("evaluate.sh", {**EVALUATION, "LANG_PAIRS": ""}, "has no direction of the subset 'test'"),
        ("evaluate.sh", {**EVALUATION, "LANG_PAIRS": "en-fr,en-fr"}, "--lang-pairs names 'en-fr' twice"),
        ("evaluate.sh", {**EVALUATION, "LANG_PAIRS": "pairs.txt"}, "'pairs.txt' is not a direction"),
        ("train.sh", {"DATA_BIN": ".", "BASE": "here.pt", "SAVE_DIR": "y"}, "here.pt is damaged or not a checkpoint"),
    ],
)
def test_missing_input_is_one_line_each_and_makes_nothing(environment, tmp_path, script, variables, words) -> None:
    (tmp_path / "here.pt").touch()
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        ["bash", ROOT / "scripts" / script],
        cwd=tmp_path,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert words in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1 or lines[0] == f"langspec-lora: error: {len(lines) - 1} mistakes"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def loop(environment: dict[str, str], tmp_path: Path):
    """Runs evaluate.sh on two directions, with the program above in place of fairseq-generate."""
    (tmp_path / "the data").mkdir()
    (tmp_path / "mono").mkdir()
    for name in ("en", "fr", "wo"):
        (tmp_path / "mono" / f"test.{name}").write_text("the first line here\nthe third line here\nanother one\n")
    for name in ("the data/dict.en.txt", "a checkpoint.pt"):
        (tmp_path / name).write_text("text\n")
    given = {"DATA_BIN": "the data", "CHECKPOINT": "a checkpoint.pt", "OUT": "the out", "TOKENIZE": "13a"}
    given |= {"LANGS": "en,fr,wo", "LANG_PAIRS": "en-fr,wo-en"}

    def run(*flags: str, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", ROOT / "scripts" / "evaluate.sh", *flags],
            cwd=tmp_path,
            env={**environment, **given, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_evaluation_loop_writes_the_published_files_and_ends_with_the_table(loop, tmp_path) -> None:
    done = loop()
    assert done.returncode == 0, done.stderr
    out = tmp_path / "the out"
    assert (out / "en-fr.spbleu.h").read_text() == "the first line here\nthe third line here\n\n"
    lines = (out / "all_direction.spbleu").read_text().splitlines()
    assert [line for line in lines if line in ("en-fr", "wo-en")] == ["en-fr", "wo-en"]
    assert "| high→high |          1 |" in done.stdout
    assert "| low→high  |          1 |" in done.stdout
    assert (out / "report.md").is_file()
    assert not list(out.glob("*.part"))
    assert not list(out.glob("*.log"))


def test_evaluation_loop_hands_every_word_to_fairseq_whole(loop, tmp_path) -> None:
    done = loop("--model-overrides", "{'a': 'b c'}", "--skip-invalid-size-inputs-valid-test", PRECISION="--fp16")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "arguments").read_text().splitlines() == [
        *("the data", "--user-dir", str(ROOT / "langspec_lora"), "--path", "a checkpoint.pt"),
        *("--fixed-dictionary", "the data/dict.en.txt", "--required-batch-size-multiple", "1"),
        *("--langs", "en,fr,wo", "--lang-pairs", "en-fr,wo-en", "-s", "wo", "-t", "en"),
        *("--beam", "5", "--remove-bpe", "sentencepiece", "--task", "translation_multi_simple_epoch_lora"),
        *("--decoder-langtok", "--encoder-langtok", "src", "--gen-subset", "test", "--fp16", "--dataset-impl", "mmap"),
        *("--distributed-world-size", "1", "--distributed-no-spawn"),
        *("--model-overrides", "{'a': 'b c'}", "--skip-invalid-size-inputs-valid-test"),
    ]


def test_evaluation_loop_leaves_no_half_score(loop, tmp_path) -> None:
    (tmp_path / "disk-full").touch()
    assert loop().returncode != 0
    assert (tmp_path / "the out" / "en-fr.spbleu.h").is_file()
    assert not list((tmp_path / "the out").glob("*.score"))
    (tmp_path / "disk-full").unlink()
    assert loop().returncode == 0
    score = json.loads((tmp_path / "the out" / "en-fr.score").read_text())
    command = ["mono/test.fr", "-i", "the out/en-fr.spbleu.h", "--tokenize", "13a", "-w", "2", "-b"]
    printed = subprocess.run(
        [sys.executable, "-m", "sacrebleu", *command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert score["score"] == float(printed.stdout)


def test_evaluation_loop_takes_the_languages_of_the_checkpoint_and_the_directions_of_the_data(loop, tmp_path) -> None:
    write_base(tmp_path / "a checkpoint.pt")
    for pair in (("en", "wo"), ("fr", "wo")):
        write_data(tmp_path / "the data", "test", pair)
    (tmp_path / "the data" / "dict.wo.txt").write_text("text\n")
    done = loop(LANGS="", LANG_PAIRS="", FLORES_MONO="data")
    assert "the data also have fr, which are not among the given languages: not evaluated" in done.stderr
    calls = (tmp_path / "calls").read_text()
    assert "--langs wo,en,xx --lang-pairs wo-en,en-wo -s wo -t en" in calls
    assert "the data/dict.wo.txt" in calls


def test_evaluation_loop_takes_a_file_of_directions(loop, tmp_path) -> None:
    (tmp_path / "my pairs").write_text("wo-en\nen-fr")
    assert loop(LANG_PAIRS="my pairs").returncode == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split("-s ")[1][:8] for call in calls] == ["wo -t en", "en -t fr"]


def test_evaluation_loop_scores_each_direction_against_its_own_references(loop, tmp_path) -> None:
    """Whose target differs by direction, so that no test.LANG can hold it."""
    shutil.rmtree(tmp_path / "mono")
    (tmp_path / "pairwise").touch()
    done = loop()
    assert done.returncode == 0, done.stderr
    out = tmp_path / "the out"
    first = ["the first line here", "the third line here", ""]
    second = ["something else that was said", "the third line here", ""]
    hypotheses = ["the first line here", "the third line here", ""]
    for pair, references in (("en-fr", first), ("wo-en", second)):
        assert (out / f"{pair}.ref").read_text().split("\n")[:-1] == references
        expected = sacrebleu.corpus_bleu(hypotheses, [references], tokenize="13a").score
        assert json.loads((out / f"{pair}.score").read_text())["score"] == pytest.approx(expected, abs=0.01)
    assert "no references" not in done.stdout


def test_evaluation_loop_names_references_of_another_number_before_the_first_direction(loop, tmp_path) -> None:
    text = tmp_path / "text"
    text.write_text("one line\n")
    for side in ("en", "fr"):
        toy._write_side(tmp_path / "the data" / f"test.en-fr.{side}", text, toy.Dictionary())
    done = loop(LANG_PAIRS="en-fr")
    assert done.returncode == 1
    assert "mono/test.fr has 3 lines, but the data of en-fr have 1 sentences" in done.stderr
    assert not (tmp_path / "calls").exists()


def test_evaluation_loop_run_again_does_only_what_is_missing(loop, tmp_path) -> None:
    assert loop().returncode == 0
    calls = tmp_path / "calls"
    assert len(calls.read_text().splitlines()) == 2
    (tmp_path / "the out" / "wo-en.score").unlink()
    assert loop().returncode == 0
    again = calls.read_text().splitlines()
    assert len(again) == 3
    assert "-s wo -t en" in again[2]


@pytest.mark.parametrize("changes", [{"BEAM": "4"}, {"TOKENIZE": "char"}, {"DATA_BIN": "mono"}])
def test_evaluation_loop_refuses_a_folder_of_other_settings(loop, tmp_path, changes) -> None:
    assert loop().returncode == 0
    shutil.copy(tmp_path / "mono" / "test.fr", tmp_path / "first.fr")
    done = loop(DICT="the data/dict.en.txt", FLORES_MONO="mono", **changes)
    assert done.returncode == 1
    assert "results of other settings" in done.stderr
    (tmp_path / "mono" / "test.fr").write_text("another\n")
    assert "(different: references)" in loop().stderr
    assert "(different: references)" in loop(FLORES_MONO="data").stderr
    shutil.copy(tmp_path / "first.fr", tmp_path / "mono" / "test.fr")
    assert loop().returncode == 0
    (tmp_path / "a checkpoint.pt").write_text("another")
    assert "(different: checkpoint)" in loop().stderr


def test_evaluation_loop_names_the_error_of_fairseq_and_leaves_no_half_direction(loop, tmp_path) -> None:
    (tmp_path / "broken").touch()
    done = loop()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "en-fr: RuntimeError: broken" in done.stderr
    assert not (tmp_path / "the out" / "en-fr.raw.txt").exists()
    (tmp_path / "broken").unlink()
    assert loop().returncode == 0


def test_evaluation_loop_asks_for_the_tokenizer_before_the_first_direction(loop, tmp_path) -> None:
    done = loop(TOKENIZE="spm", SACREBLEU=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "SentencePiece model" in done.stderr
    assert not (tmp_path / "calls").exists()
    assert not (tmp_path / "the out").exists()


@pytest.mark.parametrize("given", [[], ["--languages", "my own.yaml"], ["--languages=my own.yaml"]], ids=str)
def test_the_paper_s_languages_are_prepared_unless_others_are_named(environment, tmp_path, given) -> None:
    python = Path(environment["VENV"]) / "bin" / "python3"
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    words = ["--out", "a folder", *given]
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "prepare_flores.sh", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    default = [] if given else ["--languages", str(ROOT / "configs" / "languages" / "twelve.yaml")]
    assert done.stdout.splitlines() == ["-m", "langspec_lora.cli.main", "prepare-flores", *default, *words]
