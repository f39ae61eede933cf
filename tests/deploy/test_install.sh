#!/bin/bash
# Installing below an empty folder and uninstalling leaves nothing; what was edited stays.
#   test_install.sh SOURCE_ROOT BUILD_ROOT
set -u
source=$1 build=$2
root=$(mktemp -d) || exit 1
trap 'rm -rf "$root"' EXIT

fail()
{
	echo "failed: $*"
	find "$root" -mindepth 1
	exit 1
}

prefix=$(meson introspect "$build" --buildoptions |
	python3 -c 'import json, sys
print(next(o["value"] for o in json.load(sys.stdin) if o["name"] == "prefix"))')
install() { "$source/deploy/install" --build "$build" --destdir "$root"; }
uninstall() { "$source/deploy/uninstall" --prefix "$prefix" --destdir "$root"; }

install || fail "deploy/install"
"$root$prefix/bin/culvert" version || fail "the installed binary does not run"
[ -f "$root/etc/culvert/culvert.yaml" ] || fail "no configuration"
unit=$root$prefix/lib/systemd/system/culvert.service
grep -q "^ExecStart=$prefix/bin/culvert run" "$unit" || fail "the unit does not name the binary"
if command -v systemd-analyze >/dev/null; then
	# It checks that the binary is there: here that is below the folder.
	sed "s#=$prefix/bin#=$root$prefix/bin#" "$unit" >"$root/culvert.service"
	found=$(systemd-analyze verify --man=no "$root/culvert.service" 2>&1 | grep culvert.service)
	[ -z "$found" ] || fail "systemd-analyze: $found"
	rm "$root/culvert.service"
fi
uninstall || fail "deploy/uninstall"
[ -z "$(find "$root" -mindepth 1)" ] || fail "uninstalling leaves something"

# Beside what others have there, twice, with a configuration of one's own.
mkdir -p "$root$prefix/bin" "$root/etc"
touch "$root$prefix/bin/other"
install && echo "workers: 1" >>"$root/etc/culvert/culvert.yaml" && install || fail "installing twice"
uninstall || fail "deploy/uninstall"
left=$(cd "$root" && find . -type f | sort | tr '\n' ' ')
[ "$left" = ".$prefix/bin/other ./etc/culvert/culvert.yaml " ] ||
	[ "$left" = "./etc/culvert/culvert.yaml .$prefix/bin/other " ] || fail "left: $left"
[ -d "$root$prefix/share" ] && fail "folders of ours are left"
uninstall 2>/dev/null && fail "uninstalling twice is no error"
exit 0
