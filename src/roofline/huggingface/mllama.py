"""Llama 3.2 Vision: some layers attend to an image, and to nothing else."""

from roofline.errors import ConfigError
from roofline.huggingface.build import Layer, attention, build_model, dense, norm, text_level
from roofline.huggingface.config import Config
from roofline.huggingface.encoder_decoders import assumed_source
from roofline.huggingface.patterns import layer_norms
from roofline.huggingface.registry import reads
from roofline.model import CrossAttention, Model

_SPARE_ROWS = 8  # of the token table, MllamaTextModel


def _patches(vision: Config | None) -> int:
    """Return the positions of one image: the patches of all its tiles, and one of each for its class."""
    sizes = {"image_size": 448, "patch_size": 14, "max_num_tiles": 4}  # defaults of MllamaVisionConfig
    found = sizes if vision is None else {key: vision.size(key, default=usual) for key, usual in sizes.items()}
    if vision is not None:
        vision.free(*vision.data)
    return int(found["max_num_tiles"] * ((found["image_size"] // found["patch_size"]) ** 2 + 1))


@reads("mllama", "mllama_text_model")
def mllama(config: Config) -> Model:
    """Llama 3.2 Vision: Llama 3.1 with layers between that attend to the patches of an image; the text model, with its cross-attention."""
    text, parts = text_level(config, tied_by="text")
    text.only("tie_word_embeddings", False, means=f"a head that is the token table, which has {_SPARE_ROWS} rows more")
    source = _patches(config.nested("vision_config"))
    count = text.size("num_hidden_layers")
    placed = text.items("cross_attention_layers")
    where = [3, 8, 13, 18, 23, 28, 33, 38] if placed is None else placed
    if not all(type(i) is int and 0 <= i < count for i in where):
        raise ConfigError(f"{text.where}: 'cross_attention_layers' names layers that are not among the {count}.")
    own = attention(text)
    cross = CrossAttention(
        source=source,
        heads=own.heads,
        kv_heads=own.kv_heads,
        head_dim=own.head_dim,
        query_norm=norm("cross_attn.q_norm", own.head_dim),
        key_norm=norm("cross_attn.k_norm", own.head_dim),
        gates=2,
    )
    block, around = dense(text), layer_norms(text)
    notes = (assumed_source(source, "one image of all its tiles"), "requests without an image, which skip the layers that attend to one")
    return build_model(
        text,
        [Layer(cross if i in where else own, block, around) for i in range(count)],
        tied=False,
        spare_rows=_SPARE_ROWS,
        path="language_model.model.layers.{layer}.{component}",
        not_modelled=(*parts, *(notes if where else ())),
    )
