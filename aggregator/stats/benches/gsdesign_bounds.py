"""The boundaries of `analysis.rs` by gsdesign's kernel (Jennison and Turnbull's grid, r = 18) under scipy.

Reads lines of "fractions;bounds", computes O'Brien-Fleming spending bounds at 2.5 % two-sided from the fractions,
and prints its row: time, and the largest difference below z = 4.5, where its grid is good.
"""

import math
import sys
import time

import numpy as np
from gsdesign import gridpts, h1, hupdate
from scipy.optimize import brentq
from scipy.stats import norm

SIDE = 0.0125
R = 18
# Our boundary does not spend less than this either; the next look gets it.
NEGLIGIBLE = 1e-14


def spent(t):
    return 2 * norm.sf(norm.isf(SIDE / 2) / math.sqrt(t))


def bounds(fractions):
    found = []
    grid = None
    before, t_before = 0.0, 0.0
    for t in fractions:
        target = min(spent(t), SIDE)
        increment = target - before
        if increment < NEGLIGIBLE:
            found.append(math.inf)
            continue
        if grid is None:
            b = float(norm.isf(increment))
            grid = h1(r=R, theta=0.0, info=t, a=-b, b=b)
        else:
            z, _, h = grid
            dt = math.sqrt(t - t_before)

            def excess(b):
                return float(np.sum(h * norm.sf((b * math.sqrt(t) - z * math.sqrt(t_before)) / dt))) - increment

            b = brentq(excess, 0.5, 12.0, xtol=1e-10)
            grid = hupdate(R, 0.0, t, -b, b, 0.0, t_before, grid)
        found.append(b)
        before, t_before = target, t
    return found


def main():
    cases = []
    for line in sys.stdin:
        fractions, ours = line.split(";")
        cases.append(([float(x) for x in fractions.split()], [float(x) for x in ours.split()]))
    started = time.perf_counter()
    theirs = [bounds(fractions) for fractions, _ in cases]
    seconds = time.perf_counter() - started
    worst = 0.0
    for (_, ours), other in zip(cases, theirs):
        for a, b in zip(ours, other):
            if b < 4.5:
                worst = max(worst, abs(a - b))
    name = f"gsdesign under scipy, {len(cases)} of these boundaries"
    print(f"{name:<44} {seconds:>10.3f} s {seconds * 1e3 / len(cases):>13.3f} ms")
    print(f"largest difference to it below z = 4.5: {worst:.1e}")


if __name__ == "__main__":
    main()
