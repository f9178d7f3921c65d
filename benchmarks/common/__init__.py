"""What the benchmarks share: the cases, bptt and its peers in one form, and how they are timed.

| file | what it is |
|---|---|
| `cases.py` | the nets, their weights and data, the multiplications that a window takes |
| `ours.py`, `pytorch.py`, `jaxed.py`, `onnx_runtime.py` | a library each, in one form |
| `marked.py`, `recordings.py` | a net's windows with resets and masks; its data on disk |
| `characters.py` | a character model, beside PyTorch's |
| `peers.py` | which of them are installed |
| `check.py` | the same losses, weights and gradients before anything is timed |
| `clock.py`, `peak.c` | interleaved repeats, and what the processor can do at most |
| `report.py` | tables, goals, processor and versions |
| `shell.py` | the options that the scripts have in common |
"""
