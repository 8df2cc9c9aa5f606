"""Recurrent mixers: a state of fixed size per sequence instead of a cache that grows. Here the base and the state-space models.

All have the same shape: projections of the token, often a short convolution, an update and a read-out of the state, a gate, and
a projection back. They differ in the state and in what the update costs.
"""

from abc import abstractmethod
from typing import ClassVar, Literal

from roofline.model.components import Count, Matrix, Size, Vector
from roofline.model.held import STREAM, Held, MixerPart
from roofline.step.rows import Rows
from roofline.visibility import CAUSAL, Visibility


class RecurrentMixer(MixerPart):
    """What all recurrent mixers have in common.

    Parameters
    ----------
    prefix : str, optional
        How checkpoints call the block [-].
    conv_kernel : int, optional
        Taps of the causal convolution, 0 for none [token].
    conv_state_width : int, optional
        Columns of convolution state kept, if not as many as taps [token].
    conv_bias : bool, optional
        Whether the convolution has a bias [-].
    state_format : str, optional
        Format that the recurrent state is kept in [-].
    """

    retrieves: ClassVar[bool] = False
    """Whether the update first subtracts what the key retrieves (delta rule): one more product with the whole state."""

    prefix: str = "mixer"
    conv_kernel: Count = 0
    conv_state_width: Count | None = None
    conv_bias: bool = False
    state_format: str = "fp32"

    @property
    def visibility(self) -> Visibility:
        """Recurrent layers see everything before, through their state [-]."""
        return CAUSAL

    def keeps(self) -> tuple[Held, ...]:
        """Return the state and, in the format of activations, the convolution's columns: nothing grows with the sequence [-]."""
        once = Rows("state", cached=False)
        return (Held(once, self.state_elements, self.state_format), Held(once, self.conv_state_elements, STREAM))

    @property
    def conv_channels(self) -> int:
        """Channels that the convolution runs over [-]."""
        return 0

    @property
    @abstractmethod
    def state_elements(self) -> int:
        """Elements of the recurrent state of one sequence in one layer [-]."""

    @property
    @abstractmethod
    def pair_width(self) -> int:
        """Multiply-accumulates per pair of tokens if the recurrence is computed as attention; 0 if it cannot be [-]."""

    @property
    def decays(self) -> int:
        """State elements with a decay of their own, which a matrix product over a chunk cannot absorb [-]."""
        return 0

    @property
    def conv_state_elements(self) -> int:
        """Elements of the convolution state of one sequence in one layer [-]."""
        return self.conv_channels * (self.conv_kernel if self.conv_state_width is None else self.conv_state_width)

    @abstractmethod
    def input_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the projections of the residual stream [-]."""

    def inner_matrices(self) -> tuple[Matrix, ...]:
        """Return the projections of the input projections' results [-]."""
        return ()

    @abstractmethod
    def output_matrix(self, hidden: int) -> Matrix:
        """Return the projection back [-]."""

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the projections; the last is the output [-]."""
        return (*self.input_matrices(hidden), *self.inner_matrices(), self.output_matrix(hidden))

    def named_vectors(self) -> tuple[tuple[str, int], ...]:
        """Return decay rates, biases of time steps, norms: the name of each inside the block, and its size [-]."""
        return ()

    def vectors(self) -> tuple[Vector, ...]:
        """Return the parameters outside matrices: the convolution, and the rest [-]."""
        conv = self.conv_channels * (self.conv_kernel + self.conv_bias)
        return tuple(Vector(f"{self.prefix}.{name}", size) for name, size in (("conv1d", conv), *self.named_vectors()) if size)


class Mamba1(RecurrentMixer):
    """Mamba: a diagonal state-space model whose input, output and time step depend on the token.

    Parameters
    ----------
    inner : int
        Channels [-].
    state : int
        State elements per channel [-].
    dt_rank : int
        Rank of the time-step projection [-].
    projection_bias : bool, optional
        Whether input and output projections have biases [-].
    inner_norms : bool, optional
        Whether time step, input and output vectors are normalized with learned scales (Jamba) [-].

    References
    ----------
    arXiv 2312.00752.
    """

    kind: Literal["mamba1"] = "mamba1"
    inner: Size
    state: Size
    dt_rank: Size
    projection_bias: bool = False
    inner_norms: bool = False

    @property
    def conv_channels(self) -> int:
        """Channels that the convolution runs over [-]."""
        return self.inner

    @property
    def state_elements(self) -> int:
        """Elements of the recurrent state of one sequence in one layer [-]."""
        return self.inner * self.state

    @property
    def pair_width(self) -> int:
        """Multiply-accumulates for one pair of tokens: a score that all channels share, and a value in each [-]."""
        return self.state + self.inner

    @property
    def decays(self) -> int:
        """State elements with a decay of their own: all, for rates and time steps differ by channel [-]."""
        return self.state_elements

    def input_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return in: values and gate [-]."""
        return (Matrix(f"{self.prefix}.in_proj", hidden, 2 * self.inner, 2 * self.inner * self.projection_bias),)

    def inner_matrices(self) -> tuple[Matrix, ...]:
        """Return x (time step, input and output vectors) and the time step [-]."""
        return (
            Matrix(f"{self.prefix}.x_proj", self.inner, self.dt_rank + 2 * self.state),
            Matrix(f"{self.prefix}.dt_proj", self.dt_rank, self.inner, self.inner),
        )

    def output_matrix(self, hidden: int) -> Matrix:
        """Return out [-]."""
        return Matrix(f"{self.prefix}.out_proj", self.inner, hidden, hidden * self.projection_bias)

    def named_vectors(self) -> tuple[tuple[str, int], ...]:
        """Return decay rates, the skip connection, norms [-]."""
        norms = (("dt_layernorm", self.dt_rank), ("b_layernorm", self.state), ("c_layernorm", self.state)) if self.inner_norms else ()
        return (("A_log", self.inner * self.state), ("D", self.inner), *norms)


class Mamba2(RecurrentMixer):
    """Mamba-2: one decay per head, so that update and read-out are matrix products over a chunk.

    Parameters
    ----------
    heads, head_dim : int
        Heads, and channels of one [-].
    state : int
        State elements per channel [-].
    groups : int
        Groups of heads that share input and output vectors [-].
    projection_bias : bool, optional
        Whether input and output projections have biases [-].
    gated_norm : bool, optional
        Whether the gated result is normalized [-].

    References
    ----------
    arXiv 2405.21060.
    """

    kind: Literal["mamba2"] = "mamba2"
    heads: Size
    head_dim: Size
    state: Size
    groups: Size
    projection_bias: bool = False
    gated_norm: bool = True

    @property
    def inner(self) -> int:
        """Channels of all heads [-]."""
        return self.heads * self.head_dim

    @property
    def conv_channels(self) -> int:
        """Channels that the convolution runs over: values, input and output vectors [-]."""
        return self.inner + 2 * self.groups * self.state

    @property
    def state_elements(self) -> int:
        """Elements of the recurrent state of one sequence in one layer [-]."""
        return self.inner * self.state

    @property
    def pair_width(self) -> int:
        """Multiply-accumulates for one pair of tokens: a score per group, and the values of all heads [-]."""
        return self.groups * self.state + self.inner

    def input_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return in: gate, values, input and output vectors, time step [-]."""
        wide = self.inner + self.conv_channels + self.heads
        return (Matrix(f"{self.prefix}.in_proj", hidden, wide, wide * self.projection_bias),)

    def output_matrix(self, hidden: int) -> Matrix:
        """Return out [-]."""
        return Matrix(f"{self.prefix}.out_proj", self.inner, hidden, hidden * self.projection_bias)

    def named_vectors(self) -> tuple[tuple[str, int], ...]:
        """Return decay rates, time-step biases, the skip connection, the gated norm [-]."""
        return (("A_log", self.heads), ("D", self.heads), ("dt_bias", self.heads), ("norm", self.inner * self.gated_norm))


class RGLRU(RecurrentMixer):
    """Real-gated linear recurrent unit (Griffin): a diagonal recurrence with block-diagonal gates.

    Parameters
    ----------
    width : int
        Channels of the recurrence [-].
    heads : int
        Blocks of the gates' matrices [-].

    References
    ----------
    Griffin, arXiv 2402.19427.
    """

    kind: Literal["rglru"] = "rglru"
    width: Size
    heads: Size

    @property
    def conv_channels(self) -> int:
        """Channels that the convolution runs over [-]."""
        return self.width

    @property
    def state_elements(self) -> int:
        """Elements of the recurrent state of one sequence in one layer [-]."""
        return self.width

    @property
    def pair_width(self) -> int:
        """No matrix product: the state is one number per channel, and is itself what is read out [-]."""
        return 0

    @property
    def decays(self) -> int:
        """State elements with a decay of their own: all [-]."""
        return self.width

    def input_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return both branches [-]."""
        return tuple(Matrix(f"{self.prefix}.{name}", hidden, self.width, self.width) for name in ("linear_x", "linear_y"))

    def inner_matrices(self) -> tuple[Matrix, ...]:
        """Return the two block-diagonal gates, with one copy per block [-]."""
        block = self.width // self.heads
        return tuple(Matrix(f"{self.prefix}.rg_lru.{name}", block, block, block, self.heads) for name in ("input_gate", "recurrent_gate"))

    def output_matrix(self, hidden: int) -> Matrix:
        """Return out [-]."""
        return Matrix(f"{self.prefix}.linear_out", self.width, hidden, hidden)

    def named_vectors(self) -> tuple[tuple[str, int], ...]:
        """Return the decay rates [-]."""
        return (("rg_lru.recurrent_param", self.width),)


class ShortConvolution(RecurrentMixer):
    """A short convolution between two gates that the token makes (LFM2): a few columns are all it keeps.

    Parameters
    ----------
    width : int
        Channels [-].
    projection_bias : bool, optional
        Whether input and output projections have biases [-].

    References
    ----------
    arXiv 2511.23404.
    """

    kind: Literal["short_convolution"] = "short_convolution"
    width: Size
    projection_bias: bool = False

    @property
    def conv_channels(self) -> int:
        """Channels that the convolution runs over [-]."""
        return self.width

    @property
    def state_elements(self) -> int:
        """No state beside the convolution's columns [-]."""
        return 0

    @property
    def pair_width(self) -> int:
        """No product over pairs of tokens [-]."""
        return 0

    def keeps(self) -> tuple[Held, ...]:
        """Return the convolution's columns, in the format of activations [-]."""
        return (Held(Rows("state", cached=False), self.conv_state_elements, STREAM),)

    def input_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return in: both gates and the values [-]."""
        return (Matrix(f"{self.prefix}.in_proj", hidden, 3 * self.width, 3 * self.width * self.projection_bias),)

    def output_matrix(self, hidden: int) -> Matrix:
        """Return out [-]."""
        return Matrix(f"{self.prefix}.out_proj", self.width, hidden, hidden * self.projection_bias)
