#!/bin/sh
# pack.sh BIN OUT: makes OUT/pyro-VERSION-x86_64-linux.tar.gz of the programs in BIN.
#
# Its one folder is a prefix: unpacked without it into /usr/local or ~/.local, everything is where it
# is looked for. The same files give the same archive.
set -eu
bin=$1 out=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
version=$("$bin/pyro" --version)
name=pyro-${version#pyro }
staged=$out/$name
rm -rf "$staged"
mkdir -p "$staged/bin"
for program in pyro pyro-vmm pyro-net pyro-agent; do
	install -m 755 "$bin/$program" "$staged/bin"
done

completion() { # SHELL FILE
	mkdir -p "$staged/share/${2%/*}"
	"$bin/pyro" completions "$1" >"$staged/share/$2"
}
completion bash bash-completion/completions/pyro
completion zsh zsh/site-functions/_pyro
completion fish fish/vendor_completions.d/pyro.fish
completion elvish elvish/lib/pyro.elv
completion powershell powershell/pyro.ps1
"$bin/pyro" man --output "$staged/share/man/man1" 2>/dev/null

documents=$staged/share/doc/pyro
mkdir -p "$documents"
cp "$root/LICENSE" "$root/README.md" "$root/CHANGELOG.md" "$documents"
cp -r "$root/docs" "$root/recipes" "$documents"
find "$documents" -name __pycache__ -prune -exec rm -rf {} +

when=$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)
tar --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime="@$when" \
	-C "$out" -cf - "$name" | gzip -9n >"$out/$name-x86_64-linux.tar.gz.new"
mv "$out/$name-x86_64-linux.tar.gz.new" "$out/$name-x86_64-linux.tar.gz"
rm -rf "$staged"
echo "$out/$name-x86_64-linux.tar.gz: $(du -h "$out/$name-x86_64-linux.tar.gz" | cut -f 1)"
