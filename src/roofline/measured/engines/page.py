"""A page of metrics of an engine: which engine wrote it, and its quantities by our names."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from roofline.deployment.spelling import checks_keywords
from roofline.errors import InvalidValueError, quoted
from roofline.measured.engines.exposition import Sample, read_exposition
from roofline.measured.engines.names import ENGINES, Names
from roofline.names import nearest_names
from roofline.results import Result, show_notes


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class EnginePage(Result):
    """A page of metrics as it was read.

    Parameters
    ----------
    engine : str
        ``"vllm"``, ``"sglang"``, ``"tensorrt-llm"``, ``"tgi"`` or ``"llama.cpp"`` [-].
    source : str
        Where it was read [-].
    samples : mapping
        Values with their labels, by the engine's own names [-].
    model : str, optional
        As the engine calls it [-].
    at_s : float, optional
        When a server sent it, in seconds since 1970; None for files and texts [s].
    """

    engine: str
    source: str
    samples: Mapping[str, tuple[Sample, ...]]
    model: str | None = None
    at_s: float | None = None

    @property
    def names(self) -> Names:
        """What the engine calls its metrics."""
        return ENGINES[self.engine]

    @property
    def running(self) -> float | None:
        """Requests that run at this moment [-]."""
        return self.gauge("running")

    @property
    def waiting(self) -> float | None:
        """Requests that wait at this moment [-]."""
        return self.gauge("waiting")

    @property
    def kv_use(self) -> float | None:
        """Share of the KV cache that is taken at this moment, the mean of all ranks [-]."""
        return self.share("kv_use")

    @property
    def kv_tokens(self) -> float | None:
        """Tokens that the KV cache of all ranks holds, where the page says it [token]."""
        told = self.gauge("kv_tokens")
        if told is not None:
            return told
        tokens, blocks, page = (self._numbers_of(name) for name in ("kv_tokens", "blocks", "page"))
        if tokens:
            return sum(tokens)
        if blocks and page:
            return sum(blocks) * page[0]
        many, size = self.gauge("blocks"), self._reduced(self.names.gauges.get("page", ""), _mean)
        return None if many is None or size is None else many * size

    @property
    def ranks(self) -> int:
        """Data-parallel ranks that report apart from each other [-]."""
        return max((len(self._apart(self._find(names))) for names in self.names.gauges.values()), default=0) or 1

    def label(self, name: str) -> tuple[str, ...]:
        """Return what a label says, once for each value [-].

        Parameters
        ----------
        name : str
            ``"model"``, ``"kv"``, ``"page"`` … [-].

        Returns
        -------
        tuple of str
            Its values, in order [-].
        """
        metric, label = self.names.labels.get(name, ("", ""))
        return tuple(dict.fromkeys(text for sample in self._find(metric) if (text := sample.labels.get(label, ""))))

    def counter(self, name: str) -> float | None:
        """Return a counter by our name, added up over ranks; None where the page has none [-].

        Parameters
        ----------
        name : str
            ``"output_tokens"``, ``"steps"``, ``"preemptions"`` … [-].

        Returns
        -------
        float or None
            Since the engine started [-].
        """
        return self._reduced(self.names.counters.get(name, ""), sum)

    def gauge(self, name: str) -> float | None:
        """Return a gauge by our name, added up over ranks; None where the page has none [-].

        Parameters
        ----------
        name : str
            ``"running"``, ``"waiting"`` … [-].

        Returns
        -------
        float or None
            At this moment [-].
        """
        return self._reduced(self.names.gauges.get(name, ""), sum)

    def share(self, name: str) -> float | None:
        """Return a gauge that does not add up, as the mean of ranks; None where the page has none [-].

        Parameters
        ----------
        name : str
            ``"kv_use"``, ``"accepted"`` … [-].

        Returns
        -------
        float or None
            At this moment [-].
        """
        return self._reduced(self.names.shares.get(name, ""), _mean)

    def timed(self, name: str) -> tuple[float, float] | None:
        """Return the seconds of a histogram and how many values they are of; None where the page has none.

        Parameters
        ----------
        name : str
            ``"ttft"``, ``"tpot"``, ``"itl"``, ``"step"`` or ``"e2e"`` [-].

        Returns
        -------
        tuple of float, or None
            Sum and count since the engine started [s], [-].
        """
        timed = self.names.times.get(name)
        if timed is None:
            return None
        if "/" in timed.names:
            pair = tuple(self._reduced(part, sum) for part in timed.names.split("/"))
            return None if None in pair else pair  # type: ignore[return-value]
        return self._histogram(timed.names, timed.where)

    def length(self, name: str) -> tuple[float, float] | None:
        """Return the tokens of finished requests and how many requests they are of; None where the page has none.

        Parameters
        ----------
        name : str
            ``"prompt"`` or ``"output"`` [-].

        Returns
        -------
        tuple of float, or None
            Sum and count since the engine started [token], [-].
        """
        return self._histogram(self.names.lengths.get(name, ""), None)

    def _find(self, names: str, suffix: str = "") -> tuple[Sample, ...]:
        """Return the samples of the first of some names, newest first, that the page has."""
        for name in names.split():
            found = self.samples.get(name + suffix) or self.samples.get(f"{name}{suffix}_total")  # as the parser names a counter without it
            if found:
                return found
        return ()

    def _histogram(self, names: str, where: tuple[str, str] | None) -> tuple[float, float] | None:
        total, count = (self._reduced(names, sum, suffix, where) for suffix in ("_sum", "_count"))
        return None if total is None or count is None else (total, count)

    def _reduced(
        self, names: str, how: Callable[[list[float]], float], suffix: str = "", where: tuple[str, str] | None = None
    ) -> float | None:
        samples = [s for s in self._find(names, suffix) if where is None or s.labels.get(where[0]) == where[1]]
        return how(list(self._apart(samples).values())) if samples else None

    def _apart(self, samples: Any) -> dict[Any, float]:
        """Return one value for each series that is not a copy of another, nor a part of one."""
        if any(sample.labels.get("priority") == "" for sample in samples):  # which stands for all priorities together
            samples = [sample for sample in samples if not sample.labels.get("priority")]
        largest: dict[Any, float] = {}
        for sample in samples:
            key = tuple(sorted((label, text) for label, text in sample.labels.items() if label not in self.names.copies))
            largest[key] = max(largest.get(key, sample.value), sample.value)
        return largest

    def _numbers_of(self, name: str) -> list[float]:
        metric, label = self.names.labels.get(name, ("", ""))
        texts = [sample.labels.get(label, "") for sample in self._find(metric)]
        return [float(text) for text in texts if re.fullmatch(r"\d+(\.\d+)?", text)]

    def values(self) -> dict[str, Any]:
        """Return what the page says at its moment, and its counters since the engine started [SI]."""
        now = {"running": self.running, "waiting": self.waiting, "kv_use": self.kv_use, "kv_tokens": self.kv_tokens}
        return now | {name: self.counter(name) for name in self.names.counters}

    def context(self) -> dict[str, Any]:
        """Return which engine wrote it, and where it was read [-]."""
        return {"kind": "page of metrics", "engine": self.engine, "model": self.model, "source": self.source, "at_s": self.at_s}

    def summary(self) -> list[str]:
        """Return the short text: the engine, then what it says of this moment [-]."""
        use = "" if self.kv_use is None else f", {self.kv_use:.1%} of the KV cache in use"
        running, waiting = ("an unknown number" if value is None else f"{value:g}" for value in (self.running, self.waiting))
        return [
            f"{self.engine} serving {self.model or 'a model without a name'}: {running} running, {waiting} waiting{use}",
            *show_notes(()),
        ]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


@checks_keywords
def read_metrics(source: Any, *, model: str | None = None, timeout_s: float = 5.0) -> EnginePage:
    r"""Return a page of metrics of an engine, from its URL, a saved file, or its text.

    Parameters
    ----------
    source : str or Path
        ``"http://localhost:8000/metrics"``, the path of a saved page (``.gz`` too), or the page itself; a URL without a path means
        ``/metrics`` [-].
    model : str, optional
        Which model, where one page has several [-].
    timeout_s : float, optional
        How long a server may take to answer [s].

    Returns
    -------
    EnginePage
        Its samples; :func:`engine_window` makes rates and times of two pages [-].

    Raises
    ------
    InvalidValueError
        If nothing answers, or what is read is no page of metrics of an engine.
    MissingDependencyError
        If prometheus-client is not installed.

    Examples
    --------
    >>> read_metrics('vllm:num_requests_running{model_name="m"} 3\nvllm:num_requests_waiting{model_name="m"} 1\n').running
    3.0
    """
    page = read_exposition(_with_path(source), timeout_s=timeout_s)
    names = _engine_of(page.samples, page.source)
    found = EnginePage(names.engine, page.source, page.samples, None, page.at_s)
    called = found.label("model") or tuple(
        dict.fromkeys(s.labels["model_name"] for samples in page.samples.values() for s in samples if s.labels.get("model_name"))
    )
    if model is None and len(called) > 1:
        raise InvalidValueError(f"{page.source} has several models; say which: model= one of {', '.join(map(quoted, called))}.")
    if model is not None and model not in called:
        near = nearest_names(model, called) or called
        raise InvalidValueError(f"{page.source} has no model {quoted(model)}; it has {', '.join(map(quoted, near)) or 'none with a name'}.")
    chosen = model or (called[0] if called else None)
    samples = page.samples
    if len(called) > 1:
        kept = {name: tuple(s for s in some if s.labels.get("model_name", chosen) == chosen) for name, some in samples.items()}
        samples = {name: some for name, some in kept.items() if some}
    return EnginePage(names.engine, page.source, samples, chosen, page.at_s)


def _with_path(source: Any) -> Any:
    """Return a URL with the usual path where it has none."""
    if isinstance(source, str) and source.startswith(("http://", "https://")) and source.count("/") == 2:
        return f"{source}/metrics"
    return source.removesuffix("/") + "/metrics" if isinstance(source, str) and re.fullmatch(r"https?://[^/]+/", source) else source


def _engine_of(samples: Mapping[str, Any], source: str) -> Names:
    """Return whose names a page has, or raise."""
    known = [names for names in ENGINES.values() if any(name.startswith(names.prefix) for name in samples)]
    if len(known) == 1:
        return known[0]
    if known:
        raise InvalidValueError(f"{source} has metrics of {' and '.join(n.engine for n in known)}; read each engine's own page.")
    if any(name.startswith("DCGM_") for name in samples):
        raise InvalidValueError(f"{source} is a page of dcgm-exporter, about devices and not requests: read_device_metrics reads it.")
    prefixes = ", ".join(f"{n.prefix} ({n.engine})" for n in ENGINES.values())
    raise InvalidValueError(
        f"{source} has no metrics of an engine but {quoted(next(iter(samples)))} and others; known are names that begin with {prefixes}."
    )
