"""Fuzzed index files raise only errors of `imprompt.core.errors`, in bounded time.

hypothesis mutates the seeds of `corpus/`: a whole manifest, a plan, a journal, `CURRENT`, and
conditions.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imprompt.core.errors import ImpromptError
from imprompt.indexer.build_plan import plan_of
from imprompt.indexer.journal import Journal
from imprompt.store import layout
from imprompt.store.conditions import where
from imprompt.store.databases import scratch
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from imprompt.store.manifest import Manifest, decode_manifest, encode_manifest, sha256_bytes
from imprompt.store.predicate_sql import compile_sql
from imprompt.store.publish import read_current
from tests.store.builders import build, reseal

SEEDS = Path(__file__).with_name("corpus")
MOST_S = 2.0
LONG = settings(
    max_examples=600, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
OPENED = settings(LONG, max_examples=150)

pytestmark = pytest.mark.slow

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [
            "",
            "..",
            "../../x",
            "/etc/passwd",
            "vectors/x/00000.npy",
            "IVF9,SQ8",
            "\x1b]0;x\x07",
            "a" * 300,
            "\x00",
        ]
    ),
    st.text(max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
)


@st.composite
def changed(draw: st.DrawFn, seed: Any) -> Any:
    """A JSON value with one to three of its parts replaced, dropped or doubled."""
    value = msgspec.json.decode(msgspec.json.encode(seed))
    for _ in range(draw(st.integers(1, 3))):
        here = value
        while True:
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(here[key], dict | list) and here[key] and draw(st.integers(0, 3)):
                here = here[key]
                continue
            what = draw(st.sampled_from(["replace", "replace", "drop", "double"]))
            if what == "replace":
                here[key] = draw(values)
            elif what == "drop":
                del here[key]
            elif isinstance(here, list):
                here.append(here[key])
            break
    return value


@st.composite
def torn(draw: st.DrawFn, seed: bytes) -> bytes:
    """Bytes with some replaced, cut out or put in."""
    content = bytearray(seed)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        content[start : start + draw(st.integers(0, 8))] = draw(
            st.binary(max_size=8) | st.sampled_from([b"[" * 5000, b'"', b"9" * 400])
        )
    return bytes(content)


def seed(name: str) -> bytes:
    return (SEEDS / name).read_bytes()


class Bounded:
    """Allow the product's own errors in a block, and limit its time."""

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> bool:
        assert time.monotonic() - self._began < MOST_S
        assert error is None or not isinstance(error, ImpromptError) or "\n" not in error.message
        return isinstance(error, ImpromptError)


@LONG
@given(changed(msgspec.json.decode(seed("manifest.json"))))
def test_manifest(value: Any) -> None:
    """A manifest that decodes can be encoded again and gives a plan."""
    with Bounded():
        manifest = decode_manifest(msgspec.json.encode(value), path=Path("MANIFEST.json"))
        again = decode_manifest(encode_manifest(manifest), path=Path("MANIFEST.json"))
        assert again == manifest
        plan_of(manifest).canonical()


@LONG
@given(torn(seed("manifest.json")))
def test_manifest_bytes(content: bytes) -> None:
    with Bounded():
        decode_manifest(content, path=Path("MANIFEST.json"))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    root = tmp_path_factory.mktemp("fuzzed")
    return root, build(root, rows=300)


@OPENED
@given(data=st.data())
def test_opened(index: tuple[Path, Manifest], data: st.DataObject) -> None:
    """Verify and opening agree whether a manifest contradicts its files."""
    root, manifest = index
    value = data.draw(changed(msgspec.to_builtins(manifest)))
    reseal(root, msgspec.json.encode(value))
    with Bounded():
        verify(root)
    with Bounded(), open_version(root) as version:
        vectors = version.vectors(version.space)
        version.index(version.space).search(vectors.block(0, 1), 10)


@LONG
@given(torn(seed("CURRENT")))
def test_current(content: bytes) -> None:
    """Only names that a version can have are taken."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "CURRENT").write_bytes(content)
        with Bounded():
            found = read_current(Path(folder))
            assert found is not None
            assert "/" not in found[0]
            assert not found[0].startswith(".")


@LONG
@given(torn(seed("journal.jsonl")))
def test_journal(content: bytes) -> None:
    """A journal is cut to its good beginning, and names only files of the layout."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / layout.JOURNAL
        path.write_bytes(content)
        with Bounded(), Journal(path) as journal:
            assert content.startswith(path.read_bytes())
            for (space, number), done in journal.shards().items():
                assert done.record.file == layout.shard_file(space, number)


@LONG
@given(st.one_of(*(torn(line) for line in seed("conditions.txt").splitlines())))
def test_conditions(content: bytes) -> None:
    """An accepted condition becomes SQL of known words that DuckDB parses, without its own text."""
    with Bounded():
        sql, values = compile_sql(where(content.decode("utf-8", "replace")))
        assert "'" not in sql
        assert sql.count("?") == len(values)
        with scratch() as connection:
            connection.execute(f"SELECT * FROM ({_EMPTY}) WHERE {sql}", values)  # noqa: S608 what is tested


_EMPTY = (
    "SELECT 0::BIGINT AS row_id, '' AS prompt_key, '' AS text, '' AS embedded_text, "
    "'' AS source, '' AS source_key, 0::BIGINT AS n_submitted, 0::BIGINT AS group_id, "
    "0::BIGINT AS n_duplicates LIMIT 0"
)


def test_the_seeds_are_good() -> None:
    """The seeds are accepted before they are mutated."""
    manifest = decode_manifest(seed("manifest.json"), path=Path("MANIFEST.json"))
    assert len(sha256_bytes(encode_manifest(manifest))) == 64
    plan_of(manifest)
    for line in seed("conditions.txt").decode().splitlines():
        where(line)
