# Turns the finished root into the ext4 image that is open as file descriptor 9.
#
# A second hook (with the variable root), since the kernel has been copied out in between. The plain bind mount leaves the
# /proc, /sys and /dev out that mmdebstrap has mounted over the root.
set -eu
rm -rf "$root/boot/pyro"
plain=$root.plain
mkdir "$plain"
mount --bind "$root" "$plain"
mke2fs -q -F -t ext4 -O ^has_journal -E lazy_itable_init=1 -N 262144 -L pyro-host -d "$plain" /proc/self/fd/9
umount "$plain"
rmdir "$plain"
