# Makes the new root ($1) a workspace's: what a guest needs, and nothing of the machine that
# built it. PYRO_* come from the pull.
set -eu
root=$1
dpkg-query --admindir="$root/var/lib/dpkg" --show \
    --showformat '${Package} ${Version} ${Architecture}\n' > "$PYRO_OUT/packages"

# The machine's proxy and the bootstrap's own settings stay behind.
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
printf '%s\n' "$PYRO_APT_CONF" > "$root/etc/apt/apt.conf.d/90pyro"

# The same mirror that built the image, without credentials.
rm -f "$root/etc/apt/sources.list"
key=
for name in pgp gpg; do
    path=/usr/share/keyrings/debian-archive-keyring.$name
    if [ -z "$key" ] && [ -e "$root$path" ]; then key=$path; fi
done
printf '%s\n' "$PYRO_SOURCES" | while read -r uri suite; do
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$uri" "$suite"
    if [ -n "$key" ]; then printf 'Signed-By: %s\n' "$key"; fi
    echo
done > "$root/etc/apt/sources.list.d/debian.sources"

# As in Debian's slim images: documentation and translations stay out, now and when a guest
# installs more; and no fsync per file, a workspace's layers are what makes it safe.
cat > "$root/etc/dpkg/dpkg.cfg.d/90pyro" <<'END'
# Remove this file for documentation and translations.
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/locale/locale.alias
force-unsafe-io
END
# Alternatives link into these even when they are empty.
for section in 1 2 3 4 5 6 7 8; do mkdir -p "$root/usr/share/man/man$section"; done

# Packages do not start services: nothing supervises them.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

echo pyro > "$root/etc/hostname"
printf '127.0.0.1\tlocalhost pyro\n::1\tlocalhost ip6-localhost ip6-loopback\n' > "$root/etc/hosts"
echo '# No network. When a policy allows one, another file is mounted over this one.' > "$root/etc/resolv.conf"
chroot "$root" passwd --quiet --delete root
mkdir -p "$root/workspace"
# Empty: each guest gets an identity of its own.
: > "$root/etc/machine-id"
rm -rf "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old
