"""Which operators of torch are understood: those with a cost function, those that move nothing, and those that only call others."""

import re
from collections.abc import Callable

from roofline.frozen import FrozenDict
from roofline.ops import Op
from roofline.profile import products, rowwise
from roofline.profile.call import Call

Cost = Callable[[Call], Op | None]

COSTS: FrozenDict[str, Cost] = FrozenDict({**products.COSTS, **rowwise.COSTS})
"""What a call costs, by the operator's name; a function returns None where the shapes do not tell."""


def _named(names: str) -> frozenset[str]:
    return frozenset(f"aten::{name}" for name in names.split())


NOTHING = _named(
    """
    _conj _fused_sdp_choice _local_scalar_dense _neg_view broadcast_tensors cudnn_is_acceptable view_as_complex view_as_real _reshape_alias _unsafe_view alias as_strided as_strided_ chunk detach detach_
    diagonal empty empty_like empty_strided expand expand_as flatten is_nonzero is_pinned is_same_size item lift_fresh movedim narrow
    new_empty new_empty_strided numpy_T permute record_stream resize_ resolve_conj resolve_neg result_type select set_ slice split
    split_with_sizes squeeze squeeze_ swapaxes t transpose transpose_ unbind unfold unsqueeze unsqueeze_ view view_as
    """
) | {"detach", "detach_"}
"""Operators that look at tensors in another way, allocate or ask: no FLOP and no bytes."""

CALLS = _named(
    """
    __and__ __or__ _autocast_to_full_precision _autocast_to_reduced_precision _batch_norm_impl_index _convolution _safe_softmax
    _scaled_dot_product_attention_math _to_copy batch_norm clip clone concat concatenate constant_pad_nd contiguous conv1d
    conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d cross_entropy_loss diff dropout einsum expand_copy full full_like
    group_norm hstack layer_norm linear log_softmax matmul max_pool2d meshgrid nll_loss nll_loss_nd narrow_copy new_full new_ones new_zeros one_hot ones
    ones_like outer pad rand rand_like randint randn randn_like repeat repeat_interleave reshape reshape_as rms_norm scalar_tensor
    scaled_dot_product_attention softmax stack sum_to_size to type_as vstack zeros zeros_like
    """
)
"""Operators that compute nothing themselves but call others, whose costs count."""


_WRAPPER = re.compile(r"autograd::engine::.*|torch::autograd::.*|.*Backward\d*$")


def moves_nothing(name: str) -> bool:
    """Return whether an operator computes and moves nothing of its own.

    Examples
    --------
    >>> moves_nothing("aten::view"), moves_nothing("MmBackward0"), moves_nothing("aten::mm")
    (True, True, False)
    """
    return name in NOTHING or name in CALLS or _WRAPPER.fullmatch(name) is not None


def count_call(call: Call) -> Op | None:
    """Return what one call costs, or None if that is not known.

    Parameters
    ----------
    call : Call
        The operator and its inputs [-].

    Returns
    -------
    Op or None
        FLOP of products and of general units, bytes in and out [-].
    """
    cost = COSTS.get(call.name)
    return None if cost is None else cost(call)
