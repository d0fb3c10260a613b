"""Ridge regression against scikit-learn's, and the scaling of blocks."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from imprompt.ensemble.ridge import block_scales, principal_directions, ridge


@pytest.mark.parametrize("shape", [(40, 9), (12, 30)])
def test_weights_equal_those_of_scikit_learn(shape: tuple[int, int]) -> None:
    """With few features or many, weighted or not, the dual solution is the primal one."""
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal(shape).astype(np.float32)
    targets = rng.standard_normal((shape[0], 3)).astype(np.float32)
    weights = rng.uniform(0.2, 3, shape[0])
    oracle = Ridge(alpha=0.05 * shape[0], fit_intercept=False).fit(
        inputs, targets, sample_weight=weights / weights.mean()
    )
    np.testing.assert_allclose(
        ridge(inputs, targets, penalty=0.05, row_weights=weights), oracle.coef_.T, atol=1e-4
    )


def test_a_larger_weight_pulls_the_fit_to_its_row() -> None:
    """A row that weighs more is fitted better."""
    inputs, targets = np.ones((2, 1), np.float32), np.array([[0.0], [1.0]], np.float32)
    fitted = ridge(inputs, targets, penalty=1e-6, row_weights=np.array([1.0, 9.0]))
    assert fitted.item() == pytest.approx(0.9, abs=1e-3)


def test_blocks_get_their_share_of_the_variance() -> None:
    """Scaled blocks have their shares, wide or narrow; a dead feature has nothing."""
    rng = np.random.default_rng(2)
    features = (rng.standard_normal((500, 12)) * rng.uniform(1, 50, 12) + 7).astype(np.float32)
    features[:, 3] = 1.5
    centre, scale = block_scales(features, (10, 2), (3.0, 1.0))
    variance = ((features - centre) * scale).var(axis=0)
    assert variance[:10].sum() == pytest.approx(0.75, abs=1e-3)
    assert variance[10:].sum() == pytest.approx(0.25, abs=1e-3)
    assert scale[3] == 0


@pytest.mark.parametrize(("shape", "rank"), [((8, 20), 7), ((60, 20), 10)])
def test_principal_directions_equal_those_of_scikit_learn(
    shape: tuple[int, int], rank: int
) -> None:
    """Up to sign, and with zeros where the rows span fewer directions than were asked for."""
    rng = np.random.default_rng(3)
    rows = (rng.standard_normal(shape) * rng.uniform(1, 5, 20)).astype(np.float32)
    rows -= rows.mean(axis=0)
    oracle = PCA().fit(rows).components_[:rank]
    directions = principal_directions(rows, 10)
    np.testing.assert_allclose(
        np.abs(np.sum(directions[:, :rank] * oracle.T, axis=0)), 1, atol=1e-4
    )
    assert not directions[:, rank:].any()


def test_what_does_not_fit_together_is_refused() -> None:
    """Lengths, widths and signs are checked."""
    with pytest.raises(ValueError, match="penalty 0"):
        ridge(
            np.ones((2, 1), np.float32),
            np.ones((2, 1), np.float32),
            penalty=0,
            row_weights=np.ones(2),
        )
    with pytest.raises(ValueError, match="weights"):
        ridge(
            np.ones((2, 1), np.float32),
            np.ones((2, 1), np.float32),
            penalty=1,
            row_weights=np.ones(3),
        )
    with pytest.raises(ValueError, match="widths"):
        block_scales(np.ones((2, 3), np.float32), (1, 1), (1.0, 1.0))
