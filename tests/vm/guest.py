"""One virtual machine: boots a kernel with this machine's root read-only below an overlay, runs a
script, and ends. Plain emulation: no KVM, no root, nothing of the host's network.

The script's output comes through the guest's second serial port. A line of it that starts with
"@qmp " is a command (JSON) for QEMU's monitor.
"""
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import packages

NICE = 10
MONITOR_S = 30
# How QEMU makes a NIC of a name, and the module of its driver in the guest.
NICS = {
    "virtio": ("virtio-net-pci", "virtio_net"),
    "virtio-iommu": ("virtio-net-pci,iommu_platform=on,disable-legacy=on", "virtio_net"),
    "e1000": ("e1000", "e1000"),
    "e1000e": ("e1000e", "e1000e"),
    "igb": ("igb", "igb"),
    "vmxnet3": ("vmxnet3", "vmxnet3"),
    "rtl8139": ("rtl8139", "8139cp"),
}


class GuestFailure(Exception):
    pass


def cpio_entry(name, data, mode):
    """One file of an initial file system, in the "newc" format (the kernel's buffer-format.rst)."""
    header = "070701" + "".join(f"{x:08x}" for x in (
        0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0))
    entry = header.encode() + name.encode() + b"\0"
    entry += b"\0" * (-len(entry) % 4) + data
    return entry + b"\0" * (-len(entry) % 4)


def initramfs(kernel, init, script):
    with open(init, "rb") as f:
        made = cpio_entry("init", f.read(), 0o100755)
    made += cpio_entry("script", script.encode(), 0o100644)
    made += cpio_entry("modules", b"", 0o040755)
    for i, path in enumerate(kernel.module_list(packages.FIRST_MODULES)):
        name = f"modules/{i:02}-{os.path.basename(path).split('.')[0]}.ko"
        made += cpio_entry(name, packages.module_bytes(path), 0o100644)
    return made + cpio_entry("TRAILER!!!", b"", 0)


def nic_devices(folder, nics, plugged):
    """NICs in pairs: each port of the forwarder (p0, p1) joined to an end (a0, b0) of the same
    guest. A MAC address tells them apart. Ports that are unplugged need a root port of their own.

    Datagrams over unix sockets keep frames in order; QEMU's hub doesn't when a ring runs full.
    """
    words = []
    names = [("p0", "a0", nics[0]), ("p1", "b0", nics[1]), ("a0", "p0", nics[2]),
             ("b0", "p1", nics[3])]
    for i, (name, peer, nic) in enumerate(names):
        device = NICS[nic][0]
        bus = f"addr={5 + i:#x}"
        if (plugged and name[0] == "p") or nic == "igb":  # its virtual functions take up slots
            words += ["-device", f"pcie-root-port,id=root-{name},chassis={i + 1},addr={5 + i:#x}"]
            bus = f"bus=root-{name}"
        words += ["-netdev", f"dgram,id=net-{name},local.type=unix,local.path={folder}/{name},"
                             f"remote.type=unix,remote.path={folder}/{peer}",
                  "-device", f"{device},netdev=net-{name},id={name},mac=52:54:00:00:00:{i:02x},{bus}"]
    return words


class Guest:
    """A machine that runs one script. Everything of it is in a folder that goes with it."""

    def __init__(self, qemu, kernel, init, script, nics=(), append="", iommu=False, plugged=False,
                 memory_mib=1024, output=print):
        self.output = output
        self.folder = tempfile.mkdtemp(prefix="culvert-vm-")
        self.process, self.code, self.booted = None, None, False
        first = os.path.join(self.folder, "initramfs")
        with open(first, "wb") as f:
            f.write(initramfs(kernel, init, script))
        self.console_path = os.path.join(self.folder, "console")
        self.monitor_path = os.path.join(self.folder, "monitor")
        words = [
            *qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-machine", "q35",
            "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", f"{memory_mib}M",
            "-kernel", kernel.image, "-initrd", first,
            # A busy machine makes the guest's TSC calibration wrong, by 8 times as seen: its
            # patience would be over in no time. The HPET keeps the host's time, but with an IOMMU
            # it leaps by 20 s and more, as seen. It also makes the kernel take the timer for dead
            # ("IO-APIC + timer doesn't work").
            "-append", "console=ttyS0 quiet loglevel=5 panic=-1 tsc=unstable "
                       f"clocksource={'acpi_pm' if iommu else 'hpet'} "
                       "no_timer_check net.ifnames=0 mitigations=off " + append,
            "-serial", "file:" + self.console_path, "-serial", "stdio",
            "-qmp", f"unix:{self.monitor_path},server=on,wait=off",
        ]
        for i, (name, path) in enumerate((("host", "/"), ("kernel", kernel.layer))):
            words += ["-fsdev", f"local,id={name},path={path},security_model=none,readonly=on,"
                                "multidevs=remap",
                      "-device", f"virtio-9p-pci,fsdev={name},mount_tag={name},addr={3 + i:#x}"]
        if iommu:
            # eim: the kernel takes x2APIC then. Without, a timer interrupt stayed in service for
            # ever (seen in the monitor's "info lapic"), and its processor got no other.
            words += ["-device", "intel-iommu,intremap=on,eim=on"]
        if nics:
            words += nic_devices(self.folder, nics, plugged)
        self.words = open(os.path.join(self.folder, "qemu"), "w+")
        self.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.words,
            preexec_fn=lambda: os.nice(NICE), start_new_session=True)

    def monitor(self, command):
        """What is refused is tried again: QEMU has a device for a moment after the guest let go."""
        end = time.monotonic() + MONITOR_S
        while (why := self.command(command)) and time.monotonic() < end:
            time.sleep(0.5)
        if why:
            raise GuestFailure(f"monitor: {command}: {why}")

    def command(self, command):
        """None, or why it was refused."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(self.monitor_path)
            f = s.makefile("rw")
            f.readline()
            for line in ('{"execute": "qmp_capabilities"}', command):
                f.write(line + "\n")
                f.flush()
                answer = json.loads(f.readline())
                while "event" in answer:
                    answer = json.loads(f.readline())
                if "error" in answer:
                    return answer["error"]["desc"]
        return None

    def heard(self, line):
        if line == "@booted":
            self.booted = True
        elif line.startswith("@qmp "):
            self.monitor(line[5:])
        elif line.startswith("@exit "):
            self.code = int(line[6:])
        else:
            self.output(line)

    def wait(self, seconds):
        """The script's exit code, its lines given to output as they come."""
        end = time.monotonic() + seconds
        pipe, rest = self.process.stdout, b""
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while True:
                if not selector.select(max(0, end - time.monotonic())):
                    raise GuestFailure(f"the guest did not end within {seconds:.0f} s"
                                       f"{'' if self.booted else ', not even booted'}; "
                                       f"its console:\n{self.console()}")
                data = os.read(pipe.fileno(), 65536)
                if not data:
                    break
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self.heard(line.decode(errors="replace").rstrip("\r"))
        if self.code is None:
            raise GuestFailure(f"the guest ended without an answer; its console:\n{self.console()}")
        return self.code

    def console(self):
        """The end of what the kernel and QEMU said."""
        said = ""
        for path in (self.console_path, self.words.name):
            if os.path.exists(path):
                with open(path, errors="replace") as f:
                    said += f.read()[-6000:]
        return said

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        if self.process:
            self.process.wait()
            self.process.stdout.close()
        self.words.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
