"""Stands in for SGLang's compiled kernels: every name can be imported, none can be called."""

import importlib.abc
import importlib.machinery
import sys
from types import ModuleType

__path__: list[str] = []  # a package, so that sgl_kernel.anything is looked for


class _Missing:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> "_Missing":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing(f"{self._name}.{name}")

    def __call__(self, *_: object, **__: object) -> None:
        raise NotImplementedError(f"{self._name} was called, and it isn't there")


class _Submodules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.startswith("sgl_kernel.") else None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = _Missing(module.__name__).__getattr__


__getattr__ = _Missing(__name__).__getattr__
sys.meta_path.append(_Submodules())
