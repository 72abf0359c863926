"""The stand-in's cupy.cuda: one device, which may be taken away."""

from __future__ import annotations

from typing import Any

from standin.capture import CUDARuntimeError, Graph, Stream, get_current_stream, involve_host
from standin.memory import MemoryPointer, MemoryPool, from_device, using_allocator


class _Runtime:
    CUDARuntimeError = CUDARuntimeError

    def __init__(self) -> None:
        self.driver, self.runtime = 12080, 12090

    def driverGetVersion(self) -> int:
        return self.driver

    def runtimeGetVersion(self) -> int:
        return self.runtime

    def getDevice(self) -> int:
        return 0

    def getDeviceProperties(self, device: int) -> dict[str, Any]:
        assert device == 0
        return {"name": b"Stand-in GPU", "totalGlobalMem": 8 << 30}


class _Device:
    def synchronize(self) -> None:
        involve_host("sync: Device.synchronize()")


class _Cuda:
    def __init__(self) -> None:
        self.available = True
        self.runtime = _Runtime()
        self.Device = _Device
        self.Graph, self.Stream, self.get_current_stream = Graph, Stream, get_current_stream
        self.MemoryPointer, self.MemoryPool, self.Memory = MemoryPointer, MemoryPool, from_device
        self.using_allocator = using_allocator

    def is_available(self) -> bool:
        return self.available


cuda = _Cuda()
