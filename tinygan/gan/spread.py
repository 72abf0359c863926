"""How diverse a batch of fakes is, beside a batch of data: one number for the log."""

from __future__ import annotations

from tinygan.backend import Array, Backend

COPIES = 1e-3  # distances below this share of the batch's own width count as this: log 0 is far
TINY = 1e-30  # still a float32
MOST = 1024  # samples of a minibatch that are compared: time and memory grow with the square


def spread(fakes: Array, x: Array, backend: Backend) -> Array:
    """Geometric mean distance between two fakes (m, ...), over that between two of x: [monitor.1].

    1 where G is as diverse as the data, about 0 where all fakes are alike; a 0-d array. Unlike the
    ratio of standard deviations it sees copies: with fakes on two opposite modes of a ring of
    eight that ratio is 1, and this is 0.2. Of more than MOST samples it looks at the first.
    """
    own, theirs = (_mean_log_distance(samples[:MOST], backend) for samples in (fakes, x))
    return backend.xp.exp(own - theirs)


def _mean_log_distance(samples: Array, backend: Backend) -> Array:
    """Mean of log |a - b| over all pairs of different samples."""
    xp, m = backend.xp, len(samples)
    a = samples.reshape(m, -1)
    a = a - a.mean(0)  # near the origin, |a|² + |b|² - 2ab loses fewest digits
    squares = (a * a).sum(1)
    products = backend.matmul(a, a.T, out=backend.empty((m, m), a.dtype))
    d = squares[:, None] + squares[None, :] - 2.0 * products
    d = xp.maximum(d, COPIES**2 * squares.mean() + TINY)
    d.reshape(-1)[:: m + 1] = 1.0  # log 1 = 0: no sample is its own pair
    return 0.5 * xp.log(d).sum() / max(1, m * (m - 1))
