#!/usr/bin/env bash
# run.sh: all benchmarks, on a cluster of their own, made for this and taken away at the end.
#
#   bench/run.sh BUILD_DIRECTORY [--quick] [--nodes N] [--out DIRECTORY]
#
# BUILD_DIRECTORY: configured and built there, e.g. mkdir build-bench && cd build-bench && ../configure CFLAGS="-O2 -g"
# && make. --quick: shorter, for a look. --nodes: how many nodes the cluster has (1; the standbys of more take processor
# time from both sides; the monitor's cost is measured on three of its own). --out: where the JSON of each program goes (BUILD_DIRECTORY/bench).
#
# The server runs with fsync off (what consistency costs a write is measured with it on as well), on the same machine and over TCP on loopback: it shares the processors with the
# client, and a network would hide what is measured here. Each program's head says how it measures and how to read it.
# The instruction counts need valgrind and are left out, with a line that says so, where it is missing. About 8 minutes,
# with --quick one and a half. What a stampede costs a server is measured by herd.sh, which needs root and is run by hand.
set -euo pipefail
export LC_ALL=C

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PGCLUSTER=$TOP/tests/cluster/pgcluster
CLUSTER=''
THREE=''

die() {
	echo "bench: $*" >&2
	exit 1
}

clean_up() {
	[ -z "$CLUSTER" ] || "$PGCLUSTER" destroy "$CLUSTER"
	[ -z "$THREE" ] || "$PGCLUSTER" destroy "$THREE"
}

parse_arguments() {
	[ -d "${1:-}" ] || die "usage: bench/run.sh BUILD_DIRECTORY [--quick] [--nodes N] [--out DIRECTORY]"
	BUILD=$(cd "$1" && pwd)
	QUICK=false NODES=1 OUT=$BUILD/bench
	shift
	while (($# > 0)); do
		case $1 in
		--quick) QUICK=true ;;
		--nodes) NODES=${2:?} && shift ;;
		--out) OUT=${2:?} && shift ;;
		*) die "unknown argument $1" ;;
		esac
		shift
	done
}

lengths() {
	if $QUICK; then
		SELECT=(--slices 40) PIPELINED=(--slices 15) OPEN=(--rounds 5) TRANSACTION=(--slices 10) CONSISTENCY=(--slices 10) ACQUIRE=(--batches 1000 --slices 10) FAIR=(--rounds 1 --seconds 3) IDLE=(--rounds 1)
	else
		SELECT=(--slices 300) PIPELINED=(--slices 60) OPEN=(--rounds 20) TRANSACTION=(--slices 100) CONSISTENCY=(--slices 60) ACQUIRE=(--batches 4000 --slices 20) FAIR=(--rounds 3 --seconds 5) IDLE=(--rounds 3)
	fi
}

load() { # load WHEN
	printf 'load average %s: %s\n' "$1" "$(cut -d' ' -f1-3 /proc/loadavg 2>/dev/null || echo unknown)"
}

run() { # run PROGRAM ARGUMENT...: the URL and --json are added
	local program=$1
	shift
	printf '\n== %s\n' "$program"
	"$BUILD/bench/$program" "$URL" "$@" --json "$OUT/$program.json"
}

# A primary and a standby of its own: with three nodes nobody would know which standby is compared with which.
run_consistency() { # run_consistency FSYNC
	CLUSTER=$("$PGCLUSTER" create 2 --set "fsync=$1" --set max_connections=300)
	URL=$("$PGCLUSTER" url "$CLUSTER")
	run consistency "${CONSISTENCY[@]}"
	mv "$OUT/consistency.json" "$OUT/consistency-fsync-$1.json"
	"$PGCLUSTER" destroy "$CLUSTER"
	CLUSTER=
}

main() {
	parse_arguments "$@"
	lengths
	mkdir -p "$OUT"
	"$TOP/bench/build.sh" "$BUILD"
	trap clean_up EXIT
	CLUSTER=$("$PGCLUSTER" create "$NODES" --set fsync=off --set max_connections=300)
	URL=$("$PGCLUSTER" url "$CLUSTER")
	load before
	run prepared_select "${SELECT[@]}"
	run pipelined "${PIPELINED[@]}"
	run open_loop "${OPEN[@]}"
	run transaction "${TRANSACTION[@]}"
	run acquire_release "${ACQUIRE[@]}"
	run fairness "${FAIR[@]}"
	printf '\n== instructions\n'
	if command -v valgrind >/dev/null; then
		"$TOP/bench/instructions.sh" "$BUILD" "$URL"
	else
		echo "valgrind is missing: not counted"
	fi
	"$PGCLUSTER" destroy "$CLUSTER"
	CLUSTER=
	run_consistency off
	run_consistency on
	THREE=$("$PGCLUSTER" create 3)
	URL=$("$PGCLUSTER" url "$THREE")
	run monitor_cost "${IDLE[@]}"
	load after
}

main "$@"
