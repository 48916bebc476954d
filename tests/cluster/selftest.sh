#!/usr/bin/env bash
# Tests of pgcluster itself, on real servers: what it says it has broken is broken, and nothing is left behind.
#
#   selftest.sh          as root: everything twice, the second time as an unprivileged user
#   selftest.sh --once   as the present user only
#
# Prints "ok" and "not ok" lines; exit status 1 where one is "not ok".
set -euo pipefail
export LC_ALL=C

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PGCLUSTER=$HERE/pgcluster
WORK=$(mktemp -d "${TMPDIR:-/tmp}/pgcluster-selftest.XXXXXX")
chmod 755 "$WORK" # servers run as another user below it
DIR=
FAILED=0

cleanup() {
	[[ -z $DIR ]] || "$PGCLUSTER" destroy "$DIR" || true
	rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# Name of the test, command that must succeed.
check() {
	local name=$1
	shift
	if "$@" >"$WORK/output" 2>&1; then
		echo "ok - $name"
	else
		echo "not ok - $name"
		sed 's/^/# /' "$WORK/output"
		FAILED=1
	fi
}

fails() {
	! "$@"
}

# Text that the message must contain, command that must fail.
refused() {
	local text=$1
	shift
	! "$@" 2>"$WORK/refusal" && grep -e "$text" "$WORK/refusal"
}

check_refused() {
	local name=$1
	shift
	check "$name" refused "$@"
}

now_ms() {
	echo $((${EPOCHREALTIME/./} / 1000))
}

# Milliseconds, command: succeeds within them.
within() {
	local limit=$1 start
	start=$(now_ms)
	shift
	"$@" && (($(now_ms) - start <= limit))
}

pg() {
	"$PGCLUSTER" "$@"
}

# Value expected, node, statement run as the superuser.
answers() {
	local answer
	answer=$(pg psql "$DIR" "$2" -Atqc "$3") || return 1
	[[ $answer == "$1" ]] || {
		echo "expected '$1', got '$answer'"
		return 1
	}
}

# Statement, as role app, with its password, over TCP, on node 1.
as_app() {
	PGCONNECT_TIMEOUT=${TIMEOUT:-5} PGPASSFILE=${PASSFILE:-$DIR/pgpass} timeout 20 psql -XAtq -v ON_ERROR_STOP=1 \
		-c "$1" "$(pg url "$DIR" --no-password 1)"
}

# The field of a node in status: 4 state, 5 role, 6 timeline.
status_is() {
	[[ $(pg status "$DIR" | awk -v n="$1" -v f="$2" '$1 == n { print $f }') == "$3" ]]
}

# All processes of node $1, by their working directory; the harness finds them the same way, so kill's test also looks
# at what the postmaster had for children.
tree_of() {
	local postmaster
	postmaster=$(pg pid "$DIR" "$1")
	echo "$postmaster"
	ps -o pid= --ppid "$postmaster" | tr -d ' '
}

none_alive() {
	local pid state
	for pid in "$@"; do
		state=$(ps -o stat= -p "$pid" || true)
		[[ -z $state || $state == Z* ]] || {
			echo "process $pid is still there: $state"
			return 1
		}
	done
}

all_in_state() {
	local letter=$1 pid
	shift
	for pid in "$@"; do
		[[ $(ps -o stat= -p "$pid") == "$letter"* ]] || return 1
	done
}

port_closed() {
	! (exec 3<>"/dev/tcp/127.0.0.1/$(pg port "$DIR" "$1")") 2>/dev/null
}

eventually() {
	local try
	for ((try = 0; try < 100; try++)); do
		"$@" && return
		sleep 0.1
	done
	return 1
}

is_absent() {
	[[ ! -e $1 ]]
}

# ---------------------------------------------------------------------------------------------------------------

test_create() {
	local start
	start=$(now_ms)
	DIR=$(pg create 3 --sync --set log_statement=ddl)
	echo "# create 3 --sync: $(($(now_ms) - start)) ms"
	check "create takes less than 15 s" test $(($(now_ms) - start)) -lt 15000
	check "the directory is closed to others" test "$(stat -c %a "$DIR")" = 700
	check "so is the password file" test "$(stat -c %a "$DIR/pgpass")" = 600
	check "node 1 is the primary" status_is 1 5 primary
	check "node 2 is a standby" status_is 2 5 standby
	check "node 3 is a standby" status_is 3 5 standby
	check "each standby has its slot" answers 2 1 "SELECT count(*) FROM pg_replication_slots WHERE active"
	check "node 2 is synchronous, node 3 is not" answers node2 1 \
		"SELECT string_agg(application_name, ',') FROM pg_stat_replication WHERE sync_state = 'sync'"
	check "node 2 has not inherited that" answers '' 2 "SHOW synchronous_standby_names"
	check "--set reaches every node" answers ddl 3 "SHOW log_statement"
	check "the ports lie below the ephemeral range" test "$(pg port "$DIR" 1)" -lt 32768
	check "the URL has the nodes in the order asked for" test "$(pg url "$DIR" --no-password 3 1)" = \
		"postgresql://app@127.0.0.1:$(pg port "$DIR" 3),127.0.0.1:$(pg port "$DIR" 1)/app"
}

test_roles() {
	check "app comes in with its password and may create a table" as_app "CREATE TABLE t (n int); INSERT INTO t VALUES (1)"
	check "the password in the URL is right" timeout 20 psql -XAtqc "SELECT 1" "$(pg url "$DIR" 1)"
	check "app is an ordinary role" test "$(as_app "SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = 'app'")" = f
	echo "127.0.0.1:*:*:app:wrong" >"$WORK/wrong"
	chmod 600 "$WORK/wrong"
	PASSFILE=$WORK/wrong check_refused "a wrong password is refused" "password authentication failed" as_app "SELECT 1"
}

test_kill_and_start() {
	local victims
	mapfile -t victims < <(tree_of 1)
	check "a server has children" test "${#victims[@]}" -ge 5
	check "kill takes less than 2 s" within 2000 pg kill "$DIR" 1
	check "kill leaves no process" none_alive "${victims[@]}"
	check "kill leaves no listener" port_closed 1
	check "kill leaves no lock file" is_absent "$DIR/node1/postmaster.pid"
	check_refused "a dead node has no pid" "node 1 is down" pg pid "$DIR" 1
	check_refused "a dead node cannot be killed" "node 1 is down" pg kill "$DIR" 1
	check "start brings it back" pg start "$DIR" 1
	check "as the primary it was" answers f 1 "SELECT pg_is_in_recovery()"
	check "with its data" answers 1 1 "SELECT n FROM t"
	check "and its standbys" eventually answers 2 1 "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
	check_refused "a running node cannot be started" "node 1 is running" pg start "$DIR" 1
}

test_pause() {
	local frozen
	check "pause" pg pause "$DIR" 1
	mapfile -t frozen < <(tree_of 1)
	check "every process is stopped" all_in_state T "${frozen[@]}"
	check "status says so" status_is 1 4 paused
	TIMEOUT=2 check "nobody is served" fails as_app "SELECT 1"
	check_refused "a paused node cannot be stopped" "is paused" pg stop "$DIR" 1
	check "resume" pg resume "$DIR" 1
	check "it serves again" eventually as_app "SELECT 1"
}

test_stop() {
	local mode victims
	for mode in fast smart immediate; do
		mapfile -t victims < <(tree_of 3)
		check "stop $mode" pg stop "$DIR" 3 "$mode"
		check "stop $mode leaves no process" none_alive "${victims[@]}"
		check "start after stop $mode" pg start "$DIR" 3
		check "still a standby after stop $mode" answers t 3 "SELECT pg_is_in_recovery()"
	done
	check "restart" pg restart "$DIR" 3
}

test_failover() {
	local before oracle
	pg kill "$DIR" 1
	pg watch-promotion "$DIR" 2 20 >"$WORK/oracle" 2>"$WORK/oracle.err" &
	oracle=$!
	sleep 0.7
	check "a standby accepts no write before its promotion" test ! -s "$WORK/oracle"
	before=${EPOCHREALTIME/./}
	check "promote returns at once" within 500 pg promote "$DIR" 2
	check "the oracle sees the first write" wait "$oracle"
	check "after the promotion was asked for" test "$(cat "$WORK/oracle")" -gt "$before"
	echo "# promotion to first write: $((($(cat "$WORK/oracle") - before) / 1000)) ms"
	check "node 2 is a primary on timeline 2" status_is 2 6 2
	check "that waits for nobody" answers '' 2 "INSERT INTO t VALUES (2)"
	check "node 3 follows it" pg follow "$DIR" 3 2
	check "and gets its rows" eventually answers 2 3 "SELECT count(*) FROM t"
}

test_old_primary() {
	check "the old primary starts as it was" pg start "$DIR" 1
	check "as a primary" status_is 1 5 primary
	check "of the lower timeline" status_is 1 6 1
	check "that takes writes" answers '' 1 "SET synchronous_commit = local; INSERT INTO t VALUES (99)"
	check "which the new one does not see" answers 0 2 "SELECT count(*) FROM t WHERE n = 99"
	check_refused "a primary cannot follow" "use rejoin" pg follow "$DIR" 1 2
	check "rejoin makes it a standby" pg rejoin "$DIR" 1 2
	check "of the higher timeline" eventually status_is 1 6 2
	check "without the rows of the dead branch" answers 0 1 "SELECT count(*) FROM t WHERE n = 99"
	check "it streams from its own slot" answers 2 2 "SELECT count(*) FROM pg_replication_slots WHERE active"
	check "a standby can stream from a standby" pg cascade "$DIR" 3 1
	check "and gets its rows from there" answers 1 1 "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
	check_refused "a primary is followed, not cascaded from" "use follow" pg cascade "$DIR" 3 2
	check "and back" pg follow "$DIR" 3 2
	check_refused "a standby is no primary to follow" "node 1 is not a primary" pg follow "$DIR" 3 1
}

test_refusals() {
	check_refused "an unknown node" "there is no node '4'" pg kill "$DIR" 4
	check_refused "an unknown command" "unknown command" pg explode "$DIR" 1
	check_refused "a directory that is no cluster" "not the directory of a cluster" pg status "$WORK"
	check_refused "destroy of a directory that is no cluster" "not the directory of a cluster" pg destroy "$WORK"
	check_refused "a path with a space" "can stand in the path" pg create 1 --dir "$WORK/a b"
	check "which leaves no directory" is_absent "$WORK/a b"
	check_refused "a setting that the server refuses" "does not start" pg create 1 --dir "$WORK/bad" --set max_connections=x
	check "which leaves no directory either" is_absent "$WORK/bad"
}

# A create that is interrupted takes everything away again.
test_interrupted_create() {
	local creation
	"$PGCLUSTER" create 2 --dir "$WORK/cut" >"$WORK/cut.out" 2>&1 &
	creation=$!
	eventually test -f "$WORK/cut/node1/postmaster.pid" || true
	kill -TERM "$creation"
	check "an interrupted create fails" fails wait "$creation"
	check "and leaves no directory" is_absent "$WORK/cut"
	check "and no process" fails pgrep -f "postgres -D $WORK/cut"
}

test_two_clusters() {
	local first second
	pg create 2 >"$WORK/one" &
	first=$!
	pg create 2 >"$WORK/two" &
	second=$!
	check "two clusters at the same time, the first" wait "$first"
	check "the second" wait "$second"
	check "destroying one" pg destroy "$(cat "$WORK/one")"
	check "leaves the other alone" pg psql "$(cat "$WORK/two")" 2 -Atqc "SELECT 1"
	pg destroy "$(cat "$WORK/two")"
}

test_destroy() {
	local victims node
	mapfile -t victims < <(for node in 1 2 3; do tree_of "$node"; done)
	pg pause "$DIR" 2
	pg kill "$DIR" 3
	check "destroy, with one node paused and one dead" within 5000 pg destroy "$DIR"
	check "destroy leaves no process" none_alive "${victims[@]}"
	check "destroy leaves no directory" is_absent "$DIR"
	check "destroy twice is no error" pg destroy "$DIR"
	check "no shared memory is left" test "$(ipcs -m | grep -c '^0x')" -le "$SEGMENTS_BEFORE"
	DIR=
}

# ---------------------------------------------------------------------------------------------------------------

main() {
	local user
	echo "# as $(id -un)"
	SEGMENTS_BEFORE=$(ipcs -m | grep -c '^0x' || true)
	test_create
	test_roles
	test_kill_and_start
	test_pause
	test_stop
	test_failover
	test_old_primary
	test_refusals
	test_destroy
	test_interrupted_create
	test_two_clusters
	if ((EUID == 0)) && [[ ${1:-} != --once ]]; then
		user=postgres
		id -u "$user" >/dev/null 2>&1 || user=nobody
		# A copy, since the sources may lie where only root can read them.
		mkdir -p "$WORK/copy/tests/cluster" "$WORK/copy/examples"
		cp "$HERE/pgcluster" "$HERE/selftest.sh" "$WORK/copy/tests/cluster/"
		cp "$HERE/../../examples/first_write.c" "$WORK/copy/examples/"
		chmod -R a+rX "$WORK"
		(cd / && setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups env HOME=/nonexistent \
			"$WORK/copy/tests/cluster/selftest.sh" --once) || FAILED=1
	fi
	return "$FAILED"
}

main "$@"
