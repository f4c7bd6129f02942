#!/bin/sh
# Runs the self-contained executable in a root file system that has a C library, a shell, and no Node.js: backup, the
# application below the guardian, restore. Needs root, python3 for a database, and Linux's unshare.
#
# usage: packaging/try-executable.sh EXECUTABLE
set -eu
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/bin "$root"/proc "$root"/dev "$root"/tmp "$root"/data "$root"/root
cp "$1" "$root/bin/sluice"
for program in /bin/sh /bin/cat; do cp -L "$program" "$root/bin/"; done
for program in "$1" /bin/sh /bin/cat; do
  ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root/$(dirname "$library")"
    cp -L "$library" "$root/$library"
  done
done
for device in null zero urandom; do touch "$root/dev/$device"; done
python3 - "$root/data/app.db" <<'PYTHON'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("create table t(x)")
db.executemany("insert into t values(?)", [(i,) for i in range(1000)])
db.commit()
PYTHON
cat > "$root/try.sh" <<'SH'
set -eu
! command -v node
sluice version
sluice run --db /data/app.db --store file:///data/store -- sh -c 'echo "the application runs as $$"'
sluice restore -o /data/copy.db file:///data/store
sluice verify file:///data/store
SH
unshare --mount --pid --fork sh -eu -c '
  mount -t proc proc "$0/proc"
  for device in null zero urandom; do mount --bind "/dev/$device" "$0/dev/$device"; done
  exec chroot "$0" /bin/sh -c "PATH=/bin HOME=/root exec sh /try.sh"' "$root"
python3 -c 'import sqlite3, sys
rows = sqlite3.connect(sys.argv[1]).execute("select count(*), sum(x) from t").fetchone()
assert rows == (1000, 499500), rows
print("restored:", rows[0], "rows")' "$root/data/copy.db"
