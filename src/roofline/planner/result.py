"""`Plan`: the result of planning: the cheapest way to serve, the next ones, and what would change the answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np

from roofline.calls import checks_methods
from roofline.deployment import Deployment
from roofline.errors import InvalidValueError, quoted
from roofline.frozen import FrozenDict
from roofline.names import local_path, unknown_name
from roofline.planner import days, money, questions
from roofline.planner.asked import Asked
from roofline.planner.candidates import Candidate, describe
from roofline.planner.choice import Choice, not_dominated, with_spare
from roofline.planner.export import export
from roofline.planner.forbidden import forbidden_by
from roofline.planner.listing import columns_of, csv_of, rows_of, summary_of
from roofline.planner.report import sections, to_html, to_markdown
from roofline.planner.search import Table
from roofline.planner.trials import simulated
from roofline.requests import Workload
from roofline.results import Question, Result, plain
from roofline.serving import Simulation
from roofline.units import check_flag

_TOO_SHORT = (
    "too few requests come, or for too short a time, to tell by simulation whether the service keeps up, so closed forms have to find the promises "
    "kept too; a longer workload at the same rate is judged by simulation alone"
)


@checks_methods
@dataclass(frozen=True, repr=False, eq=False)
class Plan(Result):
    """Which machines serve a workload and keep promises, how many, and how they are used.

    Parameters
    ----------
    asked : Asked
        Workload, promises, what there is to choose from [-].
    candidates : Table
        Every candidate, as closed forms see it [-].
    choices : tuple of Choice
        Those that were simulated: first those that keep the promises, the cheapest first [-].
    again : callable
        Plans for what is asked with something changed [-].
    """

    asked: Asked
    candidates: Table
    choices: tuple[Choice, ...]
    again: Callable[[Asked], "Plan"]

    def __post_init__(self) -> None:
        """Freeze nothing: what it holds is frozen."""

    # the answer

    @property
    def kept(self) -> bool:
        """Whether some candidate keeps the promises [-]."""
        return bool(self.choices and self.choices[0].trial.kept) if self.asked.simulated else bool(np.isfinite(self.candidates.cost).any())

    @property
    def cheapest(self) -> Choice:
        """The candidate that keeps the promises at the least cost [-].

        Raises
        ------
        InvalidValueError
            If none keeps them; the sentence is that of `forbidden`.
        """
        if not self.kept:
            raise InvalidValueError(f"{self.forbidden}.")
        if not self.choices:
            raise InvalidValueError("no candidate was simulated (simulated=0); estimated() says what closed forms find.")
        return self.choices[0]

    @property
    def alternatives(self) -> tuple[Choice, ...]:
        """The next cheapest that keep the promises [-]."""
        return tuple(choice for choice in self.choices[1:] if choice.trial.kept)

    @cached_property
    def forbidden(self) -> str:
        """What forbids the promises, the floor above all, and the smallest changes that would allow them; empty where they are kept [-]."""
        return "" if self.kept else forbidden_by(self.asked, self.choices)

    @property
    def frontier(self) -> tuple[Choice, ...]:
        """Choices that no other one beats in cost, throughput per device and speed per user together [-]."""
        kept = [choice for choice in self.choices if choice.trial.kept]
        if not kept:
            return ()
        aims = np.array([(one.cost, -one.tokens_per_s_per_device, -one.tokens_per_s_per_user) for one in kept])
        return tuple(one for one, good in zip(kept, not_dominated(aims), strict=True) if good)

    @property
    def binds(self) -> str:
        """What keeps the cheapest plan from being cheaper [-]."""
        return questions.what_binds(self)

    @property
    def cost_unit(self) -> str:
        """What costs are counted in: ``per hour``, or ``devices`` where no prices are given [-]."""
        return "devices" if self.asked.prices is None else "per hour"

    def estimated(self) -> Candidate:
        """Return the cheapest candidate by closed forms alone.

        Returns
        -------
        Candidate
            With the replicas that these find, spare ones included [-].

        Raises
        ------
        InvalidValueError
            If none keeps the promises.
        """
        cost = self.candidates.cost
        if not np.isfinite(cost).any():
            raise InvalidValueError(f"{self.forbidden}.")
        return with_spare(self.candidates.candidate(int(np.lexsort((self.candidates.tpot_s, cost))[0])), self.asked.spare)

    def why_not(self, candidate: "str | Candidate | Choice | Deployment") -> str:
        """Return why a candidate is not the cheapest plan.

        Parameters
        ----------
        candidate : str, Candidate, Choice or Deployment
            One of those that there were to choose from, or its name [-].

        Returns
        -------
        str
            One sentence [-].

        Raises
        ------
        UnknownNameError
            If there was no such candidate.
        """
        name = (
            describe(candidate)
            if isinstance(candidate, Deployment)
            else candidate.name
            if isinstance(candidate, (Candidate, Choice))
            else str(candidate)
        )
        if name in self._reasons:
            return self._reasons[name]
        raise unknown_name("candidate", name, tuple(self._reasons))

    @cached_property
    def _reasons(self) -> Mapping[str, str]:
        """Why each candidate is not chosen, by name."""
        return FrozenDict({row["name"]: row["reason"] for row in self._rows})

    @cached_property
    def _rows(self) -> Sequence[Mapping[str, Any]]:
        """A row for every candidate: those simulated, all others, and what cannot be."""
        return rows_of(self)

    def simulate(self, candidate: Candidate | None = None, *, workload: Workload | None = None) -> Simulation:
        """Return the simulation of the cheapest plan, without spare replicas, or of another candidate.

        Parameters
        ----------
        candidate : Candidate, optional
            With its replicas [-].
        workload : Workload, optional
            Other requests than those planned for [-].

        Returns
        -------
        Simulation
            Of all replicas and requests [-].
        """
        traffic = questions.traffic_of(self.asked, workload)
        return simulated(self.cheapest.trial.candidate if candidate is None else candidate, traffic, whole=True)

    # what would change the answer

    def promises(self, *, step: float = 0.2) -> tuple[questions.Price, ...]:
        """Return what each promise costs: the cheapest plan if it is relaxed, and if it is tightened.

        Parameters
        ----------
        step : float, optional
            By what share [-].

        Returns
        -------
        tuple of Price
            One for each promise [-].
        """
        return questions.promises(self, step)

    def sensitivity(self, *, step: float = 0.2, interval: float = 0.8) -> tuple[questions.Bar, ...]:
        """Return what the cheapest candidate costs if the workload or the times of steps are other than assumed: the bars of a tornado.

        Parameters
        ----------
        step : float, optional
            By what share load and lengths change [-].
        interval : float, optional
            Probability of the interval of an estimate, at whose ends steps take their times [-].

        Returns
        -------
        tuple of Bar
            Load, prompts, answers and times of steps, the widest bar first [-].
        """
        return questions.sensitivity(self, step, interval)

    def sweep(self, what: str, values: Sequence[int | None]) -> tuple[questions.Point, ...]:
        """Return what the cheapest deployment costs at several limits of the engine.

        Parameters
        ----------
        what : {"sequences", "step_tokens"}
            Which limit [-].
        values : sequence of int
            The limits; None for the engine's default [-].

        Returns
        -------
        tuple of Point
            One for each [-].
        """
        return questions.sweep(self, what, values)

    def growth(self, factors: Sequence[float]) -> tuple[questions.Point, ...]:
        """Return the cheapest plans if the load grows.

        Parameters
        ----------
        factors : sequence of float
            Loads, over that planned for [-].

        Returns
        -------
        tuple of Point
            One for each [-].
        """
        return questions.growth(self, factors)

    def levers(self, *, drafts: int = 3, acceptance: float = 0.7, hit: float = 0.5) -> tuple[questions.Gain, ...]:
        """Return what speculation, a prefix cache and narrower formats would bring, at the promises of this plan.

        Parameters
        ----------
        drafts : int, optional
            Tokens drafted for each step, for nothing [token].
        acceptance : float, optional
            Probability that a draft is accepted [-].
        hit : float, optional
            Share of each prompt that a prefix cache finds [-].

        Returns
        -------
        tuple of Gain
            The largest load of a replica by closed forms, with and without, the best first [-].
        """
        return questions.levers(self, drafts, acceptance, hit)

    def thresholds(self) -> questions.Thresholds:
        """Return at what load of a replica the promises break, and what can be seen of it there: when to add replicas.

        Returns
        -------
        Thresholds
            Of the cheapest candidate [-].
        """
        return questions.thresholds(self)

    def mixed(self, other: Candidate, *, owned: int, router: str = "least loaded") -> Candidate | None:
        """Return how many replicas of the cheapest candidate it takes beside some that one has.

        Parameters
        ----------
        other : Candidate
            What one has [-].
        owned : int
            How many replicas of it [-].
        router : str, optional
            What chooses among all of them [-].

        Returns
        -------
        Candidate or None
            The cheapest candidate with these replicas, 0 if what one has is enough; None if as many as without do not suffice [-].
        """
        return questions.mixed(self, other, owned, router)

    def schedule(
        self, trace: Workload, *, period_s: float = 3600.0, start_delay_s: float = 0.0, ahead: bool = True, head_room: float = 0.0
    ) -> days.Schedule:
        """Return how many replicas of the cheapest candidate it takes period by period, and what that saves against as many all the time.

        Parameters
        ----------
        trace : Workload
            What comes, over a day for example [-].
        period_s : float, optional
            How long a number of replicas stays [s].
        start_delay_s : float, optional
            How long a replica takes to start; devices are paid for meanwhile [s].
        ahead : bool, optional
            Whether what a period brings is known before it begins; if not, its replicas are those of the period before [-].
        head_room : float, optional
            By what share more may come [-].

        Returns
        -------
        Schedule
            Replicas of each period, device-hours and the share of requests that keep all promises [-].
        """
        return days.schedule(self, trace, period_s, start_delay_s, ahead, head_room)

    def cost(self, price: float | Mapping[str, float] | None = None) -> money.PlanCost:
        """Return what the cheapest plan costs, for an hour, a request and a million tokens.

        Parameters
        ----------
        price : float or mapping of str to float, optional
            Of a device for an hour; that of the plan if not given [currency].

        Returns
        -------
        PlanCost
            At the load planned for [currency].
        """
        return money.cost(self, price)

    def break_even(self, *, input_price: float, output_price: float, price: float | Mapping[str, float] | None = None) -> money.BreakEven:
        """Return above which load the plan is cheaper than a service that charges for tokens.

        Parameters
        ----------
        input_price, output_price : float
            Of a million tokens of prompts and of answers [currency].
        price : float or mapping of str to float, optional
            Of a device for an hour; that of the plan if not given [currency].

        Returns
        -------
        BreakEven
            The least rate, and what a request costs either way [-].
        """
        return money.break_even(self, input_price, output_price, price)

    def energy(self, power_w: float | Mapping[str, float]) -> money.PlanEnergy:
        """Return what energy the cheapest plan takes.

        Parameters
        ----------
        power_w : float or mapping of str to float
            Mean power of a device, or by the id of its machine [W].

        Returns
        -------
        PlanEnergy
            Power, and energy of a request and of a token [-].
        """
        return money.energy(self, power_w)

    def export(self, target: str, *, checkpoint: str | None = None, image: str | None = None) -> str:
        """Return what starts the cheapest plan: an engine's command lines, one for each pool, or Kubernetes manifests.

        Parameters
        ----------
        target : {"vllm", "sglang", "trtllm", "k8s"}
            The plan's engine, or Kubernetes [-].
        checkpoint : str, optional
            What the engine loads: an id of the Hub or a path, with weights stored as the plan has them; the Hub's id of the model if not given [-].
        image : str, optional
            The container of manifests; the engine's own, of the version whose rules were followed, if not given [-].

        Returns
        -------
        str
            Text that :func:`read_export` reads again; what was left to the engine's defaults stays so [-].
        """
        return export(self.cheapest.candidate, target, checkpoint=checkpoint, image=image)

    def report(self, path: "str | PathLike[str]", *, changes: bool = True) -> None:
        """Write the plan on one page: question, answer, what binds, frontier, what each promise costs, sensitivity, growth, how sure it is.

        Parameters
        ----------
        path : str or path
            Where to: a page of its own if it ends in ``.html``, Markdown if in ``.md`` [-].
        changes : bool, optional
            Whether to say what would change the answer, which plans some ten times again [-].
        """
        file = local_path(path)
        form = {".html": to_html, ".md": to_markdown}.get(file.suffix)
        if form is None:
            raise InvalidValueError(f"{quoted(file.name)} is neither .html nor .md, the two forms of a report.")
        title = f"Plan for {self.asked.case.deployments[0].model.name}"
        _write(file, form(sections(self, changes=check_flag("changes", changes)), title))

    # as a result

    def question(self) -> Question | None:
        """Return the question that this answers; None where no data says it: a function was given, or something was changed since [-]."""
        return self.asked.question

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know: of the workload, and of what the cheapest plan's times and limits rest on."""
        if not (self.kept and self.choices):
            return self.asked.notes
        short = () if self.cheapest.trial.settled else (_TOO_SHORT,)
        return tuple(dict.fromkeys((*self.asked.notes, *short, *questions.notes_of(self))))

    def values(self) -> dict[str, Any]:
        """Return the cheapest plan's numbers by name [SI]."""
        return {"kept": self.kept, "cost_unit": self.cost_unit, **(self.choices[0].values() if self.kept and self.choices else {})}

    def context(self) -> dict[str, Any]:
        """Return what the plan rests on: load, lengths, promises, choices, what forbids them [-]."""
        demand, slo = self.candidates.demand, self.asked.slo
        load = {name: getattr(demand, name) for name in ("load", "unit", "prompt", "output", "prompt_cv", "output_cv")}
        return {
            "kind": "plan",
            "workload": load,
            "promises": slo.promises,
            "percentile": slo.percentile,
            "candidates": len(self.candidates),
            "cost_unit": self.cost_unit,
            "binds": self.binds if self.kept and self.choices else "",
            "forbidden": self.forbidden,
            "choices": [plain(choice.values()) for choice in self.choices],
            "notes": self.notes,
        }

    def table(self) -> Sequence[Mapping[str, Any]]:
        """Return a row for each candidate that was simulated [-]."""
        return [plain(row) for row in self._rows[: len(self.choices)]]

    def _columns(self) -> dict[str, list[Any]]:
        return columns_of(self._rows)

    def to_csv(self, path: "str | PathLike[str]") -> None:
        """Write every candidate with its reason.

        Parameters
        ----------
        path : str or path
            Where to [-].
        """
        _write(path, csv_of(self._columns()))

    def summary(self) -> list[str]:
        """Return the short text: the cheapest plan, what binds in it, the next ones, how many candidates there were [-]."""
        return summary_of(self)


def _write(path: "str | PathLike[str]", text: str) -> None:
    file = local_path(path)
    try:
        file.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InvalidValueError(f"{quoted(str(file))} cannot be written: {error.strerror or error}.") from None
