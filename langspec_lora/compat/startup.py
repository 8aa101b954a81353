"""Waits for ``import fairseq`` and then repairs it; ``langspec_lora_startup.pth`` runs this file when Python starts.

It runs in every Python process of the environment, so it imports only modules that Python has already loaded. It must
not put ``langspec_lora`` into ``sys.modules``: fairseq would consider the package imported and register none of its
tasks.
"""

# Imports in functions: every Python process runs this file, and few import fairseq.

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # or every process would import typing
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


class FairseqHook:
    """Meta-path finder that finds fairseq as Python would, and repairs it while it is loaded.

    Finding fairseq without importing it repairs nothing. The hook leaves ``sys.meta_path`` once fairseq is loaded.
    """

    def find_spec(
        self, name: "str", path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """The spec of fairseq from the other finders, with an extended loader; None for all other modules."""
        if name != "fairseq":
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            self._extend(spec.loader)
        return spec

    def _extend(self, loader: "Any") -> "None":
        load_fairseq = loader.exec_module

        def exec_module(module: "ModuleType") -> "None":
            repairs = _load_repairs()
            repairs.before_import()
            load_fairseq(module)
            repairs.after_import()
            if self in sys.meta_path:
                sys.meta_path.remove(self)

        loader.exec_module = exec_module


def _load_repairs() -> "Any":
    from importlib.machinery import SourceFileLoader
    from importlib.util import module_from_spec, spec_from_file_location

    # By its path, not as langspec_lora.compat.repairs; see the top of this file.
    path = __file__.removesuffix("startup.py") + "repairs.py"
    loader = SourceFileLoader("langspec_lora_repairs", path)
    spec = spec_from_file_location(loader.name, path, loader=loader)
    assert spec is not None
    repairs = module_from_spec(spec)
    loader.exec_module(repairs)
    return repairs


sys.meta_path.insert(0, FairseqHook())
