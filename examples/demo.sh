#!/usr/bin/env bash
# demo.sh: a cluster loses its primary while an application writes and reads through libdbha. What does it notice?
#
# One primary and two streaming standbys on this machine, in a temporary directory; `dbha drill` is the application.
# The primary is killed, a standby promoted, and later the OLD primary is started again as it was: it comes back as a
# second primary, it takes writes, and it is the first host in the URL. No write must land on it.
#
#   --mode kill|fast   how the primary goes: SIGKILL to the whole server (the default), or an orderly fast stop
#   --async            no synchronous standby; acknowledged writes may then die with the primary
#   --runs N           N times, each with a new cluster; medians and worst at the end
#   --quick            shorter waits
#   --keep             leave the cluster up at the end, and say how to use it
#   --no-build         use what is in the build directory
#   --build DIR        the build directory (build-demo in the source tree)
#
# Installs missing Debian packages (as root or with sudo). The last line is one JSON object. Exit status 0 only if
# something was acknowledged after the promotion, nothing is lost or duplicated, no read failed, the old primary was
# up and took writes, and yet the application wrote nothing on it.
#
# Three numbers do not come from the library: when the new primary accepted its first write (examples/first_write.c),
# and which rows lie on either primary that were committed after that moment (the servers' own commit timestamps).
set -euo pipefail
export LC_ALL=C PGCLUSTER_PSQL_SECONDS=30

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PGCLUSTER=$TOP/tests/cluster/pgcluster
BUILD=$TOP/build-demo
BUILDING=true
MODE='kill'
SYNC=true
RUNS=1
KEEP=false
# Seconds before the primary goes, between the promotion and the old primary's return, and after that.
BEFORE=3 BETWEEN=5 AFTER=5

WORK=  # temporary files of this demo
DIR=   # the cluster
DRILL= # pid
ORACLE=

die() {
	echo "demo: $*" >&2
	exit 1
}

say() {
	printf '%s  %s\n' "$(date +%H:%M:%S)" "$*"
}

now_us() {
	echo "${EPOCHREALTIME/./}"
}

usage() {
	sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
}

parse_arguments() {
	while (($# > 0)); do
		case $1 in
		--async) SYNC=false ;;
		--quick) BEFORE=1.5 BETWEEN=2.5 AFTER=3 ;;
		--keep) KEEP=true ;;
		--no-build) BUILDING=false ;;
		--mode | --runs | --build)
			(($# > 1)) || die "$1 needs a value"
			case $1 in
			--mode) MODE=$2 ;;
			--runs) RUNS=$2 ;;
			--build) BUILD=$2 ;;
			esac
			shift
			;;
		--help | -h)
			usage
			exit 0
			;;
		*) die "unknown option '$1'; see --help" ;;
		esac
		shift
	done
	[[ $MODE == kill || $MODE == fast ]] || die "--mode takes kill or fast, not '$MODE'"
	[[ $RUNS =~ ^[1-9][0-9]{0,3}$ ]] || die "--runs takes a number from 1, not '$RUNS'"
}

# ---------------------------------------------------------------------------------------------------------------
# Preparation

have_server() {
	local initdb
	for initdb in "${PGBIN:-/nowhere}/initdb" /usr/lib/postgresql/*/bin/initdb "$(pg_config --bindir 2>/dev/null)/initdb"; do
		[[ ! -x $initdb ]] || return 0
	done
	return 1
}

missing_packages() {
	local missing=()
	have_server || missing+=(postgresql)
	command -v psql >/dev/null || missing+=(postgresql-client)
	command -v jq >/dev/null || missing+=(jq)
	if [[ $BUILDING == true ]]; then
		command -v cc >/dev/null && command -v c++ >/dev/null && command -v make >/dev/null || missing+=(build-essential)
		command -v autoreconf >/dev/null || missing+=(autoconf)
		command -v automake >/dev/null || missing+=(automake)
		command -v libtoolize >/dev/null || missing+=(libtool)
		command -v pkg-config >/dev/null || missing+=(pkg-config)
		pkg-config --exists libpq 2>/dev/null || missing+=(libpq-dev)
	fi
	echo "${missing[*]}"
}

install_missing() {
	local as_root=() missing
	read -ra missing <<<"$(missing_packages)"
	((${#missing[@]} > 0)) || return 0
	if ((EUID != 0)); then
		command -v sudo >/dev/null || die "please install as root: apt-get install ${missing[*]}"
		as_root=(sudo)
	fi
	command -v apt-get >/dev/null || die "these Debian packages, or what corresponds to them, are missing: ${missing[*]}"
	say "installing ${missing[*]}"
	{
		"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
			"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
	} >"$WORK/apt.log" 2>&1 </dev/null || {
		tail -n 20 "$WORK/apt.log" >&2
		die "apt-get failed"
	}
}

build() {
	say "building in ${BUILD#"$TOP"/}"
	{
		mkdir -p "$BUILD" &&
			{ [[ $TOP/configure -nt $TOP/configure.ac ]] || "$TOP/autogen.sh"; } &&
			cd "$BUILD" &&
			{ [[ -f Makefile ]] || "$TOP/configure"; } &&
			make -j"$(nproc)"
	} >"$WORK/build.log" 2>&1 </dev/null || {
		tail -n 30 "$WORK/build.log" >&2
		die "the build failed"
	}
	cd "$TOP"
}

find_programs() {
	[[ -x $BUILD/examples/dbha ]] || die "$BUILD/examples/dbha is not there: leave out --no-build"
	export DBHA_FIRST_WRITE=$BUILD/examples/first_write
	if [[ ! -x $DBHA_FIRST_WRITE ]]; then
		DBHA_FIRST_WRITE=$WORK/first_write
		# shellcheck disable=SC2046 # the flags are meant to be split
		"${CC:-cc}" -O2 -o "$DBHA_FIRST_WRITE" "$TOP/examples/first_write.c" $(pkg-config --cflags --libs libpq) ||
			die "examples/first_write.c cannot be compiled"
	fi
	chmod -R a+rX "$WORK"
}

# ---------------------------------------------------------------------------------------------------------------
# Cleaning up

is_running() {
	[[ -n $1 ]] && kill -0 "$1" 2>/dev/null
}

# Asks process $1, our child, to end by signal $2, and after $3 seconds makes it.
end_process() {
	local end=$((SECONDS + $3))
	kill -s "$2" "$1" 2>/dev/null || return 0
	while is_running "$1" && ((SECONDS < end)); do
		sleep 0.05
	done
	! is_running "$1" || kill -s KILL "$1" 2>/dev/null || true
}

cleanup() {
	local status=$?
	trap - EXIT
	trap '' INT TERM # a second Ctrl-C must not leave servers behind
	[[ -z $DRILL ]] || end_process "$DRILL" TERM 3
	[[ -z $ORACLE ]] || end_process "$ORACLE" TERM 3
	[[ -z $DIR ]] || "$PGCLUSTER" destroy "$DIR" || status=1
	[[ -z $WORK ]] || rm -rf "$WORK"
	exit "$status"
}

# ---------------------------------------------------------------------------------------------------------------
# One failover

sql() {
	"$PGCLUSTER" psql "$DIR" "$1" -Atqc "$2"
}

drill_failed() {
	echo "demo: $1. The drill said:" >&2
	tail -n 30 "$WORK/drill.log" >&2
	exit 1
}

make_cluster() {
	local options=(3 --set track_commit_timestamp=on)
	[[ $SYNC == false ]] || options+=(--sync)
	DIR=$("$PGCLUSTER" create "${options[@]}")
	URL=$("$PGCLUSTER" url "$DIR" --no-password)
	export PGPASSFILE=$DIR/pgpass # no password in an argument list
	say "cluster up: node 1 primary, node 2 $([[ $SYNC == true ]] && echo synchronous || echo asynchronous)" \
		"standby, node 3 asynchronous standby"
}

start_drill() {
	local rows=0 deadline=$((SECONDS + 30))
	rm -f "$WORK/drill.json"
	# Monitor mode gives the drill a process group of its own, and does not make it ignore SIGINT.
	set -m
	"$BUILD/examples/dbha" drill "$URL" --writers 4 --readers 4 --duration 1h --keep-table --json "$WORK/drill.json" \
		</dev/null >"$WORK/drill.log" 2>&1 &
	DRILL=$!
	set +m
	until ((rows > 0)); do
		is_running "$DRILL" || drill_failed "the drill ended before it began"
		((SECONDS < deadline)) || drill_failed "the drill wrote nothing within 30 s"
		sleep 0.1
		TABLE=$(sql 1 "SELECT relname FROM pg_class WHERE relname LIKE 'dbha\_drill\_%' AND relkind = 'r'")
		[[ -z $TABLE ]] || rows=$(sql 1 "SELECT count(*) FROM $TABLE")
	done
	say "the drill writes and reads: 4 writers, 4 readers"
}

lose_primary() {
	LOST_US=$(now_us)
	if [[ $MODE == kill ]]; then
		say "SIGKILL to every process of node 1"
		"$PGCLUSTER" kill "$DIR" 1
	else
		say "fast stop of node 1"
		"$PGCLUSTER" stop "$DIR" 1 fast
	fi
}

promote_standby() {
	sleep 0.4
	"$PGCLUSTER" watch-promotion "$DIR" 2 30 >"$WORK/oracle" 2>"$WORK/oracle.err" &
	ORACLE=$!
	sleep 0.1 # it connects
	[[ ! -s $WORK/oracle ]] || die "node 2 accepted a write before its promotion"
	PROMOTE_US=$(now_us)
	"$PGCLUSTER" promote "$DIR" 2
	wait "$ORACLE" || die "node 2 accepted no write after its promotion: $(cat "$WORK/oracle.err")"
	ORACLE=
	ORACLE_US=$(cat "$WORK/oracle")
	say "node 2 promoted; it accepted its first write $(((ORACLE_US - PROMOTE_US) / 1000)) ms after the request"
	# Before the old primary is back: otherwise node 3 would follow that one, and be lost for the new history.
	sleep 0.5
	"$PGCLUSTER" follow "$DIR" 3 2
	say "node 3 follows node 2"
}

# A demonstration against an old primary that nobody could have written to would prove nothing.
check_old_primary() {
	local timelines
	[[ $(sql 1 "SELECT pg_is_in_recovery()") == f ]] || die "the old primary is no primary: the demo proves nothing"
	timelines=$(for node in 1 2; do sql "$node" "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"; done)
	[[ $timelines == $'00000001\n00000002' ]] || die "expected timelines 1 and 2, found ${timelines//$'\n'/ and }"
	sql 1 "SET synchronous_commit = local; SET client_min_messages = warning; CREATE TABLE IF NOT EXISTS demo_probe (at timestamptz);
		INSERT INTO demo_probe VALUES (clock_timestamp())" || die "the old primary takes no writes: the demo proves nothing"
}

# Where a program that tries the hosts in order, which is what libpq does with this URL, would write now.
check_naive_client() {
	local port
	port=$(PGCONNECT_TIMEOUT=5 timeout 10 psql -XAtqc "SHOW port" "$URL?target_session_attrs=read-write")
	[[ $port == "$("$PGCLUSTER" port "$DIR" 1)" ]] ||
		die "plain libpq with this URL does not choose the old primary: the demo proves nothing"
	say "plain libpq with the same URL would now write to node 1: the dead branch of history"
}

old_primary_returns() {
	"$PGCLUSTER" start "$DIR" 1
	check_old_primary
	say "the OLD primary, node 1, is up again as it was: a second primary, on timeline 1; it takes writes"
	check_naive_client
}

stop_drill() {
	is_running "$DRILL" || drill_failed "the drill ended too early"
	say "stopping the drill"
	end_process "$DRILL" INT 60
	DRILL_STATUS=0
	wait "$DRILL" 2>/dev/null || DRILL_STATUS=$?
	DRILL=
	[[ -s $WORK/drill.json ]] || drill_failed "the drill left no verdict (exit status $DRILL_STATUS)"
	[[ $TABLE == "$(jq -r .table "$WORK/drill.json")" ]] || drill_failed "the drill used another table than $TABLE"
}

# Rows of the drill on node $1 that were committed after the new primary accepted writes.
rows_after_promotion() {
	sql "$1" "SELECT count(*) FROM $TABLE WHERE pg_xact_commit_timestamp(xmin) > to_timestamp($ORACLE_US / 1000000.0)"
}

# A commit that waits for the synchronous standby is on disk, but cannot be seen yet: let it through before counting.
release_waiting_commits() {
	[[ $SYNC == true ]] || return 0
	sql 1 "ALTER SYSTEM SET synchronous_standby_names = ''"
	sql 1 "SELECT pg_reload_conf()" >/dev/null
	sleep 1
	sql 1 "ALTER SYSTEM RESET synchronous_standby_names"
}

# One line of JSON: what the drill says, and what was found without it.
judge() {
	release_waiting_commits
	jq -c --argjson lost_us "$LOST_US" --argjson promote_us "$PROMOTE_US" --argjson oracle_us "$ORACLE_US" \
		--argjson status "$DRILL_STATUS" --argjson stale "$(rows_after_promotion 1)" \
		--argjson later "$(rows_after_promotion 2)" --argjson rows "$(sql 2 "SELECT count(*) FROM $TABLE")" \
		--arg mode "$MODE" --argjson sync "$SYNC" '
		([.outages[] | select(.kind == "write" and .end_unix_us > $lost_us)] | max_by(.length_ms)) as $outage
		| {acked, lost, duplicated, unknown, unknown_present, write_errors, lies: (.lies // 0), reads, read_errors,
		   stale_reads, stale_writes: (if .stale_writes == null then null else [.stale_writes, $stale] | max end),
		   write_outage_ms: $outage.length_ms,
		   after_promotion_ms: (if $outage then ($outage.end_unix_us - $oracle_us) / 1000 else null end),
		   promotion_ms: (($oracle_us - $promote_us) / 1000), rows: $rows, rows_after_promotion: $later,
		   drill_status: $status, mode: $mode, sync: $sync, old_primary_writable: true}
		| .faults = [
		    (if .lost != 0 then "acknowledged writes were lost" else empty end),
		    (if .duplicated != 0 then "rows were written twice" else empty end),
		    (if .lies != 0 then "writes that were reported as not done are there" else empty end),
		    (if .stale_writes != 0 then "rows were written on the old primary after the new one was there" else empty end),
		    (if .read_errors != 0 then "reads failed" else empty end),
		    (if .acked > 0 then empty else "no write was acknowledged" end),
		    (if .rows_after_promotion > 0 then empty else "nothing was written after the promotion" end),
		    (if .write_outage_ms == null then "the drill saw no outage of writes" else empty end),
		    (if .rows < .acked - (.lost // 0) then "the new primary has fewer rows than were acknowledged" else empty end),
		    (if .drill_status != 0 then "the drill ended with status \(.drill_status)" else empty end)]
		| .passed = (.faults == [])' "$WORK/drill.json"
}

# Number of the run.
fail_over() {
	((RUNS == 1)) || say "run $1 of $RUNS"
	make_cluster
	start_drill
	sleep "$BEFORE"
	lose_primary
	promote_standby
	sleep "$BETWEEN"
	old_primary_returns
	sleep "$AFTER"
	check_old_primary
	stop_drill
	judge >"$WORK/run.json"
	cat "$WORK/run.json" >>"$WORK/runs.json"
	((RUNS == 1)) || say "$(jq -r '"outage \(.write_outage_ms) ms, \(.after_promotion_ms) ms of it after the promotion; "
		+ if .passed then "passed" else "FAILED: " + (.faults | join("; ")) end' "$WORK/run.json")"
	jq -e .passed "$WORK/run.json" >/dev/null || cp "$WORK/drill.log" "$WORK/failed.log"
}

# ---------------------------------------------------------------------------------------------------------------
# The verdict

# Sums of the counts, medians and worst of the times, over all runs.
summarize() {
	jq -cs '
		def total(f): if any(.[]; f == null) then null else (map(f) | add) end;
		def known(f): map(f | select(. != null)) | sort;
		def median(f): known(f) | if length == 0 then null
			elif length % 2 == 1 then .[(length - 1) / 2] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
		def worst(f): known(f) | last;
		{acked: total(.acked), lost: total(.lost), duplicated: total(.duplicated), unknown: total(.unknown),
		 unknown_present: total(.unknown_present), write_errors: total(.write_errors), lies: total(.lies),
		 stale_writes: total(.stale_writes), reads: total(.reads), read_errors: total(.read_errors),
		 stale_reads: total(.stale_reads), rows_after_promotion: total(.rows_after_promotion),
		 write_outage_ms: median(.write_outage_ms), write_outage_ms_worst: worst(.write_outage_ms),
		 after_promotion_ms: median(.after_promotion_ms), after_promotion_ms_worst: worst(.after_promotion_ms),
		 promotion_ms: median(.promotion_ms), mode: .[0].mode, sync: .[0].sync, runs: length,
		 runs_passed: (map(select(.passed)) | length), old_primary_writable: all(.[]; .old_primary_writable),
		 faults: (map(.faults[]) | unique), passed: all(.[]; .passed)}' "$WORK/runs.json"
}

print_verdict() {
	jq -r '
		def n(x): if x == null then "?" else x | tostring end;
		def ms(x): if x == null then "?" else (x * 10 | round) / 10 | tostring end;
		"",
		(if .passed then "PASSED: the application went on, and nothing it was promised is missing."
		 else "FAILED: " + (.faults | join("; ")) + "." end),
		"",
		"  writes    \(n(.acked)) acknowledged: \(n(.lost)) lost, \(n(.duplicated)) duplicated",
		"            \(n(.unknown)) of unknown outcome (reported as such; \(n(.unknown_present)) of them are there)",
		"            \(n(.rows_after_promotion)) rows written on the new primary",
		"            \(n(.stale_writes)) rows written on the OLD primary, which was up, took writes, and is first in the URL",
		"  reads     \(n(.reads)) answered, \(n(.read_errors)) failed",
		if .runs == 1 then
		"  outage    no write acknowledged for \(ms(.write_outage_ms)) ms, from the loss of the primary on",
		"            \(ms(.after_promotion_ms)) ms of that after the new primary accepted writes: the client'"'"'s share"
		else
		"  outage    median \(ms(.write_outage_ms)) ms, worst \(ms(.write_outage_ms_worst)) ms without an acknowledged write",
		"            median \(ms(.after_promotion_ms)) ms, worst \(ms(.after_promotion_ms_worst)) ms of that after the new primary accepted writes",
		"  runs      \(.runs_passed) of \(.runs) passed"
		end,
		if .lost != 0 and (.sync | not) then
		"  (Without a synchronous standby an old primary takes along what it had not sent yet: no client can bring it back.)"
		else empty end,
		""' "$WORK/summary.json"
}

explain_keep() {
	cat <<-END
		The cluster is still up, in $DIR
		  status:    $PGCLUSTER status $DIR
		  its URL:   $("$PGCLUSTER" url "$DIR")
		  try:       $BUILD/examples/dbha status '$("$PGCLUSTER" url "$DIR")'
		  heal:      $PGCLUSTER rejoin $DIR 1 2
		  break:     $PGCLUSTER help
		  remove:    $PGCLUSTER destroy $DIR

	END
}

main() {
	local run
	parse_arguments "$@"
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	WORK=$(mktemp -d "${TMPDIR:-/tmp}/dbha-demo.XXXXXX")
	install_missing
	[[ $BUILDING == false ]] || build
	BUILD=$(cd "$BUILD" 2>/dev/null && pwd) || die "there is no build directory: leave out --no-build"
	find_programs
	for ((run = 1; run <= RUNS; run++)); do
		fail_over "$run"
		if [[ $KEEP == false ]] || ((run < RUNS)); then
			"$PGCLUSTER" destroy "$DIR"
			DIR=
		fi
	done
	summarize >"$WORK/summary.json"
	if [[ -f $WORK/failed.log ]]; then
		echo "The drill's own report (of the last run that failed):"
		tail -n 40 "$WORK/failed.log" | sed 's/^/  | /'
	fi
	print_verdict
	if [[ $KEEP == true ]]; then
		sql 2 "DROP TABLE $TABLE"
		explain_keep
		DIR=
	fi
	cat "$WORK/summary.json"
	jq -e .passed "$WORK/summary.json" >/dev/null
}

main "$@"
