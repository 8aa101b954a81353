"""What property-based tests share: how many examples they try, and values that are nearly right.

``pytest --hypothesis-profile long`` tries a hundred times as many, other ones each time.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st


def examples(count: int) -> settings:
    """The settings of a test that tries this many examples, or a hundred times as many in the profile ``long``."""
    return settings(max_examples=count * settings.default.max_examples // 100)


NAMES = st.sampled_from(("en", "fr", "nl", "wo", "sd", "zh-Hant", "eng_Latn", "no", "ñ", "中", "__en__", "a b"))
"""Names of languages, some of them unusual."""

LEGAL_NAMES = st.text(
    st.characters(categories=("L", "N")).filter(str.isprintable) | st.just("_"), min_size=1, max_size=8
)
"""Any name that a language can have: letters and digits of any script that Python can print."""

LANGUAGE_ROWS = st.lists(
    st.tuples(LEGAL_NAMES, st.sampled_from(("high", "med", "low")), st.integers(1, 10**6)),
    min_size=1,
    unique_by=lambda row: row[0],
)
"""Languages as a table has them: name, level and rank."""

NUMBERS = st.one_of(
    st.integers(-3, 12).map(str),
    st.floats().map(str),
    st.sampled_from(
        ("1_0", "٣", "+1", "-0", "1e400", "1e-400", ".5", "5.", "0x1", "nan", "-inf", "1" * 5000, "2147483648")
    ),
)
"""Numbers as text, of every size, and what Python reads as a number but a user did not mean."""

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
"""Any text that a file in UTF-8 can hold."""

WORDS = st.one_of(
    NUMBERS,
    NAMES,
    st.sampled_from(
        ("True", "False", "yes", "none", "all", "", "_", "0_1", "1_0_1", "q_k", "fc1", "src_tgt", "tgt", "rank")
    ),
    st.lists(st.sampled_from(("0", "1", "2", "q", "k", "v", "fc1", "crossq", "src", "tgt", "")), max_size=4).map(
        "_".join
    ),
    st.lists(NAMES, max_size=3).map(",".join),
    st.text(st.characters(exclude_characters="\0"), max_size=8),  # half surrogates too: an argument that is not UTF-8
)
"""What could stand behind a flag."""
