"""What a step takes outside kernels: the record's own overheads, else those of the engine that it was measured with, else generic ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from roofline.engines import ENGINES, Engine, LayerTimes, load_engine
from roofline.estimate.constants import GENERIC, generic_record
from roofline.forward import Program
from roofline.forward.symbols import SAMPLED, SEQUENCES, TOKENS
from roofline.frozen import FrozenDict
from roofline.model import Attention, Experts, LatentAttention, LayerGroup, Model, RecurrentMixer
from roofline.records import CalibrationRecord, FittedConstant


@dataclass(frozen=True, slots=True)
class Overheads:
    """What a step takes outside kernels.

    Parameters
    ----------
    step : FittedConstant
        Sampling, synchronization and the host's turn between two steps [s].
    launch : FittedConstant
        What the host needs to launch one kernel [s].
    cuda_graph : bool
        Whether the host launches a step as a whole, so that `launch` does not count [-].
    borrowed : mapping of str to str
        Which of the two are another record's or an engine's, and whose [-].
    engine : Engine, optional
        The engine whose host times count; None where the record has its own, or is of no engine [-].
    layers_s : float, optional
        What the engine's host needs to launch all layers of a step one by one [s].
    graph_tokens : int, optional
        Most tokens of a step with prompts whose layers the host does not launch one by one [token].
    places : mapping of str to int, optional
        Where tokens, sampled rows and sequences stand in the aggregates of a step [-].
    """

    step: FittedConstant
    launch: FittedConstant
    cuda_graph: bool
    borrowed: Mapping[str, str]
    engine: Engine | None = None
    layers_s: float = 0.0
    graph_tokens: int = 0
    places: Mapping[str, int] = field(default_factory=FrozenDict)

    @property
    def sequence_s(self) -> float:
        """What each sequence adds to a step [s]."""
        return 0.0 if self.engine is None else self.engine.host.sequence_s or 0.0


def overheads_of(
    record: CalibrationRecord, model: Model, program: Program, *, cuda_graph: bool, profile: Engine | None = None
) -> Overheads:
    """Return what the steps of a deployment take outside kernels, by a profile of one's own if it is of the record's engine."""
    own, generic = record.overheads, generic_record().overheads
    names = {"step": "step_s", "launch": "launch_s"}
    step, launch = (own.get(name) or generic[name] for name in names.values())
    borrowed = {part: GENERIC for part, name in names.items() if name not in own}
    plain = Overheads(step, launch, cuda_graph, FrozenDict(borrowed))
    engine = None if "step_s" in own else engine_of(record, profile)
    if engine is None:
        return plain
    places = {aggregate: place for place, aggregate in enumerate(program.aggregates, 1)}
    found = {name: places.get(next(iter(symbol.terms))) for name, symbol in _COUNTED.items()}
    return replace(
        plain,
        step=_step(engine),
        borrowed=FrozenDict({**borrowed, "step": engine.id}),
        engine=engine,
        layers_s=launching_s(engine, model),
        graph_tokens=engine.graphs.prefill_tokens or 0,
        places=FrozenDict({name: place for name, place in found.items() if place is not None}),
    )


_COUNTED = {"tokens": TOKENS, "sampled": SAMPLED, "sequences": SEQUENCES}


def engine_of(record: CalibrationRecord, profile: Engine | None = None) -> Engine | None:
    """Return the engine that a record was measured with, by a profile of one's own if it is of that engine; None if it was none that has a profile."""
    found = next((engine for engine in ENGINES if engine in record.environment.software), None)
    if found is None:
        return None
    return profile if profile is not None and profile.id == found else load_engine(found)


def shared_within(engine: Engine | None, model: Model) -> tuple[int, ...]:
    """Return the numbers of routed experts with which an engine computes a model's shared expert in their kernel [-]."""
    if engine is None or engine.shared_experts is None:
        return ()
    mixtures = [group for group in model.layers if isinstance(group.feed_forward, Experts)]
    return engine.shared_experts.within if mixtures and all(map(_as_deepseek, mixtures)) else ()


def _as_deepseek(group: LayerGroup) -> bool:
    """Return whether a layer has the parts of DeepSeek-V3's: latent attention of every key, and one shared expert as wide as a routed one."""
    mixer, experts = group.mixer, group.feed_forward
    if not isinstance(mixer, LatentAttention) or mixer.indexer is not None or not isinstance(experts, Experts):
        return False
    return experts.shared is not None and experts.shared.intermediate == experts.intermediate and not experts.shared_gate


def launching_s(engine: Engine, model: Model) -> float:
    """Return what an engine's host needs to launch all layers of a model one by one [s]."""
    return of_layers(engine.host.layer_s, model)


def of_layers(times: LayerTimes, model: Model) -> float:
    """Return what an engine's host takes for all layers of a model [s]."""
    each = times.but(recurrent_experts=times.other_experts) if times.recurrent_experts is None else times
    return float(sum(count * getattr(each, kind) for kind, count in layers_of(model).items()))


def layers_of(model: Model) -> dict[str, int]:
    """Return how many layers of each kind that :class:`roofline.engines.LayerTimes` tells apart a model has [-]."""
    kinds = dict.fromkeys(LayerTimes._fields, 0)
    for group in model.layers:
        kinds[_kind_of(group)] += group.count
    return kinds


def _kind_of(group: LayerGroup) -> str:
    if not isinstance(group.feed_forward, Experts):
        return "dense"
    if isinstance(group.mixer, RecurrentMixer):
        return "recurrent_experts"
    return "experts" if isinstance(group.mixer, Attention) else "other_experts"


def _step(engine: Engine) -> FittedConstant:
    host = engine.host
    return FittedConstant(value=host.step_s, low=host.step_low_s, high=host.step_high_s, unit="s")
