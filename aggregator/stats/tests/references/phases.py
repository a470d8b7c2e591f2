"""Prints the numbers of ../phases.rs. Needs numpy 2.4 and scipy 1.17.1.

The formulas of the phases are written out here; distributions, roots and the count test's beta functions are scipy's.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln
from scipy.stats import binom, chi2, hypergeom, nchypergeom_fisher, norm, t

ALPHA = 0.05


def show(name, *values):
    print(name, *(f"{value:.12g}" for value in values))


def weight(n_c, n_t):
    return n_c * n_t / (n_c + n_t)


# Control and treatment: conversions, units; then the treatment's share.
RATES = [((250, 5000), (290, 5010), 0.5), ((500, 9000), (70, 1000), 0.1), ((90, 1900), (9, 100), 0.05)]
w, d, v, own, n = [], [], [], [], []
for (x_c, n_c), (x_t, n_t), _ in RATES:
    p_c, p_t, p = x_c / n_c, x_t / n_t, (x_c + x_t) / (n_c + n_t)
    w.append(weight(n_c, n_t))
    d.append(p_t - p_c)
    v.append(p * (1 - p) * (1 / n_c + 1 / n_t))
    own.append(p_c * (1 - p_c) / n_c + p_t * (1 - p_t) / n_t)
    n.append(n_c + n_t)
w, d, v, own, n = map(np.array, (w, d, v, own, n))
U, V, W = (w * d).sum(), (w**2 * v).sum(), w.sum()
z = U / np.sqrt(V)
show("rates: estimate, standard error, z, weight", U / W, np.sqrt(V) / W, z, W)
show("rates: by units", (n * d).sum() / n.sum(), np.sqrt(((n / n.sum()) ** 2 * v).sum()))
show("rates: fraction of 10,000 an arm", W / weight(10000, 10000))
# The third phase is below its own gate of 25 conversions.
q = 1 / own[:2]
common = (q * d[:2]).sum() / q.sum()
Q = (q * (d[:2] - common) ** 2).sum()
show("rates: heterogeneity", Q, chi2.sf(Q, 1))
tuned = 20000
b = -2 * np.log(ALPHA)
units = round(n[0] + w[1:].sum() / 0.25)
r = units * (b + np.log(b + 1)) / tuned
log_e = r * z**2 / (2 * (1 + r)) - 0.5 * np.log(1 + r)
half = np.sqrt((1 + 1 / r) * (2 * np.log(1 / ALPHA) + np.log(1 + r))) * np.sqrt(V) / W
show("rates: units", n[0] + w[1:].sum() / 0.25)
show("rates: log e, p, interval", log_e, min(1, np.exp(-log_e)), U / W - half, U / W + half)

# Control and treatment: units, mean, variance.
MEANS = [((12, 3.1, 4.0), (9, 4.6, 9.0)), ((20, 3.0, 5.0), (3, 5.0, 2.0))]
U = V = W = low = 0.0
for (n_c, m_c, v_c), (n_t, m_t, v_t) in MEANS:
    w_k = weight(n_c, n_t)
    U, W, V = U + w_k * (m_t - m_c), W + w_k, V + w_k**2 * (v_c / n_c + v_t / n_t)
    low += (w_k**2 * v_c / n_c) ** 2 / (n_c - 1) + (w_k**2 * v_t / n_t) ** 2 / (n_t - 1)
degrees = V**2 / low
show("means: estimate, standard error, degrees", U / W, np.sqrt(V) / W, degrees)
show("means: z", norm.isf(t.sf(U / np.sqrt(V), degrees)))

# Conversions of control and treatment, the treatment's share.
COUNTS = [(12, 3, 0.5), (30, 1, 0.1), (20, 0, 0.05)]


def convolved(pmfs):
    mass = np.ones(1)
    for pmf in pmfs:
        mass = np.convolve(mass, pmf)
    return mass


def theta(share, log_ratio):
    odds = share / (1 - share) * np.exp(log_ratio)
    return odds / (1 + odds)


def count_tails(log_ratio):
    mass = convolved([binom.pmf(np.arange(c + t_ + 1), c + t_, theta(s, log_ratio)) for c, t_, s in COUNTS])
    observed = sum(t_ for _, t_, _ in COUNTS)
    return mass[: observed + 1].sum(), mass[observed:].sum()


show("counts: at most, at least", *count_tails(0))
show(
    "counts: ratio at 0.025 a side",
    brentq(lambda x: count_tails(x)[1] - 0.025, -20, 20, xtol=1e-13),
    brentq(lambda x: count_tails(x)[0] - 0.025, -20, 20, xtol=1e-13),
)
k = 100


def log_bayes_factor(c, t_, s, log_ratio):
    th = theta(s, log_ratio)
    return betaln(k * s + t_, k * (1 - s) + c) - betaln(k * s, k * (1 - s)) - t_ * np.log(th) - c * np.log(1 - th)


def product(log_ratio):
    return sum(log_bayes_factor(*phase, log_ratio) for phase in COUNTS)


likeliest = brentq(
    lambda x: sum((c + t_) * theta(s, x) for c, t_, s in COUNTS) - sum(t_ for _, t_, _ in COUNTS), -20, 20, xtol=1e-13
)
excess = lambda x: product(x) + np.log(ALPHA)
show("counts: log e, p, likeliest", product(0), min(1, np.exp(-product(0))), likeliest)
show("counts: interval", brentq(excess, -20, likeliest, xtol=1e-13), brentq(excess, likeliest, 20, xtol=1e-13))

# Control and treatment: conversions, units.
TABLES = [((8, 200), (2, 190)), ((9, 300), (1, 30))]


def table_tails(odds):
    pmfs = []
    for (x_c, n_c), (x_t, n_t) in TABLES:
        x = np.arange(x_c + x_t + 1)
        if odds == 1:
            pmfs.append(hypergeom.pmf(x, n_c + n_t, n_t, x_c + x_t))
        else:
            pmfs.append(nchypergeom_fisher.pmf(x, n_c + n_t, n_t, x_c + x_t, odds))
    mass = convolved(pmfs)
    observed = sum(x_t for _, (x_t, _) in TABLES)
    return mass[: observed + 1].sum(), mass[observed:].sum()


show("tables: at most, at least", *table_tails(1))
show(
    "tables: log odds ratio",
    brentq(lambda x: table_tails(np.exp(x))[1] - 0.025, -8, 4, xtol=1e-12),
    brentq(lambda x: table_tails(np.exp(x))[0] - 0.025, -8, 4, xtol=1e-12),
)

# Looks at 0.3 and 0.6 and one at the end, O'Brien-Fleming spending: bounds by Simpson's rule on 4001 points.
times = [0.3, 0.6, 1.0]
spent = [2 * norm.sf(norm.isf(ALPHA / 4) / np.sqrt(time)) for time in times]
bounds, mass, points = [norm.isf(spent[0])], None, None
for index in (1, 2):
    before, now, bound = times[index - 1], times[index], bounds[-1]
    grid = np.linspace(-bound, bound, 4001) * np.sqrt(before)
    simpson = np.ones(4001)
    simpson[1:-1:2], simpson[2:-1:2] = 4, 2
    simpson *= (grid[1] - grid[0]) / 3
    if mass is None:
        density = norm.pdf(grid, scale=np.sqrt(before))
    else:
        step = np.sqrt(before - times[index - 2])
        density = np.array([(mass * norm.pdf(y, points, step)).sum() for y in grid])
    mass, points = simpson * density, grid
    crossing = lambda z: (mass * norm.sf((z * np.sqrt(now) - points) / np.sqrt(now - before))).sum()
    bounds.append(brentq(lambda z: crossing(z) - (spent[index] - spent[index - 1]), 1, 6, xtol=1e-12))
show("boundary: bounds", *bounds)
level, step = 1.2 * np.sqrt(0.6), np.sqrt(0.4)
show("boundary: conditional error of z = 1.2 at 0.6", norm.sf((bounds[2] - level) / step) + norm.sf((bounds[2] + level) / step))
