"""From a recipe to the steps of its study: a pure function of the recipe, the folder and the rates chosen so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from langspec_lora.study.places import Places
from langspec_lora.study.recipe import BASE, LOSS, Recipe, Variant, Words
from langspec_lora.study.steps import Step

USER_DIR = Path(__file__).resolve().parents[1]

OWN_FLAGS = ("--user-dir", "--save-dir", "--seed", "--lr", "--finetune-from-model", "--restore-file")
"""Flags of a training that the study gives itself."""

_SCORES, _REPORT = "scores.json", "report.html"


class Plan:
    """The steps of a study.

    Args:
        recipe: what to do.
        out: the folder of the study.
        rates: the learning rate of each variant for which one is chosen.

    Attributes:
        steps: all steps by name, each after those that it needs.

    Raises:
        UserError: a command names a ``{PLACE}`` that does not exist.
    """

    def __init__(self, recipe: Recipe, out: Path, rates: Mapping[str, str]) -> None:
        self.recipe, self.out, self.rates = recipe, out, rates
        self.folders = {name: out / "data" / name for name in recipe.data}
        self._places = Places(recipe.path, self.folders, recipe.variables)
        self.steps = {step.name: step for step in self._steps()}

    @property
    def base(self) -> Path:
        """The checkpoint of the base."""
        base = self.recipe.base
        if base.checkpoint:
            return Path(self._places.words((base.checkpoint,))[0])
        return self.out / BASE / f"checkpoint_{base.epoch}.pt"

    def checkpoint(self, variant: Variant, rate: str, seed: int) -> Path:
        """The checkpoint that a training gives."""
        return self.training_folder(variant, rate, seed) / f"checkpoint_{variant.epoch}.pt"

    def training_folder(self, variant: Variant, rate: str, seed: int) -> Path:
        """The folder of a training."""
        return self.out / "train" / variant.name / f"lr{rate}-seed{seed}"

    def development_folder(self, variant: Variant, rate: str) -> Path:
        """The results on development text with a learning rate."""
        return self.out / "development" / variant.name / f"lr{rate}"

    def test_folder(self, name: str, seed: int | None = None) -> Path:
        """The results on held-out text of the base, or of a variant with a seed."""
        folder = self.out / "test" / name
        return folder if seed is None else folder / f"seed{seed}"

    def report_folder(self, against: str) -> Path:
        """The report that compares all rows with one."""
        first = against == self.recipe.compare_with[0]
        return self.out / ("report" if first else f"report-against-{against}")

    def training_flags(self, variant: Variant | None) -> list[str]:
        """The flags of a training as the recipe gives them: of a variant, or of the base."""
        words = self.recipe.base.flags if variant is None else (*self.recipe.train, *variant.flags)
        return self._places.words(words)

    def own_flags(self, out: Path, seed: int, rate: str) -> list[str]:
        """What the study adds to the flags of a variant."""
        folder = Path("langspec_lora")
        user_dir = folder if folder.resolve() == USER_DIR else USER_DIR
        flags = ["--user-dir", user_dir, "--finetune-from-model", self.base, "--save-dir", out]
        return [*map(str, flags), "--seed", str(seed), "--lr", rate]

    def evaluation(self, checkpoint: Path, out: Path, development: bool = False) -> list[str]:
        """The arguments of ``langspec-lora evaluate``."""
        words = self._places.words(self.recipe.evaluate)
        more = ["--gen-subset", "valid", *self._places.words(self.recipe.choose)] if development else []
        return [*words, *more, "--checkpoint", str(checkpoint), "--out", str(out)]

    def report(self, against: str) -> list[str]:
        """The arguments of ``langspec-lora report`` that compares all rows with one."""
        rows = {BASE: [self.test_folder(BASE)]}
        for variant in self.recipe.variants:
            rows[variant.name] = [self.test_folder(variant.name, seed) for seed in self.recipe.seeds]
        others = [name for name in rows if name != against]
        folders = {name: ",".join(map(str, found)) for name, found in rows.items()}
        runs = [f"{name}={folders[name]}" for name in (against, *others)]
        return [*runs, *self._places.words(self.recipe.report), "--out", str(self.report_folder(against))]

    def _steps(self) -> Iterator[Step]:
        recipe = self.recipe
        for name, words in recipe.data.items():
            folder = self.folders[name]
            yield Step(
                name=f"data-{name}",
                kind="data",
                command=self._data_command(name, words),
                result=folder,
                folder=folder,
                needs=self._data_in(words),
            )
        if recipe.base.flags:
            flags = [*self.training_flags(None), "--save-dir", str(self.out / BASE)]
            needs = self._data_in(recipe.base.flags)
            yield Step(BASE, BASE, ["fairseq-train", *flags], self.base, self.out / BASE, needs)
        yield self._test(BASE, self.base, (BASE,) if recipe.base.flags else ())
        for variant in recipe.variants:
            yield from self._variant_steps(variant)
        for against in recipe.compare_with:
            folder = self.report_folder(against)
            yield Step(
                name=folder.name,
                kind="report",
                command=["langspec-lora", "report", *self.report(against)],
                result=folder / _REPORT,
                folder=folder,
                needs=(
                    f"test-{BASE}",
                    *(f"test-{variant.name}-seed{seed}" for variant in recipe.variants for seed in recipe.seeds),
                ),
            )

    def _variant_steps(self, variant: Variant) -> Iterator[Step]:
        recipe, name = self.recipe, variant.name
        first = recipe.seeds[0]
        by_score = recipe.choose_by != LOSS
        trials: list[str] = []
        if len(variant.rates) > 1:
            for rate in variant.rates:
                training = self._training(f"train-{name}-lr{rate}-seed{first}", variant, rate, first)
                yield training
                trials.append(training.name)
            if by_score:
                trials = []
                for rate in variant.rates:
                    folder = self.development_folder(variant, rate)
                    checkpoint = self.checkpoint(variant, rate, first)
                    yield Step(
                        name=f"development-{name}-lr{rate}",
                        kind="development",
                        command=["langspec-lora", "evaluate", *self.evaluation(checkpoint, folder, development=True)],
                        result=folder / _SCORES,
                        folder=folder,
                        needs=(f"train-{name}-lr{rate}-seed{first}", *self._evaluation_data(development=True)),
                        variant=name,
                        rate=rate,
                        seed=first,
                    )
                    trials.append(f"development-{name}-lr{rate}")
        chosen = self.rates.get(name) if trials else variant.rates[0]
        rate = chosen or f"RATE-OF-{name}"
        for seed in recipe.seeds:
            needs = tuple(trials)
            if seed != first or not trials:
                training = self._training(
                    f"train-{name}-seed{seed}", variant, rate, seed, tuple(trials), waits=chosen is None
                )
                yield training
                needs = (training.name,)
            yield self._test(name, self.checkpoint(variant, rate, seed), needs, variant, rate, seed, chosen is None)

    def _training(
        self, name: str, variant: Variant, rate: str, seed: int, needs: tuple[str, ...] = (), waits: bool = False
    ) -> Step:
        folder = self.training_folder(variant, rate, seed)
        base = (BASE,) if self.recipe.base.flags else ()
        data = self._data_in((*self.recipe.train, *variant.flags))
        return Step(
            name=name,
            kind="train",
            command=["fairseq-train", *self.training_flags(variant), *self.own_flags(folder, seed, rate)],
            result=self.checkpoint(variant, rate, seed),
            folder=folder,
            needs=(*data, *base, *needs),
            variant=variant.name,
            rate="" if waits else rate,
            seed=seed,
            waits=waits,
        )

    def _test(
        self,
        name: str,
        checkpoint: Path,
        needs: tuple[str, ...],
        variant: Variant | None = None,
        rate: str = "",
        seed: int | None = None,
        waits: bool = False,
    ) -> Step:
        folder = self.test_folder(name, seed)
        return Step(
            name=f"test-{name}" if seed is None else f"test-{name}-seed{seed}",
            kind="test",
            command=["langspec-lora", "evaluate", *self.evaluation(checkpoint, folder)],
            result=folder / _SCORES,
            folder=folder,
            needs=(*needs, *self._evaluation_data()),
            variant=variant.name if variant else "",
            rate="" if waits else rate,
            seed=seed,
            waits=waits,
        )

    def _evaluation_data(self, development: bool = False) -> tuple[str, ...]:
        return self._data_in((*self.recipe.evaluate, *(self.recipe.choose if development else ())))

    def _data_in(self, words: Words) -> tuple[str, ...]:
        """The steps that make the data that a command names."""
        return tuple(f"data-{name}" for name in self._places.data_in(words))

    def _data_command(self, name: str, words: Words) -> list[str]:
        """The command that makes data, perhaps from data made before."""
        before = dict(list(self.folders.items())[: list(self.folders).index(name)])
        place = [str(self.folders[name])] if words[0] == "make-example" else ["--out", str(self.folders[name])]
        return ["langspec-lora", *Places(self.recipe.path, before, self.recipe.variables).words(words), *place]
