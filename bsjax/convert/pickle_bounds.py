"""How far a pickle unfolds, told from its opcodes before anything of it is built.

A pickle of 400 bytes can name a dict twice in another one, 60 levels deep: hashing or walking what
it builds would never end. What torch writes unfolds to about its own size.
"""

import pickle
import pickletools
from typing import Any

# What unfolds to so many objects passes whatever the pickle's length, and so many for each byte:
# honest files refer to one object again and again (a string, a shared tensor), but not to trees.
FREE, PER_BYTE = 10_000, 10
# Containers stand in each other about 30 deep in a saved graph of modules.
DEPTH = 200
# Python takes numbers of any length, arithmetic on which then never ends; sizes have 64 bits.
NUMBER_BITS = 128

_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_GETS = ("GET", "BINGET", "LONG_BINGET")
_SETS = ("SETITEM", "SETITEMS")
_GROWS = ("APPEND", "APPENDS", "ADDITEMS", "BUILD", *_SETS)  # change what lies below them


class _Cell:
    """What is known of an object on the unpickler's stack."""

    __slots__ = ("depth", "key", "keys", "size")

    def __init__(self, size: int = 1, depth: int = 0, key: Any = None) -> None:
        self.size, self.depth, self.key = size, depth, key
        self.keys: set[Any] = set()  # of a dict


_MARK = _Cell()


def check_bounds(data: bytes) -> None:
    """Follows the stack of a pickle and refuses what no file of torch has.

    That is: trees of shared containers that unfold to far more than the pickle, containers nested
    200 deep, names given twice in one dict, numbers of more than 128 bits, and memo places beyond
    the pickle's length, for which unpickling would fill the memory.

    Raises:
      pickle.UnpicklingError: what was found.
    """
    limit = FREE + PER_BYTE * len(data)
    stack: list[_Cell] = []
    memo: dict[int, _Cell] = {}
    work = 0
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in _PUTS or name in ("MEMOIZE", "DUP"):
            if not stack or stack[-1] is _MARK:
                raise pickle.UnpicklingError(f"{name} of an empty stack")
            # Places are numbered from 0 and each takes at least a byte.
            if name in _PUTS and argument >= len(data):
                raise pickle.UnpicklingError(f"impossible memo place {argument}")
            if name == "DUP":
                stack.append(stack[-1])
            else:
                memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
            continue
        if name in _GETS:
            stack.append(memo[argument])
            continue
        if isinstance(argument, int) and argument.bit_length() > NUMBER_BITS:
            raise pickle.UnpicklingError(f"a number of {argument.bit_length()} bits")
        popped = _pop(stack, opcode)
        if not opcode.stack_after:
            continue
        if name == "MARK":
            stack.append(_MARK)
            continue
        size, depth = sum(cell.size for cell in popped), max((c.depth for c in popped), default=-1)
        work += size
        if name in _GROWS:
            target = popped[0]
            work -= target.size
            if name in _SETS:
                _add_keys(target, popped[1::2])
            target.size, target.depth = size, max(target.depth, depth + 1)
        else:
            key = argument if isinstance(argument, str | int) else None
            target = _Cell(size + 1, depth + 1, key)
        if target.depth > DEPTH:
            raise pickle.UnpicklingError(f"containers nested more than {DEPTH} deep")
        if target.size > limit or work > 100 * limit:
            raise pickle.UnpicklingError("containers shared so often that they unfold without end")
        stack.append(target)


def _pop(stack: list[_Cell], opcode: pickletools.OpcodeInfo) -> list[_Cell]:
    """What the opcode takes from the stack, deepest first."""
    before = opcode.stack_before
    if pickletools.markobject not in before:
        if len(before) > len(stack):
            raise pickle.UnpicklingError(f"{opcode.name} of an empty stack")
        popped = stack[len(stack) - len(before) :]
        del stack[len(stack) - len(before) :]
        return popped
    marks = (place for place in reversed(range(len(stack))) if stack[place] is _MARK)
    start = next(marks, -1) - before.index(pickletools.markobject)
    if start < 0:
        raise pickle.UnpicklingError(f"{opcode.name} of an empty stack")
    popped = [cell for cell in stack[start:] if cell is not _MARK]
    del stack[start:]
    return popped


def _add_keys(target: _Cell, keys: list[_Cell]) -> None:
    for cell in keys:
        if cell.key in target.keys:
            raise pickle.UnpicklingError(f"the name {str(cell.key)[:80]!r} is given twice")
        if cell.key is not None:
            target.keys.add(cell.key)
