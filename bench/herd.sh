#!/usr/bin/env bash
# herd.sh: the connections that many processes make to a node that is dead and then comes back, beside loops over libpq.
#
#   bench/herd.sh BUILD_DIRECTORY [--processes N] [--dead-ms MS] [--rounds N]
#
# As root, because everything runs in a network namespace of its own, where nftables counts the connections: a SYN
# packet each, what the server's kernel refuses included. Real PostgreSQL; bench/herd.c says what is done and how to read
# it. BUILD_DIRECTORY: as for bench/run.sh. About 15 s a line of the table, five lines a round.
set -euo pipefail
export LC_ALL=C

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PGCLUSTER=$TOP/tests/cluster/pgcluster
CLUSTER=

die() {
	echo "herd: $*" >&2
	exit 1
}

parse_arguments() {
	[ -d "${1:-}" ] || die "usage: bench/herd.sh BUILD_DIRECTORY [--processes N] [--dead-ms MS] [--rounds N]"
	BUILD=$(cd "$1" && pwd)
	PROCESSES=50 DEAD_MS=5000 ROUNDS=1
	shift
	while (($# > 0)); do
		case $1 in
		--processes) PROCESSES=${2:?} && shift ;;
		--dead-ms) DEAD_MS=${2:?} && shift ;;
		--rounds) ROUNDS=${2:?} && shift ;;
		*) die "unknown argument $1" ;;
		esac
		shift
	done
}

clean_up() {
	[ -z "$CLUSTER" ] || "$PGCLUSTER" destroy "$CLUSTER"
}

count_connections_to() { # count_connections_to PORT
	nft -f - <<-END
		table inet herd {
			counter syns { }
			chain seen {
				type filter hook input priority 0
				tcp dport $1 tcp flags & (syn | ack) == syn counter name syns
			}
		}
	END
}

run() { # run SIDE THREADS
	"$BUILD/bench/herd" "$URL" --cluster "$CLUSTER" --harness "$PGCLUSTER" --side "$1" --processes "$PROCESSES" \
		--threads "$2" --dead-ms "$DEAD_MS"
}

# In the namespace.
measure() {
	ip link set lo up
	trap clean_up EXIT
	CLUSTER=$("$PGCLUSTER" create 1 --set max_connections=500)
	URL=$("$PGCLUSTER" url "$CLUSTER")
	"$PGCLUSTER" psql "$CLUSTER" 1 -qc 'CREATE TABLE herd (n int); GRANT ALL ON herd TO app'
	count_connections_to "$("$PGCLUSTER" port "$CLUSTER" 1)"
	printf 'load average before: %s\n' "$(cut -d' ' -f1-3 /proc/loadavg)"
	echo "                          connections/s, dead  connections/s, 3 s    served after, ms"
	echo "side   processes  threads       most     mean       most     mean      first       last"
	local round
	for ((round = 0; round < ROUNDS; round++)); do
		run dbha 1
		run pause 1
		run loop 1
		run dbha 4
		run pause 4
	done
}

main() {
	parse_arguments "$@"
	if [ -z "${HERD_NAMESPACE:-}" ]; then
		((EUID == 0)) || die "has to be run as root, for a network namespace"
		command -v nft >/dev/null || die "nft is missing: apt-get install nftables"
		"$TOP/bench/build.sh" "$BUILD"
		HERD_NAMESPACE=1 exec unshare --net "${BASH_SOURCE[0]}" "$@"
	fi
	measure
}

main "$@"
