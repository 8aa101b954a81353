"""What a report says in words of how its figures were made and how far they go."""

from __future__ import annotations

from langspec_lora.evaluation.metrics import METRICS
from langspec_lora.report.analysis import Analysis
from langspec_lora.report.off_target import IDENTIFIER, identifier_version
from langspec_lora.report.significance import ALPHA, SEED


def significance_note(analysis: Analysis) -> str:
    """What a win is."""
    if not analysis.comparisons:
        return ""
    return (
        f"Wins, ties and losses against {analysis.runs[0].name}: a difference counts where sacrebleu's paired "
        f"bootstrap (--paired-bs, {analysis.samples:,} resamples, seed {SEED}) has p below {ALPHA} after Holm's "
        f"correction over the {len(analysis.comparisons[0].p_values)} directions."
    )


def difference_note(analysis: Analysis) -> str:
    """How the maps of differences are to be read."""
    bold = " Significant differences are bold." if analysis.comparisons else ""
    return f"Blue is higher than {analysis.runs[0].name}, orange lower; all maps have the same colours.{bold}"


def off_target_notes(analysis: Analysis) -> list[str]:
    """How wrong language was told, and what the figures do not tell."""
    found = analysis.off_target
    notes = ["Share of hypotheses in another language than the target; means over directions."]
    if any(judge.identified for judge in found.judges.values()):
        notes.append(
            f"{IDENTIFIER} {identifier_version()} judges languages that it knows by code and whose own references it "
            "recognises; the column “references” says how many of those it takes for another language, which is the "
            "error to expect in the other columns too; broken text may be more often mistaken."
        )
    if not all(judge.identified for judge in found.judges.values()):
        notes.append(
            "Where the script judges, a hypothesis is wrong if most of its letters are in a script that the references "
            "do not use. It cannot tell languages of one script apart: “≥” marks a share that misses output in other "
            "languages of the target's script, and directions whose two languages share a script have none (“—”)."
        )
    told, all_directions = len(found.shares[0]), len(analysis.texts)
    if told < all_directions:
        notes.append(f"It could be told in {told} of {all_directions} directions.")
    notes.append("Hypotheses without any letter are counted apart, as “no text”.")
    return notes


def made_notes(analysis: Analysis) -> list[str]:
    """Where the other figures come from."""
    notes = [f"{METRICS[analysis.metric].explanation(analysis.label)}; means are plain means over directions."]
    if analysis.worst:
        notes.append("Sentences are ranked by sacrebleu's sentence-level chrF++ (--chrf-word-order 2).")
    return notes
