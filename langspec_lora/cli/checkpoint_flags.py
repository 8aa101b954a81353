"""Flags of all commands that read checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_base_flag(parser: argparse._ActionsContainer) -> None:
    """Adds where the base lies of checkpoints that hold adapters only."""
    parser.add_argument(
        "--base-checkpoint",
        type=Path,
        metavar="FILE",
        help="base of a checkpoint that holds adapters only (default: where it lay in training)",
    )
