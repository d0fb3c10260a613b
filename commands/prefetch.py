"""`prefetch`: everything that a blend config needs, fetched at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.options import Json, Offline, Quiet, Verbose
from imprompt.commands.output import Output, size_text

if TYPE_CHECKING:
    from imprompt.core.hub.fetch import HubFile, Remote, Wanted
    from imprompt.environment.model_files import Need

_UNKNOWN = "unknown until asked"


def prefetch(
    blend_config: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="`lite` or `clip`; a blend (`default`, `notebook`, a JSON file); a member, a corpus, an encoder or a backbone.",
        ),
    ],
    list_only: Annotated[
        bool,
        typer.Option(
            "--list",
            help="Only say which files there are, where from and where they go; asks nobody.",
        ),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
) -> None:
    """Fetch every file that a blend config needs; after that no command needs the network for it.

    What, from where and how large is said before it starts. A download that was broken off goes on
    where it stopped; what cannot be had is listed at the end, with the address to fetch by hand and
    where to put it.
    """
    from imprompt.core.hub.download import hide_bars
    from imprompt.core.settings import settings
    from imprompt.environment.model_files import needs_of
    from imprompt.environment.packages import lacking, package_states, pip_line

    output = Output(json=json, quiet=quiet, verbose=verbose)
    needs = needs_of(blend_config)
    for extra in dict.fromkeys(need.extra for need in needs if need.extra):
        if packages := lacking(package_states(), extra):
            names = ", ".join(state.requirement for state in packages)
            output.note(f"Packages are missing beside the files ({names}): {pip_line(extra)}")
    if list_only:
        _list(output, needs)
        return
    if quiet:
        hide_bars()
    packaged = _check_installed(output, needs)
    fetched = _fetch(output, needs, offline=settings(offline=offline).offline)
    output.close(total=max(packaged + fetched, len(output.failures)), done="are here")
    output.note(f"Everything for {blend_config} is here.")


def _list(output: Output, needs: Sequence[Need]) -> None:
    """The files of the hub, one a row: without a request."""
    from imprompt.core.hub.fetch import cached_choice

    for need in needs:
        if not output.json:
            output.text(need.what)
        if need.packaged and not output.json:
            output.text(f"  with pip packages: {', '.join(need.packaged)}")
        for want in need.wanted():
            here = cached_choice(want.choices)
            for number, file in enumerate(want.choices):
                urgency = (
                    "or instead of it" if number else "optional" if want.optional else "needed"
                )
                _list_file(output, need.what, file, urgency=urgency, here=here)


def _list_file(
    output: Output, what: str, file: HubFile, *, urgency: str, here: Path | None
) -> None:
    from imprompt.core.hub.fetch import hand_path, hub_url
    from imprompt.core.hub.repositories import licence_of, size_of

    size, licence, url, place = size_of(file), licence_of(file), hub_url(file), hand_path(file)
    if not output.json:
        about = _UNKNOWN if size is None else f"about {size_text(size)}"
        output.text(f"  {url}")
        output.text(f"    {urgency}, {about}, licence {licence or 'not known here'}")
        output.text(f"    here: {here}" if here else f"    put it at {place}")
        return
    named = {
        "for": what,
        "repo": file.repo,
        "repo_type": file.repo_type,
        "file": file.filename,
        "urgency": urgency,
    }
    output.line(
        {
            **named,
            "url": url,
            "put_at": str(place),
            "bytes": size,
            "licence": licence,
            "here": None if here is None else str(here),
        }
    )


def _check_installed(output: Output, needs: Sequence[Need]) -> int:
    """How many files came with packages or belong to the user; those that are not there are remembered as failures."""
    from imprompt.core.errors import ImpromptError, WeightsMissing
    from imprompt.encoders.weights import packaged_weights

    roles = dict.fromkeys(role for need in needs for role in need.packaged)
    for role in roles:
        try:
            packaged_weights(role)
        except ImpromptError as error:
            output.fail(role, error, key="file")
    paths = dict.fromkeys(path for need in needs for path in need.local)
    for path in paths:
        if not path.exists():
            output.fail(
                str(path),
                WeightsMissing(f"{path} is not there.", path=path, hint="Name another file."),
                key="file",
            )
    return len(roles) + len(paths)


def _fetch(output: Output, needs: Sequence[Need], *, offline: bool) -> int:
    """Rounds of asking and fetching until nothing new is wanted (an index of shards names the shards); how many files it were."""
    done: list[Wanted] = []
    while new := [want for need in needs for want in _wanted(output, need) if want not in done]:
        done += new
        _fetch_round(output, list(dict.fromkeys(new)), offline=offline)
    return len(set(done))


def _wanted(output: Output, need: Need) -> Sequence[Wanted]:
    from imprompt.core.errors import ImpromptError

    try:
        return need.wanted()
    except ImpromptError as error:
        if all(item != need.what for item, _ in output.failures):
            output.fail(need.what, error, key="file")
        return ()


def _fetch_round(output: Output, wants: Sequence[Wanted], *, offline: bool) -> None:
    from imprompt.core.errors import ImpromptError
    from imprompt.core.hub.fetch import cached_choice, take

    for want in wants:
        if here := cached_choice(want.choices):
            output.detail(f"Here: {here}")
    if all(want.optional or cached_choice(want.choices) for want in wants):
        return
    remotes = list(_ask(output, wants, offline=offline))
    if not remotes:
        return
    _show(output, remotes)
    for number, remote in enumerate(remotes, start=1):
        output.note(f"{number} of {len(remotes)}:")
        try:
            path = take(remote, announce=output.note)
        except ImpromptError as error:
            output.fail(f"{remote.file.repo}/{remote.file.filename}", error, key="file")
            continue
        if output.json:
            output.line(
                {
                    "repo": remote.file.repo,
                    "file": remote.file.filename,
                    "path": str(path),
                    "bytes": remote.size_bytes,
                }
            )


def _ask(output: Output, wants: Sequence[Wanted], *, offline: bool) -> Iterator[Remote]:
    """What the hub has of what is wanted; a hub that is not there is asked once."""
    from imprompt.core.errors import WeightsMissing
    from imprompt.core.hub.fetch import answered, cached_choice, find_remote, missing

    gone = False
    for want in wants:
        if cached_choice(want.choices) is not None or (want.optional and (gone or offline)):
            continue
        file = want.choices[-1]
        try:
            if gone:
                raise missing(file, "was not asked for, since the hub cannot be reached")
            if (remote := find_remote(want, offline=offline)) is not None:
                yield remote
            elif not want.optional:
                raise missing(file, "cannot be fetched: the hub has no such file")
        except WeightsMissing as error:
            output.fail(f"{file.repo}/{file.filename}", error, key="file")
            gone = gone or not (offline or answered(error))


def _show(output: Output, remotes: Sequence[Remote]) -> None:
    """What is about to be fetched, from where, how large, to where.

    Raises:
        StorageFull: it does not fit; nothing has been fetched.
    """
    from imprompt.core.errors import StorageFull
    from imprompt.core.hub.download import free_bytes
    from imprompt.core.hub.fetch import hub_folder, kept_bytes
    from imprompt.core.hub.repositories import licence_of

    total = sum((remote.size_bytes or 0) - kept_bytes(remote) for remote in remotes)
    unknown = sum(remote.size_bytes is None for remote in remotes)
    for remote in remotes:
        file = remote.file
        size = _UNKNOWN if remote.size_bytes is None else size_text(remote.size_bytes)
        output.note(
            f"{file.repo}/{file.filename}: {size}, licence {licence_of(file) or 'not known here'}"
        )
    free = free_bytes(hub_folder())
    more = f", {unknown} of unknown size" if unknown else ""
    host = remotes[0].url.split("/")[2]
    output.note(
        f"{len(remotes)} files, {size_text(max(0, total))}{more}, from {host} to {hub_folder()} ({size_text(free)} free)."
    )
    if total > free:
        raise StorageFull(
            f"{size_text(total)} do not fit into {hub_folder()}, where {size_text(free)} are free.",
            hint="Free some space, or name another cache folder with HF_HOME.",
        )
