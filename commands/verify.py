"""`verify`: is every byte of the index what it was when it was published?"""

from __future__ import annotations

from imprompt.commands.options import IndexFolder, Json, Quiet, Verbose
from imprompt.commands.output import Output


def verify(
    index: IndexFolder = None, json: Json = False, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """Hash every file of the index again, count its rows and ask its probes.

    Every problem is listed.
    """
    from imprompt.core.errors import Checksum
    from imprompt.core.settings import settings
    from imprompt.store.integrity import verify as verify_index

    output = Output(json=json, quiet=quiet, verbose=verbose)
    folder = settings(index=index).index
    problems = verify_index(folder, progress=output.progress())
    for problem in problems:
        if json:
            output.line(problem)
        else:
            output.text(str(problem))
    if problems:
        raise Checksum(
            f"{folder}: {len(problems)} problem(s) found.",
            path=folder,
            hint="Build it again with `build-index --replace`, or restore the files from a copy.",
        )
    output.note(f"{folder} is whole.")
