"""Kernels and a QEMU from Debian's packages, unpacked into a cache folder: nothing is installed.

The cache is CULVERT_VM_CACHE, or ~/.cache/culvert-vm; delete it for newer packages. What is there
is used without the network.
"""
import fcntl
import glob
import lzma
import os
import re
import shutil
import subprocess

DEBIAN = "http://deb.debian.org/debian"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
# The releases whose kernels are wanted, and QEMU 10 for Debian 12.
SOURCES = [
    (DEBIAN, "bookworm"), (DEBIAN, "bookworm-backports"), (DEBIAN, "trixie-backports"),
    (DEBIAN + "-security", "bookworm-security"), (DEBIAN + "-security", "bullseye-security"),
]
# What the first programs of a guest need to see its root: the rest is loaded from there.
FIRST_MODULES = ["virtio_pci", "9pnet_virtio", "9p", "overlay"]
APT_SECONDS = 600
QEMU_MAJOR = 10  # older ones lack a good igb, or x2APIC without KVM


class Unavailable(Exception):
    """What can't be had, and why: the reason of a skip."""


def call(*command, seconds=APT_SECONDS, **kw):
    try:
        done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, timeout=seconds,
                              stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, **kw)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Unavailable(f"{command[0]}: {e}") from None
    if done.returncode != 0:
        last = [x for x in done.stdout.splitlines() if x.strip()][-1:] or ["no word why"]
        raise Unavailable(f"{' '.join(map(str, command[:1]))}: exit {done.returncode}: {last[0]}")
    return done.stdout


class Cache:
    """The folder, locked against a second run that fetches."""

    def __init__(self):
        self.root = (os.environ.get("CULVERT_VM_CACHE") or
                     os.path.expanduser("~/.cache/culvert-vm"))
        os.makedirs(self.root, exist_ok=True)
        self.lock = open(os.path.join(self.root, "lock"), "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.updated = False

    def path(self, *parts):
        return os.path.join(self.root, *parts)

    def unlock(self):
        self.lock.close()

    def apt(self, tool, *words, status="/dev/null", cwd=None):
        state = self.path("apt")
        if not self.updated:
            self.updated = True
            if not os.path.exists(KEYS) or not shutil.which("apt-get"):
                raise Unavailable("kernels come from Debian's packages: needs apt-get and "
                                  "debian-archive-keyring")
            for folder in ("lists/partial", "archives/partial"):
                os.makedirs(os.path.join(state, folder), exist_ok=True)
            with open(os.path.join(state, "sources.list"), "w") as f:
                f.writelines(f"deb [signed-by={KEYS}] {url} {suite} main\n"
                             for url, suite in SOURCES)
            self.apt("apt-get", "update", "--error-on=any")
        options = {
            "Dir::State": state, "Dir::State::Lists": f"{state}/lists",
            "Dir::State::status": status, "Dir::Cache": state, "Dir::Etc::Parts": "/dev/null",
            "Dir::Etc::SourceList": f"{state}/sources.list", "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null", "Dir::Etc::Preferences": "/dev/null",
            "APT::Sandbox::User": "root", "Acquire::Languages": "none", "Acquire::Retries": 3,
        }
        flags = [x for key, value in options.items() for x in ("-o", f"{key}={value}")]
        return call(tool, *flags, *words, cwd=cwd)

    def download(self, folder, *packages):
        """Packages (name or name=version) into an emptied folder, unpacked below it."""
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        self.apt("apt-get", "download", *packages, cwd=folder)
        self.unpack(folder, glob.glob(folder + "/*.deb"))

    @staticmethod
    def unpack(folder, debs):
        for deb in debs:
            call("dpkg", "-x", deb, folder)
            os.unlink(deb)

    def done(self, *parts):
        """Marks what is complete: a fetch that was interrupted is done again."""
        with open(self.path(*parts, "complete"), "w"):
            pass

    def has(self, *parts):
        return os.path.exists(self.path(*parts, "complete"))


class Kernel:
    """A kernel's image, and a layer for a guest's root with its modules and modprobe."""

    def __init__(self, folder):
        self.folder = folder
        self.layer = os.path.join(folder, "layer")
        self.image = os.path.join(folder, "vmlinuz")
        self.release = os.listdir(self.layer + "/usr/lib/modules")[0]
        self.modules = f"{self.layer}/usr/lib/modules/{self.release}"

    def module_list(self, names):
        """Paths of modules and of all they need, in the order in which they are loaded."""
        needs, found = {}, []
        with open(self.modules + "/modules.dep") as f:
            for line in f:
                path, _, rest = line.partition(":")
                needs[re.sub(r"\.ko.*", "", os.path.basename(path)).replace("-", "_")] = (
                    path, rest.split())
        for name in names:
            if name not in needs:
                continue  # compiled into this kernel
            path, rest = needs[name]
            found += [p for p in [*reversed(rest), path] if p not in found]
        return [os.path.join(self.modules, p) for p in found]


def kernel_version(cache, series):
    """The newest package of a series ("6.1"), or the newest of all ("newest")."""
    table = cache.apt("apt-cache", "madison", "linux-image-amd64")
    versions = {line.split("|")[1].strip() for line in table.splitlines() if line.count("|") == 2}
    fit = [v for v in versions if series == "newest" or v.startswith(series + ".")]
    if not fit:
        raise Unavailable(f"no package of a kernel {series} among {', '.join(sorted(versions))}")
    return max(fit, key=lambda v: [int(x) for x in re.findall(r"\d+", v)])


def fetch_kernel(cache, series):
    """Its packages are found by their dependencies: newer ones split image and modules."""
    folder = cache.path("kernel-" + series)
    wanted, todo = set(), [("linux-image-amd64", kernel_version(cache, series))]
    while todo:
        name, version = todo.pop()
        shown = cache.apt("apt-cache", "show", f"{name}={version}")
        wanted.add(f"{name}={version}")
        for other, exact in re.findall(r"(linux-(?:image|modules|binary)-\S+) \(= (\S+)\)",
                                       "\n".join(x for x in shown.splitlines()
                                                 if x.startswith("Depends:"))):
            if f"{other}={exact}" not in wanted:
                todo.append((other, exact))
    cache.download(folder, *sorted(wanted), "kmod/bookworm")
    images = glob.glob(folder + "/boot/vmlinuz-*") + glob.glob(
        folder + "/usr/lib/modules/*/vmlinuz") + glob.glob(folder + "/lib/modules/*/vmlinuz")
    modules = glob.glob(folder + "/lib/modules/*") + glob.glob(folder + "/usr/lib/modules/*")
    modules = [m for m in modules if os.path.isdir(m + "/kernel")]
    if not images or not modules:
        raise Unavailable(f"no kernel in {', '.join(sorted(wanted))}")
    os.rename(images[0], folder + "/vmlinuz")
    # Only usr/: a folder called lib or sbin would hide the links of a merged root.
    layer = folder + "/layer/usr"
    os.makedirs(layer + "/lib/modules")
    os.makedirs(layer + "/sbin")
    os.rename(modules[0], f"{layer}/lib/modules/{os.path.basename(modules[0])}")
    kmod = next(p for p in (folder + "/bin/kmod", folder + "/usr/bin/kmod") if os.path.exists(p))
    os.rename(kmod, layer + "/sbin/kmod")
    for name in ("modprobe", "rmmod", "lsmod", "depmod"):
        os.symlink("kmod", f"{layer}/sbin/{name}")
    call(f"{layer}/sbin/depmod", "-b", folder + "/layer/usr",
         os.path.basename(modules[0]))
    for name in ("boot", "lib", "usr", "bin", "sbin", "etc"):
        shutil.rmtree(f"{folder}/{name}", ignore_errors=True)
    cache.done("kernel-" + series)
    return Kernel(folder)


def kernel(cache, series):
    if cache.has("kernel-" + series):
        return Kernel(cache.path("kernel-" + series))
    return fetch_kernel(cache, series)


def module_bytes(path):
    with open(path, "rb") as f:
        data = f.read()
    if path.endswith(".xz"):
        return lzma.decompress(data)
    if path.endswith(".zst"):
        try:
            return subprocess.run(["zstd", "-dc", path], stdout=subprocess.PIPE, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as e:
            raise Unavailable(f"this kernel's modules need zstd: {e}") from None
    return data


def qemu(cache):
    """The command that starts QEMU: the machine's own where it is new enough, or one of our own."""
    own = shutil.which("qemu-system-x86_64")
    version = re.search(r"version (\d+)", call(own, "--version")) if own else None
    if version and int(version[1]) >= QEMU_MAJOR and '"igb"' in call(own, "-device", "help"):
        return [own]
    folder = cache.path("qemu")
    if not cache.has("qemu"):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        # With this machine's own list of packages: only what it lacks is fetched.
        cache.apt("apt-get", "-y", "--download-only", "--no-install-recommends", "-t",
                  "bookworm-backports", "install", "qemu-system-x86",
                  status="/var/lib/dpkg/status")
        cache.unpack(folder, glob.glob(cache.path("apt", "archives", "*.deb")))
        cache.done("qemu")
    libraries = f"{folder}/usr/lib/x86_64-linux-gnu:{folder}/lib/x86_64-linux-gnu"
    share = folder + "/usr/share"
    return ["env", f"LD_LIBRARY_PATH={libraries}",
            f"QEMU_MODULE_DIR={folder}/usr/lib/x86_64-linux-gnu/qemu",
            folder + "/usr/bin/qemu-system-x86_64",
            *[x for name in ("qemu", "seabios", "../lib/ipxe/qemu")
              for x in ("-L", f"{share}/{name}")]]
