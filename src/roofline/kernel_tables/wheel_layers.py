"""What columns of the package ``aiconfigurator-core`` mean for the other kernels of a layer: recurrent state, convolutions, row by row."""

import numpy as np

from roofline.kernel_tables.columns import Columns

_CACHED = 4096
"""Tokens that a decode row is taken to follow; how many does not matter, as long as its state and all taps are filled [token]."""

_CONVOLUTIONS = "causal_conv1d"
_THREE_IN_A_ROW = "causal_conv1d_fn_qkv3"
"""Convolutions of queries, keys and values one after the other, as KDA's prompts have them: no single kernel. Besides, vLLM's rows of
one prompt ask for up to 2.8 TB/s of an L40S, so that not all of the prompt can have been convolved."""

_PHASES = ("context", "generation")
QUANTIZED = {"fp8": "fp8"}
"""Label of a quantized result → format."""

_EARLIER = {("TRTLLM", "1.3.0rc20"), ("SGLang", "0.5.10")}
"""Engines and versions whose table of gated delta nets was measured in another way, by which the columns say more than what ran:

- States have two bytes per element. With four, as everywhere else, decode would ask for 1.17 times the bandwidth of an H100 and 1.05
  times that of an A100.
- Convolutions have fewer channels than queries, keys and values together: times are the same for 32 and 64 heads of values beside 16 of
  keys, and all channels would ask for 8.4 TB/s of an H100. How many ran is not said, so that these rows are left out."""


def _is_earlier(table: Columns) -> np.ndarray:
    if "framework" not in table or "version" not in table:
        return np.zeros(len(table["phase"]), bool)
    pairs = zip(table["framework"].tolist(), table["version"].tolist(), strict=True)
    return np.array([(str(engine), str(version)) in _EARLIER for engine, version in pairs], dtype=bool)


def _is_convolution(table: Columns) -> np.ndarray:
    return np.array([str(kernel).startswith(_CONVOLUTIONS) for kernel in table["kernel_source"].tolist()], dtype=bool)


def _sequences(table: Columns) -> dict[str, np.ndarray]:
    """Return sequences and tokens: prompts start from nothing, a decode step has one token after others."""
    decode = table["phase"] == "generation"
    return {
        "batch": table["batch_size"],
        "context": np.where(decode, _CACHED, 0),
        "new": np.where(decode, 1, table["seq_len"]),
    }


def _of(rows: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return words where rows are marked and None, which leaves a row out, where not."""
    found = np.full(rows.shape, None, dtype=object)
    found[rows] = np.broadcast_to(words, rows.shape)[rows]
    return found


def _phase_is_known(table: Columns) -> np.ndarray:
    """Mark steps of prompts and of decode; a step that verifies drafts keeps states that the table does not count."""
    return np.isin(table["phase"].astype(str), _PHASES)


def read_state(table: Columns) -> dict[str, np.ndarray]:
    """Return the rows that update a recurrent state, of a gated delta net or of Kimi delta attention."""
    wanted = _phase_is_known(table) & ~_is_convolution(table)
    stored = np.where(_is_earlier(table), "bf16", "fp32")
    return {
        **_sequences(table),
        "heads": table["num_v_heads"],
        "key_heads": table["num_k_heads"],
        "key_dim": table["head_k_dim"],
        "value_dim": table["head_v_dim"],
        "state": _of(wanted, stored),
    }


def read_convolution(table: Columns) -> dict[str, np.ndarray]:
    """Return the rows of the short convolution before the state."""
    alone = table["kernel_source"].astype(str) != _THREE_IN_A_ROW
    wanted = _phase_is_known(table) & _is_convolution(table) & alone & ~_is_earlier(table)
    channels = 2 * table["num_k_heads"] * table["head_k_dim"] + table["num_v_heads"] * table["head_v_dim"]
    return {**_sequences(table), "channels": channels, "taps": table["d_conv"], "stream": _of(wanted, np.array("bf16"))}


def read_mamba_convolution(table: Columns) -> dict[str, np.ndarray]:
    """Return the short convolutions of Mamba-2 layers, which the tables have without the state's kernels."""
    wanted = _phase_is_known(table) & _is_convolution(table)
    channels = table["nheads"] * table["head_dim"] + 2 * table["n_groups"] * table["d_state"]
    return {**_sequences(table), "channels": channels, "taps": table["d_conv"], "stream": _of(wanted, np.array("bf16"))}


def read_quantization(table: Columns) -> dict[str, np.ndarray]:
    """Return kernels that multiply 16-bit rows by a scale and round them."""
    output = np.array([QUANTIZED.get(str(label)) for label in table["quant_dtype"].tolist()], dtype=object)
    return {"rows": table["m"], "width": table["k"], "activations": np.full(output.size, "bf16", dtype=object), "output": output}
