#!/bin/sh
# What `npm test` runs: formatting, lint with import directions, types, then every test.
# External peers are used where `test/peers/install.sh` has put them; without them their tests print a skip
# (with CI=true they fail).
set -eu
cd "$(dirname "$0")/.."
npx oxfmt --check
npx oxlint --type-aware
npx tsc -p .
npx knip
exec npx vitest run "$@"
