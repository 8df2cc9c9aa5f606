"""The cache of a model of which only sizes are known."""

from typing import Literal

from roofline.model.components import Matrix, Size
from roofline.model.held import Held, MixerPart
from roofline.step.rows import Rows


class AnonymousCache(MixerPart):
    """A key-value cache of so many bytes per token, all layers together; the products with it are not known and not counted.

    Parameters
    ----------
    bytes_per_token : int
        Bytes that one token adds to the cache [B].
    """

    kind: Literal["anonymous_cache"] = "anonymous_cache"
    bytes_per_token: Size

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return no matrices: all weights are in the feed-forward [-]."""
        return ()

    def keeps(self) -> tuple[Held, ...]:
        """Return one row per token, of bytes [-]."""
        return (Held(Rows("all"), self.bytes_per_token, "int8"),)
