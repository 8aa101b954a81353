"""The start-up hook and the repairs, most of them seen from a bare Python with stand-ins for fairseq and torch."""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.metadata
import io
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import langspec_lora
from langspec_lora.compat import repairs

PACKAGE = Path(langspec_lora.__file__).parent
STARTUP_FILE = "langspec_lora_startup.pth"
CHECKED_PICKLES = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 6)


@pytest.fixture
def site(tmp_path):
    """A folder such as site-packages: the start-up file, the package, a fake fairseq and a fake old torch."""
    folder = tmp_path / "site packages"
    shutil.copytree(
        PACKAGE / "compat", folder / "langspec_lora" / "compat", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "langspec_lora" / "__init__.py").touch()
    shutil.copy(PACKAGE / "compat" / STARTUP_FILE, folder)
    write_module(folder / "torch", '__version__ = "2.0.1+cu117"')
    write_module(
        folder / "fairseq",
        """
        from dataclasses import dataclass

        @dataclass
        class Inner:
            size: int = 3

        INNER = Inner()

        @dataclass
        class Outer:
            inner: Inner = INNER
        """,
    )
    return folder


def write_module(folder: Path, code: str) -> None:
    folder.mkdir()
    (folder / "__init__.py").write_text(textwrap.dedent(code))


def python(site: Path, code: str) -> str:
    """What a Python that reads ``site`` like its site-packages prints; it sees no other installed package."""
    start = f"import site, sys\nbefore = set(sys.modules)\nsite.addsitedir({str(site)!r})\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", start + textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.strip()


def test_dataclasses_with_dataclass_defaults_can_be_created_in_fairseq_and_keep_the_default_itself(site):
    assert (
        python(site, "import fairseq as f; print(f.Outer().inner is f.INNER, f.Outer.inner is f.INNER)") == "True True"
    )


def test_the_start_of_python_imports_nothing_more(site):
    # Python itself imports a codec to read files such as the start-up file.
    code = "print([name for name in set(sys.modules) - before if not name.startswith('encodings.')])"
    assert python(site, code) == "[]"


def test_after_the_import_of_fairseq_the_package_itself_is_still_not_imported(site):
    code = "import fairseq; print([name for name in sys.modules if name.startswith('langspec_lora')])"
    assert python(site, code) == "[]"


def test_without_the_package_the_start_up_file_does_nothing_and_says_nothing(site):
    shutil.rmtree(site / "langspec_lora")
    assert python(site, "print(type(sys.meta_path[0]).__name__)") == "type"


def test_reading_the_start_up_file_twice_installs_one_hook(site):
    code = f"""
    site.addsitedir({str(site)!r})
    print([type(finder).__name__ for finder in sys.meta_path].count("FairseqHook"))
    """
    assert python(site, code) == "1"


def test_the_hook_leaves_once_fairseq_is_imported(site):
    code = "import fairseq; print('FairseqHook' in [type(finder).__name__ for finder in sys.meta_path])"
    assert python(site, code) == "False"


def test_looking_fairseq_up_without_importing_it_repairs_nothing(site):
    code = """
    import dataclasses, importlib.util
    original = dataclasses.dataclass
    print(importlib.util.find_spec("fairseq").name, dataclasses.dataclass is original, "torch" in sys.modules)
    """
    assert python(site, code) == "fairseq True False"


def test_a_missing_fairseq_is_reported_as_usual(site):
    shutil.rmtree(site / "fairseq")
    code = """
    try:
        import fairseq
    except ModuleNotFoundError as error:
        print(error)
    """
    assert python(site, code) == "No module named 'fairseq'"


def test_fairseq_can_be_imported_again_after_a_failure(site):
    file = site / "fairseq" / "__init__.py"
    file.write_text("import absent\n" + file.read_text())
    code = """
    try:
        import fairseq
    except ModuleNotFoundError as error:
        print(error.name, end=" ")
    sys.modules["absent"] = sys
    import fairseq
    print(fairseq.Outer().inner.size)
    """
    assert python(site, code) == "absent 3"


def test_dataclasses_outside_fairseq_stay_unhashable_unless_they_derive_from_one_of_its_own(site):
    code = """
    import fairseq
    from dataclasses import dataclass

    @dataclass
    class Plain:
        size: int = 1

    @dataclass(order=True)
    class PlainWithArguments:
        size: int = 1

    @dataclass
    class Plugin(fairseq.Inner):
        more: int = 1

    print(Plain.__hash__, PlainWithArguments.__hash__, Plugin.__hash__ is not None)
    """
    expected = "None None True" if sys.version_info >= (3, 11) else "None None False"
    assert python(site, code) == expected


def test_a_dataclass_of_fairseq_that_has_a_hash_keeps_it(site):
    with (site / "fairseq" / "__init__.py").open("a") as file:
        file.write("\n@dataclass(frozen=True)\nclass Frozen:\n    size: int = 3\n")
        file.write("\n@dataclass\nclass Own:\n    size: int = 3\n    def __hash__(self):\n        return 7\n")
    assert python(site, "import fairseq as f; print(hash(f.Frozen()) == hash(f.Frozen()), hash(f.Own()))") == "True 7"


def test_the_decorator_keeps_its_name_and_signature(site):
    code = """
    import dataclasses, inspect
    before = inspect.signature(dataclasses.dataclass)
    import fairseq
    print(inspect.signature(dataclasses.dataclass) == before, dataclasses.dataclass.__qualname__)
    """
    assert python(site, code) == "True dataclass"


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="Python 3.11 and later need the repair")
def test_on_python_3_10_dataclasses_stay_as_they_are(site):
    code = """
    import dataclasses
    original = dataclasses.dataclass
    import fairseq
    print(dataclasses.dataclass is original)
    """
    assert python(site, code) == "True"


def test_a_deprecation_of_hydra_stays_quiet_and_any_other_warning_is_shown(site):
    code = """
    import warnings
    import fairseq
    with warnings.catch_warnings(record=True) as shown:
        warnings.warn("\\nThe strict flag in the compose API is deprecated.\\nSee …")
        warnings.warn("the strict flag matters")
    print([str(warning.message) for warning in shown])
    """
    assert python(site, code) == "['the strict flag matters']"


@pytest.fixture
def safe_globals():
    """Puts back what torch took for safe before the test."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    repairs.allow_checkpoint_types()
    repairs.allow_numpy_arrays()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


def through_torch(value: object) -> object:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer)


class Hostile:
    """A pickle that would write a file when loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


needs_checked_pickles = pytest.mark.skipif(not CHECKED_PICKLES, reason="torch before 2.6 does not check pickles")


@needs_checked_pickles
@pytest.mark.usefixtures("safe_globals")
def test_a_namespace_of_arguments_loads():
    value = argparse.Namespace(arch="transformer", sizes=[1, 2])
    assert through_torch({"args": value}) == {"args": value}


@needs_checked_pickles
@pytest.mark.usefixtures("safe_globals")
@pytest.mark.parametrize("dtype", ["bool", "int32", "int64", "float32", "float64"])
def test_an_array_of_numbers_loads(dtype):
    value = np.arange(6).reshape(2, 3).astype(dtype)
    loaded = through_torch(value)
    assert loaded.dtype == value.dtype
    np.testing.assert_array_equal(loaded, value)


@needs_checked_pickles
@pytest.mark.usefixtures("safe_globals")
def test_an_array_written_by_the_other_numpy_loads():
    written = pickle.dumps(np.array([7, 0]), protocol=2)
    names = (b"numpy._core.multiarray", b"numpy.core.multiarray")
    here, there = names if names[0] in written else reversed(names)
    loaded = torch.load(io.BytesIO(legacy_file(written.replace(here, there))))
    np.testing.assert_array_equal(loaded, [7, 0])


ADDRESS = b"c_codecs\nencode\nX\x08\x00\x00\x00AAAAAAAAX\x06\x00\x00\x00latin1\x86R"
OBJECTS = b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R"
NUMBERS = b"cnumpy\ndtype\nX\x02\x00\x00\x00i8\x89\x88\x87R"
STATE_WITH_OBJECTS = (
    b"(K\x03X\x01\x00\x00\x00<NX\x01\x00\x00\x00a\x85}X\x01\x00\x00\x00a" + OBJECTS + b"K\x00\x86s"
    b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)


@needs_checked_pickles
@pytest.mark.usefixtures("safe_globals")
@pytest.mark.parametrize(
    "hostile",
    [
        b"cnumpy\nndarray\nK\x01\x85X\x01\x00\x00\x00O" + ADDRESS + b"\x87R",  # ndarray((1,), "O", address)
        OBJECTS,
        NUMBERS + STATE_WITH_OBJECTS,  # a type of numbers that is told to have a part "a" of objects
    ],
)
def test_bytes_of_a_file_are_never_read_as_addresses_of_objects(hostile):
    with pytest.raises(Exception, match=r"takes no arguments|does not hold numbers"):
        torch.load(io.BytesIO(legacy_file(b"\x80\x02" + hostile + b".")))


@needs_checked_pickles
@pytest.mark.usefixtures("safe_globals")
def test_a_loaded_array_is_saved_again_as_a_plain_one():
    value = np.arange(3, dtype=">i4")
    again = pickle.loads(pickle.dumps(through_torch(value)))
    assert type(again) is np.ndarray
    assert again.dtype == pickle.loads(pickle.dumps(value)).dtype
    assert again.tolist() == [0, 1, 2]


def legacy_file(content: bytes) -> bytes:
    """A file in torch's old format around a pickle, so that the pickle can be written by hand."""
    buffer = io.BytesIO()
    torch.save(None, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue().replace(pickle.dumps(None, protocol=2), content, 1)


@needs_checked_pickles
@pytest.mark.usefixtures("safe_globals")
@pytest.mark.parametrize(
    "wrap", [lambda bad: bad, lambda bad: np.array([bad], dtype=object), lambda bad: {"args": bad}]
)
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, wrap):
    path = tmp_path / "written"
    with pytest.raises(pickle.UnpicklingError):
        through_torch(wrap(Hostile(path)))
    assert not path.exists()


@pytest.mark.parametrize(
    ("version", "checks"), [("2.0.1+cu117", False), ("2.5.1", False), ("2.6.0a0+git1", True), ("2.13.0+cpu", True)]
)
def test_pickles_are_checked_from_torch_2_6_on(monkeypatch, version, checks):
    monkeypatch.setattr(torch, "__version__", version)
    assert repairs.torch_checks_pickles() is checks


def test_the_installation_owns_its_start_up_file():
    found = importlib.metadata.distributions(name="langspec_lora")
    entries = [file for held in found for file in held.files or [] if str(file) == STARTUP_FILE]
    if not entries:
        pytest.skip("the package is not installed with pip here")
    content = entries[0].locate().read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    assert (entries[0].hash.mode, entries[0].hash.value, entries[0].size) == ("sha256", digest, len(content))
