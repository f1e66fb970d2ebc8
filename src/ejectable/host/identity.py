# SPDX-License-Identifier: GPL-2.0-or-later
"""Which machine this is: its name, system, hypervisor, cloud and instance type. No network is asked."""

import re
import shlex

from ejectable.host.root import Root
from ejectable.host.running import Running
from ejectable.model import Host

__all__ = ["container", "read_host"]

DMI = "/sys/class/dmi/id"

# DMI strings → cloud. What vendors document for telling their instances; systemd's and cloud-init's detectors look at
# the same fields (src/basic/virt.c, cloudinit/sources/).
CLOUDS = (
    (r"alibaba cloud", "alibaba"),
    (r"amazon ec2|amazon", "aws"),
    (r"google compute engine|google", "gcp"),
    (r"microsoft corporation.*virtual machine", "azure"),
    (r"tencent cloud", "tencent"),
    (r"huawei cloud", "huawei"),
    (r"openstack", "openstack"),
    (r"digitalocean", "digitalocean"),
    (r"hetzner", "hetzner"),
    (r"oraclecloud", "oracle"),
    (r"vultr", "vultr"),
    (r"scaleway", "scaleway"),
    (r"volcengine|byteplus", "volcengine"),
    (r"baidu", "baidu"),
)
HYPERVISORS = (
    (r"alibaba cloud ecs", "kvm"),
    (r"kvm|qemu|bochs|seabios|openstack|google|digitalocean|proxmox", "kvm"),
    (r"amazon ec2", "amazon"),
    (r"vmware", "vmware"),
    (r"microsoft corporation.*virtual machine", "hyperv"),
    (r"innotek|virtualbox", "virtualbox"),
    (r"xen", "xen"),
    (r"parallels", "parallels"),
    (r"bhyve", "bhyve"),
    (r"firecracker", "firecracker"),
)


def read_host(root: Root, running: Running | None) -> Host:
    """The machine, as far as its own files tell."""
    dmi = " ".join(
        root.text(f"{DMI}/{name}", 256) or ""
        for name in ("sys_vendor", "product_name", "bios_vendor", "board_vendor", "chassis_asset_tag")
    ).lower()
    cloud = next((word for pattern, word in CLOUDS if re.search(pattern, dmi)), None)
    hypervisor = next((word for pattern, word in HYPERVISORS if re.search(pattern, dmi)), None)
    if hypervisor is None:
        hypervisor = _hypervisor_without_dmi(root)
    return Host(
        name=root.text("/proc/sys/kernel/hostname", 256) or root.text("/etc/hostname", 256) or None,
        os=_os(root),
        kernel_release=running.release if running else None,
        arch=running.arch if running else None,
        virtualization=hypervisor,
        cloud=cloud,
        instance_type=_instance_type(root, cloud),
    )


def container(root: Root) -> str | None:
    """What kind of container this looks like from inside; `None` outside of one.

    The kernel is then the host's, and so are its files: neither /boot nor /lib/modules in here is what runs.
    """
    if told := root.text("/run/systemd/container", 64):
        return told
    environment = root.read("/proc/1/environ", 65536) or b""
    if said := re.search(rb"(?:^|\0)container=([\w.-]{1,32})", environment):
        return said[1].decode("ascii", "replace")
    # These two markers mean a container only while there is a container's cgroup or mount around: images that boot as
    # machines of their own carry them along.
    groups = root.text("/proc/1/cgroup") or ""
    if match := re.search(r"(docker|kubepods|containerd|libpod|lxc|crio|garden|machine\.slice)", groups):
        return {"kubepods": "kubernetes", "libpod": "podman", "machine.slice": "systemd-nspawn"}.get(match[1], match[1])
    mounts = root.text("/proc/1/mountinfo", 1 << 20) or root.text("/proc/self/mountinfo", 1 << 20) or ""
    top = next((line for line in mounts.splitlines() if line.split()[4:5] == ["/"]), "")
    if not mounts or " - overlay " in f"{top} ":
        if root.exists("/.dockerenv"):
            return "docker"
        if root.exists("/run/.containerenv"):
            return "podman"
    return None


def _os(root: Root) -> str | None:
    text = root.text("/etc/os-release") or root.text("/usr/lib/os-release") or ""
    values = {}
    for line in text.splitlines():
        name, found, value = line.partition("=")
        if found:
            try:
                values[name.strip()] = " ".join(shlex.split(value))
            except ValueError:
                continue
    return values.get("PRETTY_NAME") or values.get("NAME") or None


def _hypervisor_without_dmi(root: Root) -> str | None:
    for path in ("/sys/hypervisor/type", "/proc/device-tree/hypervisor/compatible"):
        if found := root.text(path, 128):
            return found.partition("\0")[0].removeprefix("linux,")
    # The processor says that there is a hypervisor, not which.
    if re.search(r"^flags\s*:.*\bhypervisor\b", root.text("/proc/cpuinfo", 65536) or "", re.MULTILINE):
        if "firecracker" in (root.text("/proc/cmdline", 65536) or ""):
            return "firecracker"
        return "vm"
    return None


def _instance_type(root: Root, cloud: str | None) -> str | None:
    """The instance type where firmware or cloud-init left it on this machine."""
    product = root.text(f"{DMI}/product_name", 128) or ""
    if cloud == "aws" and re.fullmatch(r"[a-z0-9-]+\.[a-z0-9-]+", product):
        return product
    data = root.text("/run/cloud-init/instance-data.json", 1 << 20)
    if data:
        match = re.search(r'"instance[-_]type"\s*:\s*"([\w.-]{1,64})"', data)
        return match[1] if match else None
    return None
