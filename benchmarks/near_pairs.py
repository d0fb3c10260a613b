"""How similar in MiniLM space are prompts whose words are nearly the same?

    python benchmarks/near_pairs.py --index FOLDER

FOLDER is an index built with `--near-duplicates off`. Writes figures, no prompts, to
benchmarks/results/near_pairs.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.machine import ROOT, machine
from imprompt.indexer.duplicates import drop_near_duplicates
from imprompt.indexer.scratch_arrays import Scratch
from imprompt.store.index_version import open_version

RESULT = ROOT / "benchmarks" / "results" / "near_pairs.json"
THRESHOLD = 0.8
STEPS = (0.8, 0.85, 0.9, 0.95, 1.01)
SPACE = "minilm-l6-v2"
SAME = 0.9


def main() -> None:
    """Dedupe at .8, and measure the cosine of each dropped prompt with the one kept for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    args = parser.parse_args()
    with open_version(args.index) as version, Scratch(Path(tempfile.gettempdir())) as scratch:
        prompts = version.prompts.get_many(range(len(version.prompts)))
        n_submitted = np.array([prompt.n_submitted for prompt in prompts], dtype=np.int64)
        kept_by, sets = drop_near_duplicates(
            [[prompt.embedded_text for prompt in prompts]],
            n_submitted,
            scratch,
            threshold=THRESHOLD,
        )
        folded = np.flatnonzero(kept_by != np.arange(len(kept_by)))
        cosines = np.einsum(
            "nd,nd->n", *(version.vectors(SPACE).rows(rows) for rows in (folded, kept_by[folded]))
        )
        alike = sets.jaccard(folded, kept_by[folded])
    bins = []
    for least, most in itertools.pairwise(STEPS):
        within = cosines[(alike >= least) & (alike < most)]
        share = float((within < SAME).mean())
        bins.append(
            {
                "from": least,
                "to": min(most, 1),
                "n": len(within),
                "below_.9": share,
                "median": float(np.median(within)),
            }
        )
    result = {
        "machine": machine("numpy", "rensa"),
        "prompts": len(prompts),
        "folded": len(folded),
        "by_jaccard": bins,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
