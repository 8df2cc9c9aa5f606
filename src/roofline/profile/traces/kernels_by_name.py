"""What kernels do, by their names: all that is known of them where a CUDA graph hides the operators that launched them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache

from roofline.frozen import FrozenDict

# In the order in which they are asked; the first that is found anywhere in a name decides. Attention comes before products because
# its kernels name the matrix units too, experts before both because they are products, norms before quantization because they fuse it.
_PATTERNS = (
    ("copy", r"^mem(cpy|set)\b|^hip(memcpy|memset)|rocclr_(copy|fill)buffer"),
    ("collective", r"nccl|rccl|all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|cross_device|nvshmem|deep_?ep|symm_mem|multimem"),
    (
        "experts",
        r"moe|expert|matmul_ogs|bitmatrix|topk_forward|combined_routing|finalize_matmul_scatter|topk_?(softmax|gating|sigmoid)|grouped_topk"
        r"|group(ed)?_?gemm|groupproblemshape|routing",
    ),
    ("state", r"mamba|selective_scan|chunk_(scan|state|fwd|gated|local_cumsum)|causal_conv1d|gated_delta|gdn_|fused_recurrent|ssd_|wkv"),
    (
        "attention",
        r"flash(?!infer)|fmha|attention|attn|mla_|_mla|mha_|paged|(decode|prefill)with|_fwd_(grouped_)?kernel|merge_?states|reduce_segments"
        r"|reshape_and_cache|store_kv|concat_and_cache|kv_?indices",
    ),
    ("norm", r"rms_?norm|layer_?norm|group_?norm|norm_kernel|triton_\w*(rsqrt|norm)"),
    ("sampling", r"sampl|arg_?max|multinomial|top_?[kp]|radix_?sort|segmented_sort|bitonic|gumbel|penalt"),
    (
        "matrices",
        r"gemm|gemv|^cijk_|cublas|nvjet|xmma|cutlass|wvsplitk|splitk|marlin|machete|llmm1|matmul|mul_mat|bmm|triton_(mm|tem)|_mm_|wgmma|awq"
        r"|gptq|hipblas|tensile|dot_kernel",
    ),
    ("quantize", r"quant|scaled_fp8|to_(fp8|int8|mxfp|nvfp)"),
    ("copy", r"copy|cpy_|catarray|fillfunctor|gather|scatter|index|get_rows|transpose|(?<!rotary_)embedding|permute"),
    (
        "elementwise",
        r"elementwise|silu|gelu|relu|swiglu|activation|act_and_mul|rotary|rope|softmax|soft_max|triton_(poi|red|per)|reduce_kernel|scan"
        r"|multi_tensor_apply",
    ),
)
_CLASSES = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _PATTERNS)

FAMILIES: Mapping[str, str] = FrozenDict(
    {
        "matmul": "matrices",
        "attention": "attention",
        "latent_attention": "attention",
        "experts": "experts",
        "state": "state",
        "rowwise": "norm, elementwise, quantize",
        "all_reduce": "collective",
        "exchange": "collective",
        "send": "collective",
    }
)
"""The classes of kernels that a family of an estimate's kernels answers to."""

CLASSES = (*dict.fromkeys(kind for kind, _ in _PATTERNS), "other")
"""What kernels are told apart as."""


@cache
def class_of(name: str) -> str:
    """Return what a kernel does, by its name: a class, ``"other"`` where no pattern is found.

    Examples
    --------
    >>> class_of("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n"), class_of("ncclDevKernel_AllReduce_Sum_bf16_RING_LL")
    ('matrices', 'collective')
    """
    return next((kind for kind, pattern in _CLASSES if pattern.search(name)), "other")


def sum_by_class(times: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the sums of times of kernels over what they do, the longest first [s]."""
    seconds: dict[str, float] = defaultdict(float)
    for kind, time_s in times:
        seconds[kind] += time_s
    return dict(sorted(seconds.items(), key=lambda pair: -pair[1]))
