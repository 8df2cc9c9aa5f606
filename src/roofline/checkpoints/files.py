"""What the headers of a checkpoint say: its tensors, and in how many bytes each is stored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple


class StoredTensor(NamedTuple):
    """One tensor of a file.

    Parameters
    ----------
    name : str
        Its name in the file [-].
    kind : str
        The type of its elements as the file spells it, in lower case: ``bf16``, ``u32``, ``q4_k`` [-].
    shape : tuple of int
        Its dimensions [-].
    bytes : int
        Its size [B].
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def elements(self) -> int:
        """Elements as stored: of packed weights fewer than there are weights [-]."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All tensors of a checkpoint, over all its files.

    Parameters
    ----------
    where : str
        The file, or the folder [-].
    tensors : tuple of StoredTensor
        All of them; none where there is an index but not all the files that it names [-].
    total_bytes : int
        Bytes of all tensors [B].
    files : int, optional
        Files of tensors that were read, 0 where only an index is there [-].
    metadata : mapping, optional
        What a GGUF file says about itself, by key; lists of text are left out [-].
    missing : tuple of str, optional
        Files that an index names beside others and that are not there [-].
    """

    where: str
    tensors: tuple[StoredTensor, ...]
    total_bytes: int
    files: int = 1
    metadata: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
