//! The guest's root as programs use it, on top of an immutable environment: one boot, many proofs.

use crate::pyro::{Host, Test, code, text};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("debian_tools_work_on_the_layered_root", tools),
        ("the_file_system_keeps_its_promises", file_system),
    ]
}

/// Runs a script whose every line must succeed; the last says `all good`.
fn prove(script: &str) {
    let host = Host::new();
    let script = format!("set -eux\n{script}\necho all good");
    let output = host.run("debian:12", &[], &["sh", "-c", &script]);
    assert_eq!(
        code(&output),
        0,
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    assert!(text(&output.stdout).ends_with("all good\n"));
    host.assert_clean();
}

fn tools() {
    prove(
        r#"
        # git: clone, commit, branch, and its own check
        git init -q /root/a && cd /root/a
        git config user.email a@b && git config user.name a
        seq 1000 >file && git add . && git commit -qm one
        git clone -q /root/a /root/b && cd /root/b && git fsck && test "$(wc -l <file)" = 1000

        # users and ownership
        useradd -m worker
        test "$(stat -c %U /home/worker)" = worker
        chown -R worker: /root/b && test "$(stat -c %U:%G /root/b/file)" = worker:worker
        su worker -c 'echo mine >~/mine && test ! -r /etc/shadow'

        # a package, through apt and dpkg with their locks, hard links and fsyncs
        mkdir -p /root/p/DEBIAN /root/p/opt/hello
        printf 'Package: hello-pyro\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: a\n' >/root/p/DEBIAN/control
        echo hello >/root/p/opt/hello/greeting
        dpkg-deb --build /root/p /var/tmp/p.deb >/dev/null
        apt-get install -qq -y /var/tmp/p.deb >/dev/null
        test "$(cat /opt/hello/greeting)" = hello
        apt-get remove -qq -y hello-pyro >/dev/null && test ! -e /opt/hello
        dpkg --audit

        # python, and pip with a package that a wheel holds (there is no network)
        python3 -m venv --without-pip /root/venv && /root/venv/bin/python -c 'import json, ssl, sqlite3'
        python3 - <<'PY'
import zipfile
with zipfile.ZipFile('/root/answer-1-py3-none-any.whl', 'w') as wheel:
    info = 'answer-1.dist-info/'
    wheel.writestr('answer.py', 'def main(): print(42)\n')
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\nName: answer\nVersion: 1\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\nGenerator: a\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
    wheel.writestr(info + 'entry_points.txt', '[console_scripts]\nanswer = answer:main\n')
    wheel.writestr(info + 'RECORD', '')
PY
        pip install -q --no-compile --break-system-packages --no-index --root-user-action ignore /root/answer-1-py3-none-any.whl
        test "$(answer)" = 42
        "#,
    );
}

fn file_system() {
    prove(
        r#"
        cd /root
        # hard links, also into the environment's own files
        echo a >one && ln one two && echo b >>two && test "$(cat one)" = "$(printf 'a\nb')"
        test "$(stat -c %h one)" = 2
        ln /usr/bin/git /root/git && test "$(stat -c %i /root/git)" = "$(stat -c %i /usr/bin/git)"
        /root/git --version

        # a directory of the environment is renamed with all that is in it, and can be again
        before=$(find /usr/share/python3 | wc -l)
        mv /usr/share/python3 /usr/share/snake && test ! -e /usr/share/python3
        test "$(find /usr/share/snake | wc -l)" = "$before"
        mv /usr/share/snake /usr/share/python3
        # what was removed stays removed, and a new directory in its place is empty
        rm -r /usr/share/python3 && mkdir /usr/share/python3 && test -z "$(ls /usr/share/python3)"

        # unlinked and still open
        exec 3<>open && rm open && echo kept >&3 && test "$(cat /proc/self/fd/3)" = kept && exec 3>&-

        # sparse files
        truncate -s 1G sparse && test "$(du -k sparse | cut -f1)" -lt 64
        printf x | dd of=sparse bs=1 seek=500000000 conv=notrunc status=none
        test "$(du -k sparse | cut -f1)" -lt 1024 && test "$(stat -c %s sparse)" = 1073741824

        # modes, devices, pipes, symbolic links, times
        touch m && chmod 4751 m && test "$(stat -c %a m)" = 4751
        mknod null c 1 3 && echo gone >null && test "$(stat -c %t:%T null)" = 1:3
        mkfifo pipe && (echo through >pipe &) && test "$(cat pipe)" = through
        ln -s /nowhere link && test "$(readlink link)" = /nowhere
        touch -d @1000000000 m && test "$(stat -c %Y m)" = 1000000000

        # names at their limits
        long=$(printf '%255s' | tr ' ' n) && touch "$long" && test -e "$long" && ! touch "${long}n"

        # shared memory maps write, extended attributes, locks
        python3 - <<'PY'
import fcntl, mmap, os
with open('/root/mapped', 'w+b') as f:
    f.truncate(1 << 20)
    with mmap.mmap(f.fileno(), 1 << 20) as m:
        m[4096:4101] = b'hello'
        m[-1:] = b'!'
        m.flush()
    f.seek(4096); assert f.read(5) == b'hello'
    fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
os.setxattr('/root/mapped', 'user.note', b'kept')
assert os.getxattr('/root/mapped', 'user.note') == b'kept'
names = {str(n) for n in range(2000)}
os.mkdir('/root/many')
for n in names: open('/root/many/' + n, 'w').close()
assert set(os.listdir('/root/many')) == names
for n in names: os.unlink('/root/many/' + n)
assert os.listdir('/root/many') == []
fd = os.open('/root/big', os.O_RDWR | os.O_CREAT)
os.pwrite(fd, b'end', 3 << 32)
assert os.pread(fd, 3, 3 << 32) == b'end' and os.fstat(fd).st_size == (3 << 32) + 3
os.fsync(fd)
PY
        sync
        "#,
    );
}
