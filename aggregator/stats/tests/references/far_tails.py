"""Prints the tables of ../far_tails.rs. Needs mpmath 1.4.1; everything is computed with 40 digits.

A tail of Student's t is its density integrated numerically, which shares no formula with the continued fraction
that is tested. Chi-square tails come from mpmath's incomplete gamma function.
"""

from mpmath import erfc, exp, gammainc, inf, log, log1p, loggamma, mp, mpf, nstr, pi, quad, sqrt

mp.dps = 40


def t_tail(t, v):
    """P(T > t): the integral of u f(u) over ln u, relative to its value at the lower end."""
    t, v = mpf(t), mpf(v)
    constant = loggamma((v + 1) / 2) - loggamma(v / 2) - log(v * pi) / 2
    log_integrand = lambda s: constant - (v + 1) / 2 * log1p(exp(2 * s) / v) + s
    s = log(t)
    at = log_integrand(s)
    rate = (v + 1) * t * t / (v + t * t) - 1  # how fast the integrand falls
    width = 1 / max(rate, mpf(1) / 2, min(sqrt(v), 2) / 4)
    ends = [s + width * k for k in (0, 1, 2, 4, 8, 16, 32, 64, 128, 300)]
    return exp(at) * quad(lambda u: exp(log_integrand(u) - at), ends)


def row(*values):
    print("    (" + ", ".join(v if isinstance(v, str) else nstr(v, 17) for v in values) + "),")


FEW = ["0.3", "1.0", "3.0", "13.0", "6e3", "1e8", "1e10", "1e30", "1e60", "1e150", "1e299"]
MANY = ["0.3", "1.0", "2.0", "4.0", "6.0", "12.0", "24.0", "37.0", "54.0"]
DEGREES = {"0.5": FEW, "1.0": FEW, "1.5": FEW, "2.0": FEW, "3.0": FEW, "7.3": FEW, "30.0": FEW,
           "999.0": MANY, "1001.0": MANY, "2e4": MANY, "1e6": MANY, "5e7": MANY}

if __name__ == "__main__":
    print("t: degrees, t, tail")
    for v, all_t in DEGREES.items():
        for t in all_t:
            tail = t_tail(t, v)
            if tail > mpf(10) ** -303:
                row(v, t, tail)
    print("chi-square: degrees, x, tail")
    for k in ["1.0", "2.0", "5.0", "100.0", "1e3", "1e5"]:
        for f in ["0.5", "0.9", "1.0", "1.1", "2.0", "5.0", "20.0", "250.0", "1300.0"]:
            x = mpf(f) * mpf(k)
            tail = gammainc(mpf(k) / 2, x / 2, inf, regularized=True)
            if tail > mpf(10) ** -300:
                row(k, nstr(x, 17), tail)
    print("normal: z, tail")
    for z in ["0.1", "1.0", "5.0", "10.0", "20.0", "30.0", "37.0"]:
        row(z, erfc(mpf(z) / sqrt(2)) / 2)
