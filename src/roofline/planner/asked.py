"""`Asked`: what a plan is asked."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from roofline.planner.candidates import Excluded
from roofline.planner.demand import longest_prompt
from roofline.planner.fewest import Task, run_together, together
from roofline.planner.search import Case
from roofline.planner.trials import Traffic, Trial
from roofline.requests import SLO, Workload
from roofline.results import Question
from roofline.serving.simulation.routing import Choose
from roofline.tasks import run_tasks


@dataclass(frozen=True)
class Asked:
    """What a plan is asked, checked once, so that it can be asked again with something changed."""

    case: Case
    excluded: tuple[Excluded, ...]
    workload: Workload
    slo: SLO
    pools: tuple[str, ...]
    prices: Mapping[str, float] | None
    spare: int
    router: str | Choose
    simulated: int
    within: float
    seed: int
    executor: Executor | None
    notes: tuple[str, ...] = ()
    question: Question | None = None  # as it was asked; None of what was changed since
    mean_share: float = 1.0  # rate of the whole workload over that planned for, which is the fastest stretch's

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: all but the executor, which belongs to its process."""
        return {**vars(self), "executor": None}

    @property
    def longest(self) -> float:
        """What the promised share of prompts does not exceed, in tokens that are computed."""
        return longest_prompt(self.workload, self.slo.percentile, cached=self.case.finds_prefixes)

    def traffic(self) -> Traffic:
        """Return what candidates are tried with."""
        caching = {} if self.case.prefix_caching is None else {"prefix_caching": self.case.prefix_caching}
        return Traffic(self.workload, self.slo, self.case.timing, caching, self.router, self.case.link_bandwidth, self.seed)

    def run(self, tasks: Sequence[Task]) -> list[Trial]:
        """Run tasks here or where the executor is."""
        return [trial for found in run_tasks(run_together, together(tasks), self.executor) for trial in found]
