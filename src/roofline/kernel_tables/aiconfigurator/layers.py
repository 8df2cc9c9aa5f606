"""The tables of recurrent state, short convolutions and quantization."""

import numpy as np

from roofline.kernel_tables.columns import Columns

_CACHED = 4096
"""Context of a decode row; any value that fills its state and all taps gives the same counts [token]."""

_CONVOLUTIONS = "causal_conv1d"
_THREE_IN_A_ROW = "causal_conv1d_fn_qkv3"
"""Convolutions of queries, keys and values one after the other, in KDA's prompts: three kernels, not one. Besides, vLLM's rows of
one prompt would need up to 2.8 TB/s on an L40S, so not all of the prompt can have been convolved."""

_PHASES = ("context", "generation")
QUANTIZED = {"fp8": "fp8"}
"""Label of a quantized result → format."""

_EARLIER = {("TRTLLM", "1.3.0rc20"), ("SGLang", "0.5.10")}
"""Engines and versions whose table of gated delta nets measures less than its columns say:

- States have two bytes per element. With four, as in all other tables, decode would need 1.17 times the bandwidth of an H100 and 1.05
  times that of an A100.
- Convolutions have fewer channels than queries, keys and values together: times are the same for 32 and 64 value heads with 16 key
  heads, and all channels would need 8.4 TB/s on an H100. The number of channels is not known, so these rows are left out."""


def _is_earlier(table: Columns) -> np.ndarray:
    if "framework" not in table or "version" not in table:
        return np.zeros(len(table["phase"]), bool)
    pairs = zip(table["framework"].tolist(), table["version"].tolist(), strict=True)
    return np.array([(str(engine), str(version)) in _EARLIER for engine, version in pairs], dtype=bool)


def _is_convolution(table: Columns) -> np.ndarray:
    return np.array([str(kernel).startswith(_CONVOLUTIONS) for kernel in table["kernel_source"].tolist()], dtype=bool)


def _sequences(table: Columns) -> dict[str, np.ndarray]:
    """Return batch, context and new tokens: prompts start without context, a decode row has one new token."""
    decode = table["phase"] == "generation"
    return {
        "batch": table["batch_size"],
        "context": np.where(decode, _CACHED, 0),
        "new": np.where(decode, 1, table["seq_len"]),
    }


def _only(rows: np.ndarray, formats: np.ndarray) -> np.ndarray:
    """Return the formats of marked rows, and None, which leaves a row out, for all others."""
    found = np.full(rows.shape, None, dtype=object)
    found[rows] = np.broadcast_to(formats, rows.shape)[rows]
    return found


def _phase_is_known(table: Columns) -> np.ndarray:
    """Mark rows of prefill and decode; a step that verifies drafts keeps states that the table does not count."""
    return np.isin(table["phase"].astype(str), _PHASES)


def read_state(table: Columns) -> dict[str, np.ndarray]:
    """Read updates of a recurrent state, of gated delta nets and Kimi delta attention."""
    wanted = _phase_is_known(table) & ~_is_convolution(table)
    stored = np.where(_is_earlier(table), "bf16", "fp32")
    return {
        **_sequences(table),
        "heads": table["num_v_heads"],
        "key_heads": table["num_k_heads"],
        "key_dim": table["head_k_dim"],
        "value_dim": table["head_v_dim"],
        "state": _only(wanted, stored),
    }


def read_convolution(table: Columns) -> dict[str, np.ndarray]:
    """Read the short convolutions before the state."""
    alone = table["kernel_source"].astype(str) != _THREE_IN_A_ROW
    wanted = _phase_is_known(table) & _is_convolution(table) & alone & ~_is_earlier(table)
    channels = 2 * table["num_k_heads"] * table["head_k_dim"] + table["num_v_heads"] * table["head_v_dim"]
    return {**_sequences(table), "channels": channels, "taps": table["d_conv"], "stream": _only(wanted, np.array("bf16"))}


def read_mamba_convolution(table: Columns) -> dict[str, np.ndarray]:
    """Read the short convolutions of Mamba-2 layers; the tables have no state updates of them."""
    wanted = _phase_is_known(table) & _is_convolution(table)
    channels = table["nheads"] * table["head_dim"] + 2 * table["n_groups"] * table["d_state"]
    return {**_sequences(table), "channels": channels, "taps": table["d_conv"], "stream": _only(wanted, np.array("bf16"))}


def read_quantization(table: Columns) -> dict[str, np.ndarray]:
    """Read kernels that scale and quantize 16-bit rows."""
    output = np.array([QUANTIZED.get(str(label)) for label in table["quant_dtype"].tolist()], dtype=object)
    return {"rows": table["m"], "width": table["k"], "activations": np.full(output.size, "bf16", dtype=object), "output": output}
