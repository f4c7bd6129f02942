#!/usr/bin/env bash
# The packed package, installed and run under each release of Node.js that it is for, as npm brings them: the oldest, the
# one it is developed with, and the newest. Not part of `npm test`: it takes a minute, and npm's registry.
#   test/package/versions.sh [VERSION …]
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
npm pack --silent --pack-destination "$dir" >/dev/null
for version in "${@:-22.18.0 24 latest}"; do
  for each in $version; do
    place=$dir/$each
    mkdir -p "$place/node" "$place/project"
    npm install --silent --prefix "$place/node" "node@$each" >/dev/null
    export PATH=$place/node/node_modules/node/bin:$PATH
    # No package's script runs, so nothing can be compiled.
    npm install --silent --ignore-scripts --prefix "$place/project" "$dir"/sluice-*.tgz
    (
      cd "$place/project"
      sluice=node_modules/.bin/sluice
      "$sluice" version --json
      node -e 'new (require("better-sqlite3"))("a.db").exec("create table t(x)")'
      "$sluice" run --db a.db --store "file://$place/store" -- \
        node -e 'new (require("better-sqlite3"))("a.db").exec("insert into t values(7)")' 2>/dev/null
      "$sluice" restore -o b.db "file://$place/store" 2>/dev/null
      "$sluice" verify "file://$place/store" >/dev/null
      node -e 'require("assert").equal(new (require("better-sqlite3"))("b.db").prepare("select x from t").get().x, 7)'
      node --input-type=module -e 'import { sluice } from "sluice/connect"; sluice({ databases: "a.db" })'
      echo "Node.js $(node --version): version, run, restore, verify, sluice/connect"
    )
  done
done
