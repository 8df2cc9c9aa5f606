"""Which reader understands which `model_type`, and the one call that turns a configuration into a model."""

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from roofline.errors import ConfigError, InvalidValueError, UnsupportedModelError, quoted
from roofline.huggingface.build import BESIDE, TOWERED
from roofline.huggingface.config import Config
from roofline.model import Model
from roofline.names import nearest_names, normalize_name

if TYPE_CHECKING:
    from roofline.huggingface.stored import Files

_Reader = Callable[[Config], Model]
_READERS: dict[str, _Reader] = {}
_FAMILIES = {
    # module: the values of model_type that its readers are for, so that no module is imported before one of its own is met
    "encoder_decoders": "bart blenderbot blenderbot-small m2m_100 marian mbart mt5 mvp pegasus plbart t5 t5gemma umt5 whisper",
    "encoders": (
        "albert bert camembert data2vec-text distilbert electra ernie eurobert jina_embeddings_v3 megatron-bert modernbert modernbert-decoder mpnet "
        "nomic_bert roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl"
    ),
    "gemma": "gemma gemma2 gemma3 gemma3_text gemma4 gemma4_text gemma4_unified gemma4_unified_text vaultgemma",
    "gpt": "biogpt bloom codegen ctrl falcon gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gptj mpt openai-gpt opt persimmon phi xglm",
    "hybrid": "bamba falcon_h1 granitemoehybrid jamba nemotron_h zamba zamba2",
    "kimi_linear": "bailing_hybrid kimi_k3 kimi_linear",
    "latent": "axk1 deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa kimi_k2 kimi_k25 longcat_flash minicpm3 mistral4 mistral_large4 mistral_large4_text sarvam_mla youtu",
    "lfm2": "lfm2 lfm2_moe lfm3",
    "llama": "cohere ernie4_5 glm glm4 glm4v glm4v_text granite iquestcoder llama ministral ministral3 mistral mistral3 olmo2 phi3 seed_oss smollm3 stablelm starcoder2",
    "mllama": "mllama mllama_text_model",
    "moe": "ernie4_5_moe flex_olmo glm4_moe granitemoe granitemoeshared minimax_m2 mixtral olmoe phimoe",
    "more_experts": "bailing_moe bailing_moe_v2 dbrx dots1 exaone_moe glm4v_moe glm4v_moe_text hunyuan_v1_moe hy_v3 jetmoe sarvam_moe solar_open",
    "more_wrappers": (
        "apertus1p5 aria aria_text audioflamingo3 blip-2 chameleon cosmos3_omni deepseek_vl_hybrid emu3 emu3_text_model ernie4_5_vl_moe ernie4_5_vl_moe_text exaone4_5 florence2 fun_asr_nano fuyu "
        "glm_ocr glm_ocr_text glmasr glmga granite4_vision granite4_vision_text granite_docling granite_docling_text granite_speech "
        "granite_speech_plus hunyuan_vl hunyuan_vl_text hyperclovax_vision_v2 instructblip instructblipvideo janus lfm3_vl lighton_ocr "
        "minicpm_ocr minicpmv4_6 minicpmv4_7 molmo2 molmo2_text moss_transcribe_diarize musicflamingo nemotron_h_omni omniasr ovis2 paddleocr_vl "
        "paddleocr_vl_text perception_lm phi4_multimodal phi4mm pp_chart2table qianfan_ocr qwen2_audio qwen3_asr shieldgemma2 vibevoice_asr video_llama_3 voxtral "
        "voxtral_realtime voxtral_realtime_text"
    ),
    "nas": "nemotron-nas",
    "near_llama": "apertus apertus1p5_text arcee bitnet cwm exaone helium hunyuan_v1_dense hyperclovax internlm2 internlm3 jais2 minicpm nanochat nemotron olmo",
    "per_layer": "gemma3n gemma3n_text",
    "qwen": (
        "qwen2 qwen2_5_omni qwen2_5_omni_text qwen2_5_omni_thinker qwen2_5_vl qwen2_5_vl_text qwen2_moe qwen2_vl qwen2_vl_text qwen3 qwen3_moe "
        "qwen3_omni_moe qwen3_omni_moe_text qwen3_omni_moe_thinker qwen3_vl qwen3_vl_moe qwen3_vl_moe_text qwen3_vl_text"
    ),
    "qwen_hybrid": "olmo_hybrid qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_next",
    "recurrent": "falcon_mamba mamba mamba2 minimax recurrent_gemma",
    "sparse": "deepseek_ref deepseek_v4 minimax_m3 minimax_m3_vl minimax_m3_vl_text",
    "sparse_encoder_decoders": "nllb-moe switch_transformers",
    "stepfun": "step3p5 step3p7",
    "trinity": "afmoe laguna",
    "wrappers": (
        "aya_vision cohere2_vision deepseek_vl fast_vlm glm46v got_ocr2 idefics2 idefics3 internvl internvl_chat kimi_vl lfm2_vl llava "
        "llava_next llava_next_video llava_onevision paligemma smolvlm video_llava vipllava"
    ),
    "windowed_experts": "cohere2_moe flint granite_swa granitemoe_swa kolibri1 lara_mini mellum",
    "windowed": "cohere2 exaone4 gpt_oss llama4 llama4_text mimo mimo_v2_flash olmo3",
}
_MODULES = {model_type: module for module, model_types in _FAMILIES.items() for model_type in model_types.split()}


def reads(*model_types: str) -> Callable[[_Reader], _Reader]:
    """Register a reader for one or several values of `model_type`.

    Parameters
    ----------
    *model_types : str
        The values [-].

    Returns
    -------
    callable
        A decorator that returns the reader unchanged [-].
    """

    def register(reader: _Reader) -> _Reader:
        for name in model_types:
            _READERS[name] = reader
        return reader

    return register


def supported_model_types() -> tuple[str, ...]:
    """Return every `model_type` that is modelled.

    Returns
    -------
    tuple of str
        In alphabetical order [-].

    Examples
    --------
    >>> "llama" in supported_model_types()
    True
    """
    return tuple(sorted({*_MODULES, *_READERS}))


def find_reader(model_type: str) -> _Reader | None:
    """Return the reader for a `model_type`, None if there is none; its module is imported when it is first asked for."""
    if model_type not in _READERS and model_type in _MODULES:
        import_module(f"roofline.huggingface.{_MODULES[model_type]}")
    return _READERS.get(model_type)


def read_as(model_type: str, config: Config) -> Model:
    """Return what the reader of a `model_type` makes of a text model's level, of which the level around it says the rest."""
    reader = find_reader(model_type)
    if reader is None:
        raise UnsupportedModelError(f"{config.where}: the text model is a {quoted(model_type)}, which is not modelled.")
    return reader(config)


_MOST_COMPARED = 200
_OTHER_FILES = {
    "params.json of Mistral's or Meta's own": {"dim", "n_layers"},
    "model index of a diffusion pipeline": {"_class_name"},
    "adapter_config.json of PEFT": {"peft_type"},
    "index of weight files": {"weight_map"},
    "tokenizer": {"added_tokens"},
    "hf_quant_config.json of ModelOpt": {"producer", "quantization"},
}
"""What else lies beside a config.json, by keys that only it has."""


def _what_else(data: Mapping[str, Any]) -> str:
    """Return what may help where there is no `model_type`: the architecture that is named, or what the file is instead."""
    for what, keys in _OTHER_FILES.items():
        if keys <= data.keys():
            return f"; it looks like the {what}: the config.json that is published beside it is read"
    named = data.get("architectures")
    first = str(named[0])[:_MOST_COMPARED] if isinstance(named, (list, tuple)) and named else ""
    family = re.sub(r"(For[A-Z]\w*|LMHeadModel|Model)$", "", first)
    known = {normalize_name(t): t for t in supported_model_types()}.get(normalize_name(family))
    if known:
        return f'; \'architectures\' names {first}: add "model_type": "{known}" if it is one'
    return "; supported_model_types() of roofline.huggingface lists what can be"


def _text_alone(data: Mapping[str, Any]) -> str:
    """Return whether a model that is not modelled has a text model that is."""
    for key in ("text_config", "llm_config", "language_config"):
        inner = data.get(key)
        found = inner.get("model_type") if isinstance(inner, Mapping) else None
        if isinstance(found, str) and find_reader(found):
            return f"; its text model, the object under {key!r}, is a {found} and can be read by itself"
    return ""


def model_from_config(data: Mapping[str, Any], *, name: str = "config", source: str = "", files: "Files | None" = None) -> Model:
    """Turn a Hugging Face configuration into a model, or refuse it with the reason.

    Parameters
    ----------
    data : mapping
        The content of a config.json [-].
    name : str, optional
        What to call the model [-].
    source : str, optional
        Where the configuration comes from [-].
    files : Files, optional
        The tensors of the checkpoint, whose formats go before those that the configuration names [-].

    Returns
    -------
    Model
        The model, parameters exact [-].

    Raises
    ------
    ConfigError
        If a needed key is missing or has an impossible value.
    UnsupportedModelError
        If the architecture, or a key that might change the cost, is not understood.
    """
    config = Config(data, source if source.endswith(".json") else name, files=files)
    model_type = config.text("model_type", default="")
    if not model_type:
        raise ConfigError(f"{name} has no 'model_type', so its architecture is not known{_what_else(data)}.")
    reader = find_reader(model_type)
    if reader is None:
        near = nearest_names(model_type[:_MOST_COMPARED], supported_model_types())
        raise UnsupportedModelError(
            f"{name}: model_type {quoted(model_type)} is not modelled; it might differ from every known architecture in what it reads and "
            f"computes{_text_alone(data)}."
            + (f" Nearest: {', '.join(near)}." if near else "")
            + ' supported_model_types() of roofline.huggingface lists what is; Model.load(…, read="code") reads what transformers has code of.'
        )
    try:
        model = reader(config)
    except InvalidValueError as error:
        raise ConfigError(f"{name}: its keys lead to what cannot be. {error}") from None
    config.refuse_unread()
    if any(note in model.not_modelled for note in BESIDE.values()) or any(model_type in families for families in TOWERED.values()):
        from roofline.huggingface.towers import attach  # most models have no tower

        model = attach(config, model)
    model = model.but(name=name, source=source or name)
    return model if files is None else files.settle(model)
