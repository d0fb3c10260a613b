"""Graphs of each reported kind are computed as ComfyUI computes them, and called exact only where they were."""

from __future__ import annotations

import json

import pytest

from images.comfyui import read_graph
from tests.images.sibling_graphs import SIBLINGS, Sibling

CASES = {f"{kind}: {name}": sibling for kind, siblings in SIBLINGS.items() for name, sibling in siblings.items()}


@pytest.mark.parametrize("sibling", CASES.values(), ids=CASES.keys())
def test_a_graph_of_a_reported_kind_is_computed(sibling: Sibling) -> None:
    """A text that is None: nothing in the file is this picture's prompt."""
    nodes, positive, negative, how = sibling
    found = read_graph(json.loads(json.dumps(nodes)))
    if positive is None:
        assert found is None
        return
    assert found is not None
    assert (found.positive, found.negative) == (positive, negative)
    assert ("carried" if found.doubt else "exact") == how
