"""Which directions share their test sentences, so that one resample of sentences serves all of them.

Lines of the source text and of the references of a direction belong together. Two directions that have a text in
common, whether as source or as reference, therefore have the same sentences line by line, and so have directions that a
chain of such texts connects: a multi-parallel test set, where each language has one text, is one set of sentences. Test
sets that were collected for each direction have no text in common, and are as many sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from langspec_lora.data.directions import Direction
from langspec_lora.report.significance import SEED, Seed
from langspec_lora.report.texts import DirectionTexts


@dataclass(frozen=True)
class TestSet:
    """Sentences that some directions share.

    Attributes:
        sentences: how many they are.
        seed: of their resamples.
    """

    __test__ = False  # for pytest, which would take it for a test

    sentences: int
    seed: Seed


@dataclass(frozen=True)
class TestSets:
    """The test sets of an evaluation.

    Attributes:
        of: that of each direction.
        guessed: directions whose source texts are not known; those of equal length count as one set.
    """

    __test__ = False

    of: Mapping[Direction, TestSet]
    guessed: int

    def note(self) -> str:
        """Which directions share sentences, in one sentence or two."""
        directions, sets = len(self.of), Counter(self.of.values())
        if len(sets) == 1:
            (found,) = sets
            text = (
                f"All {directions:,} directions have the same {found.sentences:,} sentences, so that each resample "
                "draws the same ones for all of them."
            )
            if directions == 1:
                text = f"The direction has {found.sentences:,} sentences."
        else:
            most = max(sets.values())
            text = (
                f"The {directions:,} directions have {len(sets):,} test sets, which have no text in common and are "
                f"resampled independently of each other; up to {most:,} directions share one, and its resamples."
            )
        if self.guessed and directions > 1:
            text += (
                f" The source texts of {self.guessed:,} directions are not known: those with equally many sentences "
                "count as one test set."
            )
        return text


def find_test_sets(texts: Mapping[Direction, DirectionTexts]) -> TestSets:
    """Finds which directions share sentences.

    Where the source text of a direction is not known, it shares those of all others of which it is not known either
    and that have equally many. If they are others in truth, that does no harm: sentences that have nothing to do with
    each other do not vary together because they are drawn together.
    """
    parents: dict[Hashable, Hashable] = {}

    def root(text: Hashable) -> Hashable:
        path = []
        while parents.setdefault(text, text) != text:
            path.append(text)
            text = parents[text]
        for passed in path:
            parents[passed] = text
        return text

    def join(one: Hashable, other: Hashable) -> None:
        first, second = sorted((root(one), root(other)), key=str)
        parents[second] = first  # the first by name, whatever the order of the directions

    for found in texts.values():
        sentences = found.reference.lines
        join((sentences, found.reference.sha256), (sentences, found.source.sha256 if found.source else ""))
    roots = {direction: root((found.reference.lines, found.reference.sha256)) for direction, found in texts.items()}
    alone = len(set(roots.values())) == 1
    sets = {name: _test_set(name, alone) for name in set(roots.values())}
    return TestSets(
        {direction: sets[name] for direction, name in roots.items()},
        sum(found.source is None for found in texts.values()),
    )


def _test_set(root: Hashable, alone: bool) -> TestSet:
    """A set by the text that names it; if it is the only one, sacrebleu's own resamples are drawn."""
    assert isinstance(root, tuple)
    sentences, digest = root
    return TestSet(sentences, SEED if alone else (SEED, int(digest[:8] or "0", 16), sentences))
