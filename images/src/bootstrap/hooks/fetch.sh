# After installation, while the package lists are still there: the kernel's package and where
# everything came from. $1 is the new root; PYRO_* come from the pull.
set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
cd "$PYRO_OUT"
for list in "$1"/var/lib/apt/lists/*Release; do
    cp "$list" "releases/"
done
if [ -n "$PYRO_WANT_KERNEL" ]; then
    echo "pyro: kernel"
    kernel=$(apt-cache depends "$PYRO_KERNEL_PACKAGE" |
        sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
    if [ -z "$kernel" ]; then
        echo "E: $PYRO_KERNEL_PACKAGE names no kernel" >&2
        exit 1
    fi
    (cd kernel && apt-get -qq -o APT::Sandbox::User=root download "$kernel")
fi
