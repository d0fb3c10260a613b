"""Hostile packs, each made of a good one, as somebody could hand them on, and what they try.

A maker returns the bytes of a file. Sums, hashes and the directory are made right again behind the
change, so that nothing but the product's own rules can refuse it; some are made by Python's
zipfile, which writes what `pack` never does.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from imprompt.store.packs.archive import ArchiveWriter
from imprompt.store.packs.frames import compressed
from tests.hostile.indexes import _edits

CHECKSUM, FORMAT = 53, 52
PLAIN = ("PACK.json", "README.md")
CODE = b"\x93NUMPY\x01\x00v\x00{'descr': __import__('os').system('touch $CANARIES/canary')}"


@dataclass
class Parts:
    """A pack taken apart: the record as JSON has it, and its members, expanded."""

    record: dict[str, Any]
    members: dict[str, bytes]
    names: dict[str, str] = field(default_factory=dict)
    """Other names in the archive."""

    @classmethod
    def of(cls, path: Path) -> Parts:
        with zipfile.ZipFile(path) as archive:
            record = json.loads(archive.read("PACK.json"))
            members = {"README.md": archive.read("README.md")}
            for name in archive.namelist():
                if name not in PLAIN:
                    stream = pa.CompressedInputStream(pa.py_buffer(archive.read(name)), "zstd")
                    members[name.removesuffix(".zst")] = stream.read()
        return cls(record, members)

    def sealed(self) -> Parts:
        """With what is true of its members in the record, and in its manifest."""
        manifest = self.record["manifest"]
        for name, content in self.members.items():
            true = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            self.record["members"][name] = true
            for shards in manifest["shards"].values():
                for shard in shards:
                    shard.update(true if shard["file"] == name else {})
            for info in manifest["indexes"].values():
                for part in [info, *info["parts"]]:
                    if part["file"] == name:
                        header = content[: part["header_bytes"]]
                        part["header_sha256"] = hashlib.sha256(header).hexdigest()
        return self

    def whole(self, *, record: bytes | None = None) -> bytes:
        """As one file."""
        file = io.BytesIO()
        archive = ArchiveWriter(file)
        archive.add("PACK.json", [record or json.dumps(self.record).encode()])
        for name in sorted(self.members):
            content, shown = self.members[name], self.names.get(name, name)
            if name == "README.md":
                archive.add(shown, [content])
            else:
                archive.add(f"{shown}.zst", compressed([content], level=1))
        archive.finish()
        return file.getvalue()


@dataclass(frozen=True, slots=True)
class HostilePack:
    """A hostile pack: its maker, its aim, and the exit codes that may refuse it."""

    make: Callable[[Path], bytes]
    tries: str
    codes: tuple[int, ...] = (CHECKSUM,)


def edited(edit: Callable[[Parts], object], *, seal: bool = True) -> Callable[[Path], bytes]:
    """A pack whose parts were changed."""

    def make(good: Path) -> bytes:
        parts = Parts.of(good)
        edit(parts)
        return (parts.sealed() if seal else parts).whole()

    return make


def raw_record(content: Callable[[bytes], bytes]) -> Callable[[Path], bytes]:
    """A pack with other bytes in the place of its record."""

    def make(good: Path) -> bytes:
        parts = Parts.of(good)
        return parts.whole(record=content(json.dumps(parts.record).encode()))

    return make


def by_zipfile(change: Callable[[zipfile.ZipFile, Path], object]) -> Callable[[Path], bytes]:
    """A ZIP file of Python's, with all that a good pack has and more."""

    def make(good: Path) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(good) as old, zipfile.ZipFile(file, "w") as new:
            for info in old.infolist():
                new.writestr(info, old.read(info))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the second member of a name
                change(new, good)
        return file.getvalue()

    return make


def patched(old: bytes, new: bytes, *, last: bool = False) -> Callable[[Path], bytes]:
    """A pack with some bytes of its archive replaced, once."""

    def make(good: Path) -> bytes:
        content = good.read_bytes()
        at = content.rindex(old) if last else content.index(old)
        return content[:at] + new + content[at + len(old) :]

    return make


def other_prompts(content: Callable[[bytes], bytes]) -> Callable[[Parts], object]:
    def edit(parts: Parts) -> None:
        parts.members["prompts.jsonl"] = content(parts.members["prompts.jsonl"])

    return edit


def other_manifest(edit: Callable[[dict[str, Any]], None]) -> Callable[[Parts], object]:
    return lambda parts: edit(parts.record["manifest"])


def renamed(name: str) -> Callable[[Parts], object]:
    """The first shard under another name, in the record, the manifest and the archive."""

    def edit(parts: Parts) -> None:
        shard = parts.record["manifest"]["shards"]["bag"][0]
        parts.members[name] = parts.members.pop(shard["file"])
        del parts.record["members"][shard["file"]]
        shard["file"] = name

    return edit


def beside(name: str) -> Callable[[Parts], object]:
    """A member more, which the record lists."""
    return lambda parts: parts.members.update({name: b"owned\n"})


def lying_frames(n_bytes: int) -> Callable[[Path], bytes]:
    """Prompts whose frames claim to expand to so many bytes, and whose record says the same."""

    def make(good: Path) -> bytes:
        parts = Parts.of(good)
        parts.record["members"]["prompts.jsonl"]["bytes"] = n_bytes
        return parts.whole()

    return make


def zeros(n_bytes: int) -> Callable[[Path], bytes]:
    """Prompts of zeros: a few kilobytes for each gigabyte."""

    def make(good: Path) -> bytes:
        parts = Parts.of(good)
        frame = pa.Codec("zstd").compress(bytes(4 << 20), asbytes=True)
        count = n_bytes >> 22
        entries = struct.pack("<II", len(frame), 4 << 20) * count
        foot = struct.pack("<IBI", count, 0, 0x8F92EAB1)
        head = struct.pack("<II", 0x184D2A5E, len(entries) + len(foot))
        parts.record["members"]["prompts.jsonl"] = {"bytes": n_bytes, "sha256": "0" * 64}
        file = io.BytesIO()
        archive = ArchiveWriter(file)
        archive.add("PACK.json", [json.dumps(parts.record).encode()])
        for name in sorted(parts.members):
            if name == "prompts.jsonl":
                archive.add(f"{name}.zst", [frame * count, head, entries, foot])
            elif name == "README.md":
                archive.add(name, [parts.members[name]])
            else:
                archive.add(f"{name}.zst", compressed([parts.members[name]], level=1))
        archive.finish()
        return file.getvalue()

    return make


def other_index(parts: Parts) -> None:
    """An index of FAISS of another kind, whose header is hashed."""
    info = parts.record["manifest"]["indexes"]["bag"]
    index = faiss.IndexHNSWFlat(24, 8)
    index.add(np.zeros((parts.record["manifest"]["rows"], 24), np.float32))
    content = faiss.serialize_index(index).tobytes()
    info["header_bytes"] = min(info["header_bytes"], len(content))
    parts.members[info["file"]] = content


def other_vectors(content: Callable[[bytes], bytes]) -> Callable[[Parts], object]:
    def edit(parts: Parts) -> None:
        name = parts.record["manifest"]["shards"]["bag"][0]["file"]
        parts.members[name] = content(parts.members[name])

    return edit


def _second_directory(new: zipfile.ZipFile, good: Path) -> None:
    new.filelist[1].header_offset = new.filelist[0].header_offset


def _link(new: zipfile.ZipFile, good: Path) -> None:
    info = zipfile.ZipInfo("vectors/link")
    info.external_attr = 0o120777 << 16
    new.writestr(info, "/etc/passwd")


def hostile_packs() -> dict[str, HostilePack]:
    """All of them, by name."""
    found = {
        "traversal-record": HostilePack(
            edited(renamed("../../../home/.bashrc")), "a shard outside of the index"
        ),
        "traversal-absolute": HostilePack(edited(renamed("/var/owned")), "an absolute name"),
        "traversal-inside": HostilePack(
            edited(renamed("vectors/bag/../../../../x/00000.npy")), "a name with .. in it"
        ),
        "beside-record": HostilePack(
            edited(beside("../../home/.bashrc")), "a member more, outside"
        ),
        "beside-database": HostilePack(
            edited(beside("prompts.duckdb")), "a database of its own, with views"
        ),
        "beside-pickle": HostilePack(edited(beside("vectors/bag/a.pkl")), "a pickle"),
        "beside-current": HostilePack(edited(beside("CURRENT")), "its own CURRENT"),
        "zip-traversal": HostilePack(
            by_zipfile(lambda new, _: new.writestr("../../home/.bashrc", "owned")),
            "a member that only the ZIP directory knows",
        ),
        "zip-link": HostilePack(by_zipfile(_link), "a symbolic link"),
        "zip-twice": HostilePack(
            by_zipfile(lambda new, _: new.writestr("PACK.json", "{}")), "two members of one name"
        ),
        "zip-overlap": HostilePack(by_zipfile(_second_directory), "two members in one place"),
        "zip-comment": HostilePack(
            by_zipfile(lambda new, _: setattr(new, "comment", b"x" * 60_000)), "a long comment"
        ),
        "zip-deflated": HostilePack(
            by_zipfile(
                lambda new, _: new.writestr(
                    "bomb", bytes(64 << 20), compress_type=zipfile.ZIP_DEFLATED
                )
            ),
            "a member that expands a thousandfold",
        ),
        "zip-empty": HostilePack(lambda _: b"PK\5\6" + bytes(18), "an archive without members"),
        "zip-encrypted": HostilePack(
            patched(b"PK\3\4\x2d\0\0\x08", b"PK\3\4\x2d\0\1\x08"), "an encrypted member"
        ),
        "zip-prefix": HostilePack(
            lambda good: b"#!/bin/sh\n" + good.read_bytes(), "a program before the archive"
        ),
        "zip-behind": HostilePack(lambda good: good.read_bytes() + b"x" * 99, "bytes behind it"),
        "zip-count": HostilePack(
            patched(b"PK\6\6", b"PK\6\6" + b"\xff" * 8, last=True), "another end"
        ),
        "length-local": HostilePack(
            patched(b"\x01\0\x10\0", b"\x01\0\x10\0" + b"\xff" * 6), "lengths of 2^48 bytes"
        ),
        "nothing": HostilePack(lambda _: b"", "nothing"),
        "picture": HostilePack(lambda _: b"\x89PNG\r\n\x1a\n" + bytes(5_000), "a picture"),
        "frames-bomb": HostilePack(zeros(8 << 30), "8 GiB of zeros in 1 MB"),
        "frames-slow": HostilePack(zeros(48 << 20), "zeros, within what may expand"),
        "frames-lying": HostilePack(lying_frames(1 << 60), "frames of 2^60 bytes"),
        "frames-more": HostilePack(lying_frames(1 << 20), "frames of more than there is"),
        "frames-other": HostilePack(
            patched(b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfc", last=True), "frames of another kind"
        ),
        "record-none": HostilePack(raw_record(lambda _: b"null"), "no record"),
        "record-latin1": HostilePack(raw_record(lambda c: c + b"\xff"), "bytes that are no UTF-8"),
        "record-deep": HostilePack(
            raw_record(lambda _: b'{"pack_format":[1,0],"x":' + b"[" * 200_000 + b"}"),
            "200,000 nested lists",
        ),
        "record-wide": HostilePack(
            raw_record(
                lambda c: (
                    c.removesuffix(b"}") + b', "x": [' + b",".join([b"[]"] * 4_000_000) + b"]}"
                )
            ),
            "a record of 12 MB, for memory",
        ),
        "record-later": HostilePack(
            edited(lambda p: p.record.update(pack_format=[9, 0])), "a later format", (FORMAT,)
        ),
        "record-members": HostilePack(
            edited(lambda p: p.record["members"].pop("README.md"), seal=False), "a member less"
        ),
        "record-sha": HostilePack(
            edited(
                lambda p: p.record["members"]["prompts.jsonl"].update(sha256="0" * 64), seal=False
            ),
            "another hash of the prompts",
        ),
        "record-shard": HostilePack(
            edited(
                lambda p: p.record["manifest"]["shards"]["bag"][0].update(sha256="0" * 64),
                seal=False,
            ),
            "two hashes of one shard",
        ),
        "record-names": HostilePack(
            edited(lambda p: p.record["manifest"].update(version="20200101T000000.000000Z-0")),
            "a version's name of its own",
        ),
        "prompts-more": HostilePack(
            edited(other_prompts(lambda c: c + c)), "twice the rows of its manifest"
        ),
        "prompts-fewer": HostilePack(
            edited(other_prompts(lambda c: c.partition(b"\n")[2])), "a row less"
        ),
        "prompts-others": HostilePack(
            edited(other_prompts(lambda c: c.replace(b"prompt 7 of", b"prompt 8 of"))),
            "other texts than those that its digest is of",
        ),
        "prompts-endless": HostilePack(
            edited(other_prompts(lambda c: b'{"text":"' + b"a" * (12 << 20) + b'"}\n' + c)),
            "a line of 12 MiB",
        ),
        "prompts-deep": HostilePack(
            edited(other_prompts(lambda c: b'{"text":' + b"[" * 100_000 + b"\n" + c)),
            "100,000 nested lists",
        ),
        "prompts-numbers": HostilePack(
            edited(
                other_prompts(
                    lambda c: c.replace(b'{"text"', b'{"n_submitted":' + b"9" * 400 + b',"text"', 1)
                )
            ),
            "a number of 400 digits",
        ),
        "prompts-cut": HostilePack(edited(other_prompts(lambda c: c[:-5])), "a line cut off"),
        "faiss-kind": HostilePack(edited(other_index), "an index of FAISS of another kind"),
        "vectors-infinite": HostilePack(
            edited(other_vectors(lambda c: c[:128] + b"\xff\x7c" * ((len(c) - 128) // 2))),
            "vectors without a length",
        ),
        "vectors-code": HostilePack(
            edited(other_vectors(lambda c: CODE.ljust(128) + c[128:])),
            "an array whose header is code",
        ),
        "plan-encoders": HostilePack(
            edited(lambda p: p.record["manifest"]["plan"].update(encoders=[7], seed=-1)),
            "a plan of other types",
        ),
        "card-long": HostilePack(
            edited(lambda p: p.members.update({"README.md": b"x" * (2 << 20)})), "a card of 2 MiB"
        ),
    }
    for name, (edit, tries, codes) in _edits().items():
        if name not in ("bytes-huge", "file-absolute"):  # a pack's manifest lists no files
            found[f"manifest-{name}"] = HostilePack(
                edited(other_manifest(edit), seal=False), tries, codes
            )
    return found


HOSTILE = hostile_packs()
