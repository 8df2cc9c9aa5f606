"""Feed-forward blocks: the part of a layer that treats every token separately."""

from typing import Annotated, Literal

from roofline.description import Number
from roofline.errors import InvalidValueError
from roofline.model.components import Count, Matrix, Size, Vector, WeightedPart

ROUTER = "mlp.gate"
"""How the name of the product that chooses experts ends [-]."""
SHARED = "mlp.shared_experts"
"""What the names of what all shared experts together compute have in them [-]."""


class DenseFeedForward(WeightedPart):
    """A multilayer perceptron: up and down, or with a gate (SwiGLU, GeGLU) gate, up and down.

    Parameters
    ----------
    intermediate : int
        Width between the matrices [-].
    gated : bool, optional
        Three matrices instead of two [-].
    bias : bool, optional
        Whether all of them have a bias [-].
    activation_parameters : int, optional
        Numbers that the activation function learns [-].
    """

    kind: Literal["dense"] = "dense"
    intermediate: Size
    gated: bool = True
    bias: bool = False
    activation_parameters: Count = 0

    def matrices(self, hidden: int, prefix: str = "mlp") -> tuple[Matrix, ...]:
        """Return the matrices of the block.

        Parameters
        ----------
        hidden : int
            Width of the residual stream [-].
        prefix : str, optional
            What their names begin with [-].

        Returns
        -------
        tuple of Matrix
            (gate,) up, down [-].
        """
        wide = self.intermediate * self.bias
        gate = (Matrix(f"{prefix}.gate_proj", hidden, self.intermediate, wide),) if self.gated else ()
        return (
            *gate,
            Matrix(f"{prefix}.up_proj", hidden, self.intermediate, wide),
            Matrix(f"{prefix}.down_proj", self.intermediate, hidden, hidden * self.bias),
        )

    def vectors(self) -> tuple[Vector, ...]:
        """Return the parameters outside matrices: those of the activation function [-]."""
        return (Vector("mlp.act_fn", self.activation_parameters),) if self.activation_parameters else ()


class Experts(WeightedPart):
    """A mixture of experts: every token goes through `top_k` of `count` blocks, and through all shared ones.

    Parameters
    ----------
    count, top_k : int
        Routed experts, and how many of them a token visits [-].
    intermediate : int
        Width inside one expert [-].
    gated : bool, optional
        Three matrices per expert instead of two [-].
    bias : bool, optional
        Whether experts have biases [-].
    router_bias : bool, optional
        Whether the router has a bias [-].
    correction_bias : bool, optional
        Whether a learned correction per expert counts as a parameter [-].
    zero_experts : int, optional
        Further choices of the router that do nothing [-].
    shared : DenseFeedForward, optional
        The block that every token goes through as well, all shared experts in one [-].
    shared_gate : bool, optional
        Whether a scalar gate, computed from the token, multiplies its output [-].
    latent : int, optional
        Width that tokens are projected to before the routed experts and back from after them [-].
    latent_quantizable : bool, optional
        Whether quantization schemes convert those two projections unless told otherwise [-].
    latent_norm : bool, optional
        Whether the projected tokens are normalized [-].
    parallel : DenseFeedForward, optional
        A dense block beside the mixture, a feed-forward of its own [-].
    extra : int, optional
        Further parameters of the router: scales [-].
    router_inputs : int, optional
        Width of the rows that the router's last matrix reads, if not the residual stream's [-].
    ranks : int, optional
        Devices that share the routed experts, whole experts each; this is the share of one [-].
    gathered : int, optional
        Groups of devices whose tokens all come to these experts [-].
    """

    kind: Literal["experts"] = "experts"
    count: Size
    top_k: Size
    intermediate: Size
    gated: bool = True
    bias: bool = False
    router_bias: bool = False
    correction_bias: bool = False
    zero_experts: Count = 0
    shared: DenseFeedForward | None = None
    shared_gate: bool = False
    latent: Size | None = None
    latent_norm: bool = False
    latent_quantizable: bool = True
    parallel: DenseFeedForward | None = None
    extra: Count = 0
    router_inputs: Size | None = None
    ranks: Size = 1
    gathered: Size = 1

    @property
    def local(self) -> int:
        """Routed experts on one device, the busiest one's if they do not divide evenly [-]."""
        return -(-self.count // self.ranks)

    def _check(self) -> None:
        if self.top_k > self.count + self.zero_experts:
            raise InvalidValueError(f"Experts: a token visits {self.top_k} experts of {self.count}.")

    def visits(self, *, best: bool = False) -> int | float:
        """Return how many real experts a token visits: `top_k`, less its share of choices that do nothing.

        Parameters
        ----------
        best : bool, optional
            Whether to assume that as many choices as possible do nothing [-].

        Returns
        -------
        int or float
            Experts per token [-].
        """
        if not self.zero_experts:
            return self.top_k
        if best:
            return max(0, self.top_k - self.zero_experts)
        return self.top_k * self.count / (self.count + self.zero_experts)

    def router(self, hidden: int) -> Matrix:
        """Return the router, tokens to scores, which quantization schemes leave alone [-]."""
        choices = self.count + self.zero_experts
        return Matrix(ROUTER, self.router_inputs or hidden, choices, choices * self.router_bias, quantizable=False)

    def expert_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the matrices of the routed experts, (gate,) up, down, each with as many copies as this device holds [-]."""
        rows = self.latent or hidden
        one = DenseFeedForward(intermediate=self.intermediate, gated=self.gated, bias=self.bias)
        return tuple(m._replace(copies=self.local) for m in one.matrices(rows, "mlp.experts"))

    @property
    def dense_blocks(self) -> tuple[tuple[str, DenseFeedForward], ...]:
        """The dense blocks that every token passes as well, the shared one first, each with the prefix of its names [-]."""
        named = ((SHARED, self.shared), ("mlp", self.parallel))
        return tuple((prefix, block) for prefix, block in named if block is not None)

    def token_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the single matrices that every token passes: the gate of the shared block, and to the latent width and back [-]."""
        gate = (Matrix("mlp.shared_expert_gate", hidden, 1, quantizable=False),) if self.shared_gate else ()
        sizes = (("fc1", hidden, self.latent), ("fc2", self.latent, hidden)) if self.latent else ()
        return (*gate, *(Matrix(f"mlp.{which}_latent_proj", i, o, quantizable=self.latent_quantizable) for which, i, o in sizes))

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return every matrix: router, experts, shared block, single matrices, parallel block [-]."""
        shared = self.shared.matrices(hidden, SHARED) if self.shared else ()
        parallel = self.parallel.matrices(hidden) if self.parallel else ()
        return (self.router(hidden), *self.expert_matrices(hidden), *shared, *self.token_matrices(hidden), *parallel)

    def vectors(self) -> tuple[Vector, ...]:
        """Return the parameters outside matrices [-]."""
        named = (
            ("mlp.gate.e_score_correction_bias", (self.count + self.zero_experts) * self.correction_bias),
            ("mlp.gate.scales", self.extra),
            ("mlp.latent_norm", (self.latent or 0) * self.latent_norm),
        )
        return tuple(Vector(name, size) for name, size in named if size)


class Projection(WeightedPart):
    """A single matrix in a layer of its own, such as the one that joins embedding and hidden state before a draft layer.

    Parameters
    ----------
    name : str
        Component name [-].
    inputs, outputs : int
        Its dimensions [-].
    bias : int, optional
        Parameters that are added to its result or scale it [-].
    uses : int, optional
        How often every token passes it [-].
    quantizable : bool, optional
        Whether quantization schemes convert it unless told otherwise; what joins the rows of a draft layer no implementation converts [-].
    """

    kind: Literal["projection"] = "projection"
    name: str
    inputs: Size
    outputs: Size
    bias: Count = 0
    uses: Size = 1
    quantizable: bool = False

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the one matrix, whose widths are its own [-]."""
        return (Matrix(self.name, self.inputs, self.outputs, self.bias, quantizable=self.quantizable),)


class Projections(WeightedPart):
    """Several matrices in a layer of their own, such as the low-rank adapters of one use of a shared block.

    Parameters
    ----------
    parts : tuple of Projection
        The matrices [-].
    """

    kind: Literal["projections"] = "projections"
    parts: tuple[Projection, ...]

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the matrices of all parts, whose widths are their own [-]."""
        return tuple(matrix for part in self.parts for matrix in part.matrices(hidden))


class AnonymousWeights(WeightedPart):
    """So many parameters of a dense transformer about which nothing else is known.

    Each is multiplied once per token; there is no cache, no head and no activation traffic to count.

    Parameters
    ----------
    parameters : int
        How many [-].
    """

    kind: Literal["anonymous"] = "anonymous"
    parameters: Annotated[int, Number(1, 2**53)]

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return all weights as one matrix of one row [-]."""
        return (Matrix("weights", 1, self.parameters),)


FeedForward = DenseFeedForward | Experts | Projection | Projections | AnonymousWeights
