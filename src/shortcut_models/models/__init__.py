"""Networks. Any pair of pure functions will do; these are ours."""

from typing import Protocol

from jaxtyping import Array, Float, Int

from shortcut_models.models.dit import DiT
from shortcut_models.models.embedding import Params
from shortcut_models.models.mlp import MLP


class Network(Protocol):
    """The seam: whatever has these two functions can be trained, sampled and measured here.

    A Flax module needs two lines: `init` returning `module.init(key, x, t, d, label)["params"]`
    and `apply` calling `module.apply({"params": params}, x, t, d, label)`.
    """

    def init(self, key: Array) -> Params:
        """Draw the parameters, a nested dict of arrays."""
        ...

    def apply(
        self,
        params: Params,
        x: Float[Array, "batch ..."],
        t: Float[Array, " batch"],
        d: Float[Array, " batch"],
        label: Int[Array, " batch"],
    ) -> Float[Array, "batch ..."]:
        """Velocity, shaped like x, whose jump `x + d * velocity` lands where the flow would after d."""
        ...


__all__ = ["MLP", "DiT", "Network", "Params"]
