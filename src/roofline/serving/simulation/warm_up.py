"""Where the warm-up of a run ends, while its figures still tell how it began."""

import numpy as np

from roofline.requests import RequestTimes, Workload

_GROUP = 5
_MOST = 0.1  # of the requests


def most_left_out(workload: Workload) -> int:
    """Return how many requests the warm-up of a run may have at most."""
    if workload.clients is not None or workload.after is not None:
        return 0
    return int(len(workload) // _GROUP * _MOST) * _GROUP


def warm_up_end_s(times: RequestTimes) -> float:
    """Return the time before which requests that end belong to the warm-up; 0 if none do.

    The rule is MSER-5: of the times end to end, in the order in which requests ended, means of five are taken, and so many of the first are
    left out that the standard error of the mean of the others is least. At most a tenth of the requests is left out, since a trace whose
    load changes has no warm-up that ends; and none where clients wait for answers, because benchmark clients count all.

    References
    ----------
    K. P. White, M. J. Cobb and S. C. Spratt, A comparison of five steady-state truncation heuristics for simulation, Winter Simulation
    Conference 2000, doi:10.1109/WSC.2000.899921.
    """
    groups, most = len(times) // _GROUP, most_left_out(times.workload) // _GROUP
    if most < 1:
        return 0.0
    order = np.argsort(times.finish_s, kind="stable")
    means = times.e2e_s[order][: groups * _GROUP].reshape(groups, _GROUP).mean(axis=1)
    left = np.arange(groups, groups - most - 1, -1)  # groups that are left after 0, 1, … `most` of the first
    sums, squares = np.cumsum(means[::-1])[::-1][: most + 1], np.cumsum((means**2)[::-1])[::-1][: most + 1]
    errors = (squares - sums**2 / left) / left**2
    cut = int(np.argmin(errors)) * _GROUP
    return float(times.finish_s[order[cut]]) if cut else 0.0
