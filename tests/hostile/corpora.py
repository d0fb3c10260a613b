"""Corpora and data set cards that try to read other files, or cost more than their length."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HostileCorpus:
    """A hostile file or folder: its maker, what it tries, and the exit codes of `build-index`.

    The code is 0 where rows are left out.
    """

    make: Callable[[Path], str]
    tries: str
    codes: tuple[int, ...] = (20,)


def written(name: str, content: bytes) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    return make


def many_short_lines(folder: Path) -> str:
    """28 million lines in 815 kB."""
    path = folder / "lines.csv.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(b"prompt\n")
        for _ in range(28):
            file.write(b"aaaaaaaa\n" * 1_000_000)
    return str(path)


def many_items(folder: Path) -> str:
    """Ten million empty objects in 30 kB."""
    path = folder / "items.json.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(b'[{"prompt":"a lighthouse"}')
        for _ in range(10):
            file.write(b",{}" * 1_000_000)
        file.write(b"]")
    return str(path)


def zeros(folder: Path) -> str:
    """A gigabyte of zeros in a megabyte."""
    path = folder / "zeros.txt.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(64):
            file.write(bytes(16 << 20))
    return str(path)


def duckdb_view(statement: str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        import duckdb

        path = folder / "corpus.duckdb"
        with duckdb.connect(str(path)) as connection:
            connection.execute("CREATE TABLE harmless AS SELECT 'a lighthouse' AS prompt")
            connection.execute(statement)
        return f"{path}#v.prompt"

    return make


def parquet_with_damaged_names(folder: Path) -> str:
    """Bytes of the footer's column names that are no UTF-8."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "names.parquet"
    pq.write_table(pa.table({"prompt": ["a lighthouse"], "another": ["b"]}), path)
    path.write_bytes(path.read_bytes().replace(b"another", b"an\xff\xfeher"))
    return str(path)


def parquet_claiming_rows(folder: Path) -> str:
    """A footer that claims to be a gigabyte long."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "claims.parquet"
    texts = pa.DictionaryArray.from_arrays(
        pa.array([0] * 200_000, pa.int32()), pa.array(["x" * 1000])
    )
    pq.write_table(pa.table({"prompt": texts}), path)
    content = path.read_bytes()
    path.write_bytes(content[:-8] + (1 << 30).to_bytes(4, "little") + content[-4:])
    return str(path)


def pipe(folder: Path) -> str:
    path = folder / "pipe.txt"
    os.mkfifo(path)
    return str(path)


def linked_device(folder: Path) -> str:
    path = folder / "zero.txt"
    path.symlink_to("/dev/zero")
    return str(path)


def archive_with(kind: bytes, **fields: object) -> Callable[[Path], str]:
    """A WebDataset with a good sample and a header of a kind of tar."""

    def make(folder: Path) -> str:
        path = folder / "shard.tar"
        header = tarfile.TarInfo("1.txt")
        header.type = kind
        for field, value in fields.items():
            setattr(header, field, value)
        good = tarfile.TarInfo("0.txt")
        good.size = 12
        content = b"a lighthouse".ljust(tarfile.BLOCKSIZE, b"\0")
        blocks = (good.tobuf(), content, header.tobuf(tarfile.GNU_FORMAT), bytes(1024))
        path.write_bytes(b"".join(blocks))
        return str(path)

    return make


def packed_archive(folder: Path) -> str:
    """A gigabyte of zeros in a megabyte, under the name of a plain archive."""
    path = Path(zeros(folder))
    return str(path.rename(folder / "shard.tar"))


CORPORA: dict[str, HostileCorpus] = {
    "short-lines": HostileCorpus(
        many_short_lines, "keeps the reader busy with millions of short lines", (20,)
    ),
    "empty-items": HostileCorpus(
        many_items, "keeps the reader busy with millions of empty objects", (0, 20)
    ),
    "zeros": HostileCorpus(zeros, "expands a thousandfold"),
    "deep-json": HostileCorpus(
        written("deep.jsonl", b'{"prompt":' + b"[" * 100_000 + b"\n"), "nests 100,000 lists"
    ),
    "deep-array": HostileCorpus(written("deep.json", b"[" * 100_000), "nests 100,000 lists"),
    "long-line": HostileCorpus(written("long.txt", b"x" * (32 << 20)), "is one line of 32 MiB"),
    "view": HostileCorpus(
        duckdb_view("CREATE VIEW v AS SELECT content AS prompt FROM read_text('/etc/passwd')"),
        "reads a file of the machine",
    ),
    "pipe": HostileCorpus(pipe, "never ends and never answers"),
    "device": HostileCorpus(linked_device, "is a device without an end"),
    "archive-link": HostileCorpus(
        archive_with(tarfile.SYMTYPE, linkname="/etc/passwd"), "names a file of the machine"
    ),
    "archive-claims": HostileCorpus(
        archive_with(tarfile.REGTYPE, size=1 << 36), "claims a sample of 64 GiB"
    ),
    "archive-names": HostileCorpus(
        archive_with(tarfile.GNUTYPE_LONGNAME, size=1 << 33), "claims a name of 8 GiB"
    ),
    "archive-packed": HostileCorpus(packed_archive, "expands a thousandfold"),
    "parquet-names": HostileCorpus(
        parquet_with_damaged_names, "has column names that are no UTF-8"
    ),
    "parquet-claims": HostileCorpus(parquet_claiming_rows, "claims a footer of a gigabyte"),
}


def aliases(levels: int) -> str:
    """YAML that is ten times as large with each level."""
    tens = (
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]"
        for level in range(1, levels + 1)
    )
    return "\n".join(["a0: &a0 [x.csv]", *tens])


CARDS: dict[str, tuple[str, str]] = {
    "aliases": (
        f"{aliases(12)}\nconfigs:\n- config_name: default\n  data_files: *a12\n",
        "asks for 10**12 patterns",
    ),
    "aliases-name": (
        f"{aliases(12)}\nconfigs:\n- config_name: *a12\n  data_files: x.csv\n",
        "has a name of 10**12 characters",
    ),
    "aliases-folder": (
        f"{aliases(12)}\nconfigs:\n- data_dir: *a12\n  data_files: x.csv\n",
        "names a folder of 10**12 characters",
    ),
    "itself": (
        "configs:\n- &a\n  config_name: default\n  data_files:\n  - *a\n",
        "refers to itself",
    ),
    "code": (
        "configs: !!python/object/apply:os.system ['touch $CANARIES/canary-card']\n",
        "runs a command",
    ),
    "long": ("x: " + "y" * (2 << 20) + "\n", "has 2 MiB"),
    "deep": ("configs:\n- data_files: " + "[" * 20_000 + "]" * 20_000 + "\n", "nests 20,000 lists"),
}


def card(name: str) -> bytes:
    """A README.md of a data set."""
    return f"---\n{CARDS[name][0]}---\n# A data set\n".encode()


def good_corpus(folder: Path, thing: str = "lighthouse") -> str:
    path = folder / "good.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"a {thing} number {number}"}) + "\n" for number in range(50))
    )
    return str(path)
