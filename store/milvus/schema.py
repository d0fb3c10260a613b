"""The schema of versions on a server: names, fields, and the record that makes rows a version.

imprompt                      alias of the collection in service, the last thing that a push changes
imprompt_<version>_<hash>     the rows of one version: ids, prompts, the vectors of every space
imprompt_meta                 texts by key: the number of this schema, a record for each whole
                              version, marks of running pushes
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from imprompt.core.errors import Checksum, FormatVersion
from imprompt.core.values import Parameters, Prompt
from imprompt.store.generation_parameters import settings_text
from imprompt.store.manifest import Manifest, decode_manifest, sha256_bytes
from imprompt.store.milvus.expressions import LOWERED
from imprompt.store.milvus.index_types import IndexChoice

SCHEMA = 1
ALIAS = "imprompt"
META = "imprompt_meta"
SCHEMA_KEY = "schema"

MOST_BYTES = 65_535
"""Of a text in Milvus."""

TEXTS = ("text", "embedded_text", "source", "source_key")
NUMBERS = ("n_submitted", "group_id", "n_duplicates")
PROMPT_FIELDS = ("row_id", "prompt_key", *TEXTS, *NUMBERS, "whole")
"""What a prompt is read from.

`whole` holds the texts of a row, in pieces, where one of them is longer than a field takes.
"""

PARAMETER_FIELDS = ("negative", "settings")
"""What generation parameters are read from, in a collection whose manifest counts any."""

_PIECE_CHARS = MOST_BYTES // 4
_HASH_CHARS = 12


class PushedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole version on the server.

    `fields` names the vector field of each space. `effort` is the default of a search, with which
    `recall_at_5` was measured with the manifest's check queries. `n_long` rows have a text that is
    longer than a field. `pushed` is the time in UTC.
    """

    schema: int = SCHEMA
    version: str
    collection: str
    manifest: str
    manifest_sha256: str
    fields: dict[str, str]
    kind: str
    params: dict[str, Any]
    effort: float
    recall_at_5: float
    n_long: int
    pushed: str

    @property
    def choice(self) -> IndexChoice:
        return IndexChoice(self.kind, self.params)

    def read_manifest(self) -> Manifest:
        """Return the manifest of the version.

        Raises:
            FormatVersion: it was written in another major format.
            Checksum: it is not the one that was recorded.
        """
        content, path = self.manifest.encode(), Path(self.collection) / "MANIFEST.json"
        if sha256_bytes(content) != self.manifest_sha256:
            raise Checksum(
                f"{path} is not the manifest that was pushed.",
                path=path,
                hint="Push the index again.",
            )
        return decode_manifest(content, path=path)


def collection_name(version: str, manifest_sha256: str, choice: IndexChoice) -> str:
    """Return the name of a version's collection: one for each manifest and index."""
    identity = msgspec.json.encode(
        [SCHEMA, manifest_sha256, choice.kind, choice.params], order="deterministic"
    )
    name, digest = re.sub(r"[^A-Za-z0-9_]", "_", version), hashlib.sha256(identity).hexdigest()
    return f"{ALIAS}_{name}_{digest[:_HASH_CHARS]}"


def vector_fields(manifest: Manifest) -> dict[str, str]:
    """Return the field of each space."""
    return {space: f"vector_{number}" for number, space in enumerate(sorted(manifest.shards))}


def check_schema(found: str, *, where: str) -> None:
    """Raise `FormatVersion` where what lies on a server was written by another version."""
    if found != str(SCHEMA):
        raise FormatVersion(
            f"{where} holds imprompt's schema {found}; this version reads and writes schema "
            f"{SCHEMA}.",
            hint="Use the version of imprompt that pushed it, or push into another database: "
            "milvus:http://HOST:PORT/DATABASE.",
        )


def row_of(
    prompt: Prompt, *, text_lower: str, embedded_lower: str, vectors: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a prompt and its vectors (field to row) as the server takes them."""
    texts = {name: getattr(prompt, name) for name in TEXTS}
    fields = {**texts, LOWERED["text"]: text_lower, LOWERED["embedded_text"]: embedded_lower}
    cut = {name: _cut(text) for name, text in fields.items()}
    whole = list(pieces(msgspec.json.encode([*texts.values()]).decode())) if cut != fields else []
    return {
        "row_id": prompt.row_id,
        "prompt_key": prompt.prompt_key,
        **cut,
        **{name: getattr(prompt, name) for name in NUMBERS},
        "whole": whole,
        "n_pieces": len(whole),
        **vectors,
    }


def parameter_fields(parameters: Parameters | None) -> dict[str, str]:
    """Return generation parameters as the server takes them: empty texts without any.

    What is longer than a field is left out; no reader of a corpus lets it into an index.
    """
    texts = ("", "")
    if parameters is not None:
        texts = (parameters.negative, settings_text(parameters))
    return {
        name: text if _cut(text) == text else ""
        for name, text in zip(PARAMETER_FIELDS, texts, strict=True)
    }


def prompt_of(row: Mapping[str, Any]) -> Prompt:
    """Return the prompt of a row with `PROMPT_FIELDS`."""
    whole = (
        msgspec.json.decode("".join(row["whole"]), type=list[str])
        if row["whole"]
        else [row[name] for name in TEXTS]
    )
    return Prompt(
        int(row["row_id"]), row["prompt_key"], *whole, *(int(row[name]) for name in NUMBERS)
    )


def pieces(text: str) -> Iterator[str]:
    """Yield the text in pieces that a field can hold."""
    return (text[start : start + _PIECE_CHARS] for start in range(0, len(text), _PIECE_CHARS))


def size_bytes(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return about how many bytes rows take on their way to the server."""
    return sum(sum(_field_bytes(value) for value in row.values()) for row in rows)


def _field_bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list):
        return sum(len(part.encode()) for part in value)
    return int(getattr(value, "nbytes", 8))


def _cut(text: str) -> str:
    return text if len(text) <= _PIECE_CHARS else text.encode()[:MOST_BYTES].decode(errors="ignore")
