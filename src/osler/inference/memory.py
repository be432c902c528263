"""How much memory the machine, or the container, can still give."""

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def free_memory_bytes() -> int:
    """Memory that can be taken now without swapping.

    On Linux what the kernel calls available, or less where a container (cgroup 2) allows less;
    elsewhere all the memory of the machine, as there is no common way to ask.
    """
    try:
        meminfo = MEMINFO.read_text()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = 1024 * int(meminfo.split("MemAvailable:")[1].split()[0])
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        stat = (CGROUP / "memory.stat").read_text()
    except OSError:
        return free
    if limit == "max":
        return free
    # Files that were read and are no longer looked at count as used and are given up at once.
    idle_files = int(stat.split("\ninactive_file ")[1].split()[0])
    return max(0, min(free, int(limit) - used + idle_files))
