# Finishes the root of the emulated host: its kernel, then the file-system image.
#
# mmdebstrap runs this as a customise hook, outside the new root, in its own mount namespace, as
# root or as root of a user namespace. `system.rs` puts the variables before it:
# root (the folder), early (modules of the initramfs), later (modules of the root). $root/boot/pyro
# is copied out afterwards.
set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"

# The cloud kernel as files. Installing its package would build an initramfs that nobody uses.
package=$(apt-cache depends --important linux-image-cloud-amd64 |
	sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
[ -n "$package" ] || { echo 'no cloud kernel in this suite' >&2; exit 1; }
release=${package#linux-image-}
work=$root/boot/pyro
mkdir -p "$work"
(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package")
dpkg-deb -x "$work/$package"_*.deb "$work/package"
mkdir -p "$work/out/modules" "$work/package/usr/lib"
# Older packages fill /lib, newer ones /usr/lib: make both names work.
if [ -d "$work/package/lib" ]; then mv "$work/package/lib/modules" "$work/package/usr/lib/"; fi
rm -rf "$work/package/lib" && ln -s usr/lib "$work/package/lib"
# kmod comes from the root: the machine need not have it.
in_root() { PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" "$@"; }
in_root depmod --basedir /boot/pyro/package "$release"
closure() { # every file that these modules need, dependencies first
	for module in $1; do
		in_root modprobe --dirname /boot/pyro/package --set-version "$release" --show-depends "$module"
	done | sed -n 's/^insmod \([^ ]*\).*$/\1/p' | awk '!seen[$0]++'
}
tree=usr/lib/modules/$release
mkdir -p "$root/$tree"
cp "$work/package/$tree"/modules.builtin* "$work/package/$tree"/modules.order "$root/$tree/"
closure "$early $later" | while read -r file; do
	to=$root/$tree/${file##*/"$release"/}
	mkdir -p "${to%/*}" && cp "$root$file" "$to"
done
in_root depmod "$release"
# The initramfs loads its few modules in the order of their names.
closure "$early" | { n=10; while read -r file; do
	case $file in
	*.xz) xz -dc "$root$file" >"$work/out/modules/$n-$(basename "$file" .xz)" ;;
	*) cp "$root$file" "$work/out/modules/$n-${file##*/}" ;;
	esac
	n=$((n + 1))
done; }
cp "$work/package/boot/vmlinuz-$release" "$work/out/vmlinuz"
mv "$work/out" "$root/boot/out" && rm -rf "$work" && mv "$root/boot/out" "$work"

# Nothing in it is secret or personal, and it starts from the same state each time.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb
echo pyro-host >"$root/etc/hostname"
printf '127.0.0.1 localhost pyro-host\n::1 localhost\n' >"$root/etc/hosts"
: >"$root/etc/resolv.conf"
