"""Seconds of a step from tables, as a simulation asks for them a million times: plain Python, microseconds each."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

from roofline.calls import checks_call
from roofline.errors import InvalidValueError, UnsupportedModelError, quoted
from roofline.serving.rules import Rules
from roofline.serving.steps.beyond import add_to_ranks, add_to_steps
from roofline.serving.steps.load import Load, RankSeconds, SecondsByNumber, StepSeconds
from roofline.serving.steps.tables import Roof, StepTables, tables_of
from roofline.step_time import StepTime


@checks_call
def compile_steps(time: StepTime, rules: Rules, *, spread: float = 0.0) -> StepSeconds:
    """Return a function that looks up how long a step of some load takes.

    Parameters
    ----------
    time : StepTime
        What the steps run on, and which time is asked for [-].
    rules : Rules
        The engine, and the largest steps that it builds [-].
    spread : float, optional
        How much the contexts of a step's decodes differ: their standard deviation over their mean. It matters only where layers have
        windows or select positions, which take longest if all contexts are alike [-].

    Returns
    -------
    callable
        Takes a :class:`Load` and returns seconds. Of data-parallel ranks each has this load [-].

    Raises
    ------
    InvalidValueError
        If `time` is no StepTime, `rules` are none, or `spread` is negative.
    UnsupportedModelError
        If the model attends to a source.

    Notes
    -----
    All decodes are taken to have their mean context, and all prompts of a step to be alike; for causal attention only the sums matter. Between the
    nodes of the tables times are linear. Decodes run as a graph up to `rules.graph_sequences`; larger batches, and steps with prompts of more tokens than the engine has graphs for, take at least as long
    as the host needs to launch their layers one by one.

    Held against StepTime on random steps of dense models, mixtures of experts, latent attention, windows and recurrent states, decodes of one
    context are at most 0.1 % off; estimates of steps with prompts are 0.1 % off at the median and 2 % at most, floors and roofline times, which
    have corners, up to 8 %. Farther off may be steps of prompts of which only some have anything in the cache, and chunked attention, where
    the place within a chunk counts. Decodes of many different contexts seem to take longer where layers have windows (`spread`). A quantile
    of steps that wait for the host is that of their kernels.

    Examples
    --------
    >>> from roofline import Deployment, StepTime
    >>> time = StepTime(Deployment("llama-3-8b", "h100-sxm"))
    >>> seconds = compile_steps(time, Rules("vllm", step_tokens=8192, sequences=256, kv_blocks=20_000))
    >>> round(seconds(Load(decodes=64, context=64 * 1024)) / float(time.decode(64, 64 * 1024)), 3)
    1.0
    """
    seconds = _of_steps(_checked(time, rules, spread))
    return add_to_steps(seconds, time.beyond) if time.beyond else seconds


def _of_steps(tables: StepTables) -> StepSeconds:
    """Return the time of a step; of data-parallel ranks each has the same load."""
    if tables.ranks > 1 or len(tables.roofs) > 1:
        together, ranks = _of_ranks(tables), tables.ranks
        return lambda load: together((load,) * ranks)
    (roof,) = tables.roofs
    mixed, contexts = _mixed(tables, roof), tables.contexts
    step_s, sequence_s = tables.step_s, tables.sequence_s
    launch_s, graph_tokens, rows = tables.launch_s, tables.graph_tokens, tables.rows
    widths, last = _widths(contexts), len(contexts) - 1

    @cache
    def decoding(count: int) -> Callable[[int], float]:
        row, least_s, host_s = roof.decodes[count], launch_s if count > tables.graph_decodes else 0.0, step_s + sequence_s * count

        def seconds(context: int) -> float:
            mean = context / count
            i = bisect_right(contexts, mean, 1, last) - 1
            kernels_s = row[i] + (mean - contexts[i]) * widths[i] * (row[i + 1] - row[i])
            return (least_s if kernels_s < least_s else kernels_s) + host_s

        return seconds

    def seconds(load: Load) -> float:
        count, context, prompts, tokens, _, _ = load
        if not prompts:
            return decoding(count)(context) if count else 0.0
        kernels_s = mixed(load)
        if kernels_s < launch_s and count * rows + tokens > graph_tokens:
            kernels_s = launch_s
        return kernels_s + (step_s + sequence_s * (count + prompts))

    return SecondsByNumber(seconds, decoding)


@checks_call
def compile_ranks(time: StepTime, rules: Rules, *, spread: float = 0.0) -> RankSeconds:
    """Return a function that looks up how long a step of data-parallel ranks takes: the slowest rank, whose experts serve the tokens of all.

    Parameters
    ----------
    time : StepTime
        What the steps run on, and which time is asked for [-].
    rules : Rules
        The engine, and the largest steps of one rank [-].
    spread : float, optional
        How much the contexts of a step's decodes differ: their standard deviation over their mean. It matters only where layers have
        windows or select positions, which take longest if all contexts are alike [-].

    Returns
    -------
    callable
        Takes a :class:`Load` of each rank and returns seconds [-].

    Raises
    ------
    InvalidValueError
        If `time` is no StepTime, `rules` are none, or `spread` is negative.
    UnsupportedModelError
        If the model attends to a source.
    """
    seconds = _of_ranks(_checked(time, rules, spread))
    return add_to_ranks(seconds, time.beyond) if time.beyond else seconds


def compiled(time: StepTime, rules: Rules) -> StepSeconds | RankSeconds:
    """Return how long steps take; of all ranks, where attention is data-parallel."""
    return compile_steps(time, rules) if time.deployment.parallel.data == 1 else compile_ranks(time, rules)


def _checked(time: StepTime, rules: Rules, spread: float) -> StepTables:
    if not isinstance(time, StepTime):
        raise InvalidValueError(f"time is {quoted(time)}; it is a StepTime of a deployment.")
    if not isinstance(rules, Rules):
        raise InvalidValueError(f"rules is {quoted(rules)}; it is what rules_of(deployment) returns, or Rules(...).")
    known = isinstance(spread, (int, float)) and not isinstance(spread, bool)
    if not known or not 0 <= spread <= 10:
        raise InvalidValueError(f"spread is {quoted(spread)}; it is a standard deviation over a mean: 0 … 10.")
    model = time.deployment.model
    if model.encodes:
        raise UnsupportedModelError(
            f"{model.name} encodes a source, images or sound for every new sequence first, and tables of step times have no place for that; "
            "step_s= of a simulation takes a function of your own, and serving_estimate has closed forms."
        )
    return tables_of(time, rules, float(spread))


def _of_ranks(tables: StepTables) -> RankSeconds:
    """Return the time of a step of all ranks, under all roofs."""
    roofs = [(_alone(tables, roof), _mixed(tables, roof), roof.all_ranks) for roof in tables.roofs]
    rows, graph_tokens, graph_decodes = tables.rows, tables.graph_tokens, tables.graph_decodes
    step_s, sequence_s, launch_s = tables.step_s, tables.sequence_s, tables.launch_s

    def seconds(loads: Sequence[Load]) -> float:
        total = 0
        for load in loads:
            total += load[0] * rows + load[3]
        if not total:
            return 0.0
        longest = 0.0
        for load in loads:
            count, _, prompts, tokens, _, _ = load
            if not (count or prompts):
                continue
            taken = 0.0
            for alone, mixed, all_ranks in roofs:
                own = mixed(load) if prompts else alone(load)
                if all_ranks:
                    own += all_ranks[total] if total < len(all_ranks) else _beyond(all_ranks, total)
                if own > taken:
                    taken = own
            if taken < launch_s and (count * rows + tokens > graph_tokens if prompts else count > graph_decodes):
                taken = launch_s
            taken += step_s + sequence_s * (count + prompts)
            if taken > longest:
                longest = taken
        return longest

    return seconds


def _alone(tables: StepTables, roof: Roof) -> StepSeconds:
    """Return the kernels of decodes alone, without what is of all ranks."""
    decodes, contexts = roof.decodes, tables.contexts
    widths, last = _widths(contexts), len(contexts) - 1

    def seconds(load: Load) -> float:
        mean, row = load[1] / load[0], decodes[load[0]]
        i = bisect_right(contexts, mean, 1, last) - 1
        return row[i] + (mean - contexts[i]) * widths[i] * (row[i + 1] - row[i])

    return seconds


def _mixed(tables: StepTables, roof: Roof) -> StepSeconds:
    """Return the kernels of a step with prompts, without what is of all ranks."""
    by_tokens, by_sampled, grid, further, rows = roof.tokens, roof.sampled, roof.mixed, roof.further, tables.rows
    d_axis, c_axis, t_axis, q_axis = tables.axes
    d_width, c_width, t_width, q_width = map(_widths, tables.axes)
    d_last, c_last, t_last, q_last = (len(axis) - 1 for axis in tables.axes)
    t_stride = len(q_axis)
    c_stride = t_stride * len(t_axis)
    d_stride = c_stride * len(c_axis)
    most, most_sampled = len(by_tokens) - 1, len(by_sampled) - 1

    def between(values: list[float], i: int, t: float, q: float, c: float, d: float) -> float:
        """Return what lies between the sixteen corners of a cell, at these shares of its sides."""
        j, tq = i + t_stride, t * q
        t, q = t - tq, q - tq
        rest = 1.0 - t - q - tq
        low = rest * values[i] + q * values[i + 1] + t * values[j] + tq * values[j + 1]
        if not d:
            return low
        i += c_stride
        j += c_stride
        low += c * (rest * values[i] + q * values[i + 1] + t * values[j] + tq * values[j + 1] - low)
        i += d_stride
        j += d_stride
        end = rest * values[i] + q * values[i + 1] + t * values[j] + tq * values[j + 1]
        i -= c_stride
        j -= c_stride
        high = rest * values[i] + q * values[i + 1] + t * values[j] + tq * values[j + 1]
        return low + d * (high + c * (end - high) - low)

    def seconds(load: Load) -> float:
        count, context, prompts, tokens, pairs, ended = load
        n, sampled = count * rows + tokens, count * rows + ended
        total = by_tokens[n] if n <= most else _beyond(by_tokens, n)
        total += by_sampled[sampled] if sampled <= most_sampled else _beyond(by_sampled, sampled)
        seen = pairs / tokens
        t = bisect_right(t_axis, tokens, 1, t_last) - 1
        q = bisect_right(q_axis, seen, 1, q_last) - 1
        i = t * t_stride + q
        tw, qw = (tokens - t_axis[t]) * t_width[t], (seen - q_axis[q]) * q_width[q]
        dw = cw = 0.0
        if count:
            mean = context / count
            d = bisect_right(d_axis, count, 1, d_last) - 1
            c = bisect_right(c_axis, mean, 1, c_last) - 1
            i += d * d_stride + c * c_stride
            dw, cw = (count - d_axis[d]) * d_width[d], (mean - c_axis[c]) * c_width[c]
            if not dw:  # at a node, and there may be none beyond
                i -= d_stride
                dw = 1.0
        total += between(grid, i, tw, qw, cw, dw)
        if prompts > 1 and further:
            fewest = tokens / (2 * seen - 1)
            more = prompts - (fewest if fewest > 1 else 1)
            if more > 1e-3:
                total += more * between(further, i, tw, qw, cw, dw)
        return total

    return seconds


def _beyond(values: list[float], place: int) -> float:
    """Return a value beyond the last one of a list, in a straight line."""
    last = len(values) - 1
    return values[last] + (place - last) * (values[last] - values[last - 1])


def _widths(axis: list[float]) -> list[float]:
    return [1 / (after - before) for before, after in pairwise(axis)]
