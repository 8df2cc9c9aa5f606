"""How many blocks of cache an engine finds room for: what weights, activations, graphs and the process itself leave of the memory."""

from dataclasses import dataclass

from roofline.capacity.case import Case, device_name, shares_of
from roofline.capacity.share import activation_peak
from roofline.deployment import Deployment
from roofline.engines import Engine
from roofline.errors import InvalidValueError
from roofline.model import Model
from roofline.units import show_bytes

DRIVER_BYTES = 5e8
"""What the driver keeps of the memory that a device shows: an RTX 4090 has 25.76 GB and gives 25.25, an H100 85.52 and 85.02 (logs of vLLM) [B]."""

LENGTH = 2048
"""Tokens of a sequence over which its windows and state are spread if nobody says how long sequences are [token]."""

_FLOOR_FROM = 60 * 2**30  # smallest memory of which SGLang leaves at least `reserve_bytes`
_STATE_PAGE = 2**17  # tokens of a block where nothing grows with a sequence: any sequence is in one


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of the cache of one replica, or of one data-parallel rank.

    Parameters
    ----------
    count : int
        How many there are [-].
    page : int
        Tokens of each [token].
    spread_bytes : float
        What windows and state of a sequence take that is spread over the blocks of a sequence [B].
    room_bytes : float
        Memory of one device that they have [B].
    """

    count: int
    page: int
    spread_bytes: float
    room_bytes: float


def depend_on_length(deployment: Deployment) -> bool:
    """Return whether how many blocks there are depends on the length of sequences: whether anything does not grow with it, token by token."""
    return any(held.span or not held.rows.grows for share in shares_of(deployment) for held in share.held)


def blocks_in(deployment: Deployment, engine: Engine, *, page: int, step_tokens: int, sequences: int, graphs: int, length: int) -> Blocks:
    """Return the blocks that fit beside everything else on the fullest device, or raise."""
    case = Case.of(deployment, 0)
    ways = deployment.parallel.context
    fewest: Blocks | None = None
    for stage, share in enumerate(case.shares):
        room = _room(deployment, engine, case, stage, step_tokens=step_tokens, sequences=sequences, graphs=graphs)
        growing = share.page_bytes(page)
        own, _ = case.sequences(stage, length, cache=True)
        state, _ = case.sequences(stage, length, cache=False)
        kept = max(0.0, float(own + state) - growing * -(-length // (page * ways)))
        if not growing and not kept:
            continue  # nothing is kept in this stage
        found = (
            Blocks(int(room // (growing + kept * page * ways / length)), page * ways, kept, room)
            if growing
            else Blocks(int(room // kept), _STATE_PAGE, 0.0, room)
        )
        if fewest is None or found.count < fewest.count:
            fewest = found
    if fewest is None:
        raise InvalidValueError(
            f"{deployment.model.name} keeps nothing for its sequences, so that there are no blocks to count; give kv_blocks."
        )
    return fewest


def beyond_memory(deployment: Deployment, blocks: int, page: int) -> str:
    """Return what to say of blocks that no device of this memory can have, whatever an engine keeps for itself; nothing where there is room or no memory is known."""
    capacity = deployment.memory_capacity
    for share in shares_of(deployment) if capacity is not None else ():
        taken, left = blocks * share.page_bytes(page), max(0, capacity - share.weight_bytes)
        if taken > left:
            return (
                f"{blocks:,} blocks of {page:,} token{'s' * (page > 1)} take {show_bytes(taken)} of a device, and beside the weights {device_name(deployment)} "
                f"has {show_bytes(left)}"
            )
    return ""


def _room(deployment: Deployment, engine: Engine, case: Case, stage: int, *, step_tokens: int, sequences: int, graphs: int) -> float:
    """Return the memory of one device that the cache gets, or raise [B]."""
    cache, capacity = engine.cache, deployment.memory_capacity
    if capacity is None:
        raise InvalidValueError(f"the memory of {device_name(deployment)} is not known; give kv_blocks, as the engine's log has it.")
    share, weights = case.shares[stage], case.shares[stage].weight_bytes
    visible = capacity - DRIVER_BYTES
    fraction = deployment.utilization if "utilization" in deployment.options else cache.share
    outside = (cache.outside_bytes_parallel if deployment.devices > 1 else None) or cache.outside_bytes or 0
    if deployment.reserve or deployment.activation_tokens:
        beside = deployment.reserve + activation_peak(share, deployment.activation_tokens)
    elif cache.share_of == "whole" and cache.share is None:
        beside = outside
    else:
        sampling = (cache.sampling_bytes or 0) * sequences * vocabulary(deployment.model)
        beside = max(sampling, activation_peak(share, step_tokens)) + outside + (cache.graph_bytes or 0)
    if cache.share_of == "free":
        allowed = visible
        room = (fraction or 1.0) * (visible - weights - beside)
    else:
        allowed = visible - _spare(deployment, engine, capacity, step_tokens, graphs) if fraction is None else fraction * visible
        room = allowed - weights - beside
    if room <= 0:
        raise InvalidValueError(
            f"nothing is left for a cache: {engine.name} uses {show_bytes(allowed)} of {show_bytes(capacity)} on {device_name(deployment)}, where "
            f"weights take {show_bytes(weights)} and activations and the process {show_bytes(beside)}; more devices, narrower weights or a "
            "larger utilization make room."
        )
    return float(room)


def _spare(deployment: Deployment, engine: Engine, capacity: int, step_tokens: int, graphs: int) -> float:
    """Return what an engine without a fixed share leaves beside weights and cache [B]."""
    cache, parallel = engine.cache, deployment.parallel
    spare = (cache.spare_bytes or 0) + (cache.spare_token_bytes or 0) * max(step_tokens, 2048)
    spare += (cache.spare_sequence_bytes or 0) * graphs
    spare += (cache.spare_rank_sequence_bytes or 0) * graphs * (parallel.data if parallel.data > 1 else 0)
    spare += (cache.spare_device_bytes or 0) * parallel.tensor * parallel.data * parallel.pipeline
    return max(spare, (cache.reserve_bytes or 0) if capacity > _FLOOR_FROM else 0)


def vocabulary(model: Model) -> int:
    """Return the words that a model tells apart; 0 where that is not known [-]."""
    return 0 if model.head is None else model.head.outputs
