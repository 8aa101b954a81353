"""Arguments as fairseq's commands hand them on: divided into sections by Hydra."""

from __future__ import annotations

from argparse import Namespace

from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig


def compose(args: Namespace) -> DictConfig:
    """Divides arguments into sections; ``fairseq-hydra-train``, which has Hydra at work already, is not disturbed.

    Args:
        args: what fairseq's parser has read.

    Returns:
        The settings as ``fairseq_cli`` passes them to its ``main``.
    """
    at_work = GlobalHydra.instance().hydra
    try:
        return convert_namespace_to_omegaconf(args)
    finally:
        GlobalHydra.instance().hydra = at_work
