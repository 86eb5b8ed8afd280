"""What a compiled graph holds."""

from __future__ import annotations

import collections
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlx.core as mx

EDGE = re.compile(r'"?([^"\s]+)"? -> "?([^"\s]+)"?')
NODE = re.compile(r'\{ (\d+) \[label ?= ?"(\w+)"')


def _dot(outputs: Sequence[mx.array], named: Mapping[str, mx.array]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.dot"
        mx.export_to_dot(str(file), *outputs, **named)
        return file.read_text()


def primitives(outputs: Sequence[mx.array]) -> int:
    """How many primitives a graph holds."""
    return _dot(outputs, {}).count("shape=rectangle")


def data_nodes(outputs: Sequence[mx.array], data: Sequence[mx.array]) -> collections.Counter[str]:
    """The primitives between the data and the outputs by name, fused kernels as "Compiled".

    Those of scalars are left out: what depends on no data, or on their sums alone.
    """
    named = {f"data{i}": v for i, v in enumerate(data)}
    text = _dot(outputs, named)
    labels = dict(NODE.findall(text))
    after = collections.defaultdict(list)
    edges = EDGE.findall(text)
    # The last argument of a custom function's node is what it computed, the others its arguments.
    last = {sink: source for source, sink in edges}
    for source, sink in edges:
        if labels.get(sink) != "CustomTransforms" or last[sink] == source:
            after[source].append(sink)
    found: set[str] = set()
    ahead = list(named)
    while ahead:
        for node in after[ahead.pop()]:
            if node not in found and labels.get(node) != "Sum":
                found.add(node)
                ahead.append(node)
    names = (labels[node] for node in found if node in labels)
    return collections.Counter("Compiled" if v.startswith("Compiled") else v for v in names)
