#!/usr/bin/env bash
# run.sh: builds and runs the tests.
#
#   tests/run.sh              every suite
#   tests/run.sh NAME...      these suites
#   tests/run.sh --list       names them
#
# Builds out of tree (build-*), in developer mode. Installs missing Debian packages as root or with sudo. A suite that
# cannot run fails. Logs go to build-test/logs. The last line is "N passed, M failed": test cases where the suite's
# programs count them (Check's summaries, "ok" and "not ok" lines), else one per suite. `run.sh sim` alone ends with a line
# "N histories, N violations" instead.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin # where servers are, and where an ordinary user's PATH does not lead

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
LOGS=$TOP/build-test/logs
JOBS=2

# Name, limit in seconds, whether it must have counted at least one test case, what it is.
SUITES=(
	"lint     600  any      layout, floors, headers, shell scripts"
	"unit     600  counted  the pure parts, without a server"
	"sim      1500 counted  the library in a simulated cluster, 100,000 random histories, and planted bugs"
	"harness  300  counted  tests/cluster/pgcluster itself, as root and as an unprivileged user"
	"cluster  1800 counted  the library on real servers"
	"fault    1200 counted  packets dropped, names that move, disks that fill: real faults in namespaces of their own"
	"asan     2400 counted  unit, cluster and some simulated histories with the address and undefined-behaviour sanitizers"
	"tsan     2400 counted  what of unit and cluster has several threads, with the thread sanitizer"
	"fuzz     600  any      the corpora, and 60 s of libFuzzer"
	"install  900  counted  make install, programs built against it, make distcheck"
	"docs     120  counted  the documents against the code"
	"demo     300  counted  examples/demo.sh, both modes"
)

say() {
	printf '%s\n' "$*"
}

die() {
	echo "run.sh: $*" >&2
	exit 2
}

# ---------------------------------------------------------------------------------------------------------------
# Packages

missing_packages() {
	local need command package
	local missing=()
	for need in cc=build-essential c++=build-essential make=build-essential autoreconf=autoconf automake=automake \
		libtoolize=libtool pkg-config=pkg-config clang=clang clang-format=clang-format shellcheck=shellcheck jq=jq \
		ps=procps psql=postgresql-client clang-tidy=clang-tidy cppcheck=cppcheck pgbouncer=pgbouncer groff=groff \
		openssl=openssl python3=python3 unshare=util-linux nft=nftables ip=iproute2; do
		command=${need%%=*} package=${need#*=}
		# Some of these lie where only root's PATH leads.
		PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null || missing+=("$package")
	done
	# The sanitizers' and the fuzzer's runtime, which clang only recommends.
	compgen -G '/usr/lib/llvm-*/lib/clang/*/lib/*/libclang_rt.fuzzer*' >/dev/null || missing+=(libclang-rt-dev)
	pkg-config --exists libpq 2>/dev/null || missing+=(libpq-dev)
	pkg-config --exists check 2>/dev/null || missing+=(check)
	pkg-config --exists libuv 2>/dev/null || missing+=(libuv1-dev)
	echo '#include <ev.h>' | cc -E - >/dev/null 2>&1 || missing+=(libev-dev)
	echo '#include <pg_query.h>' | cc -E - >/dev/null 2>&1 || missing+=(libpg-query-dev)
	compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || [[ -x $(pg_config --bindir 2>/dev/null)/initdb ]] ||
		missing+=(postgresql)
	((${#missing[@]} == 0)) || printf '%s\n' "${missing[@]}" | sort -u
}

install_missing() {
	local as_root=() missing
	mapfile -t missing < <(missing_packages)
	((${#missing[@]} > 0)) || return 0
	if ((EUID != 0)); then
		command -v sudo >/dev/null || die "please install as root: apt-get install ${missing[*]}"
		as_root=(sudo)
	fi
	say "installing ${missing[*]}"
	{
		"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
			"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
	} >"$LOGS/apt.log" 2>&1 </dev/null || {
		tail -n 20 "$LOGS/apt.log"
		die "apt-get failed"
	}
}

# ---------------------------------------------------------------------------------------------------------------
# Building

autogen() {
	local source
	for source in configure.ac Makefile.am; do
		[[ $TOP/configure -nt $TOP/$source ]] || {
			"$TOP/autogen.sh"
			return
		}
	done
}

# Directory, configure's arguments. Builds everything there and goes there.
build() {
	local directory=$TOP/$1
	shift
	mkdir -p "$directory"
	cd "$directory"
	# A directory configured for something else is configured again, from nothing.
	if [[ ! -f Makefile || "$(cat .configured 2>/dev/null)" != "$*" ]]; then
		rm -f config.cache .configured
		[[ ! -f Makefile ]] || make -s clean || true
		"$TOP/configure" "$@"
		echo "$*" >.configured
	fi
	make -j"$JOBS"
}

build_developer() {
	build build-test --enable-developer
}

# What the cluster tests need to know.
with_cluster_tools() {
	export DBHA_PGCLUSTER=$TOP/tests/cluster/pgcluster
	[[ ! -x $PWD/examples/first_write ]] || export DBHA_FIRST_WRITE=$PWD/examples/first_write
}

# Condition's name, command: one line "ok" or "not ok".
check() {
	local name=$1
	shift
	if "$@"; then
		say "ok - $name"
	else
		say "not ok - $name"
		FAILED=true
	fi
}

# ---------------------------------------------------------------------------------------------------------------
# The suites

suite_lint() {
	build_developer
	make lint
}

suite_unit() {
	build_developer
	make check-unit
}

# What happened in a history must not depend on the ones before it.
same_histories() {
	cmp <(tests/sim/sim --from 1 --count 400 --digest | sed -n 201,400p) \
		<(tests/sim/sim --from 201 --count 200 --digest | sed '$d')
}

# The plant's name: it must be found, and how soon is told.
finds_plant() {
	local name=$1 output status=0
	make -s sim-planted PLANT="$name" || return 1
	output=$("tests/sim/planted/$name/sim" --until-violation --count 40000) || status=$?
	say "$name: ${output##*$'\n'}: $(head -n 1 <<<"$output")"
	((status == 1))
}

# Two halves side by side. Prints what they found; the sum comes at the end.
run_histories() {
	local half pids=() status=0
	for half in 0 1; do
		tests/sim/sim --from $((half * 50000 + 1)) --count 50000 >"sim-$half.log" &
		pids+=($!)
	done
	for half in 0 1; do
		wait "${pids[half]}" || status=1
	done
	grep -hv ' histories, ' sim-0.log sim-1.log | head -n 40
	return "$status"
}

suite_sim() {
	local plant
	build_developer
	make tests/sim/sim
	check "a seed gives one history" same_histories
	for plant in "$TOP"/tests/sim/plants/*.patch; do
		plant=${plant##*/}
		check "the planted bug ${plant%.patch} is found" finds_plant "${plant%.patch}"
	done
	check "no history breaks a promise" run_histories
	awk '/ histories, / { n += $1; bad += $3 } END { print n + 0 " histories, " bad + 0 " violations" }' sim-[01].log
	$FAILED && return 1
	return 0
}

suite_harness() {
	"$TOP/tests/cluster/selftest.sh"
}

suite_cluster() {
	build_developer
	with_cluster_tools
	make check-cluster
}

suite_fault() {
	build_developer
	with_cluster_tools
	make check-fault
}

suite_asan() {
	export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1
	export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
	build build-asan --enable-developer --with-sanitizers=address,undefined
	with_cluster_tools
	make -k check-unit check-cluster tests/sim/sim
	check "3,000 simulated histories" tests/sim/sim --count 3000
	$FAILED && return 1
	return 0
}

suite_tsan() {
	local fixed_addresses=()
	# Some kernels spread addresses wider than the runtime of older compilers can bear.
	if setarch "$(uname -m)" -R true 2>/dev/null; then
		fixed_addresses=(setarch "$(uname -m)" -R)
	fi
	export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
	build build-tsan --enable-developer --with-sanitizers=thread
	with_cluster_tools
	"${fixed_addresses[@]}" make -k check-unit-threads check-cluster-threads
}

# The fuzzers share 60 seconds. New inputs go to a copy of the corpus: what is worth keeping is added by hand. Everything
# is built with libFuzzer's instrumentation, for it learns nothing from code without it.
suite_fuzz() {
	local source name seconds
	local names=()
	build_developer
	make check-fuzz
	build build-fuzz --enable-developer --enable-fuzzers --with-sanitizers=fuzzer-no-link,address,undefined \
		CC=clang CXX=clang++
	for source in "$TOP"/tests/fuzz/fuzz_*.c; do
		name=${source##*/fuzz_}
		names+=("${name%.c}")
	done
	seconds=$((60 / ${#names[@]}))
	for name in "${names[@]}"; do
		make "tests/fuzz/fuzz_$name"
		rm -rf "corpus-$name"
		cp -r "$TOP/tests/fuzz/corpus_$name" "corpus-$name"
		check "fuzz_$name for $seconds s" "tests/fuzz/fuzz_$name" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 \
			-print_final_stats=1 "corpus-$name"
	done
	$FAILED && return 1
	return 0
}

write_program() {
	cat <<-'END'
		#include <dbha.h>
		#include <stdio.h>
		int main(void)
		{
			dbha_error err;
			dbha *h = dbha_open("postgresql://nobody@127.0.0.1:1,127.0.0.1:2/none", &err);
			printf("%s\n", dbha_version());
			dbha_close(h, 0);
			return h == NULL;
		}
	END
}

# Prefix, output, compiler and its arguments.
compile_shared() {
	local flags
	read -ra flags < <(PKG_CONFIG_PATH=$1/lib/pkgconfig pkg-config --cflags --libs dbha)
	"${@:3}" -Wall -Wextra -pedantic -Werror -o "$2" program.c "${flags[@]}" -Wl,-rpath,"$1/lib"
}

compile_static() {
	local flags
	mapfile -t flags < <(PKG_CONFIG_PATH=$1/lib/pkgconfig pkg-config --cflags dbha | xargs -n 1
		sed -n 's/^Libs.private://p' "$1/lib/pkgconfig/dbha.pc" | xargs -n 1
		pkg-config --libs libpq | xargs -n 1)
	"${@:3}" -Wall -Wextra -pedantic -Werror -o "$2" program.c "$1/lib/libdbha.a" "${flags[@]}"
}

exports_only_ours() {
	! nm -D --defined-only "$1" | awk '$2 ~ /[TDBR]/ { print $3 }' | grep -v '^dbha_' | grep -v '^DBHA_\|^LIBDBHA_'
}

suite_install() {
	local prefix=$TOP/build-install/prefix
	rm -rf "$prefix"
	build build-install --prefix="$prefix"
	make install
	mkdir -p try
	cd try
	write_program >program.c
	check "a C program builds with pkg-config" compile_shared "$prefix" ./shared cc -std=c11
	check "it runs" ./shared
	check "it uses the shared library" grep -q "$prefix/lib/libdbha.so" <(ldd ./shared)
	check "a C++ program builds with pkg-config" compile_shared "$prefix" ./shared_cxx c++ -x c++ -std=c++11
	check "it runs" ./shared_cxx
	check "a C program builds with the static library" compile_static "$prefix" ./static cc -std=c11
	check "it runs" ./static
	check "it uses no shared libdbha" bash -c '! ldd ./static | grep libdbha'
	check "dbha.h is the only header" test "$(ls "$prefix/include")" = dbha.h
	check "nothing but dbha_* is exported" exports_only_ours "$prefix/lib/libdbha.so"
	cd ..
	check "make distcheck" make distcheck
	$FAILED && return 1
	return 0
}

suite_docs() {
	build_developer
	"$TOP/tests/docs.sh" "$PWD"
}

suite_demo() {
	build_developer
	check "the primary is killed" "$TOP/examples/demo.sh" --quick --no-build --build "$PWD"
	check "the primary is stopped" "$TOP/examples/demo.sh" --quick --no-build --build "$PWD" --mode fast
	$FAILED && return 1
	return 0
}

# ---------------------------------------------------------------------------------------------------------------
# Running them

suite_names() {
	local suite
	for suite in "${SUITES[@]}"; do
		say "${suite%% *}"
	done
}

suite_field() {
	local suite fields
	for suite in "${SUITES[@]}"; do
		read -ra fields <<<"$suite"
		[[ ${fields[0]} != "$1" ]] || say "${fields[$2]}"
	done
}

# Test cases in a log: prints how many passed and failed.
count_cases() {
	awk '
		match($0, /Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+/) {
			split(substr($0, RSTART, RLENGTH), n, /[^0-9]+/)
			passed += n[2] - n[3] - n[4]
			failed += n[3] + n[4]
		}
		/^ok / { passed++ }
		/^not ok / { failed++ }
		END { print passed + 0, failed + 0 }' "$1"
}

# Removes the suite's temporary directory, and first the clusters in it: that it has left some is a fault of the suite.
sweep_temporary() {
	local left status=0
	while IFS= read -r left; do
		say "not ok - left a cluster behind: $left"
		"$TOP/tests/cluster/pgcluster" destroy "$left" || true
		status=1
	done < <(find "$TEMPORARY" -maxdepth 3 -name pgcluster.owner -printf '%h\n')
	rm -rf "$TEMPORARY"
	TEMPORARY=
	return "$status"
}

# The suite in a process group of its own, which its time limit ends as a whole.
run_limited() {
	local limit
	limit=$(suite_field "$1" 1)
	set -m
	TMPDIR=$TEMPORARY timeout -k 30 "$limit" "$TOP/tests/run.sh" --suite "$1" </dev/null &
	RUNNING=$!
	set +m
	local status=0
	wait "$RUNNING" || status=$?
	RUNNING=
	((status != 124)) || say "run.sh: not finished after $limit s"
	return "$status"
}

run_suite() {
	local name=$1 log=$LOGS/$1.log start=$SECONDS status=0 passed failed word=passed
	# Short, since Unix sockets lie in it, and open, as /tmp is, to the unprivileged user that servers run as.
	TEMPORARY=$(mktemp -d /tmp/dbha-tests.XXXXXX)
	chmod 1777 "$TEMPORARY"
	run_limited "$name" >"$log" 2>&1 || status=$?
	sweep_temporary >>"$log" 2>&1 || status=1

	read -r passed failed < <(count_cases "$log")
	if ((passed + failed == 0)) && [[ $(suite_field "$name" 2) == counted ]] && ((status == 0)); then
		echo "run.sh: not one test case was run" >>"$log"
		status=1
	fi
	((status == 0 || failed > 0)) || failed=1
	((passed + failed > 0)) || passed=1
	if ((status != 0 || failed > 0)); then
		word=FAILED
		say "---- $name: the end of $log"
		tail -n 60 "$log"
		say "----"
	fi
	SUMMARY+=("$(printf '%-8s %-7s %4d s  %d passed, %d failed' "$name" "$word" $((SECONDS - start)) "$passed" "$failed")")
	say "${SUMMARY[-1]}"
	PASSED_CASES=$((PASSED_CASES + passed))
	FAILED_CASES=$((FAILED_CASES + failed))
}

stop_running() {
	trap - EXIT
	# timeout hands the signal on to the whole group; the scripts in it clean up after themselves.
	[[ -z $RUNNING ]] || { kill -s TERM "$RUNNING" && wait "$RUNNING"; } 2>/dev/null || true
	[[ -z $TEMPORARY ]] || sweep_temporary >/dev/null 2>&1 || true
	exit 130
}

main() {
	local name
	local names=("$@")
	cd "$TOP"
	mkdir -p "$LOGS"
	((${#names[@]} > 0)) || mapfile -t names < <(suite_names)
	for name in "${names[@]}"; do
		suite_names | grep -qx -e "$name" || die "there is no suite '$name'; see --list"
	done
	RUNNING='' TEMPORARY=''
	SUMMARY=() PASSED_CASES=0 FAILED_CASES=0
	trap stop_running INT TERM
	install_missing
	autogen >"$LOGS/autogen.log" 2>&1 || {
		tail -n 20 "$LOGS/autogen.log"
		die "autogen.sh failed"
	}
	for name in "${names[@]}"; do
		run_suite "$name"
	done
	say ""
	say "Summary:"
	printf '  %s\n' "${SUMMARY[@]}"
	say "$PASSED_CASES passed, $FAILED_CASES failed"
	# Asked for alone, this suite ends with its own sum.
	[[ ${names[*]} != sim ]] || grep -E '^[0-9]+ histories, [0-9]+ violations$' "$LOGS/sim.log" | tail -n 1
	((FAILED_CASES == 0))
}

case ${1:-} in
--list)
	suite_names
	;;
--help | -h)
	sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
	printf '\nSuites:\n'
	printf '  %s\n' "${SUITES[@]}" | sed -E 's/^(  [a-z]+ +)[0-9]+ +[a-z]+ +/\1/'
	;;
--suite) # of run_suite
	FAILED=false
	cd "$TOP"
	"suite_$2"
	;;
-*) die "unknown option '$1'; see --help" ;;
*) main "$@" ;;
esac
