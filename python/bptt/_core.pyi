"""
The C++ core of bptt: graphs, programs, weights, state and training. Use the package, not this.
"""
from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing
__all__: list[str] = ['Clip32', 'Clip64', 'Example', 'Exclusive', 'Graph', 'Node', 'Operation', 'Optimiser32', 'Optimiser64', 'Program32', 'Program64', 'Ranks32', 'Ranks64', 'Segments32', 'Segments64', 'State32', 'State64', 'Stepper', 'Team', 'Training32', 'Training64', 'Weights32', 'Weights64', 'build_info', 'fit', 'operations', 'philox4x32', 'predict']
class Example:
    """
    A way to call an operation, for tests.
    """
    @property
    def attributes(self) -> dict[str, int | float | str]:
        ...
    @property
    def high(self) -> float:
        ...
    @property
    def inputs(self) -> list[tuple[int, int]]:
        ...
    @property
    def low(self) -> float:
        ...
class Operation:
    """
    An operation of the core's list.
    """
    def is_weight(self, input: typing.SupportsInt | typing.SupportsIndex) -> bool:
        ...
    @property
    def differentiable(self) -> bool:
        ...
    @property
    def examples(self) -> list[Example]:
        ...
    @property
    def name(self) -> str:
        ...
    @property
    def sequence(self) -> bool:
        ...
class Node:
    """
    One call of an operation in a graph.
    """
    @property
    def attributes(self) -> dict[str, int | float | str]:
        ...
    @property
    def inputs(self) -> list[int]:
        ...
    @property
    def operation(self) -> str:
        ...
    @property
    def outputs(self) -> list[int]:
        ...
class Graph:
    """
    The frame of one mode: values and the operations between them.
    """
    def __init__(self) -> None:
        ...
    def append(self, operation: str, inputs: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], attributes: collections.abc.Mapping[str, typing.SupportsInt | typing.SupportsIndex | typing.SupportsFloat | typing.SupportsIndex | str] = {}) -> list[int]:
        ...
    def constant(self, array: typing.Annotated[numpy.typing.ArrayLike, numpy.float64]) -> int:
        ...
    def extent(self, value: typing.SupportsInt | typing.SupportsIndex) -> str:
        ...
    def past(self, name: str, features: typing.SupportsInt | typing.SupportsIndex, batch: typing.SupportsInt | typing.SupportsIndex, start: typing.SupportsInt | typing.SupportsIndex | None = None) -> int:
        """
        Without a start it begins at zero.
        """
    def pasts_of(self, values: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> list[str]:
        ...
    def placeholder(self, features: typing.SupportsInt | typing.SupportsIndex, batch: typing.SupportsInt | typing.SupportsIndex) -> int:
        ...
    def placeholders_of(self, values: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> list[int]:
        ...
    def shape(self, value: typing.SupportsInt | typing.SupportsIndex) -> tuple[int, int]:
        ...
    def stages(self, values: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> list[tuple[list[int], bool]]:
        """
        What these values need, in running order: the nodes that run together, and whether they go frame
        by frame.
        """
    def tie(self, past: typing.SupportsInt | typing.SupportsIndex, value: typing.SupportsInt | typing.SupportsIndex) -> int:
        ...
    def variable(self, name: str, features: typing.SupportsInt | typing.SupportsIndex, batch: typing.SupportsInt | typing.SupportsIndex) -> int:
        ...
    @property
    def gates(self) -> dict[str, tuple[int, int]]:
        """
        By name, in the scope of their weights, the gates of fused cells: the cell's first output, and which.
        """
    @property
    def lanes(self) -> int:
        """
        How many sequences go side by side.
        """
    @property
    def nodes(self) -> list[Node]:
        """
        In the order in which they were appended.
        """
    @property
    def recurrences(self) -> dict[str, tuple[int, int]]:
        """
        By name: the value at t-1, and the one at t that owns its numbers.
        """
class Exclusive:
    """
    One thread at a time: `with exclusive:` raises UsageError for a second one.
    """
    def __enter__(self) -> None:
        ...
    def __exit__(self, type: typing.Any, value: typing.Any, traceback: typing.Any) -> None:
        ...
    def __init__(self) -> None:
        ...
    def lend(self) -> int:
        """
        Inside: let a function of the user's enter.
        """
    def take_back(self, before: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        After it, with what `lend` returned.
        """
class Team:
    """
    The threads that share the large windows of a net.
    """
    def __init__(self, threads: typing.SupportsInt | typing.SupportsIndex, least: typing.SupportsInt | typing.SupportsIndex = 33554432) -> None:
        ...
    @property
    def least(self) -> int:
        """
        Work of a window's forward, in multiplications, from which on it is shared out.
        """
    @property
    def threads(self) -> int:
        """
        So many at most, the caller's included.
        """
class Weights32:
    """
    All weights of a net, and their gradients.
    """
    def __init__(self) -> None:
        ...
    def declare(self, name: str, values: typing.Annotated[numpy.typing.ArrayLike, numpy.float32]) -> None:
        ...
    def freeze(self, graphs: collections.abc.Sequence[Graph]) -> None:
        ...
    def get(self, name: str) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def gradient(self, name: str) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def set(self, name: str, array: typing.Annotated[numpy.typing.ArrayLike, numpy.float32]) -> None:
        ...
    def shape(self, name: str) -> tuple[int, int]:
        ...
    @property
    def names(self) -> list[str]:
        ...
    @property
    def size(self) -> int:
        ...
class Weights64:
    """
    All weights of a net, and their gradients.
    """
    def __init__(self) -> None:
        ...
    def declare(self, name: str, values: typing.Annotated[numpy.typing.ArrayLike, numpy.float64]) -> None:
        ...
    def freeze(self, graphs: collections.abc.Sequence[Graph]) -> None:
        ...
    def get(self, name: str) -> numpy.typing.NDArray[numpy.float64]:
        ...
    def gradient(self, name: str) -> numpy.typing.NDArray[numpy.float64]:
        ...
    def set(self, name: str, array: typing.Annotated[numpy.typing.ArrayLike, numpy.float64]) -> None:
        ...
    def shape(self, name: str) -> tuple[int, int]:
        ...
    @property
    def names(self) -> list[str]:
        ...
    @property
    def size(self) -> int:
        ...
class State32:
    """
    The recurrent state of one mode.
    """
    def __init__(self, shapes: collections.abc.Mapping[str, tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]]) -> None:
        ...
    def get(self, name: str) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def set(self, name: str, array: typing.Annotated[numpy.typing.ArrayLike, numpy.float32]) -> None:
        ...
    def shape(self, name: str) -> tuple[int, int]:
        ...
    @property
    def frame(self) -> int:
        ...
    @frame.setter
    def frame(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def names(self) -> list[str]:
        ...
class State64:
    """
    The recurrent state of one mode.
    """
    def __init__(self, shapes: collections.abc.Mapping[str, tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]]) -> None:
        ...
    def get(self, name: str) -> numpy.typing.NDArray[numpy.float64]:
        ...
    def set(self, name: str, array: typing.Annotated[numpy.typing.ArrayLike, numpy.float64]) -> None:
        ...
    def shape(self, name: str) -> tuple[int, int]:
        ...
    @property
    def frame(self) -> int:
        ...
    @frame.setter
    def frame(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def names(self) -> list[str]:
        ...
class Program32:
    """
    A frame unrolled over a window.
    """
    def __init__(self, graph: Graph, weights: Weights32, frames: typing.SupportsInt | typing.SupportsIndex, fetches: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], loss: typing.SupportsInt | typing.SupportsIndex | None = None, wrt: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], seed: typing.SupportsInt | typing.SupportsIndex = 0, *, team: Team | None = None, frozen: collections.abc.Sequence[str] = [], passes: bool = True, trains: bool = True, share_from: typing.SupportsInt | typing.SupportsIndex = 1048576) -> None:
        ...
    def backward(self) -> None:
        ...
    def feed(self, placeholder: typing.SupportsInt | typing.SupportsIndex, array: typing.Annotated[numpy.typing.ArrayLike, numpy.float32]) -> None:
        ...
    def forward(self, frame: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def gradient(self, value: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float32]:
        """
        (time, features, batch); for a past value frame 0 is that of the state that came in.
        """
    def keep(self, value: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        What was fetched is there after a forward, as `value`.
        """
    def last(self, name: str) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def mark(self, resets: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, masks: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, counted: typing.SupportsInt | typing.SupportsIndex = 0) -> None:
        """
        Where lanes begin anew, and which frames are valid, (frames, lanes); after feeding. Losses are made of the frames from `counted` on.
        """
    def set_past(self, name: str, array: typing.Annotated[numpy.typing.ArrayLike, numpy.float32]) -> None:
        ...
    def value(self, value: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float32]:
        """
        (time, features, batch), a constant at each frame; a window value as (features, batch).
        """
    @property
    def deals(self) -> list[str]:
        """
        How each stage is shared out among threads: whole, by frames, by lanes or by rows.
        """
    @property
    def frames(self) -> int:
        ...
    @property
    def memory(self) -> int:
        ...
    @property
    def pasts(self) -> list[str]:
        ...
    @property
    def placeholders(self) -> list[int]:
        ...
    @property
    def shared(self) -> bool:
        """
        Whether windows are large enough to be shared out.
        """
    @property
    def stages(self) -> list[tuple[list[str], bool]]:
        ...
class Program64:
    """
    A frame unrolled over a window.
    """
    def __init__(self, graph: Graph, weights: Weights64, frames: typing.SupportsInt | typing.SupportsIndex, fetches: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], loss: typing.SupportsInt | typing.SupportsIndex | None = None, wrt: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], seed: typing.SupportsInt | typing.SupportsIndex = 0, *, team: Team | None = None, frozen: collections.abc.Sequence[str] = [], passes: bool = True, trains: bool = True, share_from: typing.SupportsInt | typing.SupportsIndex = 1048576) -> None:
        ...
    def backward(self) -> None:
        ...
    def feed(self, placeholder: typing.SupportsInt | typing.SupportsIndex, array: typing.Annotated[numpy.typing.ArrayLike, numpy.float64]) -> None:
        ...
    def forward(self, frame: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def gradient(self, value: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float64]:
        """
        (time, features, batch); for a past value frame 0 is that of the state that came in.
        """
    def keep(self, value: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        What was fetched is there after a forward, as `value`.
        """
    def last(self, name: str) -> numpy.typing.NDArray[numpy.float64]:
        ...
    def mark(self, resets: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, masks: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, counted: typing.SupportsInt | typing.SupportsIndex = 0) -> None:
        """
        Where lanes begin anew, and which frames are valid, (frames, lanes); after feeding. Losses are made of the frames from `counted` on.
        """
    def set_past(self, name: str, array: typing.Annotated[numpy.typing.ArrayLike, numpy.float64]) -> None:
        ...
    def value(self, value: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float64]:
        """
        (time, features, batch), a constant at each frame; a window value as (features, batch).
        """
    @property
    def deals(self) -> list[str]:
        """
        How each stage is shared out among threads: whole, by frames, by lanes or by rows.
        """
    @property
    def frames(self) -> int:
        ...
    @property
    def memory(self) -> int:
        ...
    @property
    def pasts(self) -> list[str]:
        ...
    @property
    def placeholders(self) -> list[int]:
        ...
    @property
    def shared(self) -> bool:
        """
        Whether windows are large enough to be shared out.
        """
    @property
    def stages(self) -> list[tuple[list[str], bool]]:
        ...
class Segments32:
    """
    A frame unrolled over a long window, of which one segment is in memory at a time; used as a Program.
    """
    def __init__(self, graph: Graph, weights: Weights32, frames: typing.SupportsInt | typing.SupportsIndex, fetches: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], loss: typing.SupportsInt | typing.SupportsIndex | None = None, wrt: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], seed: typing.SupportsInt | typing.SupportsIndex = 0, *, every: typing.SupportsInt | typing.SupportsIndex, recompute: bool = True, team: Team | None = None, frozen: collections.abc.Sequence[str] = [], passes: bool = True, trains: bool = True, share_from: typing.SupportsInt | typing.SupportsIndex = 1048576) -> None:
        ...
    def backward(self) -> None:
        ...
    def feed(self, placeholder: typing.SupportsInt | typing.SupportsIndex, array: typing.Annotated[numpy.typing.ArrayLike, numpy.float32]) -> None:
        ...
    def forward(self, frame: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def gradient(self, value: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float32]:
        """
        (time, features, batch); of a past value that of the state that came in, time 1.
        """
    def keep(self, value: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        All frames of a value are kept from the next forward on, for `value`.
        """
    def last(self, name: str) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def mark(self, resets: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, masks: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None) -> None:
        """
        Where lanes begin anew, and which frames are valid, (frames, lanes); after feeding.
        """
    def set_past(self, name: str, array: typing.Annotated[numpy.typing.ArrayLike, numpy.float32]) -> None:
        ...
    def value(self, value: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float32]:
        """
        (time, features, batch), a constant at each frame; a window value as (features, batch).
        """
    @property
    def frames(self) -> int:
        ...
    @property
    def memory(self) -> int:
        ...
    @property
    def pasts(self) -> list[str]:
        ...
    @property
    def placeholders(self) -> list[int]:
        ...
class Segments64:
    """
    A frame unrolled over a long window, of which one segment is in memory at a time; used as a Program.
    """
    def __init__(self, graph: Graph, weights: Weights64, frames: typing.SupportsInt | typing.SupportsIndex, fetches: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], loss: typing.SupportsInt | typing.SupportsIndex | None = None, wrt: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], seed: typing.SupportsInt | typing.SupportsIndex = 0, *, every: typing.SupportsInt | typing.SupportsIndex, recompute: bool = True, team: Team | None = None, frozen: collections.abc.Sequence[str] = [], passes: bool = True, trains: bool = True, share_from: typing.SupportsInt | typing.SupportsIndex = 1048576) -> None:
        ...
    def backward(self) -> None:
        ...
    def feed(self, placeholder: typing.SupportsInt | typing.SupportsIndex, array: typing.Annotated[numpy.typing.ArrayLike, numpy.float64]) -> None:
        ...
    def forward(self, frame: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def gradient(self, value: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float64]:
        """
        (time, features, batch); of a past value that of the state that came in, time 1.
        """
    def keep(self, value: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        All frames of a value are kept from the next forward on, for `value`.
        """
    def last(self, name: str) -> numpy.typing.NDArray[numpy.float64]:
        ...
    def mark(self, resets: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, masks: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None) -> None:
        """
        Where lanes begin anew, and which frames are valid, (frames, lanes); after feeding.
        """
    def set_past(self, name: str, array: typing.Annotated[numpy.typing.ArrayLike, numpy.float64]) -> None:
        ...
    def value(self, value: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float64]:
        """
        (time, features, batch), a constant at each frame; a window value as (features, batch).
        """
    @property
    def frames(self) -> int:
        ...
    @property
    def memory(self) -> int:
        ...
    @property
    def pasts(self) -> list[str]:
        ...
    @property
    def placeholders(self) -> list[int]:
        ...
class Optimiser32:
    """
    A rule by which weights change, and its settings.
    """
    @staticmethod
    def adagrad(epsilon: typing.SupportsFloat | typing.SupportsIndex, epsilon_inside: bool, start: typing.SupportsFloat | typing.SupportsIndex) -> Optimiser32:
        ...
    @staticmethod
    def adam(beta1: typing.SupportsFloat | typing.SupportsIndex, beta2: typing.SupportsFloat | typing.SupportsIndex, epsilon: typing.SupportsFloat | typing.SupportsIndex, epsilon_hat: bool, decoupled: bool) -> Optimiser32:
        ...
    @staticmethod
    def rmsprop(alpha: typing.SupportsFloat | typing.SupportsIndex, epsilon: typing.SupportsFloat | typing.SupportsIndex, momentum: typing.SupportsFloat | typing.SupportsIndex, centered: bool) -> Optimiser32:
        ...
    @staticmethod
    def sgd(momentum: typing.SupportsFloat | typing.SupportsIndex, nesterov: bool) -> Optimiser32:
        ...
class Clip32:
    """
    How gradients are clipped.
    """
    @staticmethod
    def by_global_norm(limit: typing.SupportsFloat | typing.SupportsIndex) -> Clip32:
        ...
    @staticmethod
    def by_value(limit: typing.SupportsFloat | typing.SupportsIndex) -> Clip32:
        ...
    @staticmethod
    def none() -> Clip32:
        ...
class Training32:
    """
    Clipping and an optimiser, for the weights of one net.
    """
    def __init__(self, weights: Weights32, clip: Clip32, optimiser: Optimiser32, decay: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex], frozen: collections.abc.Set[str]) -> None:
        ...
    def get_moment(self, moment: str, weight: str) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def plan(self, rates: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]) -> None:
        """
        Learning rates of the coming updates, one each; the last serves all that follow.
        """
    def set_moment(self, moment: str, weight: str, array: typing.Annotated[numpy.typing.ArrayLike, numpy.float32]) -> None:
        ...
    @typing.overload
    def step(self, program: Program32) -> None:
        ...
    @typing.overload
    def step(self, program: Segments32) -> None:
        ...
    @property
    def moments(self) -> list[str]:
        ...
    @property
    def steps(self) -> int:
        ...
    @steps.setter
    def steps(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
class Ranks32:
    """
    Processes that train one net, each on lanes of its own.
    """
    def __init__(self, add_up: collections.abc.Callable[[numpy.ndarray], None], first: typing.SupportsInt | typing.SupportsIndex, lanes: typing.SupportsInt | typing.SupportsIndex, graph: Graph, values: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], resets: bool, masks: bool) -> None:
        """
        `add_up` adds a flat array up over all ranks, in place. `lanes` go on in all of them, `first` before this one's. The values are the loss and what is watched.
        """
    @property
    def kinds(self) -> list[str]:
        """
        How the values of ranks go together.
        """
class Optimiser64:
    """
    A rule by which weights change, and its settings.
    """
    @staticmethod
    def adagrad(epsilon: typing.SupportsFloat | typing.SupportsIndex, epsilon_inside: bool, start: typing.SupportsFloat | typing.SupportsIndex) -> Optimiser64:
        ...
    @staticmethod
    def adam(beta1: typing.SupportsFloat | typing.SupportsIndex, beta2: typing.SupportsFloat | typing.SupportsIndex, epsilon: typing.SupportsFloat | typing.SupportsIndex, epsilon_hat: bool, decoupled: bool) -> Optimiser64:
        ...
    @staticmethod
    def rmsprop(alpha: typing.SupportsFloat | typing.SupportsIndex, epsilon: typing.SupportsFloat | typing.SupportsIndex, momentum: typing.SupportsFloat | typing.SupportsIndex, centered: bool) -> Optimiser64:
        ...
    @staticmethod
    def sgd(momentum: typing.SupportsFloat | typing.SupportsIndex, nesterov: bool) -> Optimiser64:
        ...
class Clip64:
    """
    How gradients are clipped.
    """
    @staticmethod
    def by_global_norm(limit: typing.SupportsFloat | typing.SupportsIndex) -> Clip64:
        ...
    @staticmethod
    def by_value(limit: typing.SupportsFloat | typing.SupportsIndex) -> Clip64:
        ...
    @staticmethod
    def none() -> Clip64:
        ...
class Training64:
    """
    Clipping and an optimiser, for the weights of one net.
    """
    def __init__(self, weights: Weights64, clip: Clip64, optimiser: Optimiser64, decay: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex], frozen: collections.abc.Set[str]) -> None:
        ...
    def get_moment(self, moment: str, weight: str) -> numpy.typing.NDArray[numpy.float64]:
        ...
    def plan(self, rates: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]) -> None:
        """
        Learning rates of the coming updates, one each; the last serves all that follow.
        """
    def set_moment(self, moment: str, weight: str, array: typing.Annotated[numpy.typing.ArrayLike, numpy.float64]) -> None:
        ...
    @typing.overload
    def step(self, program: Program64) -> None:
        ...
    @typing.overload
    def step(self, program: Segments64) -> None:
        ...
    @property
    def moments(self) -> list[str]:
        ...
    @property
    def steps(self) -> int:
        ...
    @steps.setter
    def steps(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
class Ranks64:
    """
    Processes that train one net, each on lanes of its own.
    """
    def __init__(self, add_up: collections.abc.Callable[[numpy.ndarray], None], first: typing.SupportsInt | typing.SupportsIndex, lanes: typing.SupportsInt | typing.SupportsIndex, graph: Graph, values: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], resets: bool, masks: bool) -> None:
        """
        `add_up` adds a flat array up over all ranks, in place. `lanes` go on in all of them, `first` before this one's. The values are the loss and what is watched.
        """
    @property
    def kinds(self) -> list[str]:
        """
        How the values of ranks go together.
        """
class Stepper:
    """
    One frame a call.
    """
    def __call__(self, *args, **kwargs):
        """
        Call self as a function.
        """
    def next(self, values: typing.Any) -> numpy.typing.NDArray[numpy.float32]:
        """
        One frame: takes the values, or has them fed by the method `feed`; returns a copy of the last output.
        """
    def next_all(self, values: typing.Any) -> list[numpy.typing.NDArray[numpy.float32]]:
        """
        The same; returns copies of all outputs.
        """
    def open(self, program: Program32, state: State32, exclusive: Exclusive, inputs: list[tuple[int, str]], outputs: list[int]) -> tuple[tuple[numpy.typing.NDArray[numpy.float32], ...], tuple[numpy.typing.NDArray[numpy.float32], ...]]:
        """
        Begins: inputs, each with what an error calls it, and outputs become live arrays. Programs of either precision.
        """
    def take(self, values: typing.Any) -> bool:
        """
        Copies a list or tuple of one value for each input, if all are the usual arrays and numbers.
        """
def build_info() -> dict[str, str]:
    """
    Instruction set, compiler, version of Eigen.
    """
@typing.overload
def fit(program: Program32, state: State32, training: Training32 | None, data: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.float32]], start: typing.SupportsInt | typing.SupportsIndex, steps: typing.SupportsInt | typing.SupportsIndex, *, watched: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], room: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.float32]] = [], resets: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, masks: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, stride: typing.SupportsInt | typing.SupportsIndex | None = None, ranks: Ranks32 | None = None) -> numpy.typing.NDArray[numpy.float32]:
    """
    Trains on windows, each `stride` frames after the one before (a window's length), by the loss of their last `stride` frames; training None: only runs them. Returns the losses. Of window values that are watched it fills the arrays, one number for each window.
    """
@typing.overload
def fit(program: Segments32, state: State32, training: Training32 | None, data: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.float32]], start: typing.SupportsInt | typing.SupportsIndex, steps: typing.SupportsInt | typing.SupportsIndex, *, watched: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], room: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.float32]] = [], resets: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, masks: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, stride: typing.SupportsInt | typing.SupportsIndex | None = None, ranks: Ranks32 | None = None) -> numpy.typing.NDArray[numpy.float32]:
    """
    Trains on windows, each `stride` frames after the one before (a window's length), by the loss of their last `stride` frames; training None: only runs them. Returns the losses. Of window values that are watched it fills the arrays, one number for each window.
    """
@typing.overload
def fit(program: Program64, state: State64, training: Training64 | None, data: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.float64]], start: typing.SupportsInt | typing.SupportsIndex, steps: typing.SupportsInt | typing.SupportsIndex, *, watched: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], room: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.float64]] = [], resets: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, masks: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, stride: typing.SupportsInt | typing.SupportsIndex | None = None, ranks: Ranks64 | None = None) -> numpy.typing.NDArray[numpy.float64]:
    """
    Trains on windows, each `stride` frames after the one before (a window's length), by the loss of their last `stride` frames; training None: only runs them. Returns the losses. Of window values that are watched it fills the arrays, one number for each window.
    """
@typing.overload
def fit(program: Segments64, state: State64, training: Training64 | None, data: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.float64]], start: typing.SupportsInt | typing.SupportsIndex, steps: typing.SupportsInt | typing.SupportsIndex, *, watched: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], room: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.float64]] = [], resets: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, masks: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, stride: typing.SupportsInt | typing.SupportsIndex | None = None, ranks: Ranks64 | None = None) -> numpy.typing.NDArray[numpy.float64]:
    """
    Trains on windows, each `stride` frames after the one before (a window's length), by the loss of their last `stride` frames; training None: only runs them. Returns the losses. Of window values that are watched it fills the arrays, one number for each window.
    """
def operations() -> list[Operation]:
    """
    All operations, sorted by name.
    """
def philox4x32(counter: typing.Annotated[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(4)"], key: typing.Annotated[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(2)"]) -> typing.Annotated[list[int], "FixedSize(4)"]:
    """
    Philox4x32-10, for known-answer tests.
    """
@typing.overload
def predict(program: Program32, state: State32, data: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.float32]], outputs: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], frames: typing.SupportsInt | typing.SupportsIndex | None = None, *, resets: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, masks: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, gates: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]] = []) -> list[numpy.typing.NDArray[numpy.float32]]:
    """
    Runs so many frames (all of the data); returns each output, then each gate, as (time, features, batch).
    """
@typing.overload
def predict(program: Program64, state: State64, data: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.float64]], outputs: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], frames: typing.SupportsInt | typing.SupportsIndex | None = None, *, resets: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, masks: typing.Annotated[numpy.typing.ArrayLike, numpy.bool] | None = None, gates: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]] = []) -> list[numpy.typing.NDArray[numpy.float64]]:
    """
    Runs so many frames (all of the data); returns each output, then each gate, as (time, features, batch).
    """
