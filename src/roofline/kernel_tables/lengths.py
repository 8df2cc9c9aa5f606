"""How long sequences are: tables count what is cached, what is new, or both together, and often do not say which."""

from dataclasses import dataclass

import numpy as np

from roofline.errors import InvalidValueError
from roofline.kernel_tables.columns import show_rows
from roofline.kernel_tables.lookup import Names
from roofline.kernels.kind import words

WHOLE = words(
    "kv_len kv_length kv_seqlen kv_seq_len kv_tokens kv_context seqlen_kv seqlen_k seq_len_kv seq_len_k len_kv len_k s_kv "
    "s_k t_kv l_kv max_kv_len max_seqlen_k max_seqlen_kv total_len total_tokens total_length kv_size n_kv"
)
"""Names of the length of the cache with the new tokens in it."""

ANY = words(
    "seq_len seq_lens seqlen seqlens seq seq_length sequence_length sequence_len max_seq_len max_seqlen length len isl "
    "input_len input_length input_tokens prompt prompt_len prompt_length prompt_tokens n_ctx s t l n"
)
"""Names of a length that is either that of the cache or that of the prompt."""

STEP = ("step",)
"""Tokens after `isl`, as aiconfigurator counts them."""

PHASE = ("phase", "stage", "mode", "op_name", "is_prefill", "prefill")
"""Names of the column that tells prompts from decode steps."""

COUNTS = {"context": "context", "new": "new", "whole": "context and new together", "any": "length", "step": "tokens after it"}
"""What a column of lengths counts, in words."""

_PROMPTS = ("prefill", "context", "prompt", "extend", "true", "1")
_STEPS = ("decode", "generation", "false", "0")


@dataclass(frozen=True, slots=True)
class Lengths:
    """Cached and new tokens of every row, and how they were found."""

    sizes: dict[str, np.ndarray]  # those of `context` and `new` that the table has, by name
    assumed: tuple[str, ...] = ()
    as_steps: str = ""  # the column of a length that was taken for that of a cache and may be that of a prompt


def length_columns(names: Names, new: str | None, context: str | None) -> dict[str, str]:
    """Return the columns of lengths by what they count: ``context``, ``new``, ``whole``, ``any``, ``step``."""
    found = {"context": context, "new": new, "whole": names.find_one("kv_len", WHOLE), "any": names.find_one("seq_len", ANY)}
    found["step"] = names.find_one("step", STEP) if found["any"] else None
    return {what: name for what, name in found.items() if name is not None}


def read_phases(texts: list[str]) -> np.ndarray:
    """Return for every row whether it is a prompt (1), a decode step (0), or neither by its text (-1).

    Examples
    --------
    >>> read_phases(["context_attention", "decode", "gemm"])
    array([ 1,  0, -1])
    """
    known: dict[str, int] = {}
    for text in dict.fromkeys(texts):
        low = text.lower()
        known[text] = 1 if _says(low, _PROMPTS) else 0 if _says(low, _STEPS) else -1
    return np.array([known[text] for text in texts], dtype=int)


def _says(text: str, words: tuple[str, ...]) -> bool:
    return any(text == word if len(word) < 6 else word in text for word in words)


def read_lengths(columns: dict[str, str], values: dict[str, np.ndarray], prompts: np.ndarray | None, rows: np.ndarray) -> Lengths:
    """Return the cached and the new tokens of every row of a table.

    Parameters
    ----------
    columns, values : dict
        The names and the numbers of the columns of lengths, by what they count, see :func:`length_columns`.
    prompts : numpy.ndarray or None
        Which rows are prompts, where the table says so, see :func:`read_phases`.
    rows : numpy.ndarray
        Their places in the table, for messages.
    """
    context, new, whole, either = (values.get(what) for what in ("context", "new", "whole", "any"))
    prefill = np.zeros(rows.size, bool) if prompts is None else prompts == 1
    assumed: list[str] = []
    as_steps = ""
    if "step" in values and either is not None:  # a prompt after cached tokens, or a decode step so many tokens later
        if whole is None and new is None and context is None:
            new, context = np.where(prefill, either, 1), np.where(prefill, values["step"], either + values["step"] - 1)
            either = None
        else:
            raise InvalidValueError(f"columns {_named(columns)} say a length more than once; keep two of them.")
    if either is not None:
        if whole is not None and new is None:
            new = either
        elif whole is None and new is not None:
            whole = either
        elif context is not None:
            raise InvalidValueError(
                f"columns {_named(columns)}: is {columns['any']} the length of the new tokens or of all? "
                f"Say it with columns={{'{columns['any']}': 'new'}} or 'kv_len'."
            )
        else:
            whole, new = either, np.where(prefill, either, 1)
            if prompts is None or (prompts < 0).any():
                as_steps = columns["any"]
                assumed.append(
                    f"{columns['any']} is the length of the cache at a decode step, new token included; that of a prompt is called new"
                )
    if whole is not None:
        if new is None and context is None:
            new = np.where(prefill, whole, 1)
            assumed += [] if prefill.any() else ["one new token for each sequence"]
        other = "new" if new is not None else "context"
        rest = whole - (new if new is not None else np.asarray(context))
        wrong = rest < (0 if other == "new" else 1)
        if wrong.any():
            raise InvalidValueError(
                f"{_named(columns)}: the length of the cache counts the new tokens too, and is below theirs in {_show(wrong, whole, rows)}."
            )
        if new is not None and context is not None and (rest != context).any():
            raise InvalidValueError(f"columns {_named(columns)} do not add up: {_show(rest != context, whole, rows)}.")
        new, context = (new, rest) if other == "new" else (rest, context)
    sizes = {name: column for name, column in (("context", context), ("new", new)) if column is not None}
    if "new" not in sizes:
        assumed.append("one new token for each sequence")
    if "context" not in sizes:
        assumed.append("no cached tokens")
    return Lengths(sizes, tuple(assumed), as_steps)


def _named(columns: dict[str, str]) -> str:
    return ", ".join(columns.values())


def _show(marked: np.ndarray, values: np.ndarray, rows: np.ndarray) -> str:
    """Write the first marked rows by their place in the table."""
    whole = np.zeros(int(rows[-1]) + 1, bool)
    whole[rows[marked]] = True
    column = np.zeros(whole.size)
    column[rows] = values
    return show_rows(whole, column)
