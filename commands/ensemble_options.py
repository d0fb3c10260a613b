"""Which ensemble answers: its options, and the note on members that were left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.index_options import LoadedIndex
from imprompt.commands.output import Output

if TYPE_CHECKING:
    from imprompt.ensemble.ensemble import Ensemble

Blend = Annotated[
    str | None,
    typer.Option(
        "--blend",
        metavar="BLEND",
        help="The blend config, which weights the members: `default` (needs no download), "
        "`notebook`, or a JSON file.",
        show_default="default",
    ),
]
Degrade = Annotated[
    bool,
    typer.Option(
        "--degrade",
        help="Leave out members that are unavailable and share their weight; the exit code is then "
        "4.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleOptions:
    """Which members answer, and with what weights."""

    blend: Blend = None
    phrases: Annotated[
        str | None,
        typer.Option(
            "--phrases",
            metavar="package|corpus",
            help="The flavors of `interrogator`: the library's list, or phrases that are frequent "
            "in the index. [default: as the blend config says]",
            show_default=False,
        ),
    ] = None
    degrade: Degrade = False

    def __bool__(self) -> bool:
        """Return whether any of the options was given."""
        return bool(self.blend or self.phrases or self.degrade)

    def load(self, index: LoadedIndex, output: Output, *, effort: float | None = None) -> Ensemble:
        """Load the ensemble over an index.

        Args:
            effort: of its search; see `imprompt.ensemble.members.load_ensemble`.

        Raises:
            ConfigError: the blend config cannot be used.
            MemberUnavailable: a member is unavailable, and `--degrade` is not set.
        """
        from imprompt.ensemble.blend_config import DEFAULT, load_blend_config, with_phrases
        from imprompt.ensemble.members import load_ensemble

        blend_config = load_blend_config(self.blend or DEFAULT)
        if self.phrases is not None:
            blend_config = with_phrases(blend_config, self.phrases)
        return load_ensemble(
            blend_config,
            index.version,
            index.encoder,
            degrade=self.degrade,
            device=index.device,
            offline=index.offline,
            announce=output.note,
            effort=effort,
        )


def tell_left_out(ensemble: Ensemble) -> None:
    """End a command that was done without some members.

    Raises:
        Degraded: members were left out; the message names them.
    """
    from imprompt.core.errors import Degraded

    if ensemble.left_out:
        names = ", ".join(error.name for error in ensemble.left_out)
        raise Degraded(
            f"Blend config {ensemble.blend_config.name} was used without {names}; the other "
            "members shared the weight."
        )
