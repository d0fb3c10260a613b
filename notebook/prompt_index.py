"""`Index`: build an index, open it, ask it about images and texts."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from imprompt.core.errors import ConfigError, QueryError
from imprompt.notebook.pictures import ImageLike, image_source
from imprompt.notebook.prompt_answers import Answers, PromptAnswer
from imprompt.retriever.answers import Question
from imprompt.retriever.filters import Filters

if TYPE_CHECKING:
    from imprompt.commands.index_options import LoadedIndex
    from imprompt.ensemble.ensemble import Ensemble
    from imprompt.retriever import Retriever

DEFAULT_K = 10


class _SearchOptions(TypedDict, total=False):
    """The options of `Index.search`; `Index.query` says what they do."""

    k: int
    where: str | None
    contains: Sequence[str]
    exclude: Sequence[str]
    no_artists: bool


class _QueryOptions(_SearchOptions, total=False):
    """The options of `Index.query`, which says what they do."""

    ignore_metadata: bool


class Index:
    """An open index of prompts. Models are loaded at the first question and then kept.

        >>> import imprompt
        >>> index = imprompt.Index.open()
        >>> index.query("image.png").prompt
        'a lighthouse on a cliff, oil painting, dramatic lighting'

    It remembers options of `query` and `search` that are given when it is opened:

        >>> index = imprompt.Index.open(k=3, no_artists=True)

    Close it, or use it in a `with` block, to let files and memory go.
    """

    def __init__(
        self, loaded: LoadedIndex, stack: ExitStack, *, blend: str | None, defaults: _QueryOptions
    ) -> None:
        """Use `open` or `build`."""
        self._loaded = loaded
        self._stack = stack
        self._blend = blend
        self._defaults = defaults
        self._ensemble: Ensemble | None = None
        self._searches: dict[bool, Retriever] = {}

    @classmethod
    def open(
        cls,
        folder: str | Path | None = None,
        *,
        blend: str | None = None,
        encoder: str | None = None,
        device: str | None = None,
        offline: bool | None = None,
        quiet: bool = True,
        **defaults: Unpack[_QueryOptions],
    ) -> Index:
        """Open an index.

        Args:
            folder: of the index, or its address on Milvus ("milvus:…"); None takes IMPROMPT_INDEX,
                `index` of the user's config.toml, or the user's data folder.
            blend: the blend config, "default", "notebook" or a JSON file; None is "default".
            encoder: overrides the encoder that the index was built with.
            device: "auto", "cpu", "cuda" or "mps"; None takes config.toml's, or "auto".
            offline: fetch nothing; None takes config.toml's, or False.
            quiet: print no notes about devices and downloads.
            defaults: options of `query` and `search` (k, exclude, …) for every call that does not
                give them itself.

        Raises:
            NoIndex: there is none; `build` makes one.
            StoreError: it is damaged.
            EncoderError, ConfigError: the encoder or the device cannot be used.
        """
        from imprompt.commands.index_options import IndexOptions, open_index
        from imprompt.commands.output import Output

        _check_options(defaults, _QueryOptions)
        options = IndexOptions(**_place(folder, device=device, offline=offline))
        with ExitStack() as stack:
            loaded = stack.enter_context(open_index(Output(quiet=quiet), options, encoder=encoder))
            return cls(loaded, stack.pop_all(), blend=blend, defaults=defaults)

    @classmethod
    def build(
        cls,
        corpus: str | Path | Sequence[str | Path] | None = None,
        folder: str | Path | None = None,
        *,
        prompts: Sequence[str] | None = None,
        preset: str = "lite",
        encoder: str | None = None,
        replace: bool = False,
        device: str | None = None,
        offline: bool | None = None,
        quiet: bool = False,
        **defaults: Unpack[_QueryOptions],
    ) -> Index:
        """Build an index as `imprompt build-index` does, and open it.

        To resume an interrupted build, call it again. If the same index is there, nothing is done.

        Args:
            corpus: one or several corpora, as `--corpus` takes them (a table, a text file,
                "images:FOLDER", "hf:OWNER/NAME", …); None takes the preset's.
            folder: of the index; None as in `open`.
            prompts: prompts in memory instead of a corpus.
            preset: "lite", "clip-small" or "clip".
            encoder: instead of the preset's.
            replace: overwrite an index of another corpus or encoder.
            device, offline, defaults: see `open`.
            quiet: show no progress and no report.

        Raises:
            ConfigError: the arguments contradict each other, or cannot be used.
            CorpusError: a corpus cannot be read.
            IndexDiffers: another index is there, and `replace` is not set.
            StorageFull: the disk is full or read-only.
        """
        from imprompt.commands.build_index import build_index
        from imprompt.commands.cleaning_options import CleaningOptions, CorpusOptions
        from imprompt.commands.engine_options import EngineOptions
        from imprompt.commands.output import Output
        from imprompt.environment.presets import Preset

        if corpus is not None and prompts is not None:
            raise ConfigError("corpus and prompts exclude each other.", hint="Give one of them.")
        if preset not in [each.value for each in Preset]:
            names = ", ".join(each.value for each in Preset)
            raise ConfigError(f"There is no preset {preset!r}.", hint=f"Name one of {names}.")
        _check_options(defaults, _QueryOptions)
        place = _place(folder, device=device, offline=offline)
        with _specs(corpus, prompts) as specs, _unless(quiet):
            build_index(
                preset=Preset(preset),
                corpus=specs,
                encoder=encoder,
                reading=CorpusOptions(),
                cleaning=CleaningOptions(),
                replace=replace,
                engine=EngineOptions(),
                output=Output(quiet=quiet),
                **place,
            )
        return cls.open(folder, device=device, offline=offline, quiet=quiet, **defaults)

    @property
    def folder(self) -> str:
        """Return the folder of the index, or its address on Milvus."""
        return str(self._loaded.place)

    @property
    def encoder(self) -> str:
        """Return the name of its encoder."""
        return self._loaded.version.manifest.encoders[0].name

    @property
    def corpus(self) -> str:
        """Return the names of its corpora."""
        return self._loaded.version.manifest.corpus_label

    def __len__(self) -> int:
        """Return the number of prompts."""
        return self._loaded.version.manifest.rows

    @overload
    def query(
        self, images: list[Any] | tuple[Any, ...], **options: Unpack[_QueryOptions]
    ) -> Answers: ...

    @overload
    def query(self, images: ImageLike, **options: Unpack[_QueryOptions]) -> PromptAnswer: ...

    def query(
        self, images: ImageLike | list[Any] | tuple[Any, ...], **options: Unpack[_QueryOptions]
    ) -> PromptAnswer | Answers:
        """Find the prompt behind an image, or behind each of a list; the answers of `query`.

        Args:
            images: a path, the bytes of a file, a Pillow image or an array, or a list of these. A
                picture in memory carries no prompt: give the path to have the file's read.

        Options, each with the default that the index was opened with, if any:
            k (int): number of nearest prompts, at least 1; 10.
            where (str): only prompts that match this condition, as in `--where`.
            contains, exclude (list of str): words that prompts must, and must not, contain.
            no_artists (bool): no prompts that name an artist.
            ignore_metadata (bool): do not look for prompts in the files.

        Returns:
            One answer for one image. For a list an `Answers`, in order, in which an image that
            cannot be read has an `error`.

        Raises:
            ImageRejected: the only image cannot be read.
            QueryError, ConfigError: k or a filter cannot be used.
            MemberUnavailable: a member of the ensemble cannot be used.
        """
        _check_options(options, _QueryOptions)
        merged: _QueryOptions = {**self._defaults, **options}
        some: list[Any] = [*images] if isinstance(images, list | tuple) else [images]
        ignore_metadata = merged.get("ignore_metadata", False)
        questions = [
            Question(image_source(image), ignore_metadata=ignore_metadata) for image in some
        ]
        answers = Answers(self._asked(questions, merged.get("k", DEFAULT_K), _filters(merged)))
        if isinstance(images, list | tuple):
            return answers
        (answer,) = answers
        if answer.error is not None:
            raise answer.error
        return answer

    def search(self, text: str, **options: Unpack[_SearchOptions]) -> PromptAnswer:
        """Return the prompts nearest to a text, in `nearest`; the options as in `query`.

        Raises:
            EmptyQuery: the text is empty.
            QueryError, ConfigError: k or a filter cannot be used.
        """
        _check_options(options, _SearchOptions)
        merged: _QueryOptions = {**self._defaults, **options}
        question = Question(None, text)
        search = self._search(of_images=False)
        k = merged.get("k", DEFAULT_K)
        (result,) = search.ask([question], k, filters=_filters(merged))
        answer = PromptAnswer(question, result)
        if answer.error is not None:
            raise answer.error
        return answer

    def submit(
        self,
        folder: str | Path,
        out: str | Path,
        *,
        sample: str | Path | None = None,
        prompts_out: str | Path | None = None,
        ignore_metadata: bool = False,
        quiet: bool = False,
    ) -> Path:
        """Answer a folder of images with one submission, as `imprompt submit` does.

        Returns its path. To resume an interrupted run, call it again.

        Args:
            folder: of the images; ids are the file names without their suffixes.
            out: the file to write, .csv, .parquet or .npz: `imgId_eId,val`, 384 rows an image.
            sample: a sample submission, which sets the ids and their order.
            prompts_out: also write the prompts as CSV to this file.
            ignore_metadata: do not look for prompts in the files.
            quiet: show no progress.

        Raises:
            PartialFailure: the submission was written; images that could not be read have the
                corpus mean, and `quiet` or not, they are listed.
            QueryError: the folder holds no image.
            StorageFull: the disk is full or read-only.
        """
        from imprompt.commands.output import Output
        from imprompt.commands.submit import show_submission
        from imprompt.ensemble.submission.submission_job import submit
        from imprompt.ensemble.submission.submission_plan import depends_on

        ensemble, output = self._answerer(), Output(quiet=quiet)
        with _unless(quiet):
            report = submit(
                Path(folder),
                Path(out),
                ensemble=ensemble,
                depends_on=depends_on(self._loaded.version, ensemble),
                sample=None if sample is None else Path(sample),
                prompts_out=None if prompts_out is None else Path(prompts_out),
                ignore_metadata=ignore_metadata,
                progress=output.progress(),
            )
            show_submission(output, report)
        return Path(out)

    def close(self) -> None:
        """Let files and memory go; questions fail afterwards."""
        self._stack.close()
        self._ensemble = None
        self._searches.clear()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<imprompt.Index of {len(self):,} prompts ({self.corpus}) by {self.encoder}, "
            f"in {self.folder}>"
        )

    def _asked(
        self, questions: Sequence[Question], k: int, filters: Filters
    ) -> Iterator[PromptAnswer]:
        from imprompt.ensemble.estimates import ask

        if not questions:
            raise QueryError("No image was given.", hint="Give one, or a list of them.")
        ensemble, retriever = self._answerer(), self._search(of_images=True)
        results = ask(questions, k, retriever=retriever, ensemble=ensemble, filters=filters)
        return map(PromptAnswer, questions, results)

    def _answerer(self) -> Ensemble:
        from imprompt.commands.ensemble_options import EnsembleOptions
        from imprompt.commands.output import Output

        if self._ensemble is None:
            self._ensemble = EnsembleOptions(blend=self._blend).load(
                self._loaded, Output(quiet=True)
            )
        return self._ensemble

    def _search(self, *, of_images: bool) -> Retriever:
        """Return the search; that of images shares the ensemble's vectors of them."""
        from imprompt.retriever import Retriever

        if of_images not in self._searches:
            loaded = self._loaded
            encoder = self._answerer().neighbourhood.encoder if of_images else loaded.encoder
            self._searches[of_images] = Retriever(loaded.version, encoder)
        return self._searches[of_images]


@contextlib.contextmanager
def _specs(
    corpus: str | Path | Sequence[str | Path] | None, prompts: Sequence[str] | None
) -> Iterator[list[str] | None]:
    """Give the corpora their names; prompts in memory become a file as long as they are read."""
    if prompts is None:
        several = [corpus] if isinstance(corpus, str | Path) else corpus
        yield None if several is None else [str(each) for each in several]
        return
    if isinstance(prompts, str):
        raise ConfigError("prompts is one text.", hint="Give a list of prompts.")
    with tempfile.TemporaryDirectory(prefix="imprompt-") as folder:
        path = Path(folder) / "prompts.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
        yield [str(path)]


@contextlib.contextmanager
def _unless(quiet: bool) -> Iterator[None]:
    """Let reports be printed unless `quiet` is set."""
    if not quiet:
        yield
        return
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _place(
    folder: str | Path | None, *, device: str | None, offline: bool | None
) -> dict[str, Any]:
    """Return index, device and offline: as given, else of the user's file, else none, auto, no."""
    from imprompt.commands.config_file import program_defaults

    given = {"index": None if folder is None else str(folder), "device": device, "offline": offline}
    chosen = {name: value for name, value in given.items() if value is not None}
    return {"index": None, "device": "auto", "offline": False} | program_defaults() | chosen


def _check_options(options: Mapping[str, Any], kind: type) -> None:
    """Raise `TypeError`, as Python does, for an option that there is not."""
    for name in options:
        if name not in kind.__annotations__:
            known = ", ".join(kind.__annotations__)
            raise TypeError(f"There is no option {name!r}; there are {known}.")


def _filters(options: _QueryOptions) -> Filters:
    return Filters(
        options.get("where"),
        _words(options.get("contains", ())),
        _words(options.get("exclude", ())),
        options.get("no_artists", False),
    )


def _words(words: Sequence[str]) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else tuple(words)
