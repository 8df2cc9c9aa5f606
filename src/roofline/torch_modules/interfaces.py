"""The functions that transformers calls in place of its own for attention, masks and experts while a module is watched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from roofline.torch_modules.events import Record, Routed, of_each
from roofline.torch_modules.masks import SEEN, added, of_function, of_mask, seen_of
from roofline.torch_modules.notes import address_of, note
from roofline.torch_modules.operators import Operators
from roofline.torch_modules.required import torch
from roofline.visibility import CAUSAL, Visibility

OWN = "roofline"
"""Name under which transformers knows the functions of this module while it watches [-]."""

_SMALL = 1 << 10
"""Elements of the largest mask of transformers that is computed beside the run [-]."""


@contextmanager
def interfaces(record: Record, where: list[str], module: torch.nn.Module, operators: Operators) -> Iterator[None]:
    """Have transformers call this module's functions for attention, masks and experts."""
    configs = {id(c): c for m in module.modules() if (c := getattr(m, "config", None)) is not None and hasattr(c, "_attn_implementation")}
    if not configs:
        yield
        return
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attention(owner: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        causal = kwargs.get("is_causal")
        causal = getattr(owner, "is_causal", True) if causal is None else causal
        visible = seen_of(attention_mask)
        if visible is None and isinstance(attention_mask, torch.Tensor):
            held = operators.values.of(attention_mask)
            if held is not None:
                record.masked = True
                with torch._C._DisableTorchDispatch():
                    visible = of_mask(held)
                if visible is None:
                    record.strange.add(where[-1])
            if visible is None:
                record.assumed.add(where[-1])
        if visible is None:
            visible = CAUSAL if causal else Visibility("bidirectional")
        window = kwargs.get("sliding_window")
        if isinstance(window, int) and visible == CAUSAL:
            visible = Visibility("window", window)
        sinks = any(kwargs.get(name) is not None for name in ("s_aux", "sinks"))
        record.used.update(
            name for value in kwargs.values() if isinstance(value, torch.Tensor) for name in operators.named.get(address_of(value), ())
        )
        call = record.attention_call(where[-1], query, key, value, visible, sinks=sinks)
        each = call.queries % operators.tokens and call.heads % operators.tokens == 0
        record.called(call, of_each(call, operators.named.get(address_of(query), ())) if each else [call])
        return query.new_empty((query.shape[0], query.shape[2], query.shape[1], value.shape[-1])), None

    def mask(batch_size: int, q_length: int, kv_length: int, mask_function: Any = None, dtype: Any = torch.float32, **kwargs: Any) -> Any:
        made = torch.empty((batch_size, 1, q_length, kv_length), dtype=dtype, device="meta")
        with torch._C._DisableTorchDispatch():
            SEEN[address_of(made)] = (made, of_function(mask_function) if mask_function is not None else CAUSAL)
            if q_length * kv_length <= _SMALL and made.is_floating_point() and mask_function is not None:
                value = added(mask_function, q_length, kv_length, dtype)
                if value is not None:
                    note(made, value=value)
        return made

    def experts(owner: Any, hidden_states: Any, top_k_index: Any, top_k_weights: Any = None, *args: Any, **kwargs: Any) -> Any:
        rows = hidden_states.numel() // hidden_states.shape[-1]
        visits = top_k_index.numel()
        record.used.update(name for held in owner.parameters() for name in operators.named.get(address_of(held), ()))
        record.events.append(Routed(where[-1], rows, visits // max(rows, 1), hidden_states.shape[-1], (), operators.choices))
        for held in owner.parameters():  # of a choice among more than there are experts, as many visit each
            if held.ndim == 3:
                record.flops[where[-1]] += 2 * visits * held.numel() // max(held.shape[0], operators.choices)
        return torch.empty_like(hidden_states)

    tables: tuple[tuple[Any, Callable[..., Any]], ...] = (
        (ALL_ATTENTION_FUNCTIONS, attention),
        (ALL_MASK_ATTENTION_FUNCTIONS, mask),
        (ALL_EXPERTS_FUNCTIONS, experts),
    )
    before = [(c, c._attn_implementation, getattr(c, "_experts_implementation", None)) for c in configs.values()]
    try:
        for table, function in tables:
            table._global_mapping[OWN] = function
        for config in configs.values():
            config._attn_implementation_internal = OWN
            config._experts_implementation_internal = OWN
        yield
    finally:
        for config, attn, routed in before:
            config._attn_implementation_internal, config._experts_implementation_internal = attn, routed
        for table, _ in tables:
            table._global_mapping.pop(OWN, None)
        SEEN.clear()
