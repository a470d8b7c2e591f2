"""Prints the table of ../bayes_sizes.rs. Needs mpmath 1.4.1 and numpy 2.4.

Both densities over the log odds are evaluated with 50 digits, at the points of Gauss-Legendre rules on short pieces; the
distribution functions are their running integrals. Places are relative to the peak of the control, so that the sums in
doubles have no large terms.
"""

import numpy as np
from mpmath import exp, log, loggamma, mp, mpf, sqrt
from numpy.polynomial import legendre

mp.dps = 50
POINTS = 20
NODES, WEIGHTS = legendre.leggauss(POINTS)


def running_weights():
    """Row i: the weights of the integral from -1 to node i of the polynomial through all nodes."""
    to_coefficients = np.linalg.inv(legendre.legvander(NODES, POINTS - 1))
    rows = []
    for node in NODES:
        row = [legendre.legval(node, legendre.legint(np.eye(POINTS)[k], lbnd=-1)) for k in range(POINTS)]
        rows.append(row @ to_coefficients)
    return np.array(rows)


RUNNING = running_weights()


class Beta:
    def __init__(self, a, b, origin):
        self.a, self.b, self.origin = mpf(a), mpf(b), origin
        self.constant = loggamma(self.a + self.b) - loggamma(self.a) - loggamma(self.b)
        self.peak = log(self.a / self.b) - origin

    def density(self, x):
        x = mpf(x) + self.origin
        return float(exp(self.constant + self.a * x - (self.a + self.b) * log(1 + exp(x))))

    def edges(self):
        """The edges of pieces of two thirds of its width, between the points where the density is e^-80 of its peak."""
        sd, edges = sqrt(1 / self.a + 1 / self.b), []
        for sign in (-1, 1):
            step, x, top = 0.66 * sd, self.peak, self.density(self.peak)
            while True:
                edges.append(float(x))
                if self.density(x) < top * 1.8e-35:
                    break
                x += sign * min(step, 2)
        return edges


def compare(control, treatment):
    edges = np.unique(np.array(control.edges() + treatment.edges()))
    half = np.diff(edges) / 2
    points = (edges[:-1] + half)[:, None] + half[:, None] * NODES
    weights = half[:, None] * WEIGHTS
    f_c, f_t = ([[of.density(x) for x in row] for row in points] for of in (control, treatment))
    f_c, f_t = np.array(f_c), np.array(f_t)

    def distribution(f):
        whole = (weights * f).sum(axis=1)
        before = np.concatenate([[0], np.cumsum(whole)[:-1]])
        below = before[:, None] + half[:, None] * (f @ RUNNING.T)
        after = np.concatenate([np.cumsum(whole[::-1])[::-1][1:], [0]])
        above = after[:, None] + whole[:, None] - half[:, None] * (f @ RUNNING.T)
        return below, above

    below_c, above_c = distribution(f_c)
    below_t, above_t = distribution(f_t)
    odds = np.array([[float(exp(mpf(x) + control.origin)) for x in row] for row in points])
    slope = odds / (1 + odds) ** 2
    better = (weights * f_t * below_c).sum()
    return better, (weights * slope * above_c * below_t).sum(), (weights * slope * above_t * below_c).sum()


CASES = [
    # x_c, n_c, x_t, n_t, prior
    (10**12, 10**13, 10**12 + 1_307_000, 10**13, 1),
    (10**14, 10**15, 10**14 + 13_070_000, 10**15, 1),
    (3 * 10**14, 3 * 10**15, 3 * 10**14 + 22_640_000, 3 * 10**15, 1),
    (2**52, 2**53, 2**52 + 40_000_000, 2**53, 1),
    (3, 2**53, 8, 2**53, 1),
    (2**53 - 8, 2**53, 2**53 - 3, 2**53, 1),
    (5 * 10**14, 10**15, 490, 1000, 1),
    (10**9, 10**12, 10**9 + 400_000, 10**12, 1),
    (0, 0, 2**52, 2**53, 1),
    (7, 100, 12, 90, "0.5"),
]

if __name__ == "__main__":
    for x_c, n_c, x_t, n_t, prior in CASES:
        p = mpf(prior)
        origin = log((p + x_c) / (p + n_c - x_c))
        values = compare(Beta(p + x_c, p + n_c - x_c, origin), Beta(p + x_t, p + n_t - x_t, origin))
        shown = ", ".join(f"{value:.15g}" for value in values)
        print(f"    ([{x_c}, {n_c}], [{x_t}, {n_t}], {float(p)}, [{shown}]),", flush=True)
