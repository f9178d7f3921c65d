"""All that a net is, to compare bit by bit."""

import bptt
from bptt import checkpoint


def everything(bp: bptt.BPTT) -> bytes:
    """What a checkpoint of it holds: every number of it, and whatever says how it goes on."""
    about, tensors = checkpoint.contents(bp._net)
    return repr(about).encode() + b"".join(
        f"{name} {values.dtype} {values.shape}".encode() + values.tobytes()
        for name, values in sorted(tensors.items())
    )
