#!/bin/sh
# debian.sh FILE: makes FILE, a tar archive of a clean Debian 12, from this machine's mirror.
#
# Only what is essential, and curl: what pyro needs beyond it would show. No python3, no git.
set -eu
file=$1
[ ! -s "$file" ] || exit 0
mkdir -p "${file%/*}"
mirror=${PYRO_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)}
echo "making a clean Debian 12, once"
mmdebstrap --quiet --format=tar --variant=essential --include=curl \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	bookworm "$file.new" "$mirror"
mv "$file.new" "$file"
