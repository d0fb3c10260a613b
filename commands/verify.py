"""`verify`: check that every byte of the index is as it was published."""

from __future__ import annotations

from imprompt.commands.options import IndexFolder
from imprompt.commands.output import Output


def verify(*, index: IndexFolder = None, output: Output) -> None:
    """Check the index: hash every file, count the rows and ask the check queries.

    Every problem is listed, and the command that repairs the index is named.
    """
    from imprompt.core.errors import Checksum
    from imprompt.core.settings import settings
    from imprompt.indexer.staging import manifest_in_service
    from imprompt.store.integrity import repaired_by_reindex
    from imprompt.store.integrity import verify as verify_index
    from imprompt.store.packs.int8_vectors import roundings_of

    folder = settings(index=index).index
    problems = verify_index(folder, progress=output.progress())
    for problem in problems:
        if output.json:
            output.line(problem)
        else:
            output.text(str(problem))
    if problems and repaired_by_reindex(problems):
        raise Checksum(
            f"The index files of {folder} are damaged, its prompts and vectors are whole. "
            f"Problems found: {len(problems)}.",
            path=folder,
            hint=f"Make them anew: imprompt reindex --index {folder}",
        )
    if problems:
        raise Checksum(
            f"{folder} is damaged. Problems found: {len(problems)}.",
            path=folder,
            hint="Rebuild with `imprompt build-index --replace`, or restore the files from a copy.",
        )
    output.note(f"{folder} is intact.")
    manifest = manifest_in_service(folder)
    for space, rounding in roundings_of(manifest).items() if manifest else ():
        output.note(f"  vectors of {space} {rounding}")
