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

say "the page of the first run"
typed $documents/docs/first-run.md | bash -euxo pipefail

say "the README, in a project with a test"
mkdir readme
printf 'import unittest\n\n\nclass Ok(unittest.TestCase):\n    def test_ok(self):\n        pass\n' >readme/test_ok.py
(cd readme && typed $documents/README.md | bash -euxo pipefail)
(cd readme && pyro mcp config claude-code --install && grep -q /usr/local/bin/pyro .mcp.json)

say the walkthrough
mkdir walkthrough
(cd walkthrough && typed $documents/docs/walkthrough.md | bash -euxo pipefail)

say "a story, through MCP"
PYRO_BIN=/usr/local/bin/pyro /test/pyro-smoke story repro-fix-loop --recipes $documents/recipes

test -z "$(pyro workspace list --json | grep workspace_id)"
say "installed and works"
