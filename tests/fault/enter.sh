#!/usr/bin/env bash
# enter: runs a command where faults of the network, of names and of disks hurt nobody else.
#
#   enter.sh COMMAND [ARG]...
#
# The command gets namespaces of its own: network (loopback up and nothing else), mounts (its own /etc/resolv.conf, which names
# 127.0.0.1, and /etc/nsswitch.conf), processes and System V memory. When it ends, however it ends, the kernel takes
# away its processes, packet filters and mounts; its temporary directory is removed here. As root directly, as an ordinary user in a
# user namespace; where the system allows neither, this fails and says what is missing.
set -euo pipefail

SELF=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/$(basename "${BASH_SOURCE[0]}")

die() {
	echo "enter: $*" >&2
	exit 1
}

# ---- inside ------------------------------------------------------------------------------------------------------

# File, contents from standard input. A file that is not there cannot be covered.
cover() {
	cat >"$TMPDIR/$(basename "$1")"
	chmod 644 "$TMPDIR/$(basename "$1")"
	[[ -e $1 ]] || return 0
	mount --bind "$TMPDIR/$(basename "$1")" "$1" || die "cannot mount over $1"
}

inside() {
	ip link set lo up || die "cannot bring the loopback interface up"
	nft list ruleset >/dev/null || die "no packet filter: is the kernel's nf_tables there?"
	[[ -e /etc/resolv.conf ]] || die "/etc/resolv.conf is missing: a name server of the tests' own cannot be set"
	printf 'nameserver 127.0.0.1\noptions timeout:30 attempts:1\n' | cover /etc/resolv.conf
	printf 'passwd: files\ngroup: files\nhosts: files dns\n' | cover /etc/nsswitch.conf
	# A cache outside would answer in the name server's place.
	[[ ! -d /run/nscd ]] || mount -t tmpfs none /run/nscd
	# Not exec: the first process of a namespace is not ended by the signals that end a program.
	"$@"
}

# ---- outside -----------------------------------------------------------------------------------------------------

cleanup() {
	trap '' INT TERM
	# With its parent the first process in there is killed, and with it all the others.
	[[ -z $ENTERED ]] || { kill -s KILL "$ENTERED" && wait "$ENTERED"; } 2>/dev/null || true
	rm -rf "$TMPDIR"
}

main() {
	local need namespaces=(--net --mount --pid --ipc --fork --kill-child --mount-proc) status=0
	(($# > 0)) || die "which command?"
	for need in unshare nft ip; do
		command -v "$need" >/dev/null || PATH=$PATH:/usr/sbin:/sbin
		command -v "$need" >/dev/null || die "$need is missing: apt-get install util-linux nftables iproute2"
	done
	((EUID == 0)) || namespaces+=(--user --map-current-user --keep-caps)
	unshare "${namespaces[@]}" true || die "this system gives an ordinary user no namespaces of his own" \
		"(kernel.unprivileged_userns_clone, user.max_user_namespaces, AppArmor, or a container without CAP_SYS_ADMIN)"
	TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/fault.XXXXXX")
	export TMPDIR
	chmod 1777 "$TMPDIR" # servers run as another user below it
	DBHA_OUTER_NETWORK=$(readlink /proc/self/ns/net)
	export DBHA_OUTER_NETWORK
	ENTERED=
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	# Its parent's SIGKILL must not leave it behind.
	setpriv --pdeathsig KILL unshare "${namespaces[@]}" "$SELF" --inside "$@" &
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
