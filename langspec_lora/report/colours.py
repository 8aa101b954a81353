"""Colours of scores and differences, in pictures and on light and dark screens, and text that can be read on them."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex, to_rgb

INK = "#1f2933"
FAINT = "#7b8794"
EMPTY = "#f0f2f4"
_BLACK = "#0a0f14"  # of figures on colours: with a lighter one neither it nor white would do on those in between

SCORES = LinearSegmentedColormap.from_list("scores", ["#f7fbf9", "#c7e6df", "#7cc2bd", "#2f8f9d", "#165a7a", "#0b2e4f"])
DIFFERENCES = LinearSegmentedColormap.from_list(
    "differences", ["#7f2704", "#d9713c", "#f6c9a8", "#fafafa", "#a9d3e0", "#3f8fb0", "#0b3c5d"]
)
_DARK_SCORES = LinearSegmentedColormap.from_list(
    "dark", ["#1b262e", "#1c4251", "#1f6674", "#38969f", "#86cbc5", "#e3f6f1"]
)
_DARK_DIFFERENCES = LinearSegmentedColormap.from_list(
    "dark differences", ["#ffcfae", "#e0814c", "#7b3d1c", "#1f272e", "#1d5069", "#4aa0c2", "#bfe6f3"]
)

STEPS = 32
"""Steps of a scale of the HTML report, less one."""


def ink_on(colour: tuple[float, ...]) -> str:
    """White or black ink, whichever reads better on a colour."""
    return max(("white", _BLACK), key=lambda ink: contrast(ink, colour))


def contrast(one: str | tuple[float, ...], other: str | tuple[float, ...]) -> float:
    """The contrast of two colours, 1 to 21 (W3C, Web Content Accessibility Guidelines 2.1)."""
    lights = []
    for colour in (one, other):
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ (0.2126, 0.7152, 0.0722)) + 0.05)
    return max(lights) / min(lights)


def step(value: float, low: float, high: float) -> int:
    """The step of a value on a scale from ``low`` to ``high``."""
    return round(STEPS * min(1.0, max(0.0, (value - low) / (high - low))))


def stylesheet() -> str:
    """CSS of the classes ``s0`` … (scores) and ``d0`` … (differences), and of their legends."""
    light = _classes("s", SCORES) + _classes("d", DIFFERENCES)
    dark = _classes("s", _DARK_SCORES) + _classes("d", _DARK_DIFFERENCES)
    return f"{light}@media screen and (prefers-color-scheme: dark) {{\n{dark}}}\n"


def _classes(letter: str, colours: Colormap) -> str:
    shades = [colours(number / STEPS) for number in range(STEPS + 1)]
    rules = [
        f".heat .{letter}{number}{{background:{to_hex(shade)};color:{ink_on(shade)}}}"
        for number, shade in enumerate(shades)
    ]
    gradient = ",".join(to_hex(shade) for shade in shades[::4])
    return "\n".join([*rules, f".legend .{letter}{{background:linear-gradient(to right,{gradient})}}\n"])
