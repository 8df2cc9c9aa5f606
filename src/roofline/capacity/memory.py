"""What is in the memory of a device, by kind, and what is left of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from roofline.arithmetic import Number
from roofline.capacity.case import Case, device_name, pick
from roofline.capacity.fit import tight_note
from roofline.deployment import Deployment
from roofline.deployment.deployment import deploy
from roofline.deployment.inputs import deployment_inputs
from roofline.deployment.machine import Machine
from roofline.deployment.options import CAPACITY, CapacityOptions, asks
from roofline.results import Question, Result, show_notes, show_points, show_span
from roofline.units import check_broadcast, check_count, show_bytes


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Resident(Result):
    """What is in the memory of the fullest device, by kind. Amounts are numbers, or arrays of the question's shape.

    Parameters
    ----------
    deployment : Deployment
        What is asked about [-].
    weight_bytes : int, float or numpy.ndarray
        Parameters as loaded, those of towers apart [B].
    tower_bytes : int, float or numpy.ndarray
        Vision and audio towers with their projectors [B].
    kv_bytes : int, float or numpy.ndarray
        Cache in whole pages, a common prefix once [B].
    state_bytes : int, float or numpy.ndarray
        Recurrent and convolution state, and what waits to become an entry [B].
    activation_bytes : int, float or numpy.ndarray
        Peak activations of the largest step; 0 if not asked for [B].
    page_bytes : int, float or numpy.ndarray
        One page in all layers whose cache grows without bound [B].
    free_pages : int, float, numpy.ndarray or None
        Whole pages that fit into what is left; infinite where no cache grows, None where the capacity is not known [-].
    asked : mapping
        The sequences that were asked about: batch, context and shared prefix [-].
    """

    deployment: Deployment
    weight_bytes: Number
    tower_bytes: Number
    kv_bytes: Number
    state_bytes: Number
    activation_bytes: Number
    page_bytes: Number
    free_pages: Number | None
    asked: Mapping[str, Any]

    @property
    def reserve_bytes(self) -> int:
        """What the framework keeps, as given [B]."""
        return self.deployment.reserve

    @property
    def budget_bytes(self) -> int | None:
        """Share of the device's memory that may be used; None where the capacity is not known [B]."""
        return self.deployment.usable_bytes

    @property
    def total_bytes(self) -> Number:
        """All of it [B]."""
        return self.weight_bytes + self.tower_bytes + self.kv_bytes + self.state_bytes + self.activation_bytes + self.reserve_bytes

    @property
    def free_bytes(self) -> Number | None:
        """What is left of the budget, negative where it does not fit; None where the capacity is not known [B]."""
        return None if self.budget_bytes is None else self.budget_bytes - self.total_bytes

    @property
    def fits(self) -> Number | None:
        """Whether it all fits; None where the capacity is not known."""
        return None if self.budget_bytes is None else self.total_bytes <= self.budget_bytes

    @property
    def cache_tokens(self) -> Number | None:
        """Tokens that whole pages in the free memory would hold: an engine's "KV cache size", asked without sequences [token]."""
        return None if self.free_pages is None else self.free_pages * (self.deployment.page * self.deployment.parallel.context)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the deployment, and whether engines have room for it."""
        tight = tight_note(self.total_bytes - self.reserve_bytes, self.deployment)
        without = [f"without {tower}, whose size is not known" for tower in self.deployment.model.unknown_towers]
        return (*self.deployment.notes, *([tight] if tight else []), *without)

    def question(self) -> Question:
        """Return the question that this answers [-]."""
        return Question("resident", deployment_inputs(self.deployment, CAPACITY, **self.asked))

    def values(self) -> dict[str, Any]:
        """Return every number by name, scalars or arrays [SI]."""
        names = (
            "total_bytes weight_bytes tower_bytes kv_bytes state_bytes activation_bytes reserve_bytes budget_bytes free_bytes fits "
            "page_bytes free_pages cache_tokens"
        )
        return {name: getattr(self, name) for name in names.split()}

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on: names, degrees, page [-]."""
        asked = self.deployment
        degrees = {f: getattr(asked.parallel, f) for f in ("tensor", "pipeline", "expert", "data", "context")}
        return {
            "kind": "resident bytes",
            "model": asked.model.name,
            "device": device_name(asked),
            "page": asked.page,
            "parallel": degrees,
            "notes": self.notes,
        }

    def summary(self) -> list[str]:
        """Return the short text: the total in the first line, then its parts and what is left [-]."""
        of = "" if self.budget_bytes is None else f" of {show_bytes(self.budget_bytes)} that may be used"
        fit = self.fits
        verdict = "" if fit is None or np.all(fit) else ": DOES NOT FIT"
        if verdict and isinstance(fit, np.ndarray):
            verdict += f": {show_points(~fit, self.asked).removesuffix(': ')}"
        kinds = {"weights": self.weight_bytes, "towers": self.tower_bytes, "KV cache": self.kv_bytes, "state": self.state_bytes}
        kinds |= {"activations": self.activation_bytes, "reserve": self.reserve_bytes}
        lines = [
            f"memory of {self.deployment.model.name} on {device_name(self.deployment)}: {show_span(self.total_bytes, show_bytes)}{of}{verdict}"
        ]
        lines += [f"  {name}: {show_span(value, show_bytes)}" for name, value in kinds.items() if np.any(value)]
        if np.any(self.page_bytes):
            room = "" if self.free_pages is None else f"; {show_span(self.free_pages, '{:.0f}'.format)} more fit"
            lines.append(f"  page: {self.deployment.page} tokens, {show_span(self.page_bytes, show_bytes)}{room}")
        if self.deployment.devices > 1:
            split = "; pipeline stages have equal numbers of layers" if self.deployment.parallel.pipeline > 1 else ""
            lines.append(f"  devices: {self.deployment.devices}, of which this is the fullest{split}")
        return [*lines, *show_notes(self.notes)]

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"


@asks(CAPACITY)
def resident(
    model: Any, hardware: Machine = None, *, batch: Any = 1, context: Any = 0, shared_prefix: Any = 0, **options: Unpack[CapacityOptions]
) -> Resident:
    r"""Return what is in memory, by kind: parameters, towers included, + KV pages + state + activations + reserve, on the fullest device.

    .. math:: M = W + s_p + B \cdot (\lceil L / p \rceil \cdot p \cdot c - s_p) + B \cdot state + A + R

    with c the bytes of one position in all layers and :math:`s_p` those of a common prefix, counted once.

    Parameters
    ----------
    {model}
    batch : int or array_like, optional
        B, sequences of one step, in all data-parallel groups together; of a mix, how many mixes [-].
    context : int, array_like or mapping, optional
        L, tokens of each that are in the cache; or a mix of sequences, ``{length: how many}`` [token].
    shared_prefix : int or array_like, optional
        Tokens at the start of all sequences that are in memory once, down to whole pages [token].
    {options}

    Returns
    -------
    Resident
        Amounts of the shape that `batch`, `context` and `shared_prefix` broadcast to [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown, malformed or impossible.

    Notes
    -----
    With several pipeline stages a step is in flight in each, so that as many times `batch` sequences are in memory, as in floors.
    Windowed layers keep at most window − 1 positions, in pages, chunked ones a whole chunk. A decode step at a context of L tokens
    leaves L + 1 in the cache. Recurrent state is not shared with a prefix.

    References
    ----------
    Kwon et al., "PagedAttention", SOSP 2023, arXiv:2309.06180. Only full pages are shared: vLLM, "Automatic Prefix Caching".

    Examples
    --------
    >>> resident("llama-3-70b", batch=1, context=16).kv_bytes / 16
    327680.0
    """
    deployment = deploy("resident", CAPACITY, model, hardware, options)
    case, allowed = Case.of(deployment, shared_prefix), deployment.usable_bytes
    context = case.check_context(context, shared_prefix)
    batch = check_count("batch", batch)
    check_broadcast(batch=batch, shared_prefix=case.prefix, **({} if isinstance(context, dict) else {"context": context}))
    fullest = _stage(case, 0, batch, context, allowed)
    for stage in range(1, len(case.shares)):
        other = _stage(case, stage, batch, context, allowed)
        fuller = np.asarray(sum(other[:5]) > sum(fullest[:5]))
        choose = fuller if fuller.ndim else bool(fuller)
        fullest = tuple(pick(choose, a, b) for a, b in zip(other, fullest, strict=True))
    weight, towers, cache, state, activation, one_page, free = fullest
    asked = {"batch": batch, "context": context, "shared_prefix": check_count("shared_prefix", shared_prefix)}
    return Resident(deployment, weight, towers, cache, state, activation, one_page, None if allowed is None else free, asked)


def _stage(case: Case, stage: int, batch: Number, context: Any, allowed: int | None) -> tuple[Number, ...]:
    """Return weights, towers, cache, state, activations, bytes of a page, and free pages of one stage's device."""
    here, some = case.in_memory(batch), pick(batch > 0, 1, 0)
    own, once = case.sequences(stage, context, cache=True)
    state, _ = case.sequences(stage, context, cache=False)
    share, kept = case.shares[stage], here * own + some * once
    one_page = share.page_bytes(case.page)
    left = (allowed or 0) - case.fixed(stage) - here * state - kept
    free = pick(left > 0, left, 0) // one_page if one_page else pick(left >= 0, np.inf, 0)
    return share.weight_bytes - share.tower_bytes, share.tower_bytes, kept, here * state, case.activations[stage], one_page, free
