"""Everything that a GPU's work needs besides FAISS's own code there.

The owner thread, the cap, the explanation, the ways back.

The clone function is a fake on the processor; `make test-faiss-gpu` holds that the real one has the
names that are called.
"""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import imprompt.store.gpu
from imprompt.core.device_names import NvidiaDriver
from imprompt.core.errors import Checksum, ConfigError
from imprompt.core.protocols import VectorIndex
from imprompt.core.values import Hits, Selection, Vectors
from imprompt.store.exact_index import ExactIndex
from imprompt.store.faiss_import import import_faiss
from imprompt.store.gpu import Gpu, opened_gpu
from imprompt.store.gpu_index import GpuIndex
from imprompt.store.index_version import open_version
from imprompt.store.indexes import build_index_file, open_index
from imprompt.store.shards import ShardedVectors
from tests.store.builders import SPACE, build, random_vectors, write_shards
from tests.store.fake_gpu import FakeGpu

ROWS, DIM = 8_000, 32
PIECE_ROWS = 3_000
FILE = "index/toy.faiss"


class Recording(ExactIndex):
    """The exact index, which remembers what it was asked."""

    def __init__(self, vectors: ShardedVectors) -> None:
        super().__init__(vectors)
        self.asked: list[tuple[int, int, float | None, bool]] = []

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        effort: float | None = None,
        selection: Selection | None = None,
    ) -> Hits:
        self.asked.append((len(queries), k, effort, selection is not None))
        return super().search(queries, k, effort=effort, selection=selection)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> ShardedVectors:
    return stored(tmp_path_factory.mktemp("vectors"), random_vectors(ROWS, DIM))


def stored(folder: Path, rows: Vectors) -> ShardedVectors:
    return ShardedVectors(folder, write_shards(folder, rows, shard_rows=1_100))


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def lend(lines: list[str]) -> Iterator[Callable[..., Gpu]]:
    """Makes a GPU of a fake; all are closed at the end."""
    lent: list[Gpu] = []

    def make(fake: FakeGpu, *, required: bool = False, memory_bytes: int = 0) -> Gpu:
        lent.append(
            Gpu(fake.connect, required=required, announce=lines.append, memory_bytes=memory_bytes)
        )
        return lent[-1]

    yield make
    for gpu in lent:
        gpu.close()


def questions(n: int = 20, *, seed: int = 1) -> Vectors:
    return random_vectors(n, DIM, seed=seed)


def same(left: Hits, right: Hits) -> bool:
    """Equal to the bit."""
    return (
        left.ids.tobytes() == right.ids.tobytes()
        and left.scores.tobytes() == right.scores.tobytes()
    )


@pytest.mark.parametrize("k", [1, 10, 400, 2_048])
def test_the_gpu_answers_what_the_exact_index_answers(
    vectors: ShardedVectors, lend: Callable[..., Gpu], k: int
) -> None:
    """Three pieces of float16 scores give the same ids and bits, and the processor is not asked."""
    fake, cpu = FakeGpu(), Recording(vectors)
    index = GpuIndex(cpu, vectors, lend(fake), piece_rows=PIECE_ROWS)
    assert same(index.search(questions(), k), ExactIndex(vectors).search(questions(), k))
    assert cpu.asked == []
    assert fake.rows == ROWS


def test_its_own_scores_would_not_do(vectors: ShardedVectors) -> None:
    """The fake's order is not the exact one, so scoring again is what the test above holds."""
    fake = FakeGpu()
    clone = fake.connect()(import_faiss().IndexFlatIP(DIM), float16=True)
    clone.add(vectors.codes(0, ROWS).astype(np.float32))
    _, ids = clone.search(questions(200), 50)
    assert (ids != ExactIndex(vectors).search(questions(200), 50).ids).any()


def test_what_cannot_be_proven_is_answered_exactly_by_the_processor(
    tmp_path: Path, lend: Callable[..., Gpu]
) -> None:
    """2,500 rows tie, more than the GPU finds.

    That question alone goes to the processor, with effort 1.
    """
    rows = random_vectors(ROWS, DIM)
    rows[4_000:6_500] = rows[4_000]
    vectors = stored(tmp_path, rows)
    cpu = Recording(vectors)
    index = GpuIndex(cpu, vectors, lend(FakeGpu()))
    queries = np.concatenate([questions(3), vectors.block(4_000, 4_001), questions(3, seed=2)])
    assert same(index.search(queries, 10), ExactIndex(vectors).search(queries, 10))
    assert cpu.asked == [(1, 10, 1.0, False)]


def test_filters_are_the_processors(vectors: ShardedVectors, lend: Callable[..., Gpu]) -> None:
    """With its effort, whatever the GPU could do."""
    fake, cpu = FakeGpu(), Recording(vectors)
    GpuIndex(cpu, vectors, lend(fake)).search(
        questions(), 5, effort=0.3, selection=Selection(np.arange(900))
    )
    assert cpu.asked == [(20, 5, 0.3, True)]
    assert fake.searches == 0
    assert fake.rows == 0


def test_many_threads_share_one_owner(vectors: ShardedVectors, lend: Callable[..., Gpu]) -> None:
    """Sixteen threads search, the first fills the GPU; the fake raises if two touch it at once."""
    fake, cpu = FakeGpu(), Recording(vectors)
    index = GpuIndex(cpu, vectors, lend(fake), piece_rows=PIECE_ROWS)
    queries = questions(64)
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda i: index.search(queries[i : i + 1], 7), range(64)))
    assert fake.rows == ROWS
    assert cpu.asked == []
    whole = ExactIndex(vectors).search(queries, 7)
    assert (np.concatenate([hits.ids for hits in together]) == whole.ids).all()


def test_the_fake_is_as_strict_as_a_gpu(vectors: ShardedVectors) -> None:
    """Another thread and too many rows are refused, so that the tests above can fail."""
    fake = FakeGpu()
    index = fake.connect()(import_faiss().IndexFlatIP(DIM), float16=True)
    index.add(vectors.block(0, 3_000))
    with pytest.raises(RuntimeError, match="up to 2048"):
        index.search(questions(1), 2_049)
    with ThreadPoolExecutor(1) as pool, pytest.raises(AssertionError, match="not its owner"):
        pool.submit(index.search, questions(1), 1).result()


def test_a_full_memory_leaves_the_search_to_the_processor(
    vectors: ShardedVectors, lend: Callable[..., Gpu], lines: list[str]
) -> None:
    """One line, however often it is asked, and nothing stays on the GPU."""
    fake, cpu = FakeGpu(room_rows=5_000), Recording(vectors)
    index = GpuIndex(cpu, vectors, lend(fake), piece_rows=PIECE_ROWS)
    for _ in range(3):
        assert same(index.search(questions(), 5), ExactIndex(vectors).search(questions(), 5))
    assert lines == ["The GPU cannot hold the vectors: its memory is full. The processor does it."]
    assert cpu.asked == [(20, 5, None, False)] * 3
    assert fake.rows == 0


def test_a_full_memory_is_an_error_where_the_gpu_is_required(
    vectors: ShardedVectors, lend: Callable[..., Gpu]
) -> None:
    """With `--device cuda`, with the remedy."""
    index = GpuIndex(Recording(vectors), vectors, lend(FakeGpu(room_rows=5_000), required=True))
    with pytest.raises(ConfigError, match=r"hold the vectors: its memory is full.*--device auto"):
        index.search(questions(), 5)


def test_vectors_that_the_memory_cannot_hold_are_not_sent_there(
    vectors: ShardedVectors, lend: Callable[..., Gpu], lines: list[str]
) -> None:
    """What the driver says of its memory is enough to know.

    Nothing is copied, and the line has both sizes.
    """
    fake, cpu = FakeGpu(), Recording(vectors)
    index = GpuIndex(cpu, vectors, lend(fake, memory_bytes=ROWS * DIM * 2 - 1))
    assert same(index.search(questions(), 5), ExactIndex(vectors).search(questions(), 5))
    assert (fake.clones, len(cpu.asked)) == (0, 1)
    assert lines == [
        "The GPU cannot hold the vectors: they take 0.0 GB, it has 0.0 GB. The processor does it."
    ]
    enough = GpuIndex(cpu, vectors, lend(FakeGpu(), memory_bytes=ROWS * DIM * 2))
    assert same(enough.search(questions(), 5), ExactIndex(vectors).search(questions(), 5))
    assert len(cpu.asked) == 1


@pytest.mark.parametrize("required", [False, True])
def test_a_new_index_takes_the_place_of_the_one_before(
    required: bool, vectors: ShardedVectors, lend: Callable[..., Gpu], lines: list[str]
) -> None:
    """The memory is that of one.

    What still asks the old one is answered by the processor, without a line.
    """
    fake, cpu = FakeGpu(room_rows=ROWS), Recording(vectors)
    gpu = lend(fake, required=required)
    old, new = (GpuIndex(cpu, vectors, gpu, piece_rows=PIECE_ROWS) for _ in range(2))
    expected = ExactIndex(vectors).search(questions(), 5)
    for index, asked in ((old, 0), (old, 0), (new, 0), (old, 1), (new, 1)):
        assert same(index.search(questions(), 5), expected)
        assert (len(cpu.asked), fake.rows) == (asked, ROWS)
    old.close()
    new.close()
    assert fake.rows == 0
    assert same(new.search(questions(), 5), expected)
    assert (len(cpu.asked), fake.rows, lines) == (1, ROWS, [])


def test_a_gpu_that_fails_later(
    vectors: ShardedVectors, lend: Callable[..., Gpu], lines: list[str]
) -> None:
    """After any RuntimeError of FAISS, the processor answers from the call's first question on."""
    fake, cpu = FakeGpu(), Recording(vectors)
    index = GpuIndex(cpu, vectors, lend(fake))
    index.search(questions(), 5)
    fake.search = lambda *_: (_ for _ in ()).throw(RuntimeError("CUDA error 77"))  # type: ignore[method-assign]
    assert same(index.search(questions(), 5), ExactIndex(vectors).search(questions(), 5))
    assert lines == ["The GPU cannot search: CUDA error 77. The processor does it."]


def test_errors_of_our_own_are_not_taken_for_the_gpus(
    vectors: ShardedVectors,
    lend: Callable[..., Gpu],
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A damaged shard is told as such, and the next search tries again from the start."""
    fake, cpu = FakeGpu(), Recording(vectors)
    index = GpuIndex(cpu, vectors, lend(fake), piece_rows=PIECE_ROWS)
    with monkeypatch.context() as patch:
        damaged = Checksum("damaged", path=Path("x"))

        def codes(start: int, stop: int) -> Any:
            if start >= PIECE_ROWS:
                raise damaged
            return np.zeros((stop - start, DIM), dtype=np.float16)

        patch.setattr(vectors, "codes", codes)
        with pytest.raises(Checksum):
            index.search(questions(), 5)
    assert same(index.search(questions(), 5), ExactIndex(vectors).search(questions(), 5))
    assert lines == []
    assert fake.rows == ROWS


@pytest.mark.parametrize("factory", ["IVF64,RaBitQ", "IVF64x2,RaBitQ", "IVF64,SQ8", "IVF64,SQfp16"])
def test_lists_made_by_the_gpu_give_the_same_files(
    vectors: ShardedVectors, tmp_path: Path, lend: Callable[..., Gpu], factory: str
) -> None:
    """Where the clone rounds as the processor does, as the fake, the files have the same bytes."""
    fake = FakeGpu()
    build_index_file(tmp_path / "cpu", FILE, vectors, factory=factory, part_rows=3_000)
    info = build_index_file(
        tmp_path / "gpu", FILE, vectors, factory=factory, part_rows=3_000, gpu=lend(fake)
    )
    assert len(info.parts) == 3
    for part in info.parts:
        assert (tmp_path / "cpu" / part.file).read_bytes() == (
            tmp_path / "gpu" / part.file
        ).read_bytes()
    assert fake.clones == 2


@pytest.mark.parametrize(
    ("refused", "what"), [(0, "cluster the sample"), (1, "hold the centroids")]
)
def test_a_build_goes_on_without_the_gpu(
    vectors: ShardedVectors,
    tmp_path: Path,
    lend: Callable[..., Gpu],
    lines: list[str],
    refused: int,
    what: str,
) -> None:
    """If its memory is full the processor answers, with one line; if it is required, an error."""
    factory = "IVF64,RaBitQ"
    build_index_file(tmp_path / "cpu", FILE, vectors, factory=factory)
    build_index_file(
        tmp_path / "gpu",
        FILE,
        vectors,
        factory=factory,
        gpu=lend(FakeGpu(refused_clones=frozenset({refused}))),
    )
    assert (tmp_path / "cpu" / FILE).read_bytes() == (tmp_path / "gpu" / FILE).read_bytes()
    assert lines == [f"The GPU cannot {what}: its memory is full. The processor does it."]
    with pytest.raises(ConfigError, match=what):
        fake = FakeGpu(refused_clones=frozenset({refused}))
        build_index_file(
            tmp_path / "required", FILE, vectors, factory=factory, gpu=lend(fake, required=True)
        )


def test_a_version_answers_from_the_gpu_until_it_is_closed(
    tmp_path: Path, lend: Callable[..., Gpu]
) -> None:
    """Its rows go there at the first search, and away when it is closed.

    The GPU itself stays for the next version.
    """
    build(tmp_path)
    fake = FakeGpu()
    gpu = lend(fake)
    for _ in range(2):
        with open_version(tmp_path) as version:
            queries = version.vectors(SPACE).block(0, 5)
            before = version.index(SPACE).search(queries, 10)
            version.search_on(gpu)
            assert fake.rows == 0
            assert same(version.index(SPACE).search(queries, 10), before)
            assert fake.rows == len(version.index(SPACE))
        assert fake.rows == 0


def test_a_gpu_that_is_closed_leaves_everything_to_the_processor(
    vectors: ShardedVectors, lend: Callable[..., Gpu]
) -> None:
    """Without a line: nothing failed."""
    cpu = Recording(vectors)
    gpu = lend(FakeGpu())
    index: VectorIndex = GpuIndex(cpu, vectors, gpu)
    gpu.close()
    gpu.close()
    assert same(index.search(questions(), 5), ExactIndex(vectors).search(questions(), 5))
    assert len(cpu.asked) == 1


def machine(
    monkeypatch: pytest.MonkeyPatch, driver: NvidiaDriver, *, gpus: int | None
) -> list[str]:
    """Pretend to have this driver, and a FAISS that sees so many GPUs (None: faiss-cpu).

    Returns what is then asked of FAISS.
    """
    asked: list[str] = []

    def get_num_gpus() -> int:
        asked.append("gpus")
        return gpus or 0

    faiss = SimpleNamespace(get_num_gpus=get_num_gpus)
    if gpus is not None:
        faiss.StandardGpuResources = lambda: asked.append("resources")
    monkeypatch.setattr(imprompt.store.gpu, "import_faiss", lambda: faiss)
    monkeypatch.setattr(imprompt.store.gpu, "nvidia_driver", lambda: driver)
    return asked


ABSENT = NvidiaDriver("there is no NVIDIA driver here", present=False)
BROKEN = NvidiaDriver("the NVIDIA driver does not start (CUDA error 999)", present=True)
OLD = NvidiaDriver("", present=True, gpu="Some GPU, 8 GiB", cuda=(11, 4))
GOOD = NvidiaDriver("", present=True, gpu="Some GPU, 8 GiB", cuda=(13, 0))


@pytest.mark.parametrize(
    ("driver", "gpus", "said", "problem"),
    [
        (ABSENT, None, "", "no NVIDIA driver"),
        (ABSENT, 0, "", "no NVIDIA driver"),
        (BROKEN, 1, "CUDA error 999", "CUDA error 999"),
        (OLD, 0, r"runs CUDA 11\.4 at most", r"Some GPU, 8 GiB runs CUDA 11\.4 at most"),
        (GOOD, None, "", "faiss-cpu is installed"),
    ],
)
def test_a_gpu_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch,
    lines: list[str],
    driver: NvidiaDriver,
    gpus: int | None,
    said: str,
    problem: str,
) -> None:
    """`auto` takes the processor, with a line only if something like a GPU is there.

    `cuda` is refused with the reason.
    """
    machine(monkeypatch, driver, gpus=gpus)
    with opened_gpu("auto", announce=lines.append) as gpu:
        assert gpu is None
    assert len(lines) == bool(said)
    assert all(re.search(said, line) for line in lines)
    with pytest.raises(ConfigError, match=rf"{problem}.*--device auto"), opened_gpu("cuda"):
        pass


def test_a_driver_that_does_not_start_is_not_shown_to_faiss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FAISS ends the process on an error of CUDA that it does not expect."""
    asked = machine(monkeypatch, BROKEN, gpus=1)
    with opened_gpu("auto"):
        pass
    assert asked == []


def test_a_gpu_that_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its resources are made once, in a thread that ends with the block; `cpu` asks nobody."""
    asked = machine(monkeypatch, GOOD, gpus=1)
    with opened_gpu("cpu") as gpu:
        assert gpu is None
    assert asked == []
    with opened_gpu("auto") as gpu:
        assert gpu is not None
        assert asked == ["gpus", "resources"]
    assert gpu.attempt("do anything", lambda _: 1) is None


def test_resources_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    """A GPU whose memory another process holds: a line and the processor, or an error."""
    machine(monkeypatch, GOOD, gpus=1)

    def full() -> Any:
        raise RuntimeError("Failed to cudaMalloc 1610612736 bytes (error 2 out of memory)")

    monkeypatch.setattr(imprompt.store.gpu, "_connect", full)
    with opened_gpu("auto", announce=lines.append) as gpu:
        assert gpu is not None
        assert gpu.attempt("do anything", lambda _: 1) is None
    assert lines == ["The GPU cannot be used: its memory is full. The processor does it."]
    with pytest.raises(ConfigError, match="its memory is full"), opened_gpu("cuda"):
        pass


def test_no_other_device() -> None:
    """Before FAISS is brought in."""
    with pytest.raises(ConfigError, match="auto, cpu, cuda"), opened_gpu("tpu"):
        pass


class Broken:
    """An importer under which `import faiss` fails as it does on a bad installation."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "faiss":
            raise self._error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ModuleNotFoundError("No module named 'faiss'", name="faiss"),
            "it is not installed.*pip install faiss-cpu",
        ),
        (ImportError("libgomp.so.1: cannot open shared object file"), "libgomp.so.1"),
        (
            RuntimeError("faiss-gpu installed but nvidia-cublas-cu12 is missing"),
            "nvidia-cublas-cu12 is missing.*Install what it names",
        ),
        (SystemExit(1), "its own library is missing"),
    ],
)
def test_a_faiss_that_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str
) -> None:
    """One line, whether it raises or ends the process."""
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(error), *sys.meta_path])
    with pytest.raises(ConfigError, match=said) as caught:
        import_faiss()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("level", "said"),
    [("avx9", "knows NONE"), ("ARM_SVE", "no SVE"), ("AVX512_SPR", "no AVX512_SPR")],
)
def test_instructions_that_the_processor_lacks(
    monkeypatch: pytest.MonkeyPatch, level: str, said: str
) -> None:
    """A level set by hand that the processor lacks is refused, because FAISS would crash."""
    monkeypatch.setenv("FAISS_SIMD_LEVEL", level)
    monkeypatch.setattr("numpy._core._multiarray_umath.__cpu_features__", {"AVX2": True})
    with pytest.raises(ConfigError, match=rf"{said}.*Unset FAISS_SIMD_LEVEL"):
        import_faiss()
    monkeypatch.setenv("FAISS_SIMD_LEVEL", "AVX2")
    import_faiss()


def test_the_smallest_instruction_set_answers_alike(
    vectors: ShardedVectors, tmp_path: Path
) -> None:
    """A processor without AVX finds the same rows and scores in a flat index.

    FAISS chooses its code when it is loaded.
    """
    records = write_shards(tmp_path, vectors.block(0, len(vectors)), shard_rows=1_100)
    vectors = ShardedVectors(tmp_path, records)
    info = build_index_file(tmp_path, FILE, vectors)
    script = (
        "import sys, pickle\nimport faiss\nfrom imprompt.store.indexes import open_index\n"
        "from imprompt.store.shards import ShardedVectors\n"
        "folder, info, records, queries = pickle.load(sys.stdin.buffer)\n"
        "hits = open_index(folder, info, ShardedVectors(folder, records)).search(queries, 50)\n"
        "sys.stdout.write(faiss.SIMDConfig.get_level_name() + ' ' + hits.ids.tobytes().hex() "
        "+ hits.scores.tobytes().hex())"
    )
    given = pickle.dumps((tmp_path, info, records, questions()))
    environment = {"FAISS_SIMD_LEVEL": "NONE", "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=given,
        capture_output=True,
        env=environment,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    level, answer = done.stdout.decode().split(" ")
    hits = open_index(tmp_path, info, vectors).search(questions(), 50)
    assert level == "NONE"
    assert answer == hits.ids.tobytes().hex() + hits.scores.tobytes().hex()
