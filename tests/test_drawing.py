"""Graphs as a table and as a picture: every stage is in it, with how it runs."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import bptt
from bptt.drawing import CELL, LAST, ONCE, STEPS, WINDOW, bytes_of, stages


def frame(bp, depth):
    x, y = bp.placeholder((2, 3), name="x"), bp.placeholder((1, 3), name="y & <z>")
    scaled = bptt.tanh(bp.get_variable("V", (2, 1))) * x
    _, h = bptt.layers.lstm(bp, scaled, 8)
    leak = bp.get_past_variable("leak", np.zeros((8, 1)))
    U = bp.get_variable("U", (8, 8))
    leak = bp.name_variable("leak", 0.9 * leak + 0.1 * bptt.tanh(h + U @ leak))
    before = bp.get_past_variable("before", np.zeros((8, 1)))
    bp.name_variable("before", h)
    out = bptt.layers.dense(bp, bptt.concat([h, leak, before]), 1)
    return x, y, out


@pytest.fixture
def net():
    bp = bptt.BPTT(seed=0)
    bp.generate_graphs(frame, num_loops=20)
    return bp


def test_graphs_are_a_mapping(net):
    assert list(net.graphs) == ["deep", "shallow"]
    assert len(net.graphs) == 2
    assert net.graphs["deep"][0].name == "x"
    assert dict(net.graphs) == {depth: net.graphs[depth] for depth in ("deep", "shallow")}
    with pytest.raises(KeyError):
        net.graphs["middle"]


def test_stages_and_how_they_run(net):
    _, y, out = net.graphs["deep"]
    bptt.reduce_mean(bptt.square(out - y))
    found = {stage.operations: stage for stage in stages(out.trace)}
    assert found[("tanh",)].runs == ONCE
    assert found[("tanh",)].weights == ("V",)
    assert found[("lstm",)].runs == CELL
    assert len(found[("lstm",)].weights) == 12
    assert found[("square",)].runs == WINDOW
    assert found[("window_mean",)].runs == LAST
    (cycle,) = [stage for stage in found.values() if stage.runs == STEPS]
    assert sorted(cycle.operations) == ["add", "add", "matmul", "multiply", "multiply", "tanh"]
    assert cycle.weights == ("U",)
    assert cycle.shape == (8, 3)


def test_every_operation_is_in_one_stage_after_what_it_needs(net):
    trace = net.graphs["deep"][0].trace
    found = stages(trace)
    assert sum(len(stage.operations) for stage in found) == len(trace.graph.nodes)
    known = {symbol.id for symbol in trace.placeholders}
    for stage in found:
        assert known.issuperset(stage.sources[0])
        known |= stage.outputs


def test_the_table(net):
    _, y, out = net.graphs["deep"]
    loss = bptt.reduce_mean(bptt.square(out - y))
    net.fit(net.minimize(loss, bptt.Adam()), [np.zeros((20, 2, 3)), np.zeros((20, 1, 3))])
    text = str(net.graphs)
    assert "deep: 20 frames a window" in text
    assert "shallow: 1 frame a window" in text
    assert re.search(r"\d+  a cell, through time +lstm +8 x 3 +lstm_layer_0\n", text)
    assert re.search(r"\d+  frame by frame +.*tanh.* +8 x 3 +U\n", text)
    numbers = sum(value.size for value in net.parameters.values())
    assert f"{numbers:,} parameters in {len(net.parameters)} weights, float32" in text
    assert re.search(r"[\d.]+ KiB for 20 x deep with gradients$", text)


def test_the_picture_is_svg_with_a_box_for_each_stage(net):
    trace = net.graphs["deep"][0].trace
    picture = ET.fromstring(net.graphs._repr_svg_())
    space = "{http://www.w3.org/2000/svg}"
    boxes = picture.findall(f"{space}rect")
    assert len(boxes) == len(stages(trace)) + 2
    texts = [text.text for text in picture.findall(f"{space}text")]
    assert "x 2 x 3" in texts
    assert "y & <z> 1 x 3" in texts
    dashed = [path for path in picture.findall(f"{space}path") if path.get("stroke-dasharray")]
    # the cell and the cycle return to themselves; a copy of h is used a frame later
    assert len(dashed) == 3


@pytest.mark.parametrize(
    "count, text", [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (3 << 30, "3 GiB")]
)
def test_bytes(count, text):
    assert bytes_of(count) == text
