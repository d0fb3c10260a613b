"""Every error that imprompt raises on purpose, as one tree.

    ImpromptError
      UsageError             a command line that is malformed
      ConfigError            an option or a setting that cannot be used
      CorpusError            a corpus that cannot be read: `path`, `line`
      QueryError             a question that cannot be answered
        EmptyQuery           neither image nor text
        ImageRejected        one image cannot be read: `path`, `reason`
          MetadataRejected   its pixels may be fine, the texts beside them are too large
        FilterRejected       a filter that cannot be used
      EncoderError           a model that cannot be used
        WeightsMissing       a weight file is not there: `path`
        WeightsRejected      a weight file is damaged, or another model's: `path`
        SpaceMismatch        vectors of two spaces met: `expected`, `found`
      StoreError             an index on disk that cannot be used
        NoIndex              no index has been published there
        FormatVersion        the index was written in a format this version does not read
        Checksum             a file differs from the manifest: `path`
        UnknownRow           a row id outside of the version
        BuildLocked          another process is writing this index
        IndexDiffers         the current index was built from something else
        StorageFull          the disk is full or may not be written
        Unreachable          the server that holds the index does not answer
        SignatureRejected    a pack is not signed by whom it should be
      MemberUnavailable      a member of the ensemble cannot be used: `name`, `reason`
      ClusterError           a cluster that cannot be used, or lost its workers again and again
        ClusterUnreachable   no cluster answers at the address
        WorkerDiffers        a machine of the cluster has other code, weights or data than this one
      SubmissionRejected     a submission file that the competition would refuse
      PartialFailure         a batch is done, some of its items failed
      Degraded               everything is done, without some members of the ensemble

A message says what is wrong, with the value and the limit; `hint` says the remedy in one sentence.
`exit_code` is the exit status of the command line. Foreign exceptions are mapped to this tree in
the file that calls the foreign library.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar


class ImpromptError(Exception):
    """Something the user can act on.

    Args:
        message: what is wrong, with the value and the limit, in one line.
        hint: what to do about it, in one line; empty if nothing can be done.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()

    def __reduce__(self) -> tuple[Callable[..., Exception], tuple[object, ...]]:
        # Subclasses take other arguments than `Exception` keeps in `args`.
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(
    kind: type[ImpromptError], args: tuple[object, ...], fields: dict[str, object]
) -> ImpromptError:
    """Return an error that another process has pickled."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


def first_line(error: BaseException) -> str:
    """Return the first line of a foreign error's message without its full stop, or its class."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__


def last_line(error: BaseException, default: str = "") -> str:
    """Return the last line of a foreign error's message, or `default` if it has none."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else default


class UsageError(ImpromptError):
    """The command line is malformed."""

    exit_code = 2
    kind = "usage"


class ConfigError(ImpromptError):
    """An option or a setting that cannot be used."""

    exit_code = 10
    kind = "config"


class CorpusError(ImpromptError):
    """A corpus that cannot be read; `path` and 1-based `line` where they are known."""

    exit_code = 20
    kind = "corpus"

    def __init__(
        self, message: str, *, path: Path | None = None, line: int | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.line = line


class QueryError(ImpromptError):
    """A question that cannot be answered."""

    exit_code = 30
    kind = "query"


class EmptyQuery(QueryError):
    """A question with neither an image nor a text."""

    exit_code = 31
    kind = "empty-query"


class ImageRejected(QueryError):
    """One image cannot be read; `reason` is a short phrase such as "truncated"."""

    exit_code = 32
    kind = "image-rejected"

    def __init__(self, path: Path | str, reason: str, *, hint: str = "") -> None:
        super().__init__(f"{path}: {reason}.", hint=hint)
        self.path = path
        self.reason = reason


class MetadataRejected(ImageRejected):
    """The metadata of one image file is too large to be read; its pixels may be fine."""

    exit_code = 33
    kind = "metadata-rejected"


class FilterRejected(QueryError):
    """A filter that cannot be used: not understood, not allowed, or about an unknown column."""

    exit_code = 34
    kind = "filter-rejected"


class EncoderError(ImpromptError):
    """A model that cannot be used."""

    exit_code = 40
    kind = "encoder"


class WeightsMissing(EncoderError):
    """A weight file is missing."""

    exit_code = 41
    kind = "weights-missing"

    def __init__(self, message: str, *, path: Path | str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class WeightsRejected(EncoderError):
    """A weight file is corrupt, belongs to another model, or holds code instead of tensors."""

    exit_code = 42
    kind = "weights-rejected"

    def __init__(self, message: str, *, path: Path | str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class SpaceMismatch(EncoderError):
    """Vectors of two different spaces were about to be compared."""

    exit_code = 43
    kind = "space-mismatch"

    def __init__(self, message: str, *, expected: str, found: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.expected = expected
        self.found = found


class StoreError(ImpromptError):
    """An index on disk that cannot be used."""

    exit_code = 50
    kind = "store"


class NoIndex(StoreError):
    """No index has been published in this folder."""

    exit_code = 51
    kind = "no-index"


class FormatVersion(StoreError):
    """The index was written in a format that this version cannot read."""

    exit_code = 52
    kind = "format-version"


class Checksum(StoreError):
    """A file of the index differs from its manifest."""

    exit_code = 53
    kind = "checksum"

    def __init__(self, message: str, *, path: Path, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class UnknownRow(StoreError):
    """A row id that the version does not have."""

    exit_code = 54
    kind = "unknown-row"


class BuildLocked(StoreError):
    """Another process is writing this index."""

    exit_code = 55
    kind = "build-locked"


class IndexDiffers(StoreError):
    """The current index was built from another corpus or by another encoder."""

    exit_code = 56
    kind = "index-differs"


class StorageFull(StoreError):
    """The disk is full, or the folder may not be written."""

    exit_code = 57
    kind = "storage"


class Unreachable(StoreError):
    """The server that holds the index does not answer."""

    exit_code = 58
    kind = "unreachable"


class SignatureRejected(StoreError):
    """A packed index is not signed by a key that the user named, or was changed since."""

    exit_code = 59
    kind = "signature-rejected"


class MemberUnavailable(ImpromptError):
    """A member of the ensemble cannot be used."""

    exit_code = 60
    kind = "member-unavailable"

    def __init__(self, name: str, reason: str, *, hint: str = "") -> None:
        super().__init__(f"{name}: {reason}.", hint=hint)
        self.name = name
        self.reason = reason


class ClusterError(ImpromptError):
    """A cluster cannot be used, or lost its workers again and again."""

    exit_code = 80
    kind = "cluster"


class ClusterUnreachable(ClusterError):
    """No cluster answers at the address."""

    exit_code = 81
    kind = "cluster-unreachable"


class WorkerDiffers(ClusterError):
    """A machine of the cluster has other code, weights or data than this one."""

    exit_code = 82
    kind = "worker-differs"


class SubmissionRejected(ImpromptError):
    """A submission file that the competition would refuse; its problems are listed."""

    exit_code = 70
    kind = "submission-rejected"


class PartialFailure(ImpromptError):
    """A batch is done, but some of its items failed; they are listed."""

    exit_code = 3
    kind = "partial-failure"


class Degraded(ImpromptError):
    """Done, but without some members of the ensemble, as --degrade allows."""

    exit_code = 4
    kind = "degraded"
