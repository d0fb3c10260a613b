"""Build an index on a cluster and be killed after some shards; a program of `test_ray.py`.

python tests/indexer/ray_driver.py ROOT CORPUS ADDRESS
"""

from __future__ import annotations

import sys
from pathlib import Path

from imprompt.indexer.build import BuildOptions, BuildReport, build_index, spaces_of
from imprompt.indexer.engine import BuildSpace, Engine
from imprompt.indexer.journal import Journal
from imprompt.indexer.ray_engine import RayEngine
from imprompt.indexer.ray_session import ray_cluster
from imprompt.indexer.readers.sources import parse_corpus
from tests.indexer.doubles import BagPair
from tests.killing import after

SHARD_ROWS = 64
FINISHED = 3


def spaces() -> list[BuildSpace]:
    return spaces_of(BagPair(), [])


def build(root: Path, corpus: Path, engine: Engine) -> BuildReport:
    """Run the command that is interrupted and repeated."""
    return build_index(
        root,
        [parse_corpus(str(corpus))],
        BagPair(),
        options=BuildOptions(shard_rows=SHARD_ROWS),
        engine=engine,
    )


def main() -> None:
    root, corpus, address = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    after(Journal, "append", call=1 + FINISHED)  # the first line is that of the numbered rows
    with ray_cluster(address) as cluster:
        build(root, corpus, RayEngine(cluster, spaces))


if __name__ == "__main__":
    main()
