#!/bin/bash
# Checks the models. Needs Spin 6.4 or newer ($SPIN, default spin) and a C compiler ($CC, default cc; it optimises by $OPT).
#   ./run.sh              all proofs, witnesses and mutants (a few minutes; $JOBS at a time, default 2)
#   ./run.sh quick        the smaller proofs, the witnesses, and the mutants that are caught soon (20 s)
#   ./run.sh deep         larger bounds of the proofs (half an hour, 12 GB)
#   ./run.sh trace NAME   the shortest counterexample of a mutant or witness, as a list of events
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
jobs=${JOBS:-2} spin=${SPIN:-spin} cc=${CC:-cc}

# name | expected | model | switches
proofs='
base              |holds|sluice|-DS=4 -DC=3 -DCRASHES=2 -DPOWER
base-long         |holds|sluice|-DS=5 -DC=3 -DPOWER
three-nodes       |holds|sluice|-DN=3 -DS=4 -DC=2
empty-log         |holds|sluice|-DFROM_NOTHING -DS=4 -DC=2
orphan            |holds|sluice|-DORPHAN
lease-one-gate    |holds|sluice|-DLEASE -DONE_GATE
lease-one-gate-3  |holds|sluice|-DLEASE -DONE_GATE -DN=3 -DS=3 -DC=2
lease-pause       |holds|sluice|-DLEASE -DPAUSE -DN=3 -DS=3 -DC=2
lease-longtx      |holds|sluice|-DLEASE -DLONGTX
handoff-calm      |holds|sluice|-DLEASE -DHANDOFF -DONE_GATE -DCALM -DCRASHES=0 -DS=6
handoff           |holds|sluice|-DLEASE -DHANDOFF -DONE_GATE
replica-2         |holds|sluice|-DREPL -DS=4 -DC=3 -DPOWER
replica-3         |holds|sluice|-DREPL -DN=3 -DS=3 -DC=2 -DPOWER
lease-record      |holds|lease |-DTTL=4 -DM=1
lease-record-long |holds|lease |-DTTL=6 -DM=2
'
witnesses='
two-gates-by-pause   |found|sluice|-DLEASE -DPAUSE -DONE_GATE
two-gates-by-long-tx |found|sluice|-DLEASE -DLONGTX -DONE_GATE
two-gates-by-orphan  |found|sluice|-DLEASE -DORPHAN -DONE_GATE
'
mutants='
unconditional-put    |found|sluice|-DMUT_UNCONDITIONAL
gate-early           |found|sluice|-DMUT_GATE_EARLY
ack-early            |found|sluice|-DMUT_ACK_EARLY
412-is-own           |found|sluice|-DMUT_412_IS_OWN
412-is-foreign       |found|sluice|-DMUT_412_IS_FOREIGN
no-tag               |found|sluice|-DMUT_NO_TAG
regrow               |found|sluice|-DMUT_REGROW
pipeline             |found|sluice|-DMUT_PIPELINE
no-epoch             |found|sluice|-DMUT_NO_EPOCH
seal-mark            |found|sluice|-DMUT_SEAL_MARK
delete-takeover      |found|sluice|-DMUT_DELETE_TAKEOVER
no-verify            |found|sluice|-DMUT_NO_VERIFY
live-in-takeover     |found|sluice|-DMUT_LIVE_IN_TAKEOVER
same-epoch           |found|sluice|-DMUT_SAME_EPOCH -DPOWER
no-quarantine        |found|sluice|-DMUT_NO_QUARANTINE
retry-unwaited       |found|sluice|-DMUT_RETRY_UNWAITED
waiter               |found|sluice|-DMUT_WAITER
keep-gate            |found|sluice|-DMUT_KEEP_GATE -DLEASE -DONE_GATE
handoff-early        |found|sluice|-DMUT_HANDOFF_EARLY -DLEASE -DHANDOFF -DCALM -DCRASHES=0
anybody              |found|sluice|-DMUT_ANYBODY -DREPL -DN=3 -DS=3 -DC=2
member-is-node       |found|sluice|-DMUT_MEMBER_IS_NODE -DREPL -DPOWER
set-at-once          |found|sluice|-DMUT_SET_AT_ONCE -DREPL -DN=3 -DS=3 -DC=2
lease-on-send        |found|lease |-DMUT_EXTEND_ON_SEND
lease-on-reply       |found|lease |-DMUT_EXTEND_ON_REPLY
lease-from-retry     |found|lease |-DMUT_EXTEND_FROM_RETRY
lease-same-etag      |found|lease |-DMUT_SAME_ETAG
lease-from-asking    |found|lease |-DMUT_COUNT_FROM_ASKING
'
deep='
base-deep         |holds|sluice|-DS=5 -DC=4 -DCRASHES=2
base-deep-power   |holds|sluice|-DS=5 -DC=3 -DCRASHES=2 -DPOWER
three-nodes-deep  |holds|sluice|-DN=3 -DS=4 -DC=3
three-nodes-power |holds|sluice|-DN=3 -DS=4 -DC=2 -DPOWER
lease-deep        |holds|sluice|-DLEASE -DONE_GATE -DN=3 -DS=4 -DC=2
replica-2-deep    |holds|sluice|-DREPL -DS=4 -DC=3 -DCRASHES=2 -DPOWER
replica-3-deep    |holds|sluice|-DREPL -DN=3 -DS=3 -DC=2 -DCRASHES=2 -DPOWER
'

check() {                       # name expected model switches...
  local name=$1 want=$2 model=$3; shift 3
  local d=$work/$name how="${OPT:--O2} ${DEEP:+-DCOLLAPSE}"; mkdir -p "$d"; cd "$d" || exit 1
  [ "$want" = found ] && how="-O0 -DBFS"                # breadth first: the shortest counterexample
  "$spin" "$@" -a "$here/$model.pml" >spin.out 2>&1 || { echo "$name: spin failed"; cat spin.out; return; }
  "$cc" -w -DSAFETY -DNOCLAIM -DNOREDUCE -DVECTORSZ=1024 -DMEMLIM=${MEMLIM:-12000} $how -o pan pan.c || return
  local t0=$SECONDS; ./pan -m400000 >pan.out 2>&1
  local states got=holds; states=$(awk '/states, stored/ {print $1; exit}' pan.out)
  grep -q 'errors: 0' pan.out || got=error
  grep -q 'assertion violated' pan.out && got=found
  grep -qE 'max search depth too small|out of memory|aborting' pan.out && got=incomplete
  local verdict=ok; [ "$got" = "$want" ] || verdict=WRONG
  printf '%-6s %-21s %-6s %11s states %4ds  %s\n' "$verdict" "$name" "$got" "$states" $((SECONDS-t0)) "$*" >"$work/$name.line"
  if [ "${TRACE:-}" ]; then
    "$spin" -t -k "$model.pml.trail" "$@" "$here/$model.pml" 2>&1 | sed -n 's/^ *\* \(.*\)/\1/p' | nl -w3 -s'. '
    grep -m1 -o 'assertion violated.*' pan.out
  fi
  rm -f pan pan.? pan.???
}
suite() {                       # title, table
  echo "== $1"
  while IFS='|' read -r name want model switches; do
    name=${name// /}; [ "$name" ] || continue
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do sleep 0.05; done
    ( check "$name" "$want" ${model} $switches ) &
  done <<<"$2"
  wait
  while IFS='|' read -r name _; do name=${name// /}; [ "$name" ] && cat "$work/$name.line"; done <<<"$2"
}

case ${1:-all} in
  all)   start=$SECONDS
         suite "proofs" "$proofs"; suite "witnesses (what can happen)" "$witnesses"; suite "mutants (must be caught)" "$mutants"
         echo "total $((SECONDS-start)) s"; ! grep -lq WRONG "$work"/*.line ;;
  quick) suite "proofs" "$(grep -E '^(empty-log|handoff-calm|lease-record) ' <<<"$proofs")"
         suite "witnesses (what can happen)" "$witnesses"
         suite "mutants (must be caught)" "$(grep -vE '^(waiter|member-is-node) ' <<<"$mutants")"
         ! grep -lq WRONG "$work"/*.line ;;
  deep)  DEEP=1 jobs=1; suite "deep proofs" "$deep"; ! grep -lq WRONG "$work"/*.line ;;
  trace) line=$(grep -E "^$2 *\|" <<<"$witnesses$mutants") || { echo "no such mutant: $2"; exit 2; }
         IFS='|' read -r name want model switches <<<"$line"
         TRACE=1 check "${name// /}" "$want" ${model} $switches; cat "$work/${name// /}.line" ;;
  *)     sed -n '2,7p' "$0"; exit 2 ;;
esac
