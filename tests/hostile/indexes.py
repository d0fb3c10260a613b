"""Hostile indexes, each made of a good one, as somebody could publish them, and what they try.

A builder takes the root of a copy of a good index and the folder that it would like to reach. All
hashes are made right again behind the change, so that nothing but the product's own rules can
refuse it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import chdir
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from imprompt.core.atomic_files import sha256_file
from imprompt.store import layout
from imprompt.store.manifest import sha256_bytes
from imprompt.store.publish import current_name
from tests.store.builders import reseal

Builder = Callable[[Path, Path], None]
CHECKSUM = 53
_FULL = (
    "SELECT row_id, prompt_key, text, embedded_text, source, source_key, n_submitted, group_id, "
    "n_duplicates FROM honest"
)


@dataclass(frozen=True, slots=True)
class HostileIndex:
    """A hostile index: its maker, its aim, and the exit codes that may refuse it.

    `opens` is False where what it holds is never read, so that it is answered as a good one;
    `verify` refuses it all the same.
    """

    build: Builder
    tries: str
    codes: tuple[int, ...] = (CHECKSUM,)
    opens: bool = True


def version(root: Path) -> Path:
    """The folder of the version in service."""
    name = current_name(root)
    assert name is not None
    return layout.version_folder(root, name)


def plain_manifest(root: Path) -> dict[str, Any]:
    """The manifest as JSON has it."""
    found: dict[str, Any] = json.loads((version(root) / layout.MANIFEST).read_bytes())
    return found


def seal(root: Path, manifest: dict[str, Any], *, files: Iterable[str] = ()) -> None:
    """Write the manifest, with what is true of these files, and make its own hash right."""
    folder = version(root)
    for file in files:
        record = {"bytes": (folder / file).stat().st_size, "sha256": sha256_file(folder / file)}
        manifest["files"][file] = record
        for shards in manifest["shards"].values():
            for shard in shards:
                shard.update(record if shard["file"] == file else {})
        for info in manifest["indexes"].values():
            for part in [info, *info["parts"]]:
                if part["file"] == file:
                    header = (folder / file).read_bytes()[: part["header_bytes"]]
                    part["header_sha256"] = sha256_bytes(header)
    reseal(root, json.dumps(manifest).encode())


def change(root: Path, _: Path, *, edit: Callable[[dict[str, Any]], None]) -> None:
    """Another manifest."""
    manifest = plain_manifest(root)
    edit(manifest)
    seal(root, manifest)


def statements(root: Path, outside: Path, *, sql: str) -> None:
    """Another database of prompts; `{home}` is the folder outside."""
    path = version(root) / layout.PROMPTS
    path.chmod(0o644)
    with duckdb.connect(str(path)) as connection:
        for statement in sql.format(home=outside, full=_FULL).split(";"):
            connection.execute(statement)
    seal(root, plain_manifest(root), files=[layout.PROMPTS])


def counted_statements(root: Path, outside: Path, *, sql: str) -> None:
    """The same, and the manifest counts generation parameters, so that they are looked for."""
    statements(root, outside, sql=sql)
    change(root, outside, edit=lambda manifest: manifest.update(parameters=1))


def shards_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of the searched space."""
    found: list[dict[str, Any]] = manifest["shards"][manifest["encoders"][0]["space"]]
    return found


def renamed_shard(root: Path, outside: Path, *, name: str) -> None:
    """The first shard under another name; `{home}` is the folder outside, which gets the bytes."""
    manifest = plain_manifest(root)
    shard = shards_of(manifest)[0]
    file = name.format(home=outside, up="/".join([".."] * 12) + str(outside))
    manifest["files"][file] = manifest["files"].pop(shard["file"])
    shard["file"] = file
    seal(root, manifest)


def linked_shard(root: Path, outside: Path) -> None:
    """The first shard is a link to the same bytes outside."""
    path = version(root) / shards_of(plain_manifest(root))[0]["file"]
    target = outside.parent / "shard.npy"
    path.rename(target)
    path.symlink_to(target)


def linked_folder(root: Path, outside: Path, *, folder: str) -> None:
    """A folder of the index lies outside, and a link leads there."""
    name = current_name(root) or ""
    place = root / folder.format(name=name)
    target = outside.parent / f"moved-{place.name}"
    place.rename(target)
    place.symlink_to(target)


def linked_file(root: Path, outside: Path, *, file: str) -> None:
    """A file of the index's root is a link to a file of the user."""
    (root / file).unlink(missing_ok=True)
    (root / file).symlink_to(outside / "secret.txt")


def in_place_of(root: Path, outside: Path, *, file: str, kind: str) -> None:
    """A pipe, socket, device or folder in place of a file, with the record of an empty one."""
    path = (root if file in ("CURRENT", "LOCK") else version(root)) / file.format(
        shard=shards_of(plain_manifest(root))[0]["file"]
    )
    manifest = plain_manifest(root) if file not in ("CURRENT", "LOCK", layout.MANIFEST) else None
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with (
            chdir(path.parent),
            socket.socket(socket.AF_UNIX) as listening,
        ):  # the name of a socket is short
            listening.bind(path.name)
    if manifest is not None:
        manifest["files"][path.relative_to(version(root)).as_posix()]["bytes"] = 0
        seal(root, manifest)


def listed_pipe(root: Path, outside: Path) -> None:
    """An absolute path to a pipe among the files of the manifest."""
    pipe = outside.parent / "pipe"
    os.mkfifo(pipe)
    change(
        root,
        outside,
        edit=lambda m: m["files"].update({str(pipe): {"bytes": 0, "sha256": "0" * 64}}),
    )


def raw_manifest(root: Path, _: Path, *, content: Callable[[bytes], bytes]) -> None:
    """Other bytes in the manifest's place."""
    reseal(root, content((version(root) / layout.MANIFEST).read_bytes()))


def _before_end(content: bytes, more: bytes) -> bytes:
    return content.rstrip().removesuffix(b"}") + b", " + more + b"}"


def current(root: Path, outside: Path, *, text: str) -> None:
    """Another text in `CURRENT`."""
    sha256 = sha256_file(version(root) / layout.MANIFEST)
    layout.current_path(root).write_text(
        text.format(name=current_name(root), sha256=sha256, home=outside)
    )


def npy_header(root: Path, _: Path, *, header: bytes) -> None:
    """Another header of the first shard, which is as long as the old one."""
    manifest = plain_manifest(root)
    file = shards_of(manifest)[0]["file"]
    path = version(root) / file
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(header.ljust(127) + b"\n" + content[128:])
    (version(root) / layout.row_sums_file(manifest["encoders"][0]["space"])).unlink()
    del manifest["files"][manifest["row_sums"].pop(manifest["encoders"][0]["space"])]
    seal(root, manifest, files=[file])


def not_finite(root: Path, outside: Path) -> None:
    """Stored vectors of infinite values, without sums that would tell."""
    manifest = plain_manifest(root)
    shard = shards_of(manifest)[0]
    content = (version(root) / shard["file"]).read_bytes()
    npy_header(root, outside, header=content[:127])
    path = version(root) / shard["file"]
    path.write_bytes(content[:128] + b"\xff\x7c" * ((len(content) - 128) // 2))
    seal(root, plain_manifest(root), files=[shard["file"]])


def faiss_length(root: Path, _: Path, *, number: int, at: int) -> None:
    """A number of 8 bytes in the header of the index."""
    manifest = plain_manifest(root)
    file = next(iter(manifest["indexes"].values()))["file"]
    path = version(root) / file
    content = bytearray(path.read_bytes())
    content[at : at + 8] = number.to_bytes(8, "little", signed=True)
    path.unlink()
    path.write_bytes(content)
    seal(root, manifest, files=[file])


def _searched(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["indexes"][manifest["encoders"][0]["space"]]
    return found


def _check_queries(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = manifest["check_queries"][manifest["encoders"][0]["space"]]
    return found


def _npy(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00v\x00" + text.encode()


def _edits() -> dict[str, tuple[Callable[[dict[str, Any]], None], str, tuple[int, ...]]]:
    """Manifests that claim what is not so: name -> (edit, what it tries, codes)."""
    return {
        "dims": (
            lambda m: m["encoders"][0].update(dim=1 << 40),
            "2^40 dimensions, for memory",
            (CHECKSUM,),
        ),
        "rows-negative": (lambda m: m.update(rows=-1), "a negative number of rows", (CHECKSUM,)),
        "rows-huge": (lambda m: m.update(rows=10**15), "10^15 rows, for memory", (CHECKSUM,)),
        "rows-endless": (
            lambda m: m.update(rows=10**4000),
            "a number of 4,000 digits",
            (CHECKSUM,),
        ),
        "shard-rows": (
            lambda m: shards_of(m)[0].update(rows=1 << 47),
            "a shard of 2^47 rows",
            (CHECKSUM,),
        ),
        "shard-many": (
            lambda m: m["shards"].update({m["encoders"][0]["space"]: shards_of(m) * 20_000}),
            "one shard named 20,000 times, for work",
            (CHECKSUM,),
        ),
        "bytes-huge": (
            lambda m: m["files"][layout.PROMPTS].update(bytes=1 << 62),
            "a file of 2^62 bytes",
            (CHECKSUM,),
        ),
        "header-bytes": (
            lambda m: _searched(m).update(header_bytes=1 << 40),
            "a header of 2^40 bytes, for memory",
            (CHECKSUM,),
        ),
        "factory": (
            lambda m: _searched(m).update(factory="IVF1000000,PQ1x4fs"),
            "an index of a million lists",
            (CHECKSUM, 10),
        ),
        "factory-odd": (
            lambda m: _searched(m).update(factory="IVF٣,Flat"),
            "a kind of index that is not known",
            (CHECKSUM, 10),
        ),
        "effort": (lambda m: _searched(m).update(effort=1e300), "an effort of 1e300", (CHECKSUM,)),
        "check-query-rows": (
            lambda m: _check_queries(m)[0].update(row_id=10**9),
            "a check query of a row that is not there",
            (CHECKSUM,),
        ),
        "check-query-endless": (
            lambda m: _check_queries(m)[0].update(ids=[10**30]),
            "a check query of a row beyond 64 bits",
            (CHECKSUM,),
        ),
        "check-query-negative": (
            lambda m: _check_queries(m)[0].update(ids=[-5, 0, 1, 2, 3]),
            "a check query of a row below 0",
            (CHECKSUM,),
        ),
        "check-query-many": (
            lambda m: m["check_queries"].update(
                {m["encoders"][0]["space"]: _check_queries(m) * 5_000}
            ),
            "80,000 check queries, for work when it is opened",
            (CHECKSUM,),
        ),
        "check-query-scores": (
            lambda m: _check_queries(m)[0].update(scores=[1e308] * 5),
            "scores that are none",
            (CHECKSUM,),
        ),
        "check-query-short": (
            lambda m: _check_queries(m)[0].update(ids=[], scores=[]),
            "a check query without an answer",
            (CHECKSUM,),
        ),
        "version": (
            lambda m: m.update(version="../../.."),
            "a version that calls itself ../../..",
            (CHECKSUM,),
        ),
        "file-absolute": (
            lambda m: m["files"].update({"/etc/passwd": {"bytes": 1, "sha256": "0" * 64}}),
            "an absolute path among its files",
            (CHECKSUM,),
        ),
        "space": (
            lambda m: m["shards"].update({"../x": shards_of(m)}),
            "a space whose name leads elsewhere",
            (CHECKSUM,),
        ),
        "sums-elsewhere": (
            lambda m: m["row_sums"].update({m["encoders"][0]["space"]: "../../CURRENT"}),
            "sums outside",
            (CHECKSUM,),
        ),
    }


def _databases() -> dict[str, tuple[str, str]]:
    """Databases of prompts: name -> (statements, what it tries)."""
    view = "ALTER TABLE prompts RENAME TO honest;CREATE VIEW prompts AS "
    shown = (
        "SELECT row_id, prompt_key, {text} AS text, embedded_text, source, source_key, "
        "n_submitted, group_id, n_duplicates FROM honest"
    )
    read = "(SELECT content FROM read_text('{home}/secret.txt'))"
    lying = f"CASE WHEN current_query() LIKE '%unnest%' THEN {read} ELSE text END"
    return {
        "view-read": (view + shown.replace("{text}", read), "a view that shows a file of the user"),
        "view-glob": (
            view + shown.replace("{text}", "(SELECT max(file) FROM glob('{home}/*'))"),
            "a view that lists a folder",
        ),
        "view-lying": (
            view + shown.replace("{text}", lying),
            "the same, but honest to the digest of verify",
        ),
        "macro-table": (
            "ALTER TABLE prompts RENAME TO honest;CREATE MACRO lower(x) AS 'owned';"
            "CREATE VIEW prompts AS {full}",
            "a macro in the place of a function",
        ),
        "view-beside": (
            "CREATE VIEW other AS SELECT * FROM read_text('{home}/secret.txt')",
            "a view beside the honest table",
        ),
        "macro-beside": (
            "CREATE MACRO contains(a, b) AS true;CREATE MACRO count(x) AS 7",
            "macros in the place of functions",
        ),
        "table-beside": ("CREATE TABLE other AS SELECT 1 AS x", "a table that nobody asked for"),
        "schema-beside": (
            "CREATE SCHEMA other;CREATE TABLE other.prompts AS SELECT * FROM prompts",
            "a second schema",
        ),
        "types": (
            "ALTER TABLE prompts ALTER COLUMN n_submitted TYPE VARCHAR",
            "a column of another type",
        ),
        "computed": (
            "ALTER TABLE prompts RENAME TO honest;"
            "CREATE TABLE prompts (row_id BIGINT, prompt_key VARCHAR, "
            "text VARCHAR GENERATED ALWAYS AS (repeat(prompt_key, 100)), "
            "embedded_text VARCHAR, source VARCHAR, source_key VARCHAR, "
            "n_submitted BIGINT, group_id BIGINT, n_duplicates BIGINT);"
            "INSERT INTO prompts SELECT row_id, prompt_key, embedded_text, "
            "source, source_key, n_submitted, group_id, n_duplicates FROM honest;DROP TABLE honest",
            "a column that is computed when it is read",
        ),
        "column-more": ("ALTER TABLE prompts ADD COLUMN more VARCHAR", "a column more"),
        "default": (
            "ALTER TABLE prompts ALTER COLUMN source SET DEFAULT current_query()",
            "a default that is computed",
        ),
        "none": ("DROP TABLE prompts", "no table at all"),
    }


def _parameters() -> dict[str, tuple[str, str]]:
    """Tables of generation parameters: name -> (statements, what it tries)."""
    return {
        "view": (
            "CREATE VIEW parameters AS SELECT row_id, "
            "(SELECT content FROM read_text('{home}/secret.txt')) AS negative, "
            "'' AS settings FROM prompts",
            "a view that shows a file of the user as a negative prompt",
        ),
        "computed": (
            "CREATE TABLE parameters (row_id BIGINT, negative VARCHAR "
            "GENERATED ALWAYS AS (repeat(settings, 100)), settings VARCHAR)",
            "a negative prompt that is computed when it is read",
        ),
        "none": ("SELECT 1", "a manifest that counts what is not there"),
    }


def hostile_indexes() -> dict[str, HostileIndex]:
    """All of them, by name."""
    found = {
        f"duckdb-{name}": HostileIndex(partial(statements, sql=sql), tries)
        for name, (sql, tries) in _databases().items()
    }
    for name, (sql, tries) in _parameters().items():
        found[f"duckdb-parameters-{name}"] = HostileIndex(
            partial(counted_statements, sql=sql), tries
        )
    for name in (
        "duckdb-view-beside",
        "duckdb-table-beside",
        "duckdb-schema-beside",
        "duckdb-macro-beside",
    ):
        found[name] = replace(found[name], opens=False)
    for name, (edit, tries, codes) in _edits().items():
        found[f"manifest-{name}"] = HostileIndex(partial(change, edit=edit), tries, codes)
    for name, shard in {
        "up": "{up}/secret.txt",
        "short": "../../../home/.bashrc",
        "absolute": "{home}/secret.txt",
        "inside": "vectors/../vectors/x/00000.npy",
        "zero": "vectors/x/00000.npy\0",
        "line": "vectors/x/00000.npy\n",
    }.items():
        found[f"shard-{name}"] = HostileIndex(
            partial(renamed_shard, name=shard), f"a shard called {shard!r}"
        )
    found["shard-link"] = HostileIndex(linked_shard, "a shard that is a link")
    for name in ("versions", "versions/{name}", "versions/{name}/vectors", "versions/{name}/index"):
        label = name.format(name="NAME").replace("/", "-")
        found[f"link-{label}"] = HostileIndex(
            partial(linked_folder, folder=name), f"{name} is a link to a folder outside"
        )
    found["current-link"] = HostileIndex(
        partial(linked_file, file="CURRENT"), "CURRENT is a link to a file of the user"
    )
    for kind in ("pipe", "socket", "device", "folder"):
        for file in ("CURRENT", layout.MANIFEST, layout.PROMPTS, "{shard}"):
            label = file.replace("{shard}", "shard")
            found[f"{kind}-{label}"] = HostileIndex(
                partial(in_place_of, file=file, kind=kind), f"a {kind} in the place of {label}"
            )
    found["pipe-listed"] = HostileIndex(
        listed_pipe, "a pipe outside among the files, for verify to wait at"
    )
    deep = b'"plan": ' + b"[" * 200_000 + b"]" * 200_000
    nested = b'"plan": {"x": ' + b"[" * 500 + b"]" * 500 + b"}"
    wide = b'"plan": {"x": [' + b",".join([b"[]"] * 4_000_000) + b"]}"
    for name, more in {
        "deep": deep,
        "nested": nested,
        "huge": wide,
        "unknown-deep": deep.replace(b"plan", b"more"),
    }.items():
        tries = f"a manifest that is {name}"
        content: Callable[[bytes], bytes] = partial(_before_end, more=more)
        found[f"manifest-{name}"] = HostileIndex(partial(raw_manifest, content=content), tries)
    found["manifest-latin1"] = HostileIndex(
        partial(raw_manifest, content=lambda c: c + b"\xff"), "bytes that are no UTF-8"
    )
    found["manifest-empty"] = HostileIndex(
        partial(raw_manifest, content=lambda _: b""), "an empty manifest"
    )
    for name, text in {
        "up": "../../versions/{name} {sha256}\n",
        "absolute": "{home} {sha256}\n",
        "dots": ".. {sha256}\n",
        "long": "a" * 5000 + " {sha256}\n",
        "lines": "{name} {sha256}\n{name} {sha256}\n",
    }.items():
        found[f"current-{name}"] = HostileIndex(partial(current, text=text), f"CURRENT is {name}")
    for name, header in {
        "object": "{'descr': '|O', 'fortran_order': False, 'shape': (400, 16), }",
        "code": "{'descr': __import__('os').system('touch $CANARIES/canary'), 'shape': (1, 1), }",
        "shape": "{'descr': '<f2', 'fortran_order': False, "
        "'shape': (999999999999999, 999999999999999), }",
        "negative": "{'descr': '<f2', 'fortran_order': False, 'shape': (-1, 16), }",
        "fortran": "{'descr': '<f2', 'fortran_order': True, 'shape': (400, 16), }",
        "deep": "(" * 100,
    }.items():
        found[f"npy-{name}"] = HostileIndex(
            partial(npy_header, header=_npy(header)), f"vectors whose header is {name}"
        )
    found["vectors-infinite"] = HostileIndex(not_finite, "stored vectors without a length")
    for name, number, at in (
        ("rows", 1 << 40, 8),
        ("codes", 1 << 39, 73),
        ("negative", -1, 73),
        ("rows-negative", -(1 << 60), 8),
    ):
        found[f"faiss-{name}"] = HostileIndex(
            partial(faiss_length, number=number, at=at),
            f"a header that claims {number}, for memory",
        )
    return found


HOSTILE = hostile_indexes()
