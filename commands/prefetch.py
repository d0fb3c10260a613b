"""`prefetch`: fetch all files that something needs at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.options import Offline
from imprompt.commands.output import Output
from imprompt.core.errors import ImpromptError
from imprompt.core.hub.fetch import FetchListener, Remote
from imprompt.core.text import size_text

if TYPE_CHECKING:
    from imprompt.environment.model_files import Need

_UNKNOWN = "unknown until asked"


def prefetch(
    *,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="What to fetch for: a preset (`lite`, `clip-small`, `clip`), a blend config "
            "(`default`, `notebook`, a JSON file), a member, a corpus, an encoder, a backbone, or "
            "a file that `pack` wrote, for its encoders.",
        ),
    ],
    list_only: Annotated[
        bool,
        typer.Option(
            "--list",
            help="Only list the files, their addresses and where they go; needs no network.",
        ),
    ] = False,
    offline: Offline = False,
    output: Output,
) -> None:
    """Fetch every file that NAME needs, so that later commands need no network.

    Lists the files and their sizes first. To resume an interrupted download, repeat the command.
    Files that cannot be fetched are listed at the end, with their address and where to put them.
    """
    from imprompt.core.hub.download import hide_bars
    from imprompt.core.pip_lines import install_extra
    from imprompt.core.settings import settings
    from imprompt.environment.model_files import needs_of
    from imprompt.environment.packages import lacking, package_states
    from imprompt.environment.prefetching import check_installed, fetch_needs

    needs = needs_of(name)
    states = package_states()
    for extra in dict.fromkeys(need.extra for need in needs if need.extra):
        if packages := lacking(states, extra):
            names = ", ".join(state.requirement for state in packages)
            output.note(f"Packages are missing too ({names}): {install_extra(extra)}")
    if list_only:
        _list(output, needs)
        return
    if output.quiet:
        hide_bars()
    run = settings(offline=offline)
    wanted = fetch_needs(needs, offline=run.offline, listener=_Printer(output))
    installed = list(check_installed(needs))
    for file, error in installed:
        if error is not None:
            output.fail(file, error, key="file")
    total = max(len(installed) + wanted, len(output.failures))
    output.close(total=total, outcome="are here")
    output.note(f"Everything for {name} is here.")


class _Printer(FetchListener):
    """Prints what is fetched, and records failures instead of raising them."""

    def __init__(self, output: Output) -> None:
        super().__init__(output.note)
        self._output = output

    def cached(self, path: Path) -> None:
        self._output.detail(f"Here: {path}")

    def starting(self, remotes: Sequence[Remote]) -> None:
        from imprompt.core.hub.hub_files import hub_folder
        from imprompt.core.hub.repositories import licence_of
        from imprompt.environment.prefetching import check_space, download_size

        for remote in remotes:
            file = remote.file
            size = _UNKNOWN if remote.size_bytes is None else size_text(remote.size_bytes)
            licence = licence_of(file) or "not known here"
            self.announce(f"{file.repo}/{file.filename}: {size}, licence {licence}")
        total = download_size(remotes)
        more = f", {total.unknown} of unknown size" if total.unknown else ""
        host = remotes[0].url.split("/")[2]
        self.announce(
            f"{len(remotes)} files, {size_text(total.bytes)}{more}, from {host} to {hub_folder()} "
            f"({size_text(total.free_bytes)} free)."
        )
        check_space(total)

    def fetching(self, number: int, total: int) -> None:
        self.announce(f"{number} of {total}:")

    def fetched(self, remote: Remote, path: Path) -> None:
        if self._output.json:
            file = {"repo": remote.file.repo, "file": remote.file.filename}
            self._output.line({**file, "path": str(path), "bytes": remote.size_bytes})

    def failed(self, name: str, error: ImpromptError) -> None:
        self._output.fail(name, error, key="file")


def _list(output: Output, needs: Sequence[Need]) -> None:
    from imprompt.environment.prefetching import list_files

    for need in needs:
        if not output.json:
            output.text(need.name)
            if need.pinned:
                output.text(f"  with pip packages: {', '.join(need.pinned)}")
        for file in list_files(need):
            if output.json:
                output.line(file)
                continue
            size = _UNKNOWN if file.bytes is None else f"about {size_text(file.bytes)}"
            output.text(f"  {file.url}")
            output.text(f"    {file.urgency}, {size}, licence {file.licence or 'not known here'}")
            output.text(f"    here: {file.here}" if file.here else f"    put it at {file.put_at}")
