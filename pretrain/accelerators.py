"""Accelerators by name, as their vendors describe them: memory, dense peaks, and the links that gradients travel on.

Bytes are decimal, as data sheets count them: a device reports up to 7% more, about what its runtime, the collectives'
buffers and fragmentation take. Bandwidths are of one direction, half of what data sheets add up for both.
"""

from dataclasses import dataclass

from data_pipeline.config import BadInput
from pretrain.config import nearest

GIGA, TERA = 1e9, 1e12


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device, in the usual node of its kind."""

    name: str
    device: str
    """The part of the name that torch gives the device."""
    memory: float
    """Bytes."""
    peaks: dict[str, float]
    """Precision -> FLOP/s of dense matrix products: no sparsity, no TF32."""
    link: float
    """Bytes/s that it sends to the others of its node."""
    network: float
    """Bytes/s that it sends to other nodes, by a network card of its own or its share of the node's."""
    per_node: int
    source: str

    def bandwidth(self, accelerators: int, nodes: int) -> float:
        """Bytes/s at which each of so many takes part in a ring over all, alike spread over the nodes.

        Rings enter and leave a node once however many of its devices they visit, so that all network cards of a node
        carry together what each device sends on its own links:
        https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md.
        """
        if nodes == 1:
            return self.link
        return min(self.link, self.network * max(1, accelerators // nodes))


_A100 = {"bfloat16": 312 * TERA, "float32": 19.5 * TERA}
_H100 = {"bfloat16": 989 * TERA, "float32": 67 * TERA}

ACCELERATORS = {
    accelerator.name: accelerator
    for accelerator in (
        Accelerator(
            name="a100-40",
            device="A100",
            memory=40 * GIGA,
            peaks=_A100,
            link=300 * GIGA,
            network=25 * GIGA,
            per_node=8,
            source="data sheets of NVIDIA A100 40GB SXM (NVLink 600 GB/s) and DGX A100 (200 Gb/s for each GPU)",
        ),
        Accelerator(
            name="a100-80",
            device="A100",
            memory=80 * GIGA,
            peaks=_A100,
            link=300 * GIGA,
            network=25 * GIGA,
            per_node=8,
            source="data sheets of NVIDIA A100 80GB SXM (NVLink 600 GB/s) and DGX A100 (200 Gb/s for each GPU)",
        ),
        Accelerator(
            name="h100",
            device="H100",
            memory=80 * GIGA,
            peaks=_H100,
            link=450 * GIGA,
            network=50 * GIGA,
            per_node=8,
            source="data sheets of NVIDIA H100 SXM (NVLink 900 GB/s) and DGX H100 (400 Gb/s for each GPU)",
        ),
        Accelerator(
            name="h200",
            device="H200",
            memory=141 * GIGA,
            peaks=_H100,
            link=450 * GIGA,
            network=50 * GIGA,
            per_node=8,
            source="data sheets of NVIDIA H200 SXM (NVLink 900 GB/s) and DGX H200 (400 Gb/s for each GPU)",
        ),
        Accelerator(
            name="b200",
            device="B200",
            memory=180 * GIGA,
            peaks={"bfloat16": 2250 * TERA, "float32": 80 * TERA},
            link=900 * GIGA,
            network=50 * GIGA,
            per_node=8,
            source="NVIDIA Blackwell architecture brief (HGX B200, 1,000 W; NVLink 1.8 TB/s), data sheet of DGX B200 "
            "(1,440 GB in all, 400 Gb/s for each GPU)",
        ),
        Accelerator(
            name="mi300x",
            device="MI300X",
            memory=192 * GIGA,
            peaks={"bfloat16": 1307 * TERA, "float32": 163 * TERA},
            link=448 * GIGA,
            network=50 * GIGA,
            per_node=8,
            source="data sheet of AMD Instinct MI300X (7 Infinity Fabric links of 128 GB/s) and Azure's ND MI300X v5 "
            "(400 Gb/s for each GPU)",
        ),
        Accelerator(
            name="l40s",
            device="L40S",
            memory=48 * GIGA,
            peaks={"bfloat16": 362 * TERA, "float32": 91.6 * TERA},
            link=32 * GIGA,
            network=6.25 * GIGA,
            per_node=8,
            source="data sheet of NVIDIA L40S (PCIe 4.0 x16, 64 GB/s; no NVLink), AWS's g6e.48xlarge (400 Gb/s for 8)",
        ),
    )
}


def accelerator_named(name: str) -> Accelerator:
    """Whatever the case of the name; BadInput for one that is not known."""
    found = ACCELERATORS.get(name.lower())
    if found is None:
        raise BadInput(f"--accelerator {name}: there is none of this name{nearest(name.lower(), ACCELERATORS)}")
    return found
