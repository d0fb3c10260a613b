"""The rotation before the rows are cut into pieces: products stay, and each piece holds as much."""

from __future__ import annotations

import numpy as np
import pytest

from imprompt.core.values import Vectors, unit_rows
from imprompt.store.ivf.ivf_lists import rotation_for

DIM, PIECES = 48, 12


@pytest.fixture(scope="module")
def rows() -> Vectors:
    """(3,000, 48) unit rows, mostly along a few axes, in a mixed-up order of axes and turned."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    return unit_rows((rng.standard_normal((3_000, DIM)) * 0.9 ** np.arange(DIM)) @ axes)


def spread(rows: Vectors) -> float:
    """The largest of the pieces' products of variances, over the smallest, in powers of e."""
    variances = np.linalg.eigvalsh
    logs = [
        np.log(variances(np.cov(piece.T))).sum()
        for piece in np.split(rows.astype(np.float64), PIECES, axis=1)
    ]
    return float(max(logs) - min(logs))


def test_products_stay(rows: Vectors) -> None:
    """It is orthogonal, so the cosines of what is turned are the old ones."""
    rotation = rotation_for(rows, PIECES)
    assert rotation.dtype == np.float32
    assert rotation.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(DIM), atol=1e-5)
    turned = rows[:50] @ rotation
    np.testing.assert_allclose(turned @ turned.T, rows[:50] @ rows[:50].T, atol=1e-5)


def test_pieces_hold_as_much(rows: Vectors) -> None:
    """The pieces' products of variances are near each other.

    Those of the principal axes in their own order are not.
    """
    principal = np.linalg.eigh(rows.T.astype(np.float64) @ rows)[1]
    assert spread(rows @ rotation_for(rows, PIECES)) < 1.0
    assert spread(rows @ principal) > 10.0


@pytest.mark.parametrize("n", [1, 5])
def test_fewer_rows_than_dimensions(rows: Vectors, n: int) -> None:
    """Axes without variance are dealt out, too."""
    rotation = rotation_for(rows[:n], PIECES)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(DIM), atol=1e-5)
