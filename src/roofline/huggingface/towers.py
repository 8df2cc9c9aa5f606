"""Vision and audio towers beside a text model: which reader understands which, and what is said of the others."""

from collections.abc import Callable
from importlib import import_module

from roofline.errors import RooflineError, quoted
from roofline.huggingface.build import BESIDE, TOWERED
from roofline.huggingface.config import Config
from roofline.model import Model, Tower
from roofline.model.tower import left_out

_Reader = Callable[[Config, Config, int], Tower]
_READERS: dict[tuple[str, str], _Reader] = {}
_MODULES = {
    # module: the values of model_type of the whole model, of whose towers it has the readers
    "audio": "audioflamingo3 musicflamingo qwen2_5_omni qwen2_5_omni_thinker qwen2_audio qwen3_asr qwen3_omni_moe qwen3_omni_moe_thinker voxtral",
    "vision": (
        "aya_vision cohere2_vision deepseek_vl gemma3 idefics3 internvl internvl_chat lfm2_vl lighton_ocr llava llava_next llava_next_video llava_onevision "
        "mistral3 paligemma shieldgemma2 smolvlm video_llava vipllava"
    ),
    "vision_more": "gemma4 llama4 mllama step3p7",
    "vision_qwen": (
        "cosmos3_omni glm46v glm4v glm4v_moe kimi_k25 kimi_vl minimax_m3_vl qwen2_5_omni qwen2_5_omni_thinker qwen2_5_vl qwen2_vl qwen3_5 qwen3_5_moe "
        "qwen3_omni_moe qwen3_omni_moe_thinker qwen3_vl qwen3_vl_moe"
    ),
}
_MODULE_OF = {
    ("audio" if module == "audio" else "vision", model_type): module
    for module, model_types in _MODULES.items()
    for model_type in model_types.split()
}


def tower(senses: str, *model_types: str) -> Callable[[_Reader], _Reader]:
    """Register the reader of a tower with its projector, by the `model_type` of the model around it.

    It is given the configuration of the whole model, that of the tower, and the width of the text model.
    """

    def register(reader: _Reader) -> _Reader:
        _READERS.update(((senses, model_type), reader) for model_type in model_types)
        return reader

    return register


def attach(config: Config, model: Model) -> Model:
    """Return a model with the towers that its configuration describes; of those not understood nothing is guessed."""
    inner = config.data.get("thinker_config")
    data = inner if isinstance(inner, dict) else config.data
    whole = Config(data, config.where)
    family = whole.text("model_type", default="") or config.text("model_type", default="")
    towers, unknown, notes = [], [], dict.fromkeys(model.not_modelled)
    for key, note in BESIDE.items():
        senses = key.removesuffix("_config")
        if family in TOWERED[key] and data.get(key) is None and not any(senses in each for each in model.unknown_towers):
            unknown.append(f"the {senses} tower of {quoted(family)}")
            notes[f"{note}: the configuration has no {key!r}"] = None
        if note not in model.not_modelled:
            continue
        name, read = _read(senses, family, whole, key, model.hidden_size)
        if isinstance(read, Tower):
            towers.append(read)
        else:
            unknown.append(f"the {senses} tower {name}")
        said = left_out(senses) if isinstance(read, Tower) else f"{note}: {read}"
        notes = dict.fromkeys(said if each == note else each for each in notes)
    return model.but(towers=tuple(towers), unknown_towers=(*model.unknown_towers, *unknown), not_modelled=tuple(notes))


def _read(senses: str, family: str, whole: Config, key: str, hidden: int) -> tuple[str, Tower | str]:
    """Return what to call a tower, and the tower, or why it is not understood."""
    level = whole.data.get(key)  # of a few families it stands under another one
    name = level.get("model_type") if isinstance(level, dict) else None
    label = quoted(name or family)
    if (senses, family) in _MODULE_OF:
        import_module(f"roofline.huggingface.{_MODULE_OF[senses, family]}")
    reader = _READERS.get((senses, family))
    if reader is None or not isinstance(level, dict) or level.keys() <= {"model_type"}:
        return label, f"{label} is not modelled"
    inside = Config(level, f"{whole.where}, {key!r}", whole)
    inside.free("dtype", "torch_dtype")  # loaded in that of the whole model
    try:
        read = reader(whole, inside, hidden)
        inside.refuse_unread()
    except RooflineError as error:
        return label, str(error).rstrip(".")
    return label, read.but(model_type=name or family)
