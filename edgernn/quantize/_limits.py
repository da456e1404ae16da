"""How small and how large scales and biases may become."""

from typing import Final

MULTIPLIER_FLOOR: Final = 2.0**-24  # of a row whose weights are all zero: any scale will do that every runtime accepts
BIAS_LIMIT: Final = 2.0**29  # a bias stays this small by enlarging its row's scale, so that the accumulator fits int32
