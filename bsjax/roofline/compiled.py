"""What a compiled program costs a device: FLOPs, bytes accessed, communication between devices.

Read from the optimised program's text, because XLA's own cost analysis counts the body of a loop
once and both branches of a condition. Here a loop counts as often as it runs, and of a condition
the cheaper branch (ours are "the quick search sufficed"); what the dearer would add is told apart.
Arrays that a TPU's compiler keeps in fast on-chip memory count as no bytes accessed. Programs for
GPUs call kernels of cuBLAS and cuDNN: their work is counted from the shapes.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Callable

import numpy as np

from bsjax.roofline import kernels

ITEM_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4,
    "u32": 4, "f64": 8, "s64": 8, "u64": 8, "c64": 8,
}  # fmt: skip
# Passes through a TPU's bfloat16 multipliers that a product in float32 takes.
PASSES = {"high": 3, "highest": 6}
# (dtype of the operands, precision) -> how often an operation of a product counts.
Weight = Callable[[str, str], float]
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# No work of their own: names for values, or their bodies are counted where they are called.
FREE = frozenset(
    [
        *("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all"),
        *("partition-id", "replica-id", "opt-barrier"),
        *("copy-start", "copy-done", "slice-start", "slice-done"),
    ]
)
FAST_MEMORY = "S(1)"
# A call that makes room and writes nothing.
ALLOCATES = "AllocateBuffer"

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")


@dataclasses.dataclass
class Cost:
    """Of one run of a program, on one device.

    Attributes:
      flops: of matrix products, as bfloat16 ones: those in float32 count as often as a TPU passes
        through them, or by how much slower a GPU does them.
      bytes: read and written in main memory.
      collectives: (kind, devices) -> bytes of the arrays communicated.
      fallback_bytes: what the dearer branches of all conditions would add.
    """

    flops: float = 0.0
    bytes: float = 0.0
    collectives: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    fallback_bytes: float = 0.0

    def add(self, other: "Cost", times: int = 1) -> None:
        """Adds so many runs of another program."""
        self.flops += times * other.flops
        self.bytes += times * other.bytes
        self.fallback_bytes += times * other.fallback_bytes
        for key, value in other.collectives.items():
            self.collectives[key] += times * value


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    rest: str
    literal: str


def passes_of_tpu(dtype: str, precision: str) -> float:
    """How often a TPU passes through a product of such operands."""
    del dtype  # what is float32 here came as such, or the precision says no more than default
    return PASSES.get(precision, 1)


def cost_of(text: str, weight: Weight = passes_of_tpu) -> Cost:
    """The cost of `compiled.as_text()`.

    Args:
      text: of the program that a compiler made.
      weight: how often an operation of a product counts, by the operands' dtype ("f32") and the
        precision ("default", "high", "highest").

    Raises:
      ValueError: a loop whose number of rounds the text does not tell, or a product by a kernel
        that is not known here.
    """
    computations, entry = _parse(text)
    devices = re.search(r"num_partitions=(\d+)", text[: text.find("\n")])
    return _Walker(computations, int(devices[1]) if devices else 1, weight).cost(entry)


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    computations: dict[str, list[_Instruction]] = {}
    current, entry = None, ""
    for line in text.splitlines():
        if start := _COMPUTATION.match(line):
            current = computations.setdefault(start[2], [])
            entry = start[2] if start[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            current.append(_parse_instruction(found[2], found[3]))
    return computations, entry


def _parse_instruction(name: str, text: str) -> _Instruction:
    end = _closing(text, 0) if text.startswith("(") else text.index(" ") - 1
    kind, call = text[: end + 1], text[end + 2 :]
    opens = call.index("(")
    closes = _closing(call, opens)
    inside = call[opens : closes + 1]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return _Instruction(name, kind, call[:opens], operands, call[closes + 1 :], inside[1:-1])


def _closing(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise ValueError(f"unbalanced: {text[:80]}")


def _dims(kind: str) -> list[int]:
    return [int(size) for size in _SHAPE.search(kind)[2].split(",") if size]


def _bytes_of(kind: str, with_fast_memory: bool = False) -> int:
    total = 0
    for item, sizes, layout in _SHAPE.findall(kind):
        if item in ITEM_BYTES and (with_fast_memory or FAST_MEMORY not in layout):
            total += ITEM_BYTES[item] * math.prod(map(int, filter(None, sizes.split(","))))
    return total


class _Walker:
    """Costs of computations, each worked out once."""

    def __init__(self, computations: dict[str, list[_Instruction]], n_devices: int, weight: Weight):
        self.computations, self.n_devices, self.weight = computations, n_devices, weight
        self.known: dict[str, Cost] = {}

    def cost(self, name: str) -> Cost:
        if name not in self.known:
            types = {each.name: each.type for each in self.computations[name]}
            total = Cost()
            for each in self.computations[name]:
                self._add_instruction(total, each, types)
            self.known[name] = total
        return self.known[name]

    def _add_instruction(self, total: Cost, each: _Instruction, types: dict[str, str]) -> None:
        opcode = each.opcode
        if opcode in FREE:
            # A prefetch into fast memory accesses bytes, its reader then none.
            if opcode == "copy-start":
                total.bytes += max(_bytes_of(part) for part in _parts(each.type))
            if opcode == "slice-start":  # its type: all, the slice, a context
                whole, part = _parts(each.type)[:2]
                total.bytes += max(min(_bytes_of(whole), _bytes_of(part, True)), _bytes_of(part))
            return
        if kernels.target_of(each.rest) == ALLOCATES:
            return
        if opcode == "while":
            total.add(self.cost(_named(each.rest, "body")), self._rounds(each))
            return
        if opcode == "conditional":
            branches = [self.cost(branch) for branch in _branches(each.rest)]
            cheap = min(branches, key=lambda cost: cost.bytes)
            total.add(cheap)
            total.fallback_bytes += max(cost.bytes for cost in branches) - cheap.bytes
            return
        if opcode == "call":
            total.add(self.cost(_named(each.rest, "to_apply")))
            return
        base = opcode.removesuffix("-start").removesuffix("-done")
        if base in COLLECTIVES:
            if not opcode.endswith("-done"):
                size = sum(_bytes_of(types.get(name, ""), True) for name in each.operands)
                total.collectives[base, _group_size(each.rest, self.n_devices)] += size
            return
        if opcode.endswith("-done"):
            return
        total.flops += self._flops(each, types)
        total.bytes += self._written(each, types) + sum(
            self._read(each, i, types.get(operand, "")) for i, operand in enumerate(each.operands)
        )

    def _body(self, each: _Instruction) -> list[_Instruction]:
        return self.computations.get(_named(each.rest, "calls"), [])

    def _written(self, each: _Instruction, types: dict[str, str]) -> int:
        """Bytes written: all of the result, or the part that is updated in place."""
        written = _bytes_of(each.type)
        if kernels.target_of(each.rest).startswith(kernels.LIBRARIES):
            return _bytes_of(_parts(each.type)[0])  # what follows is room to work in
        body = self._body(each) if each.opcode == "fusion" else [each]
        inner = {other.name: other.type for other in body} | types
        for other in body:
            if other.opcode == "dynamic-update-slice" and FAST_MEMORY not in other.type:
                part = _bytes_of(inner.get(other.operands[1], ""), True)
                written -= max(_bytes_of(other.type) - part, 0)
        return max(written, 0)

    def _read(self, each: _Instruction, i: int, kind: str) -> int:
        """Bytes read of operand i: all, or the slice if only a slice of it is looked at."""
        whole = _bytes_of(kind)
        if each.opcode == "dynamic-slice":
            return min(whole, _bytes_of(each.type, True))
        if each.opcode == "dynamic-update-slice":
            return whole if i else 0
        if each.opcode != "fusion" or not whole:
            return whole
        looked_at = self._looked_at(each, i)
        return whole if looked_at is None else min(whole, looked_at)

    def _looked_at(self, each: _Instruction, i: int) -> int | None:
        """Bytes of a fusion's operand i of which slices alone are looked at; None: all of it is.

        Also by fusions within the fusion. What is updated in place is not looked at.
        """
        body = self._body(each)
        names = {p.name for p in body if p.opcode == "parameter" and p.literal == str(i)}
        total, n_users = 0, 0
        for user in body:
            for place, operand in enumerate(user.operands):
                if operand not in names:
                    continue
                n_users += 1
                if user.opcode == "bitcast":
                    names.add(user.name)
                elif user.opcode == "dynamic-slice" and place == 0:
                    total += _bytes_of(user.type, True)
                elif user.opcode == "fusion":
                    inner = self._looked_at(user, place)
                    if inner is None:
                        return None
                    total += inner
                elif user.opcode != "dynamic-update-slice" or place:
                    return None
        return total if n_users else None

    def _flops(self, each: _Instruction, types: dict[str, str]) -> float:
        if each.opcode == "fusion":
            body = self._body(each)
            inner = {other.name: other.type for other in body}
            return sum(self._flops(other, inner) for other in body)
        target = kernels.target_of(each.rest) if each.opcode == "custom-call" else ""
        if target and not target.startswith(kernels.LIBRARIES):  # a kernel tells its own
            told = re.search(r'"cost_estimate":\{"flops":"(\d+)"', each.rest)
            return float(told[1]) if told else 0.0
        is_product = target or each.opcode in ("convolution", "dot")
        if not is_product or each.operands[0] not in types:
            return 0.0
        kind = types[each.operands[0]]
        left, out = _dims(kind), _dims(each.type)
        if target in kernels.GEMMS:
            found = kernels.gemm(each.rest, left, out)
        elif target.startswith(kernels.ATTENTION):
            found = kernels.attention(each.rest, left)
        elif each.opcode == "convolution" or target in kernels.CONVOLUTIONS:
            taps = _taps_an_output(each, left, _dims(types[each.operands[1]]))
            found = kernels.Product(2.0 * math.prod(out) * taps, _precision(each.rest))
        elif each.opcode == "dot":
            n = 2.0 * math.prod(out)
            for place in re.search(r"lhs_contracting_dims=\{([\d,]*)\}", each.rest)[1].split(","):
                n *= left[int(place)]
            found = kernels.Product(n, _precision(each.rest))
        else:
            raise ValueError(f"the work of {target} is not known")
        return found.flops * self.weight(_SHAPE.search(kind)[1], found.precision)

    def _rounds(self, each: _Instruction) -> int:
        known = re.search(r'known_trip_count":\s*\{"n":\s*"(\d+)"', each.rest)
        if known:
            return int(known[1])
        condition = self.computations[_named(each.rest, "condition")]
        by_name = {other.name: other for other in condition}
        compare = next((other for other in condition if "compare" in other.opcode), None)
        for operand in compare.operands if compare else ():
            limit = by_name.get(operand)
            if limit is not None and limit.opcode == "constant":
                return int(limit.literal)
        raise ValueError(f"the text does not tell how often {each.name} runs")


def _precision(rest: str) -> str:
    """Of a product: what its operands ask for, or the algorithm that it names."""
    if algorithm := re.search(r"algorithm=dot_(\w+)", rest):
        return algorithm[1]
    asked = re.search(r"operand_precision=\{(\w+)", rest)
    return asked[1] if asked else "default"


def _taps_an_output(each: _Instruction, left: list[int], right: list[int]) -> float:
    """Products that an output of a convolution is the sum of, on average.

    Indices in padding, and between the values of a dilated input, are none: compilers write batches
    of matrix products as convolutions with little else.
    """
    inputs, kernel, outputs = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", each.rest).groups()
    window = re.search(r"window=\{([^}]*)\}", each.rest)
    settings = dict(part.split("=") for part in window[1].split()) if window else {}
    output_dims, taps = _dims(each.type), float(right[kernel.index("i")])
    n_spatial = sum(label.isdigit() for label in kernel)

    def numbers(name, default):
        return settings.get(name, "x".join([default] * n_spatial)).split("x")

    strides, pads = numbers("stride", "1"), numbers("pad", "0_0")
    left_dilations, right_dilations = numbers("lhs_dilate", "1"), numbers("rhs_dilate", "1")
    for i in range(n_spatial):
        n_out = output_dims[outputs.index(str(i))]
        n_in, size = left[inputs.index(str(i))], right[kernel.index(str(i))]
        left_dilation = int(left_dilations[i])
        places = (
            np.arange(n_out)[:, None] * int(strides[i])
            + np.arange(size)[None] * int(right_dilations[i])
            - int(pads[i].split("_")[0])
        )
        is_value = (places >= 0) & (places <= (n_in - 1) * left_dilation)
        is_value &= places % left_dilation == 0
        taps *= is_value.sum() / n_out
    return taps


def _parts(kind: str) -> list[str]:
    return [match[0] for match in _SHAPE.finditer(kind)]


def _named(rest: str, key: str) -> str:
    found = re.search(rf"{key}=%?([\w.\-]+)", rest)
    return found[1] if found else ""


def _branches(rest: str) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", rest)
    if listed:
        return re.findall(r"%?([\w.\-]+)", listed[1])
    return [_named(rest, "true_computation"), _named(rest, "false_computation")]


def _group_size(rest: str, n_devices: int) -> int:
    """Devices that communicate with one another; all, where no groups are told."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return len(listed[1].split(","))
    if grid := re.search(r"replica_groups=\[(\d+),(\d+)\]", rest):
        return int(grid[2])
    pairs = "source_target_pairs" in rest
    return 2 if pairs else n_devices
