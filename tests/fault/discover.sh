#!/usr/bin/env bash
# discover: runs a command where a name server and addresses of the tests' own hurt nobody else.
#
#   discover.sh COMMAND [ARG]...
#
# The command gets a network of its own (loopback up and nothing else), its own /etc/resolv.conf, which names 127.0.0.1, and its
# own processes: when it ends, however it ends, the kernel takes all of it away. Needs root.
set -euo pipefail

SELF=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/$(basename "${BASH_SOURCE[0]}")
PATH=$PATH:/usr/sbin:/sbin

inside() {
	ip link set lo up
	printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' >"$TMPDIR/resolv.conf"
	mount --bind "$TMPDIR/resolv.conf" /etc/resolv.conf
	printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$TMPDIR/nsswitch.conf"
	chmod 644 "$TMPDIR/resolv.conf" "$TMPDIR/nsswitch.conf"
	[[ ! -e /etc/nsswitch.conf ]] || mount --bind "$TMPDIR/nsswitch.conf" /etc/nsswitch.conf
	# Not exec: the first process of a namespace is not ended by the signals that end a program.
	"$@"
}

cleanup() {
	[[ -z ${ENTERED:-} ]] || kill -s KILL "$ENTERED" 2>/dev/null || true
	rm -rf "$TMPDIR"
}

main() {
	local status=0
	TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/discover.XXXXXX")
	export TMPDIR
	chmod 1777 "$TMPDIR" # servers run as another user below it
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	unshare --net --mount --pid --ipc --fork --kill-child --mount-proc "$SELF" --inside "$@" &
	ENTERED=$!
	wait "$ENTERED" || status=$?
	ENTERED=
	exit "$status"
}

if [[ ${1:-} == --inside ]]; then
	shift
	inside "$@"
else
	main "$@"
fi
