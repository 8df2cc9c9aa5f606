"""A candidate as what starts it: an engine's command lines, or Kubernetes manifests; and such text as a candidate."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from roofline.catalog import hub_ids
from roofline.deployment import Deployment
from roofline.deployment.inputs import option_input
from roofline.engines import Engine, load_engine
from roofline.errors import InvalidValueError, quoted
from roofline.names import unknown_name
from roofline.planner.candidates import LIMITS, Candidate
from roofline.planner.flags import ENGINES, Arguments, Settings, flat, nested, read_options, said_by, shell_words, told_to
from roofline.planner.yaml import write_yaml
from roofline.results import plain

TARGETS = (*ENGINES, "k8s")
_HEADER = "# roofline: "
_ANNOTATION = "roofline/candidate"
_OPTIONS_FILE = "options.yaml"
_GPUS = {"NVIDIA": "nvidia.com/gpu", "AMD": "amd.com/gpu"}
_PER_SERVER = 8  # devices of a server, at most
_LISTEN = ("--host", "0.0.0.0", "--port", "8000")


def export(candidate: Candidate, target: str, *, checkpoint: str | None, image: str | None) -> str:
    """Return what starts a candidate."""
    if target not in TARGETS:
        raise unknown_name("target", str(target), TARGETS)
    engine = load_engine(candidate.engine)
    if target != "k8s" and target != engine.id:
        raise InvalidValueError(f"the plan is for {engine.id}, whose rules were followed, not for {target}: plan with engine={target!r}.")
    if engine.id not in ENGINES:
        raise InvalidValueError(f"the arguments of {engine.name} are not known; those of {', '.join(ENGINES)} are.")
    if image is not None and target != "k8s":
        raise InvalidValueError("image is of containers: export('k8s', image=…).")
    pools = [
        _Pool(candidate, engine, name, deployment, replicas, checkpoint) for name, deployment, replicas in _pools_of(candidate) if replicas
    ]
    if target == "k8s":
        return "---\n".join(write_yaml(document) for pool in pools for document in pool.manifests(image))
    return "\n".join(pool.script() for pool in pools)


def _pools_of(candidate: Candidate) -> list[tuple[str, Deployment, int]]:
    if candidate.prefill is None:
        return [("all", candidate.deployment, candidate.replicas)]
    return [("prefill", candidate.prefill, candidate.prefill_replicas), ("decode", candidate.deployment, candidate.replicas)]


class _Pool:
    """Replicas that are started alike."""

    def __init__(
        self, candidate: Candidate, engine: Engine, pool: str, deployment: Deployment, replicas: int, checkpoint: str | None
    ) -> None:
        self._pool, self._deployment, self._replicas, self._engine = pool, deployment, replicas, engine
        self._arguments = ENGINES[engine.id]
        settings = {name: option_input(value) for name, value in deployment.options.items()} | candidate.limits
        if settings.get("mtp"):
            raise InvalidValueError("drafts of mtp are not exported: how an engine is told of them depends on the checkpoint.")
        self._words, keys, silent = told_to(self._arguments, settings, pool, stored=checkpoint is not None)
        self._options = write_yaml(nested(keys)) if keys else ""
        self._checkpoint = checkpoint or next(iter(hub_ids(deployment.model.name)), deployment.model.name)
        known = {"engine": engine.id, "pool": pool, "model": deployment.model.name, "machine": deployment.machine.id, "replicas": replicas}
        self._known = known | plain(silent)

    @property
    def _command(self) -> list[str]:
        file = ["--extra_llm_api_options", _OPTIONS_FILE] if self._options else []
        return [*self._arguments.command.split(), self._checkpoint, *_LISTEN, *self._words, *file]

    @property
    def _title(self) -> str:
        what = {"all": "", "prefill": " for prompts", "decode": " for answers"}[self._pool]
        devices = self._deployment.devices
        each = f"{devices} device{'s' * (devices != 1)}"
        count = f"{self._replicas} replica{'s' * (self._replicas != 1)}{what} of {each}"
        return f"{self._deployment.model.name} on {self._deployment.machine.name}: {count}, {self._engine.name} {self._engine.version}"

    def script(self) -> str:
        """Return what a shell runs for one replica."""
        file = f"cat > {_OPTIONS_FILE} <<'END'\n{self._options}END\n" if self._options else ""
        return f"# {self._title}\n{_HEADER}{json.dumps(self._known)}\n{file}{shell_words(self._command)}\n"

    def manifests(self, image: str | None) -> Iterator[dict[str, Any]]:
        """Return a Deployment with its Service, and its file of options if it has one."""
        name = "-".join(
            [self._deployment.model.name.lower().replace(".", "-").replace("_", "-"), *([] if self._pool == "all" else [self._pool])]
        )
        labels = {"app": name}
        if self._options:
            yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {_OPTIONS_FILE: self._options}}
        mounts = [{"name": "shm", "mountPath": "/dev/shm"}]
        volumes: list[dict[str, Any]] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
        if self._options:
            mounts.append({"name": "options", "mountPath": "/options"})
            volumes.append({"name": "options", "configMap": {"name": name}})
        health = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 10}
        container = {
            "name": "engine",
            "image": image or f"{self._arguments.image}{self._engine.version}",
            "command": [f"/options/{word}" if word == _OPTIONS_FILE else word for word in self._command],
            "ports": [{"containerPort": 8000}],
            "resources": {"limits": {self._resource(): str(self._deployment.devices)}},
            "startupProbe": health | {"failureThreshold": 360},  # an hour, to load a checkpoint
            "readinessProbe": health,
            "volumeMounts": mounts,
        }
        yield {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "labels": labels, "annotations": {_ANNOTATION: json.dumps(self._known)}},
            "spec": {
                "replicas": self._replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container], "volumes": volumes}},
            },
        }
        ports = [{"port": 8000, "targetPort": 8000}]
        yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"selector": labels, "ports": ports}}

    def _resource(self) -> str:
        """Return what Kubernetes calls the machine's devices, or raise where a pod cannot have so many."""
        machine, devices = self._deployment.machine, self._deployment.devices
        if machine.vendor not in _GPUS:
            raise InvalidValueError(f"what Kubernetes calls a device of {machine.name} is not known; those of {' and '.join(_GPUS)} are.")
        room = machine.scale_up.domain_size if machine.scale_up is not None else None
        if devices > min(room or _PER_SERVER, _PER_SERVER):
            raise InvalidValueError(
                f"a replica of {devices} devices of {machine.name} takes several servers; a pod of a Deployment is on one."
            )
        return _GPUS[machine.vendor]


def read_export(source: str | Sequence[Mapping[str, Any]]) -> Candidate:
    """Return the candidate that command lines or Kubernetes manifests start, as :meth:`Plan.export` writes them.

    Degrees, formats and limits are read from the engine's own arguments, replicas of manifests from these; model and machine, which no argument names, from
    a comment or an annotation.

    Parameters
    ----------
    source : str or sequence of mapping
        Command lines; or manifests, as a reader of YAML returns them [-].

    Returns
    -------
    Candidate
        With its replicas [-].

    Raises
    ------
    RooflineError
        One sentence for what is unknown or missing.
    """
    found = _scripts(source) if isinstance(source, str) else _manifests(source)
    pools: dict[str, tuple[Settings, Settings]] = {}
    for known, command, options in found:
        if known.get("engine") not in ENGINES:
            raise unknown_name("engine", str(known.get("engine")), tuple(ENGINES))
        arguments = ENGINES[known["engine"]]
        pools[known.get("pool", "all")] = known, said_by(arguments, _after_checkpoint(arguments, command), flat(read_options(options)))
    own = pools.get("all") or pools.get("decode")
    if own is None:
        raise InvalidValueError(f"there is no command of replicas that write answers, with a line {_HEADER.strip()} above it.")
    prompts = pools.get("prefill")
    limits: Settings = {name: own[1].get(name, own[0].get(name)) for name in LIMITS}
    pair: Settings = {} if prompts is None else {"prefill": _deployment(*prompts), "prefill_replicas": prompts[0]["replicas"]}
    return Candidate(_deployment(*own), own[0]["replicas"], own[0]["engine"], **limits, **pair)


def _scripts(text: str) -> Iterator[tuple[Settings, list[str], str]]:
    """Yield what is known of each command, its words and its file of options."""
    for part in text.split(_HEADER)[1:]:
        header, _, body = part.partition("\n")
        options = ""
        if body.startswith("cat > "):
            _, _, body = body.partition("\n")
            options, _, body = body.partition("END\n")
        command = body.replace("\\\n", " ").strip().partition("\n")[0]
        yield _header(header), shlex.split(command), options


def _manifests(documents: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Settings, list[str], str]]:
    files = {one["metadata"]["name"]: one["data"][_OPTIONS_FILE] for one in documents if one.get("kind") == "ConfigMap"}
    for one in documents:
        if one.get("kind") == "Deployment":
            try:
                known = _header(one["metadata"]["annotations"][_ANNOTATION]) | {"replicas": one["spec"]["replicas"]}
                container = one["spec"]["template"]["spec"]["containers"][0]
                command = [word.removeprefix("/options/") for word in container["command"]]
            except (KeyError, IndexError, TypeError):
                raise InvalidValueError(f"a Deployment has no command, replicas or annotation {_ANNOTATION}.") from None
            yield known, command, files.get(one["metadata"]["name"], "")


def _header(text: str) -> Settings:
    try:
        known = json.loads(text)
    except ValueError:
        known = None
    if not isinstance(known, dict) or not {"model", "machine", "replicas", "engine"} <= known.keys():
        raise InvalidValueError(f"{quoted(text)} names no model, machine, replicas and engine.")
    return known


def _after_checkpoint(arguments: Arguments, command: Sequence[str]) -> list[str]:
    """Return the words after the checkpoint, without the file of options."""
    begin = arguments.command.split()
    if list(command[: len(begin)]) != begin or len(command) <= len(begin):
        raise InvalidValueError(
            f"{quoted(' '.join(command))} is no command of {arguments.engine}: it begins with {arguments.command} and a checkpoint."
        )
    words = list(command[len(begin) + 1 :])
    if "--extra_llm_api_options" in words:
        at = words.index("--extra_llm_api_options")
        words = words[:at] + words[at + 2 :]
    return words


def _deployment(known: Settings, said: Settings) -> Deployment:
    """Return a deployment from what is known of it besides, and what its arguments say."""
    own = ("engine", "pool", "model", "machine", "replicas")
    options = {name: value for name, value in known.items() if name not in own} | said
    return Deployment(known["model"], known["machine"], **{n: v for n, v in options.items() if n not in LIMITS})
