"""Files of weights: the names, formats and sizes of their tensors, from headers alone."""

from roofline.checkpoints.files import Checkpoint, StoredTensor
from roofline.checkpoints.gguf import read_gguf
from roofline.checkpoints.safetensors import read_folder, read_header

__all__ = ["Checkpoint", "StoredTensor", "read_folder", "read_gguf", "read_header"]
