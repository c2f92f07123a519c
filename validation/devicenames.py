"""Which device file a name in a measured table means: vendors, brands and remarks are dropped, what is stated is checked.

A memory size, a count of GPU cores, a power limit or a kind of memory in a name has to be the file's own. Form factors,
laptops, `Ti` and the like are never dropped: a name is refused rather than taken for its neighbour.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from simulator import catalog
from simulator.errors import UnknownNameError
from simulator.spec.hardware import DeviceSpec
from simulator.spec.loader import load
from simulator.units import parse

WORDS = frozenset(
    re.findall(
        r"\S+",
        "nvidia geforce tesla amd radeon instinct apple intel qualcomm google aws habana huawei rockchip arm broadcom "
        "graphcore sambanova mediatek gpu graphics card generation tensor tensorcore accelerator series edition desktop "
        "chip soc founders fe board dev devkit developer kit module single oam data center datacenter grace hopper "
        "superchip spx nps1 cts ac lc processor core cores with platinum gold",
    )
)
"""Words that distinguish no two files once a file's own names are stripped of them too; where they do, they are kept."""
HOSTS = re.compile(r"\b(?:macbook (?:pro|air)|mac (?:mini|studio|pro)|imac(?: pro)?|ipad(?: pro| air)?)\b")
FORMS = re.compile(r"\b(?:sxm\d?|pci-?e?(?: ?\d(?:\.0)?)?(?: ?x\d+)?|nvl|hgx|dgx)\b")
CAPACITY = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?) ?(?:gib|gb|g)\b")
POWER = re.compile(r"(?<![\w.])(\d{2,4}) ?w(?:atts?)?\b")
GPU_CORES = re.compile(r"(?<![\w.])(\d+)(?:c\b| ?gpu cores?\b| ?cores? gpu\b)")
CPU_CORES = re.compile(r"(?<![\w.])(\d+) ?(?:cores? cpu|cpu cores?|threads?|vcpus?)\b")
CORES = re.compile(r"(?<![\w.])(\d+) ?cores?\b")
MEMORY = re.compile(r"\b(hbm\d\w?|gddr\d\w?)\b|\b(?:lpddr|ddr)\d\w?(?:-\d+)?\b")
FACTS = (("gigabytes", CAPACITY), ("watts", POWER), ("gpu_cores", GPU_CORES), ("", CPU_CORES), ("cores", CORES),
         ("memory", MEMORY), ("form", FORMS))  # fmt: skip
MARKS = re.compile(r"\((?:r|tm|c)\)", re.IGNORECASE)
COUNT = re.compile(r"^\d{1,2} ?x |(?<=\w) x ?\d{1,2}$")
CARD = re.compile(r"\b(?:nvidia|geforce|amd|radeon|rtx|gtx|rx|arc|intel arc)\b", re.IGNORECASE)
"""What brackets after a host say of a graphics card."""
SPREAD = 0.06
"""How far a stated capacity, in decimal or binary units, or power may lie from the file's."""
_CPU = re.compile(r"\bcpu\b", re.IGNORECASE)
CPU_UNITS = ("cpu", "zen")
"""How the names of units begin that are cores of a CPU beside others."""
CLASSES = frozenset({"gpu", "cpu", "mobile", "sbc", "accelerator", "mcu", "fpga"})


@dataclass(frozen=True, slots=True)
class Name:
    """A name taken apart."""

    key: str
    """What is left without facts and `WORDS`, in one piece."""
    gigabytes: float | None = None
    watts: float | None = None
    gpu_cores: int | None = None
    cores: int | None = None
    """Of the GPU or of the CPU: the name does not say which."""
    memory: str = ""
    form: str = ""
    """sxm, pcie, nvl or nothing."""

    @property
    def plain(self) -> bool:
        """States nothing that tells two files of one key apart."""
        return self.gigabytes is None and self.gpu_cores is None and self.cores is None


@dataclass(frozen=True, slots=True)
class Device:
    """What a device's file says of the same."""

    name: str
    class_: str
    capacity_bytes: float
    watts: float
    gpu_cores: int
    """0 where the file does not tell cores of a GPU from others."""
    cpu_cores: int
    memory: str
    mixed: bool
    """Has cores of a CPU and units that are none."""
    free_memory: bool
    """Sold with several capacities that change nothing else: CPUs, and chips that share their memory with one."""

    def agrees(self, stated: Name) -> bool:
        """Whether nothing that a name states is otherwise here."""
        sized = stated.gigabytes is None or self.free_memory or _sized(stated.gigabytes, self.capacity_bytes)
        powered = stated.watts is None or self.class_ != "gpu" or not self.watts or _near(stated.watts, self.watts)
        drawn = stated.gpu_cores is None or not self.gpu_cores or stated.gpu_cores == self.gpu_cores
        counted = stated.cores is None or not self.gpu_cores or stated.cores in (self.gpu_cores, self.cpu_cores)
        return sized and powered and drawn and counted and (not stated.memory or self.memory.startswith(stated.memory))


def find_device(name: str, on_cpu: bool = False) -> str:
    """The device file that a name means. Raises UnknownNameError.

    `on_cpu`: the engine says that it ran on the CPU, so a graphics card in brackets was idle.

    >>> find_device("NVIDIA RTX 3090 24 GB"), find_device("8x H100 SXM5 (700 W)"), find_device("Ryzen 5 7600 (RTX 4070)")
    ('rtx-3090', 'h100-sxm5-80gb', 'rtx-4070')
    """
    name = MARKS.sub(" ", name)
    outside, inside = _brackets(name)
    exact = None
    with contextlib.suppress(UnknownNameError):
        exact = Path(catalog.find("hardware", name)).stem
    if on_cpu or (exact is None and re.search(r"\bcpu\b", name, re.IGNORECASE)):
        found = _match(f"{_CPU.sub(' ', outside)} CPU") or _alone(exact) or _alone(_match(_CPU.sub(" ", outside)))
        if found is None:
            raise UnknownNameError("hardware", name, set(catalog.index("hardware")))
        return found.name
    if exact is not None:
        return exact
    host, card = _match(outside), _match(inside) if inside else None
    if card is not None and card.class_ == "gpu" and (host is None or host.class_ != "gpu"):
        return card.name
    whole = _match(f"{outside} {inside}")
    if whole is not None:
        return whole.name
    if host is not None and not CARD.search(inside) and host.agrees(take_apart(inside)):
        return host.name
    raise UnknownNameError("hardware", name, set(catalog.index("hardware")))


def _alone(device: Device | str | None) -> Device | None:
    """A device that is nothing but a CPU; of a device's name as well."""
    if isinstance(device, str):
        device = next((held for names in _entries().values() for _, held in names if held.name == device), None)
    return device if device is not None and not device.mixed else None


def take_apart(text: str) -> Name:
    """What a name states, and what is left of it.

    >>> take_apart("NVIDIA A100-SXM4-40GB")
    Name(key='a100', gigabytes=40.0, watts=None, gpu_cores=None, cores=None, memory='', form='sxm')
    """
    rest = re.sub(r"[\s_,;/()\[\]™®-]+", " ", text.lower()).strip()
    rest = re.sub(r"\bmax q\b", "maxq", HOSTS.sub(" ", COUNT.sub(" ", rest)))
    found: dict[str, str] = {}
    for fact, pattern in FACTS:
        hit = pattern.search(rest)
        if hit is not None:
            found[fact] = (hit[1] if pattern.groups else hit[0]) or ""
            rest = pattern.sub(" ", rest)
    key = "".join(word for word in rest.split() if word not in WORDS)
    form = found.get("form", "")
    return Name(
        key,
        float(found["gigabytes"]) if "gigabytes" in found else None,
        float(found["watts"]) if "watts" in found else None,
        int(found["gpu_cores"]) if "gpu_cores" in found else None,
        int(found["cores"]) if "cores" in found else None,
        found.get("memory", ""),
        "sxm" if form.startswith(("sxm", "hgx", "dgx")) else "pcie" if form.startswith("pc") else form,
    )


def _match(text: str) -> Device | None:
    """The one device whose file has a name of that key and agrees with what is stated; None for none or several."""
    stated = take_apart(text)
    if not stated.key:
        return None
    entries = _entries().get(stated.key, ())
    fitting = [(name, device) for name, device in entries if device.agrees(stated) or _says(name, stated)]
    forms = {name.form for name, _ in entries}
    if stated.form and stated.form in forms:
        fitting = [(name, device) for name, device in fitting if name.form == stated.form]
    elif stated.form and len(forms - {""}):
        return None
    elif not stated.form:
        fitting = [(name, device) for name, device in fitting if not name.form] or fitting
    if stated.gigabytes is not None:
        sized = [
            held for held in fitting if not held[1].free_memory and _sized(stated.gigabytes, held[1].capacity_bytes)
        ]
        fitting = sized or [held for held in fitting if _says(held[0], stated)] or fitting
    if stated.gpu_cores is None and stated.cores is None and len({device.name for _, device in fitting}) > 1:
        fitting = [held for held in fitting if held[0].plain] or fitting
    devices = {device.name: device for _, device in fitting}
    return next(iter(devices.values())) if len(devices) == 1 else None


def _brackets(name: str) -> tuple[str, str]:
    """What stands before brackets, and in the first of them."""
    found = re.search(r"\(([^()]*)\)", name)
    if found is None:
        return name, ""
    return (name[: found.start()] + " " + name[found.end() :]).strip(), found[1]


def _near(stated: float, held: float) -> bool:
    return abs(stated / held - 1.0) <= SPREAD if held else False


def _sized(gigabytes: float, held_bytes: float) -> bool:
    return any(_near(gigabytes * parse(unit)[0], held_bytes) for unit in ("1 GB", "1 GiB"))


def _says(name: Name, stated: Name) -> bool:
    """Whether one of the file's own names states the same capacity, of a memory that its file does not count."""
    return name.gigabytes is not None and name.gigabytes == stated.gigabytes and name.form == stated.form


def _entries() -> dict[str, tuple[tuple[Name, Device], ...]]:
    paths = tuple((path, path.stat().st_mtime_ns) for path in catalog.files("hardware"))
    return _read(paths)


@lru_cache(maxsize=4)
def _read(paths: Iterable[tuple[Path, int]]) -> dict[str, tuple[tuple[Name, Device], ...]]:
    """Key -> the names of device files that have it."""
    specs = [load(path, DeviceSpec) for path, _ in paths if path.parent.name in CLASSES]
    shared = {spec.architecture for spec in specs if spec.class_ == "gpu"}
    found: dict[str, list[tuple[Name, Device]]] = {}
    for spec in specs:
        mains = (memory for memory in spec.memory if memory.kind == "main")
        main = max(mains, key=lambda memory: float(memory.bandwidth), default=None)
        drawn = sum(float(unit.count) for unit in spec.compute if unit.name == "gpu")
        cores = [float(unit.count) for unit in spec.compute if unit.name.startswith(CPU_UNITS)]
        device = Device(
            spec.name,
            spec.class_,
            float(main.capacity) if main else 0.0,
            float(spec.power.tdp) if spec.power and spec.power.tdp else 0.0,
            int(drawn),
            int(sum(cores)),
            (main.technology or "").lower() if main else "",
            spec.class_ == "gpu" or 0 < len(cores) < len(spec.compute),
            spec.class_ in ("cpu", "mobile") or (spec.class_ == "sbc" and spec.architecture not in shared),
        )
        for name in {spec.name, *spec.aliases}:
            apart = take_apart(name)
            if apart.key:
                found.setdefault(apart.key, []).append((apart, device))
    return {key: tuple(names) for key, names in found.items()}
