"""What the fused operations have no code for."""

import torch


def refuse_second_derivatives() -> None:
    """Raise RuntimeError in a backward pass that is to be differentiated itself: autograd records it only then."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the fused operations have no second derivatives (create_graph=True); compute the forward pass within "
            "edgernn.quantize.explicit()"
        )
