#!/bin/bash
# check.sh SMOKE DIST: installs DIST's archive into DIST's clean Debian and tries it there.
#
# Runs where KVM can run guests; `make dist-check` sees to that. The Debian is a folder of its own that
# this enters with its own mounts and processes, so that nothing of either outlives it. From outside come
# the processor's /dev/kvm, the store of environments (building one is tested elsewhere) and the
# runner of the stories, which is no part of the product.
set -euo pipefail

if [ "${1-}" = --inside ]; then
	shift
	smoke=$1 dist=$2 root=$3
	tar -C "$root" --no-same-owner -xf "$dist/debian.tar"
	mount --rbind /dev "$root/dev"
	mount --rbind /sys "$root/sys"
	mount -t proc proc "$root/proc"
	mkdir -p "$root/store" "$root/test"
	mount --bind "$PYRO_IMAGE_DIR" "$root/store"
	install -m 755 "$smoke" "$root/test/pyro-smoke"
	cp "$(dirname "$0")/commands.sh" "$root/test/"
	cp "$dist"/pyro-*-x86_64-linux.tar.gz "$root/test/"
	exec /usr/sbin/chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/root LANG=C.UTF-8 \
		PYRO_IMAGE_DIR=/store bash /test/commands.sh
fi

store=${PYRO_IMAGE_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/pyro/images}
root=$(mktemp -d /var/tmp/pyro-dist.XXXXXX)
status=0
fake=()
[ "$(id -u)" = 0 ] || fake=(--map-root-user)
PYRO_IMAGE_DIR=$store unshare "${fake[@]}" --mount --pid --fork --kill-child \
	"$0" --inside "$@" "$root" || status=$?
# A user namespace of its own owns nothing that its user may not remove.
chmod -R u+rwX "$root"
rm -rf --one-file-system "$root"
exit $status
