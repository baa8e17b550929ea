#!/bin/bash
# What `check.sh` runs in the clean Debian: a user's first hour.
set -euo pipefail
cd "$HOME"
documents=/usr/local/share/doc/pyro

say() { printf '\n== %s\n' "$*"; }

# Lines that a page tells to type.
typed() { awk '/^```console/ {on = 1; next} /^```/ {on = 0} on && /^\$ / {print substr($0, 3)}' "$1"; }

say install
tar -xzf /test/pyro-*-x86_64-linux.tar.gz --strip-components=1 -C /usr/local
pyro --version
bash -n /usr/local/share/bash-completion/completions/pyro
test -s /usr/local/share/man/man1/pyro-workspace-exec.1

say doctor
pyro doctor

say demo
pyro demo

say the walkthrough
mkdir walkthrough
(cd walkthrough && typed $documents/docs/walkthrough.md | bash -euxo pipefail)

say a story
/test/pyro-smoke story repro-fix-loop --recipes $documents/recipes

say "installed and works"
