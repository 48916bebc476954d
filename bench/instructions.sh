#!/usr/bin/env bash
# instructions.sh BUILD_DIRECTORY URL: client instructions per statement and per acquire + release, with valgrind's
# callgrind.
#
# Each program runs twice a side, with N and with 3 N turns of the same work; the difference divided by 2 N is one turn,
# so that starting up, connecting and the table cancel out. Only the calling thread is counted: the library's background
# thread works by the clock, not by the statement, and under valgrind the clock runs many times too fast for it.
# prepared_select prints its share.
#
# How to read it. Instructions do not depend on what else the machine does; two runs agree within a few. They are not
# time: a system call counts as one, and a locked instruction costs twenty. `dbha - libpq` is what the library adds to a
# statement in user space; what it adds in system calls strace shows: strace -f -c.
set -euo pipefail

BUILD=${1:?build directory}
URL=${2:?URL}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

count() { # count PROGRAM SIDE N: instructions of the calling thread
	local out=$WORK/$1.$2.$3
	valgrind --quiet --tool=callgrind --separate-threads=yes --callgrind-out-file="$out" \
		"$BUILD/bench/$1" "$URL" --once "$3" --side "$2" >"$out.log" 2>&1 || {
		cat "$out.log" >&2
		exit 1
	}
	awk '$1 == "totals:" {print $2}' "$out-01"
}

each() { # each PROGRAM SIDE N: instructions of one turn
	local few many
	few=$(count "$1" "$2" "$3")
	many=$(count "$1" "$2" $((3 * $3)))
	echo $(((many - few) / (2 * $3)))
}

libpq=$(each prepared_select libpq 2000)
dbha=$(each prepared_select dbha 2000)
printf 'prepared SELECT    libpq %6d   dbha %6d   dbha - libpq %5d   libpq / dbha %s\n' "$libpq" "$dbha" \
	$((dbha - libpq)) "$(awk "BEGIN {printf \"%.3f\", $libpq / $dbha}")"
hand=$(each acquire_release hand 20000)
dbha=$(each acquire_release dbha 20000)
printf 'acquire + release  hand  %6d   dbha %6d\n' "$hand" "$dbha"
