"""What a class of transformers counts, without our formulas: its parameters, FLOP of products with weights, tensors of its cache."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from families_described import LENGTHS, SOURCE, Counts

_BESIDE = ("vqmodel", "vision_tower", "multi_modal_projector")
"""Towers of classes whose whole is an encoder–decoder or whose configuration is the text model's."""
_NOT_CACHE = {
    *("logits", "logits_ngram", "loss", "hidden_states", "attentions", "last_hidden_state"),
    *("encoder_last_hidden_state", "decoder_hidden_states"),
}


class WeightedProducts(TorchDispatchMode):
    """Count the FLOP of products of which one operand is a weight, by torch's own formulas.

    A weight is a parameter, and whatever is made of weights alone: a transposed one, or the rows of experts that an index picks. What
    a convolution per channel costs is no matrix product and not counted.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.flops = 0
        self.parameters = {id(p) for p in module.parameters()}
        self.made: set[int] = set()
        self.alive: list[torch.Tensor] = []

    def _weight(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self.parameters or id(tensor) in self.made

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.is_floating_point()]
        packet = func.overloadpacket
        if packet in flop_registry:
            if packet is torch.ops.aten.addmm or packet is torch.ops.aten.baddbmm:
                given = given[1:]
            if sum(map(self._weight, given[:2])) == 1 and not self._per_channel(packet, args):
                self.flops += int(flop_registry[packet](*args, **(kwargs or {}), out_val=result))
        elif given and all(map(self._weight, given)) and not self._rows_of_a_table(packet, given):
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor):
                    self.made.add(id(tensor))
                    self.alive.append(tensor)  # or its id would go to another
        return result

    @staticmethod
    def _rows_of_a_table(packet: Any, given: list[torch.Tensor]) -> bool:
        return str(packet) in ("aten.embedding", "aten.index_select") or (str(packet) == "aten.index" and given[0].dim() <= 2)

    @staticmethod
    def _per_channel(packet: Any, args: tuple[Any, ...]) -> bool:
        return packet is torch.ops.aten.convolution and args[8] > 1 and args[1].shape[1] == 1


def tensors(thing: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    """Yield every tensor that an object leads to, once."""
    if id(thing) in seen or isinstance(thing, (str, bytes, int, float, type(None), torch.nn.Module, torch.dtype, torch.device)):
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        if thing.is_floating_point():
            yield thing
        return
    inner = (
        thing.values()
        if isinstance(thing, dict)
        else thing
        if isinstance(thing, (list, tuple))
        else vars(thing).values()
        if hasattr(thing, "__dict__")
        else ()
    )
    for one in list(inner):
        if not hasattr(one, "to_json_string"):  # a configuration
            yield from tensors(one, seen)


def build(config: Any, automatic: str, device: str) -> torch.nn.Module:
    """Return the class of a configuration on a device, in 16 bits."""
    import transformers

    options = {"dtype": torch.bfloat16, "attn_implementation": "eager", "experts_implementation": "batched_mm"}
    with torch.device(device):
        if config.model_type in ("musicgen", "musicgen_melody"):  # whose class takes the configuration of the decoder alone
            kind = getattr(transformers, automatic)._model_mapping[type(config)]
            module = kind._from_config(config.decoder, **options)
        else:
            module = getattr(transformers, automatic).from_config(config, **options)
    if config.model_type in _OF_32_BITS:
        module.to(device, torch.bfloat16)
    module.tie_weights()
    return module.eval()


_OF_32_BITS = ("reformer", "xlnet")
"""Families whose classes make parameters of 32 bits where 16 are asked for, and cannot run until a checkpoint's replace them."""


def inputs(module: torch.nn.Module, tokens: int, device: str) -> dict[str, Any]:
    """Return a prompt of that many tokens, and a source where the class has an encoder."""
    ids = torch.full(_IDS.get(module.config.model_type, lambda _, tokens: (1, tokens))(module.config, tokens), 3, device=device)
    names = inspect.signature(module.forward).parameters
    if "cross_attention_states" in names:
        return {
            "input_ids": ids,
            "cross_attention_states": torch.zeros(
                (1, SOURCE, module.config.get_text_config().hidden_size), device=device, dtype=torch.bfloat16
            ),
        }
    if not module.config.is_encoder_decoder or "decoder_input_ids" not in names:
        return {"input_ids": ids}
    first = module.main_input_name
    if first == "input_ids":
        return {"input_ids": torch.full((1, SOURCE), 3, device=device), "decoder_input_ids": ids}
    shape = _HEARD.get(module.config.model_type, lambda config: (1, getattr(config, "num_mel_bins", 80), 2 * SOURCE))(module.config)
    return {first: torch.zeros(shape, device=device, dtype=torch.bfloat16), "decoder_input_ids": ids}


_IDS = {
    "dia": lambda config, tokens: (1, tokens, config.decoder_config.num_channels),
    "kyutai_speech_to_text": lambda config, tokens: (1, tokens, config.num_codebooks + 1),
    "musicgen": lambda config, tokens: (config.num_codebooks, tokens),
    "musicgen_decoder": lambda config, tokens: (config.num_codebooks, tokens),
    "musicgen_melody": lambda config, tokens: (config.num_codebooks, tokens),
    "musicgen_melody_decoder": lambda config, tokens: (config.num_codebooks, tokens),
}
"""Shapes of so many tokens where one is an id in each of several codebooks [-]."""


def _samples(positions: int, convolutions: tuple[tuple[int, int], ...]) -> int:
    """Return how many samples convolutions without padding, of these kernels and strides, make so many positions of."""
    for kernel, stride in reversed(convolutions):
        positions = (positions - 1) * stride + kernel
    return positions


_WAV2VEC2 = _samples(SOURCE, ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)))
_HEARD = {
    "canary": lambda config: (1, 8 * SOURCE, config.encoder_config.num_mel_bins),
    "cohere_asr": lambda config: (1, 8 * SOURCE, config.encoder_config.num_mel_bins),
    "moonshine": lambda _: (1, _samples(SOURCE, ((127, 64), (7, 3), (3, 2)))),
    "moonshine_streaming": lambda _: (1, 4 * SOURCE * 80),
    "pix2struct": lambda config: (1, SOURCE, config.vision_config.patch_embed_hidden_size + 2),
    "pp_formulanet": lambda config: (1, 3, config.vision_config.image_size, config.vision_config.image_size),
    "seamless_m4t": lambda config: (1, 4 * SOURCE, config.feature_projection_input_dim),
    "seamless_m4t_v2": lambda config: (1, 4 * SOURCE, config.feature_projection_input_dim),
    "speech-encoder-decoder": lambda _: (1, _WAV2VEC2),
    "speech_to_text": lambda config: (1, 4 * SOURCE, config.input_feat_per_channel),
    "speecht5": lambda _: (1, _WAV2VEC2),
    "vision-encoder-decoder": lambda config: (1, config.encoder.num_channels, config.encoder.image_size, config.encoder.image_size),
}
"""Shapes of sources of which encoders make as many positions as all here have, or as they always do, where two frames of Mel bins are not one [-]."""


def run(module: torch.nn.Module, tokens: int) -> tuple[int, list[torch.Tensor]]:
    """Return the FLOP of products with weights in a prefill, and the tensors that it leaves for the next step."""
    from transformers import DynamicCache

    device = next(module.parameters()).device.type
    with torch.no_grad(), WeightedProducts(module) as counter:
        given = inputs(module, tokens, device)
        if "use_cache" in inspect.signature(module.forward).parameters or getattr(module, "_supports_cache_class", False):
            given["use_cache"] = True
        config = module.config
        layers = getattr(config, "decoder_layers", None)
        if layers and not config.is_encoder_decoder and layers > config.num_hidden_layers:
            given["cache"] = DynamicCache()  # that of the class would have as many layers as the encoder
        output = module(**given)
    kept = [
        tensor
        for name, value in output.items()
        if name not in _NOT_CACHE
        for tensor in tensors(value, {id(t) for t in module.parameters()})
    ]
    return counter.flops, kept


def parameters_of(module: torch.nn.Module) -> tuple[int, int]:
    """Return the parameters of the text model (its decoder, embedding and head, where it is a part) and of the towers beside it."""
    every = sum(p.numel() for p in module.parameters())
    config = module.config
    if config.model_type == "phi4_multimodal":  # one level of configuration, and both towers in one part of the text model
        towers = sum(p.numel() for p in module.model.embed_tokens_extend.parameters())
        return every - towers, towers
    if config.is_encoder_decoder or config.get_text_config() is config:
        beside = [part for name, part in module.base_model.named_children() if name in _BESIDE]
        towers = sum(p.numel() for part in beside for p in part.parameters())
        return every - towers, towers
    parts = [module.get_decoder(), module.get_input_embeddings(), module.get_output_embeddings()]
    if "MaskedLM" in type(module).__name__:
        parts += [part for part in module.children() if part is not module.base_model]  # its head is more than a matrix
    text = sum(p.numel() for p in {id(p): p for part in parts if part is not None for p in part.parameters()}.values())
    return text, every - text


def _runs(module: torch.nn.Module) -> list[tuple[int, list[torch.Tensor]]]:
    """Return the runs of both lengths: in 32 bits where its code mixes them with 16 and keeps nothing."""
    try:
        return [run(module, tokens) for tokens in LENGTHS]
    except RuntimeError as error:
        if "float" not in str(error).lower():
            raise
        runs = [run(module.float(), tokens) for tokens in LENGTHS]
        if any(kept for _, kept in runs):
            raise
        return runs


def of_class(module: torch.nn.Module) -> tuple[Counts, str]:
    """Return what a class counts, and why it could not be run if it could not."""
    parameters, towers = parameters_of(module)
    try:
        short, long = _runs(module)
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        return Counts(parameters, tower_parameters=towers), f"{type(error).__name__}: {why}"
    first, second = (sum(t.numel() * t.element_size() for t in kept) for _, kept in (short, long))
    slope = (second - first) / (LENGTHS[1] - LENGTHS[0])
    kept = (slope, round(first - slope * LENGTHS[0])) if first or "MaskedLM" in type(module).__name__ else (None, None)
    return Counts(parameters, long[0] / LENGTHS[1], *kept, towers), ""
