#!/usr/bin/env bash
# lint: what a compiler does not say. The floors, the symbols, the annotations, the shell scripts, the static analysers.
# Usage: lint.sh BUILD_DIRECTORY (configured and built). Every check runs; one that cannot run counts as failed.
set -u
cd "$(dirname "$0")/.." || exit 1
build=$1
failed=0

say_failed() { # say_failed WHAT
	printf 'lint: %s\n' "$*"
	failed=1
}

# A file includes its own floor or a lower one. base < policy < wire < runtime < the public calls.
check_floors() {
	local floors=(base policy wire runtime) i k header name
	for i in "${!floors[@]}"; do
		for ((k = i + 1; k < ${#floors[@]}; k++)); do
			for header in lib/"${floors[k]}"/*.h; do
				name=$(basename "$header")
				grep -nH "#include \"\(.*/\)\?$name\"" lib/"${floors[i]}"/*.[ch] &&
					say_failed "the floor ${floors[i]} includes $header of a higher one"
			done
		done
		for header in lib/*.h; do
			grep -nH "#include \"\(.*/\)\?$(basename "$header")\"" lib/"${floors[i]}"/*.[ch] &&
				say_failed "the floor ${floors[i]} includes $header of the public calls"
		done
	done
}

# libpq is reached from the wire floor, and from what is built on it only through that floor's headers.
check_libpq() {
	grep -nH 'include.*libpq-fe\.h' lib/base/*.[ch] lib/policy/*.[ch] lib/runtime/*.[ch] lib/*.[ch] &&
		say_failed "only lib/wire includes libpq-fe.h"
	grep -nHE '\bPQ[a-z][A-Za-z]+\(' lib/base/*.[ch] lib/policy/*.[ch] lib/runtime/*.[ch] lib/*.c | grep -v 'PQclear(' &&
		say_failed "only lib/wire calls libpq (PQclear excepted: it frees a result)"
}

# A library does not end the process, print, or install signal handlers.
check_symbols() {
	local library=$build/.libs/libdbha.so
	[ -e "$library" ] || { say_failed "$library has not been built"; return; }
	# abort is for lock ranks in developer builds alone; the others never.
	nm -D --undefined-only "$library" | grep -wE 'exit|_exit|printf|puts|perror|signal|sigaction|fprintf|vfprintf' &&
		say_failed "libdbha.so uses a function that a library must not"
	diff <(nm -D --defined-only "$library" | awk '$2 == "T" {sub(/@.*/, "", $3); print $3}' | sort) \
		<(grep -oE '\bdbha_[a-z_]+;' lib/dbha.map | tr -d ';' | sort) ||
		say_failed "the exported symbols and lib/dbha.map differ"
	diff <(grep -oE '^DBHA_API .*\b(dbha_[a-z_]+)\(' include/dbha.h | grep -oE 'dbha_[a-z_]+\($' | tr -d '(' | sort) \
		<(grep -oE '\bdbha_[a-z_]+;' lib/dbha.map | tr -d ';' | sort) ||
		say_failed "the functions of include/dbha.h and lib/dbha.map differ"
}

# The header compiles alone, in C and in C++.
check_headers() {
	cc -std=c11 -Wall -Wextra -Werror -pedantic -fsyntax-only -x c include/dbha.h || say_failed "include/dbha.h as C"
	c++ -Wall -Wextra -Werror -fsyntax-only -x c++ include/dbha.h || say_failed "include/dbha.h as C++"
}

includes() {
	printf -- '-I%s ' "$build" include lib lib/base lib/policy lib/wire lib/runtime
	pkg-config --cflags libpq
}

# clang's thread-safety analysis, with the annotations of lib/base/sync.h.
check_thread_safety() {
	local file
	for file in lib/*.c lib/*/*.c; do
		# shellcheck disable=SC2046 # the words of includes are meant to be split
		clang -std=gnu11 -D_GNU_SOURCE -fsyntax-only -Wthread-safety -Werror $(includes) "$file" ||
			say_failed "clang -Wthread-safety: $file"
	done
}

check_cppcheck() {
	# shellcheck disable=SC2046
	cppcheck --quiet --std=c11 --error-exitcode=1 --enable=warning,performance,portability --inline-suppr \
		-D__GNUC__=12 -D_GNU_SOURCE $(includes | tr ' ' '\n' | grep -v /usr/include) lib || say_failed "cppcheck"
}

check_clang_tidy() {
	# shellcheck disable=SC2046
	# One file a process: with several, clang 14's analyser takes every va_list for uninitialised.
	printf '%s\n' lib/*.c lib/*/*.c | xargs -P "$(nproc)" -I FILE clang-tidy --quiet --warnings-as-errors='*' FILE -- \
		-std=gnu11 -D_GNU_SOURCE $(includes) 2>/dev/null || say_failed "clang-tidy"
}

check_format() {
	clang-format --dry-run -Werror lib/*.[ch] lib/*/*.[ch] || say_failed "clang-format -i mends these"
}

check_shell() {
	shellcheck -x tests/*.sh tests/cluster/pgcluster tests/*/*.sh examples/*.sh bench/*.sh .ci/run autogen.sh || say_failed "shellcheck"
}

# No machine's private paths, and no registry host, in what is committed.
check_words() {
	git ls-files 2>/dev/null | grep -v '^tests/lint.sh$' | xargs -r grep -nIE '/root/|/home/[a-z]|/work/' &&
		say_failed "a private path"
}

check_floors
check_libpq
check_symbols
check_headers
check_thread_safety
check_cppcheck
check_clang_tidy
check_format
check_shell
check_words
[ "$failed" = 0 ] && echo "lint: all checks passed"
exit "$failed"
