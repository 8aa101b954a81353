"""README and manual: complete, true to the code, and without dead links."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from fairseq import options
from fairseq.models import ARCH_MODEL_INV_REGISTRY

from langspec_lora.cli.commands import COMMANDS
from langspec_lora.flags import flag_table
from langspec_lora.tasks import translation  # noqa: F401  (registers task, model and architectures)
from tests import ROOT, toy
from tests.documentation import PAGES, block, blocks
from tests.fairseq_features import TOPICS

DOCS = ROOT / "docs"
PACKAGE = ROOT / "langspec_lora"


@pytest.fixture(scope="module")
def generated():
    """The script that writes the generated parts of the manual."""
    spec = importlib.util.spec_from_file_location("generated", DOCS / "generated.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def test_readme_is_a_front_door() -> None:
    assert len(text("README.md").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_generated_parts_are_up_to_date(page: Path, generated) -> None:
    content = page.read_text(encoding="utf-8")
    assert generated.fill(content) == content, "run python docs/generated.py"


def test_the_flag_table_has_every_flag() -> None:
    declared = {row.flag for row in flag_table()}
    assert len(declared) > 20
    assert declared == set(re.findall(r"^\| `(--[a-z0-9-]+) [^`]+` \|", text("docs/flags.md"), re.M))


def test_the_table_of_architectures_has_every_architecture() -> None:
    rows = re.findall(r"^\| `([a-z0-9_]+)` \|", text("docs/flags.md"), re.M)
    assert sorted(rows) == sorted(ARCH_MODEL_INV_REGISTRY["langspec_m2m100_lora"])


def test_the_guides_show_every_command() -> None:
    generated_pages = ("commands.md", "architecture.md")
    guides = "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.name not in generated_pages)
    assert [name for name in COMMANDS if not re.search(rf"langspec-lora {name}\b", guides)] == []


def test_the_tree_shows_every_folder_of_the_package() -> None:
    (tree,) = (found.text for found in blocks(DOCS / "architecture.md", "text") if "--user-dir" in found.text)
    shown, room = set(), ""
    for indent, name in re.findall(r"^( *)(\w+)/ ", tree, re.M):
        if len(indent) == 2:
            room = name
        if indent:
            shown.add(name if len(indent) == 2 else f"{room}/{name}")
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    assert shown == folders - {"."}
    files = set(re.findall(r"\b(\w+\.py)\b", tree))
    assert files == {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_modules_and_files_that_a_page_names_exist(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:langspec_lora|scripts|configs|tests|docs)/[\w./-]*)`", content):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(\w+/(?:\w+/)?\w+\.py)`", content):
        assert (PACKAGE / name).exists() or (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    content = re.sub(r"```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", content):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M)
            assert anchor in {_slug(heading) for heading in headings}, target


def _slug(heading: str) -> str:
    """What mkdocs and code hosts make of a heading."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_is_run_or_says_why_not(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    reasons = [found.reason for found in blocks(page, "bash", "python") if found.reason]
    assert reasons == re.findall(r"^<!-- not run: (.+) -->$", content, re.M)
    assert content.count("```bash") + content.count("```python") == len(blocks(page, "bash", "python"))
    for found in blocks(page, "bash"):
        placeholders = re.search(r"…|\$[A-Z]", found.text)
        assert found.reason or not placeholders, f"{page.name}:{found.line} cannot be run as it is"


def words(command: str) -> list[str]:
    """A command as the shell splits it, with the names of variables in place of their values."""
    return shlex.split(re.sub(r"\$(\w+)", r"\1", command.replace("\\\n", " ")))


def test_the_published_training_command_is_the_paper_s() -> None:
    _, program, *flags = words(block("README.md", "CUDA_VISIBLE_DEVICES=0 fairseq-train"))
    assert program == "fairseq-train"
    flags[flags.index("LANGS")] = "en,fr,it,de,nl,zh,ja,ko,oc,or,sd,wo"
    args = toy.parse(flags)
    assert (args.arch, args.task) == ("langspec_m2m100_lora_base", "translation_multi_simple_epoch_lora")
    assert (args.lr, args.max_tokens, args.update_freq, args.amp) == ([3e-3], 4000, [4], True)
    assert (args.dim, args.high_rank, args.med_rank, args.low_rank, args.language_num) == (1024, 2, 2, 8, 12)
    assert (args.pruning, args.pruning_t1, args.pruning_t2, args.target_pruning_ratio) == (True, 2, 10, 0.9)
    assert args.encoder_activation_direction == "_".join(["src"] * 9 + ["tgt"] * 3)


@pytest.mark.parametrize("page", ["README.md", "docs/evaluation.md"])
def test_the_published_generation_command_is_the_paper_s(page: str) -> None:
    command = re.search(r"fairseq-generate.*?--distributed-no-spawn", block(page, "fairseq-generate"), re.S)[0]
    _, *flags = words(command)
    args = options.parse_args_and_arch(options.get_generation_parser(), flags)
    assert (args.task, args.beam, args.gen_subset) == ("translation_multi_simple_epoch_lora", 5, "test")
    assert (args.encoder_langtok, args.decoder_langtok, args.fp16) == ("src", True, True)
    assert (args.post_process, args.dataset_impl, args.required_batch_size_multiple) == ("sentencepiece", "mmap", 1)


def test_every_row_on_fairseqs_features_names_a_test_that_exists() -> None:
    rows = [row for topic in TOPICS.values() for row in topic if row.shown_by]
    assert len(rows) > 20
    for row in rows:
        file, _, function = row.shown_by.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, row


def test_no_row_on_fairseqs_features_is_written_twice() -> None:
    for topic, rows in TOPICS.items():
        assert len({row.name for row in rows}) == len(rows), topic
