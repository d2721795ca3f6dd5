r"""The currency of a comparison: operations, bytes moved, and what a device makes of both.

A step that does $F$ operations on $M$ moved bytes has arithmetic intensity $F/M$. A device with peak $p$ and bandwidth
$b$ needs at least $\max(F/p,\ M/b)$ seconds for it (the roofline): below intensity $p/b$ it waits for memory.
Nothing here is measured; a real step takes longer, and its time is a matter for `benchmarks/`.

Differs from the paper: it compares methods on two devices in two frameworks; here one set of operations is put on
either device.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """What its maker says of a device.

    Attributes:
        name: as sold.
        peak: operations a second, bfloat16 products summed in float32, without sparsity.
        bandwidth: bytes a second from and to its memory.
        memory: bytes.
    """

    name: str
    peak: int | float
    bandwidth: int | float
    memory: int | float

    @property
    def ridge(self) -> float:
        """Operations a byte above which the device computes, and below which it waits."""
        return self.peak / self.bandwidth


# the paper's two (Table 9), from NVIDIA's data sheets
DEVICES = {
    "RTX 4090": Device("RTX 4090", 165.2e12, 1.008e12, 24e9),
    "A100 40GB": Device("A100 40GB", 312e12, 1.555e12, 40e9),
}


@dataclass(frozen=True)
class Cost:
    """What a stage of a method takes.

    Attributes:
        flops: floating-point operations.
        moved: bytes read and written at least, every weight once a pass.
        peak: bytes alive at once, a bound.

    Example:
        >>> stage = Cost(flops=2e12, moved=1e10, peak=1e9)
        >>> stage.intensity, stage.seconds(DEVICES["A100 40GB"]) > 2 / 312
        (200.0, True)
    """

    flops: int | float
    moved: int | float
    peak: int | float

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.moved

    def __add__(self, other: "Cost") -> "Cost":
        """One stage after the other."""
        return Cost(self.flops + other.flops, self.moved + other.moved, max(self.peak, other.peak))

    def times(self, often: int | float) -> "Cost":
        """The same stage again and again."""
        return Cost(often * self.flops, often * self.moved, self.peak)

    def seconds(self, device: Device) -> int | float:
        """Least time on a device, by its roofline."""
        return max(self.flops / device.peak, self.moved / device.bandwidth)

    def fits(self, device: Device) -> bool:
        """Whether the bound on the peak is below the device's memory."""
        return self.peak <= device.memory
