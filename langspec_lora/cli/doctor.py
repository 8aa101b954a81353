"""``langspec-lora doctor``: checks the installation, and prints what is wrong and how to repair it."""

# Imports in functions: one broken package does not keep the others from being checked.

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from langspec_lora.errors import UserError
from langspec_lora.notes import show

EXAMPLE = "--require-tokenizer flores101"
PACKAGE = Path(__file__).resolve().parents[1]
REINSTALL = "run scripts/install.sh"


@dataclass(frozen=True)
class Finding:
    """One line of the output.

    Attributes:
        name: what was checked.
        found: what was found.
        problem: what is wrong and how to repair it; empty if nothing is wrong.
        fatal: whether training or translation fails because of the problem.
    """

    name: str
    found: str
    problem: str = ""
    fatal: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--require-tokenizer",
        metavar="NAME",
        action="append",
        default=[],
        help="fail unless sacrebleu has the model of this tokenizer, such as flores101; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Prints the findings.

    Returns:
        0, or 1 if training or translation fails because of something missing or broken.
    """
    findings = [finding for check in CHECKS for finding in _guarded(check)]
    findings += [_required_tokenizer(name) for name in args.require_tokenizer]
    for finding in findings:
        show(f"{finding.name:<17}{finding.found}")
    fatal = [finding for finding in findings if finding.problem and finding.fatal]
    notes = [finding for finding in findings if finding.problem and not finding.fatal]
    for finding in notes:
        show(f"note: {finding.name}: {finding.problem}")
    for finding in fatal:
        show(f"wrong: {finding.name}: {finding.problem}")
    show(f"{len(fatal)} problem{'s' * (len(fatal) != 1)} to repair" if fatal else "no problems found")
    return 1 if fatal else 0


def _guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Turns a check's exception into a finding: a broken package may raise anything when imported."""
    name = check.__name__.removeprefix("check_")
    try:
        yield from check()
    except ModuleNotFoundError as error:
        yield _missing(error.name or name)
    except Exception as error:
        reason = " ".join(str(error).split())
        yield Finding(name, "broken", f"its import fails ({type(error).__name__}: {reason}); {REINSTALL}")


def check_python() -> Iterator[Finding]:
    """Python 3.10 to 3.13."""
    problem = ""
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        problem = "Python 3.10, 3.11, 3.12 or 3.13 is supported; run scripts/install.sh with PYTHON=…"
    yield Finding("python", f"{platform.python_version()} ({sys.executable})", problem)


def check_torch() -> Iterator[Finding]:
    """Torch 2.0.1 or later, and its devices."""
    import torch

    problem = "" if _release(torch.__version__) >= (2, 0, 1) else f"torch 2.0.1 or later is needed; {REINSTALL}"
    yield Finding("torch", torch.__version__, problem)
    if not torch.cuda.is_available():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        yield Finding(
            "cuda", f"no device (torch was built {built}): training runs on the CPU, without --amp and --fp16"
        )
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding(
            "cuda",
            f"device {index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB, {torch.version.cuda}",
        )


def check_numpy() -> Iterator[Finding]:
    """NumPy, and whether torch was built for it."""
    import numpy

    if not _installed("torch"):
        yield Finding("numpy", numpy.__version__)
        return
    import torch

    problem = ""
    try:
        torch.zeros(1).numpy()
    except RuntimeError:
        problem = f"torch {torch.__version__} was built for NumPy 1; pip install 'numpy<2'"
    yield Finding("numpy", numpy.__version__, problem)


def check_startup() -> Iterator[Finding]:
    """The start-up file that lets fairseq run on recent versions of Python and torch."""
    waiting = any(type(finder).__name__ == "FairseqHook" for finder in sys.meta_path)
    acted = "fairseq" in sys.modules and getattr(dataclasses.dataclass, "repairs_fairseq", False)
    if waiting or acted:
        yield Finding("start-up file", "active")
        return
    needed = sys.version_info >= (3, 11) or (_installed("torch") and _release(version("torch")) >= (2, 6))
    problem = "langspec_lora_startup.pth did not run, so fairseq fails here; install this project with pip"
    found = "not active" if needed else "not active, and not needed here"
    yield Finding("start-up file", found, problem if needed else "")


def check_fairseq() -> Iterator[Finding]:
    """Fairseq and its compiled parts."""
    import fairseq

    folder = Path(fairseq.__file__).parent
    compiled = ("fairseq.data.data_utils_fast", "fairseq.libbleu")
    absent = [name for name in compiled if importlib.util.find_spec(name) is None]
    problem = (
        f"its compiled module {absent[0]} was not found; install a C++ compiler and fairseq again" if absent else ""
    )
    if not absent:
        importlib.import_module("fairseq.data.data_utils_fast")
    yield Finding("fairseq", f"{fairseq.__version__} ({folder})", problem)


def check_libraries() -> Iterator[Finding]:
    """What else fairseq and this package need."""
    for name in (
        "hydra-core",
        "omegaconf",
        "sentencepiece",
        "protobuf",
        "sacrebleu",
        "matplotlib",
        "pyyaml",
        "safetensors",
        "langcodes",
    ):
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield _missing(name)


def check_tokenizers() -> Iterator[Finding]:
    """The SentencePiece models of sacrebleu, which spBLEU needs."""
    if not _installed("sacrebleu"):
        return
    from langspec_lora.tokenizers import tokenizer_models

    models = {name: path for name, path in tokenizer_models().items() if name in ("flores101", "flores200")}
    for name, path in models.items():
        found = str(path) if path.is_file() else f"not found ({path}); sacrebleu downloads it at first use"
        yield Finding(f"{name} model", found)


def check_apex() -> Iterator[Finding]:
    """NVIDIA's apex, which is optional; PyPI has another project of that name."""
    spec = importlib.util.find_spec("apex")
    if spec is None or not spec.submodule_search_locations:
        yield Finding("apex", "not installed (optional: fused Adam and layer norm on CUDA)")
        return
    folder = Path(next(iter(spec.submodule_search_locations)))
    if not (folder / "multi_tensor_apply").is_dir():
        problem = f"{folder} is another project of that name, not NVIDIA's; pip uninstall apex"
        yield Finding("apex", "another project", problem, fatal=False)
        return
    compiled = [name for name in ("amp_C", "fused_layer_norm_cuda") if importlib.util.find_spec(name)]
    parts = f"with {' and '.join(compiled)}" if compiled else "without its CUDA modules"
    yield Finding("apex", f"NVIDIA's, {parts}")


HERE = 'pip install ".[{}]"'
"""How to install an extra."""


def check_extras() -> Iterator[Finding]:
    """The libraries of our extras, all optional."""
    from langspec_lora.evaluation.metrics import MODEL_METRICS

    for name, install, purpose in (
        ("transformers", HERE.format("hf"), "export and import of Hugging Face's models"),
        ("peft", HERE.format("hf"), "loads exported LoRA folders; the benchmark"),
        ("py3langid", HERE.format("lid"), "wrong language in reports"),
        *(
            (metric.package, metric.install or HERE.format(metric.extra), f"evaluate {metric.flag}")
            for metric in MODEL_METRICS.values()
        ),
    ):
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, f"not installed (optional: {purpose}; {install})")


def check_user_dir() -> Iterator[Finding]:
    """The path to give as ``--user-dir``."""
    yield Finding("--user-dir", str(PACKAGE))


CHECKS = (
    check_python,
    check_torch,
    check_numpy,
    check_startup,
    check_fairseq,
    check_libraries,
    check_tokenizers,
    check_apex,
    check_extras,
    check_user_dir,
)


def _required_tokenizer(name: str) -> Finding:
    from langspec_lora.tokenizers import require_tokenizer

    try:
        require_tokenizer(name)
    except UserError as error:
        return Finding("tokenizer", f"{name}: cannot be used", str(error))
    return Finding("tokenizer", f"{name}: can be used")


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _missing(name: str) -> Finding:
    return Finding(name, "not installed", f"it is needed; {REINSTALL}")


def _release(text: str) -> tuple[int, ...]:
    """The numbers of a version such as ``2.13.0+cpu``."""
    return tuple(int(part) for part in text.partition("+")[0].split(".")[:3] if part.isdigit())
