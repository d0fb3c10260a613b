"""How the ensemble is asked for and shown: options, contributions, members that were left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.index_options import Opened
from imprompt.commands.output import Output, grid

if TYPE_CHECKING:
    from imprompt.core.errors import ImpromptError
    from imprompt.ensemble.ensemble import Ensemble
    from imprompt.ensemble.explanation import ExplainedAnswer, Explanation
    from imprompt.ensemble.submission.ray_predictions import NamedEnsemble
    from imprompt.retriever import Question
    from imprompt.store.open_index import OpenIndex

Blend = Annotated[
    str | None,
    typer.Option(
        "--blend",
        metavar="RECIPE",
        help="Whose contributions count how much: `default` (what runs without a download), `seed`, or a JSON file of weights.",
        show_default="default",
    ),
]
Degrade = Annotated[
    bool,
    typer.Option(
        "--degrade",
        help="Leave out members that cannot vote and share their weight; the exit code tells.",
    ),
]
Phrases = Annotated[
    str | None,
    typer.Option(
        "--phrases",
        metavar="package|corpus",
        help="Where `interrogator` takes its flavors from: the library's list, or the phrases that the prompts of the index have "
        "in common. [otherwise as the blend config says]",
        show_default=False,
    ),
]


def load_ensemble_for(
    blend: str | None, opened: Opened, *, phrases: str | None, degrade: bool, output: Output
) -> Ensemble:
    """The ensemble of the blend config that was asked for, with other phrases where they were."""
    from imprompt.ensemble.blend_config import DEFAULT, load_blend_config, with_phrases
    from imprompt.ensemble.members import load_ensemble

    blend_config = load_blend_config(blend or DEFAULT)
    if phrases is not None:
        blend_config = with_phrases(blend_config, phrases)
    return load_ensemble(
        blend_config,
        opened.version,
        opened.pair,
        degrade=degrade,
        device=opened.device,
        offline=opened.offline,
        announce=output.note,
    )


def named_ensemble(opened: Opened, ensemble: Ensemble, *, device: str) -> NamedEnsemble:
    """How other machines make the same ensemble over the same version, on a device of their own.

    Raises:
        ConfigError: the version is on Milvus.
    """
    from imprompt.core.errors import ConfigError
    from imprompt.ensemble.submission.ray_predictions import NamedEnsemble
    from imprompt.store.index_version import IndexVersion

    if not isinstance(opened.version, IndexVersion):
        raise ConfigError(
            "--engine ray reads the index from a folder, not from Milvus.",
            hint="Name the folder with --index.",
        )
    folder = opened.version.folder
    return NamedEnsemble(
        folder.parent.parent,
        folder.name,
        ensemble.blend_config,
        degrade=bool(ensemble.left_out),
        device=device,
    )


def explain(
    ensemble: Ensemble, questions: Iterable[Question], k: int, *, version: OpenIndex
) -> Iterator[ExplainedAnswer | ImpromptError]:
    """Answers with their explanation; see `imprompt.ensemble.explanation.ask_explained`."""
    from imprompt.ensemble.explanation import ask_explained
    from imprompt.retriever import Retriever

    return ask_explained(
        questions,
        k,
        retriever=Retriever(version, ensemble.neighbourhood.encoder),
        ensemble=ensemble,
    )


def show_explanation(output: Output, explanation: Explanation) -> None:
    """Confidence, who is missing, and who voted for what with what share."""
    output.text(
        f"  confidence: {'not calibrated' if explanation.confidence is None else f'{explanation.confidence:.2f}'}"
    )
    if explanation.close is False:
        output.text("  nothing in the corpus is close; this is the best guess")
    for error in explanation.left_out:
        output.text(f"  without {error}")
    rows = [
        (vote.member, f"{vote.share:.3f}", f"{vote.cosine:.3f}", vote.text or "")
        for vote in explanation.contributions
    ]
    title = f"Contributions to blend {explanation.blend_config}"
    output.table(
        grid(title, ["member", "share", "cosine", "text"], rows, right=["share", "cosine"])
    )


def tell_left_out(ensemble: Ensemble) -> None:
    """End a command that was done without some members.

    Raises:
        Degraded: there are any; the message names them.
    """
    from imprompt.core.errors import Degraded

    if ensemble.left_out:
        names = ", ".join(error.name for error in ensemble.left_out)
        raise Degraded(
            f"Recipe {ensemble.blend_config.name} was used without {names}; the others shared the weight."
        )
