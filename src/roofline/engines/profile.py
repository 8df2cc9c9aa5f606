"""`Engine`: what a serving engine does unless it is told otherwise, and the tables that it consists of."""

import re
from typing import Annotated, Literal

from roofline.calls import checks_call
from roofline.description import NOT_EMPTY, Description, Number
from roofline.errors import InvalidValueError, quoted
from roofline.shipped import Table
from roofline.units import check_rate

Count = Annotated[int, Number(1, 10**9)]
Bytes = Annotated[int, Number(0, 10**16, exponents=True)]
Share = Annotated[float, Number(0.0, 1.0)]
Seconds = Annotated[float, Number(0.0, 10.0)]


class Graphs(Table):
    """What runs from CUDA graphs; the largest decode batch that does is in :class:`Limits`.

    Parameters
    ----------
    prefill : {"eager", "piecewise"}
        Whether the host launches the kernels of a step with prompts one by one, or replays all but attention from graphs [-].
    prefill_tokens : int, optional
        Most tokens of a step with prompts that is replayed; larger ones are launched kernel by kernel [token].
    """

    prefill: Literal["eager", "piecewise"]
    prefill_tokens: Count | None = None


class Limits(Description):
    """What a step holds at most on devices with some memory, unless a flag says otherwise.

    Parameters
    ----------
    memory_bytes : int
        Least memory of such devices [B].
    except_on : tuple of str, optional
        Words in the names of devices with so much memory that have the limits of the next smaller ones [-].
    step_tokens : int, optional
        Most tokens of a step, or of its prompts where these run apart [token].
    sequences : int, optional
        Most sequences that run at a time [-].
    graph_sequences : int, optional
        Largest decode batch that runs from a CUDA graph [-].
    graph_sequences_parallel : int, optional
        The same with tensor parallelism of 4 and more, where it differs [-].
    """

    memory_bytes: Bytes
    except_on: tuple[str, ...] = ()
    step_tokens: Count | None = None
    sequences: Count | None = None
    graph_sequences: Count | None = None
    graph_sequences_parallel: Count | None = None


class Scheduling(Table):
    """Which sequences a step holds.

    Parameters
    ----------
    policy : {"mixed", "prefill first"}
        Whether prompts join the decoding sequences in one step, or run first and alone [-].
    chunked : bool
        Whether a prompt is cut to what a step has room for [-].
    receive_interval : int, optional
        Steps between two looks for new requests [-].
    batch_wait_steps : int, optional
        Most steps that a prompt waits for others to run with [-].
    """

    policy: Literal["mixed", "prefill first"]
    chunked: bool
    receive_interval: Count | None = None
    batch_wait_steps: Annotated[int, Number(0, 10**6)] | None = None


class Admission(Table):
    """When a waiting sequence may begin.

    Parameters
    ----------
    reserve : {"prompt", "ratio", "whole"}
        What must be free of the cache: what its prompt takes; that and a share of the answers still to come; or prompt and longest answer [-].
    ratio, least_ratio : float, optional
        The share of answers at first, and the least that it falls to [-].
    ratio_steps : int, optional
        Decode steps in which it falls [-].
    longest_answer : int, optional
        Tokens of an answer that are counted at most [token].
    """

    reserve: Literal["prompt", "ratio", "whole"]
    ratio: Share | None = None
    least_ratio: Share | None = None
    ratio_steps: Count | None = None
    longest_answer: Count | None = None


class CacheMemory(Table):
    """How much memory the cache has, and in which portions it is given out.

    Parameters
    ----------
    page : int, optional
        Tokens of a page [token].
    share : float, optional
        Share of the memory that is used [-].
    share_of : {"", "whole", "free"}, optional
        Of which memory: all of the device's, for weights, activations and cache; or what weights and activations leave, for the cache [-].
    reserve_bytes : int, optional
        Least memory that is left to activations and graphs where no share is fixed, on devices of more than 60 GiB [B].
    spare_bytes, spare_token_bytes, spare_sequence_bytes, spare_rank_sequence_bytes, spare_device_bytes : int, optional
        What is left where no share is fixed: at all events, for each token of the largest step, for each sequence of the largest decode batch in
        a graph, the same once more for each of several data-parallel ranks, and for each device that shares a replica [B].
    sampling_bytes : float, optional
        What sampling takes of a fixed share for each sequence and word of the vocabulary, in the largest step that is tried at the start [B].
    outside_bytes, outside_bytes_parallel : int, optional
        What a process takes outside of the framework's own memory; the second with several devices, where it differs [B].
    graph_bytes : int, optional
        What captured graphs take of a fixed share [B].
    prefix_caching : bool, optional
        Whether full pages that are in the cache are found again [-].
    """

    page: Count | None = None
    share: Share | None = None
    share_of: Literal["", "whole", "free"] = ""
    reserve_bytes: Bytes | None = None
    spare_bytes: Bytes | None = None
    spare_token_bytes: Bytes | None = None
    spare_sequence_bytes: Bytes | None = None
    spare_rank_sequence_bytes: Bytes | None = None
    spare_device_bytes: Bytes | None = None
    sampling_bytes: Annotated[float, Number(0.0, 1000.0)] | None = None
    outside_bytes: Bytes | None = None
    outside_bytes_parallel: Bytes | None = None
    graph_bytes: Bytes | None = None
    prefix_caching: bool | None = None


class Formats(Table):
    """Number formats where the checkpoint leaves a choice.

    Parameters
    ----------
    kv : {"checkpoint"}
        Format of the cache: the one that the checkpoint names, else that of the model's activations [-].
    fp8_scales : {"checkpoint"}
        Whether activations are scaled statically or dynamically: as the checkpoint says [-].
    unquantized_scales : {"dynamic"}, optional
        How, where the engine itself quantizes a checkpoint to fp8 [-].
    """

    kv: Literal["checkpoint"]
    fp8_scales: Literal["checkpoint"]
    unquantized_scales: Literal["dynamic"] | None = None


class Speculation(Table):
    """How draft modules of a checkpoint are used.

    Parameters
    ----------
    drafts : int, optional
        Draft tokens that a verification checks, if none are asked for [token].
    """

    drafts: Count | None = None


class SharedExperts(Table):
    """Which shared experts are computed in the kernel of the routed ones.

    Parameters
    ----------
    within : tuple of int
        Routed experts of mixtures, beside latent attention that reads every key, whose one shared expert is, unless experts are divided whole [-].
    """

    within: tuple[Count, ...]


class LayerTimes(Description):
    """What the host takes for one layer of a step that runs eagerly, by kind of layer.

    Parameters
    ----------
    dense : float
        Any mixer, and a dense feed-forward or none [s].
    experts : float
        Attention and experts [s].
    other_experts : float
        Experts with latent or another attention [s].
    recurrent_experts : float, optional
        Experts with a recurrent state; as `other_experts` if it is not known [s].
    """

    dense: Seconds
    experts: Seconds
    other_experts: Seconds
    recurrent_experts: Seconds | None = None


class HostTimes(Table):
    """What the engine's host takes.

    Parameters
    ----------
    versions : str
        Versions of the engine that were served, and on what [-].
    before : str, optional
        The first version of which these times are no longer true; None for those of today's [-].
    step_s : float
        Each step, as far as it does not pass while the step before runs [s].
    step_low_s, step_high_s : float
        Ends of the interval of 80 % of `step_s` [s].
    sequence_s : float, optional
        Each sequence of a step: sampling, and what the host does for it; None where the rows do not tell it from nothing [s].
    request_s : float, optional
        Each request outside of steps, as its client sees it: network, tokenizer, and waiting for the first step [s].
    layer_s : LayerTimes
        Each layer of an eager step; such a step is not faster than its layers are launched [s].
    first_token_s : LayerTimes, optional
        How much later than the steps of an eager prompt its first token comes, for each layer; tokens of others are not later [s].
    """

    versions: str
    before: Annotated[str, NOT_EMPTY] | None = None
    step_s: Seconds
    step_low_s: Seconds
    step_high_s: Seconds
    sequence_s: Seconds | None = None
    request_s: Seconds | None = None
    layer_s: LayerTimes
    first_token_s: LayerTimes | None = None

    def _check(self) -> None:
        if not self.step_low_s <= self.step_s <= self.step_high_s:
            raise InvalidValueError(
                f"host.step_s is {self.step_s:g}; it must lie between step_low_s, {self.step_low_s:g}, and step_high_s, {self.step_high_s:g}."
            )


class Engine(Description):
    """What a serving engine does unless it is told otherwise; what is not known is None.

    Parameters
    ----------
    schema_version : int
        Version of the file format, 1 [-].
    id : str
        The engine's id, as in the ids of records [-].
    name : str
        The engine's own name [-].
    version : str
        The version whose source or documentation was read [-].
    limits_source : str
        Where `limits` were read [-].
    limits : tuple of Limits
        What a step holds, by memory of the device, the largest first [-].
    graphs : Graphs
        What runs from CUDA graphs [-].
    scheduling : Scheduling
        Which sequences a step holds [-].
    admission : Admission
        When a waiting sequence may begin [-].
    cache : CacheMemory
        Memory of the cache [-].
    formats : Formats
        Number formats [-].
    host : HostTimes
        Times of the host [-].
    earlier : tuple of HostTimes, optional
        Times of the host in earlier versions, the oldest first [-].
    speculation : Speculation, optional
        Use of draft modules [-].
    shared_experts : SharedExperts, optional
        Shared experts that have no kernels of their own [-].
    """

    schema_version: Literal[1]
    id: Annotated[str, NOT_EMPTY]
    name: Annotated[str, NOT_EMPTY]
    version: Annotated[str, NOT_EMPTY]
    limits_source: Annotated[str, NOT_EMPTY]
    limits: Annotated[tuple[Limits, ...], NOT_EMPTY]
    graphs: Graphs
    scheduling: Scheduling
    admission: Admission
    cache: CacheMemory
    formats: Formats
    host: HostTimes
    earlier: tuple[HostTimes, ...] = ()
    speculation: Speculation | None = None
    shared_experts: SharedExperts | None = None

    def _check(self) -> None:
        if any(host.before is None for host in self.earlier):
            raise InvalidValueError("earlier host times end before a version, which `before` names.")
        ends = [_version_key(host.before) for host in (*self.earlier, self.host) if host.before]
        if not all(ends) or ends != sorted(ends):
            raise InvalidValueError("earlier host times stand in the order of the versions that end them, the oldest first.")

    @checks_call
    def at(self, version: str) -> "Engine":
        """Return the profile with the host times of a version; all else is as in the version whose source was read.

        Parameters
        ----------
        version : str
            A version of the engine, as it names itself [-].

        Returns
        -------
        Engine
            This profile, or one whose `host` is of the earlier version and has `before` [-].

        Raises
        ------
        InvalidValueError
            If `version` is none, or later than the host times that this profile has.

        Examples
        --------
        >>> from roofline.engines import load_engine
        >>> load_engine("sglang").at("0.5.9").host.versions
        '0.5.1–0.5.9, on H100 and H200'
        """
        key = _version_key(version) if isinstance(version, str) else ()
        if not key:
            raise InvalidValueError(f"version is {quoted(version)}; it must be a version of {self.name}, such as {self.version!r}.")
        host = next((host for host in (*self.earlier, self.host) if host.before is None or key < _version_key(host.before)), None)
        if host is None:
            raise InvalidValueError(
                f"version is {quoted(version)}, and this profile has the host times of {self.name} before {self.host.before}; load the profile again."
            )
        return self if host is self.host else self.but(host=host, earlier=())

    @checks_call
    def limits_on(self, memory_bytes: float, device: str = "") -> Limits:
        """Return what a step holds at most on a device.

        Parameters
        ----------
        memory_bytes : float
            The device's memory [B].
        device : str, optional
            Its id or name, by which engines make exceptions [-].

        Returns
        -------
        Limits
            The limits of the largest class that it belongs to [-].

        Raises
        ------
        InvalidValueError
            If `memory_bytes` is no amount of memory.

        Examples
        --------
        >>> from roofline.engines import load_engine
        >>> vllm = load_engine("vllm")
        >>> vllm.limits_on(85.5e9, "h100-sxm").step_tokens, vllm.limits_on(85.9e9, "a100-sxm-80gb").step_tokens
        (8192, 2048)
        """
        memory = check_rate("memory_bytes", memory_bytes, "B", least=1e8, most=1e16)
        if not isinstance(device, str):
            raise InvalidValueError(f"device is {quoted(device)}; it must be the name of one.")
        name = device.lower()
        fitting = (row for row in self.limits if memory >= row.memory_bytes and not any(word in name for word in row.except_on))
        return next(fitting, self.limits[-1])

    def __str__(self) -> str:
        host = f"{self.host.step_s * 1e6:.0f} µs of host time per step and {(self.host.sequence_s or 0.0) * 1e6:.0f} µs per sequence"
        of = f", as before {self.host.before}" if self.host.before else ""
        return f"{self.name} {self.version}: {self.scheduling.policy}, {host}{of}"


def _version_key(version: str) -> tuple[int, ...]:
    """Return the numbers of a release: those of "v0.5.10.post1" are 0, 5 and 10; empty if it is none."""
    numbers = _VERSION.fullmatch(version.strip())
    return tuple(map(int, numbers[1].split("."))) if numbers else ()


_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)(?:[.-]?(?:a|b|rc|post|dev)\d*)*(?:[+-][\w.-]+)?")
