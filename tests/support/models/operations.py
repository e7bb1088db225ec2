"""Counting what PyTorch runs: on a GPU each operation costs the host microseconds to start."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """The operations that a GPU would run, or wait for, without views and allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # it takes PyTorch seconds to import what the other answer needs

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation._schema.name.removeprefix("aten::")
        if not (operation.is_view or name.startswith(("empty", "_unsafe_view"))):
            self.names.append(name)
        return operation(*args, **(kwargs or {}))
