"""The page that a pack carries, README.md: what is in it, measured how, and for whom."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from imprompt.core.text import as_utf8, printable
from imprompt.store.manifest import Manifest
from imprompt.store.packs.int8_vectors import roundings_of

_PLACES = {"read": 0, "kept": 2}
"""Where rules stand in the table; the rest are in between."""

_UNSTATED = (
    "**No licence was stated by whoever packed this.** Ask them before you publish it, sell it or "
    "build a service on it; whether you may at all also depends on where the prompts come from."
)


def card(manifest: Manifest, *, licence: str, without: Sequence[str]) -> str:
    """Return the page, as Markdown with the front matter that the hub reads.

    Args:
        manifest: of the pack.
        licence: of the prompts, in words; "" where none is stated.
        without: what of the packed version was left out.
    """
    return "\n".join(_lines(manifest, licence, without)) + "\n"


def _lines(manifest: Manifest, licence: str, without: Sequence[str]) -> Iterator[str]:
    names = ", ".join(part.name for part in manifest.corpus)
    yield from ("---", "tags: [imprompt]")
    if licence:
        yield f"license_name: {json.dumps(licence)}"
    yield from ("---", "", f"# {manifest.rows:,} prompts of {_plain(names)}", "")
    yield (
        "An index of imprompt: prompts, their vectors and a search index. It holds no code and no "
        "model."
    )
    yield from ("", "```console", "$ imprompt install FILE --index FOLDER", "```", "")
    yield from ("## Corpus", "")
    yield from _table(
        ["corpus", "synthetic", "origin", "fingerprint"],
        [
            [
                part.name,
                "yes, by a program" if part.synthetic else "not marked so",
                part.origin or "not stated",
                part.fingerprint,
            ]
            for part in manifest.corpus
        ],
    )
    yield from ("", "Rows by what became of them in the build:", "")
    yield from _table(
        ["rule", "rows"],
        [
            [rule, f"{manifest.funnel[rule]:,}"]
            for rule in sorted(manifest.funnel, key=lambda rule: (_PLACES.get(rule, 1), rule))
        ],
    )
    cleaning = manifest.plan.get("cleaning")
    if isinstance(cleaning, Mapping):
        settings = ", ".join(f"{name} {json.dumps(value)}" for name, value in cleaning.items())
        yield from ("", f"Cleaned with: {_plain(settings)}.")
    if manifest.parameters:
        yield from (
            "",
            f"{manifest.parameters:,} prompts have generation parameters: negative prompts and "
            "settings.",
        )
    if without:
        yield from ("", "Left out by whoever packed it:", "")
        yield from (f"- {part}" for part in without)
    if roundings := roundings_of(manifest):
        yield from ("", "## Vectors", "")
        yield from (
            f"- {_plain(space)}: {_plain(rounding)}." for space, rounding in roundings.items()
        )
        yield from (
            "",
            "`install` restores them as float16; what was rounded off is gone. Images, which lie "
            "further from all prompts, lose a little more.",
        )
    yield from ("", "## Encoders", "")
    yield from _table(
        ["encoder", "space", "dimensions", "weights (sha256)"],
        [
            [
                encoder.name,
                encoder.space,
                str(encoder.dim),
                ", ".join(f"{role} {sha}" for role, sha in encoder.weights_sha256.items()),
            ]
            for encoder in manifest.encoders
        ],
    )
    yield from (
        "",
        "The first one searches. Their weights are not in this file and have licences of their "
        "own; `install` names the command that fetches what is missing.",
        "",
        "## Measured",
        "",
    )
    yield from _table(
        ["space", "index", "recall@10", "with effort"],
        [
            [space, info.factory, f"{info.recall_at_10:.3f}", f"{info.effort:.2f}"]
            for space, info in manifest.indexes.items()
        ],
    )
    yield from (
        "",
        "Recall was measured against exact search, with stored prompts. How near to an image "
        "the prompts are that are found depends on the encoder.",
        "",
        "## Who may use it, and for what",
        "",
        f"Licence, as stated by whoever packed it: {_plain(licence)}." if licence else _UNSTATED,
        "",
        "It is for finding prompts that are near an image or a text. The prompts may hold names, "
        "and anything else that people type; they were not checked by a person. An answer "
        "estimated from them is a lead, not the prompt of an image.",
        "",
        f"Rows digest: `{manifest.rows_digest}`. Index format "
        f"{manifest.format[0]}.{manifest.format[1]}, by imprompt {_plain(manifest.imprompt)}.",
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    yield from (f"| {' | '.join(map(_plain, row))} |" for row in rows)


def _plain(text: Any) -> str:
    """Return a text that neither ends a cell or a line nor is markup."""
    line = " ".join(printable(as_utf8(str(text))).split())
    return "".join(f"\\{char}" if char in "\\|`*_<>[]#" else char for char in line)
