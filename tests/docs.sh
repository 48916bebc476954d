#!/usr/bin/env bash
# docs: the documentation against the code. Usage: docs.sh BUILD_DIRECTORY (built).
# Prints one line a check and "N passed, M failed" at the end.
set -u
cd "$(dirname "$0")/.." || exit 1
build=$1
passed=0
failed=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

check() { # check WHAT COMMAND...: runs the command and counts
	local what=$1
	shift
	if "$@" >"$work/output" 2>&1; then
		passed=$((passed + 1))
		printf 'ok - %s\n' "$what"
	else
		failed=$((failed + 1))
		printf 'not ok - %s\n' "$what"
		cat "$work/output"
	fi
}

# The C programs of the documents, marked as such, compile and link.
c_programs() {
	awk -v dir="$work" '
		/<!-- test: compile -->/ { armed = 1; next }
		armed && /^```c$/ { file = dir "/program" ++n ".c"; next }
		/^```$/ { file = ""; armed = 0 }
		file { print > file }' README.md docs/*.md
	[ -e "$work/program1.c" ] || return 1
	local program
	for program in "$work"/program*.c; do
		# shellcheck disable=SC2046 # flags are meant to be split
		cc -Wall -Wextra -Werror -Iinclude "$program" -o "${program%.c}" -L"$build/.libs" -ldbha \
			$(pkg-config --cflags --libs libpq) || return 1
	done
}

# The table of options in the README is the one the library prints.
readme_options() {
	diff <(sed -n '/<!-- begin: dbha options/,/<!-- end: dbha options/p' README.md | grep '^|') \
		<("$build/examples/dbha" options --markdown | grep '^|')
}

# The tables of docs/retry.md are the library's.
retry_tables() {
	make -s -C "$build" tests/retry_table >"$work/make.log" 2>&1 || { cat "$work/make.log"; return 1; }
	diff <(sed -n '/<!-- begin: tests\/retry_table/,/<!-- end: tests\/retry_table/p' docs/retry.md | grep -E '^[|#]') \
		<("$build/tests/retry_table" | grep -E '^[|#]')
}

# Each class of errors that the server of this machine knows has a row there.
retry_classes() {
	local list class bad=0 n=0
	list=$(pg_config --sharedir)/errcodes.txt
	[ -e "$list" ] || list=$(printf '%s\n' /usr/share/postgresql/*/errcodes.txt | tail -n 1)
	while read -r class; do
		n=$((n + 1))
		grep -q "^| $class\.\.\. |" docs/retry.md || { echo "no row for class $class"; bad=1; }
	done < <(sed -n 's/^Section: Class \(..\).*/\1/p' "$list")
	[ "$n" -gt 40 ] && return "$bad"
}

# Each public function has each line of the template.
header_template() {
	awk '
		/^\/\*$/ { text = "" }
		{ text = text $0 "\n" }
		/^DBHA_API / {
			n = split("Returns: Errors: Threads: Blocking: Ownership: Fork:", words, " ")
			for (i = 1; i <= n; i++)
				if (!index(text, words[i])) { print $0 ": no \"" words[i] "\""; bad = 1 }
		}
		END { exit bad }' include/dbha.h
}

# A manual page a function, which man can read without a warning.
manual_pages() {
	local page
	awk -v dir="$work" -v version=0 -f docs/mkman.awk include/dbha.h
	diff <(basename -s .3 "$work"/*.3 | sort) <(grep -oE '\bdbha_[a-z_]+;' lib/dbha.map | tr -d ';' | sort) || return 1
	for page in "$work"/*.3 docs/dbha.1; do
		groff -man -Tutf8 -ww "$page" 2>&1 >/dev/null | grep . && return 1
	done
	return 0
}

# Every file that the documents point to exists.
links() {
	local document target bad=0
	for document in README.md HACKING.md docs/*.md; do
		while read -r target; do
			[ -e "$(dirname "$document")/$target" ] || { echo "$document: $target"; bad=1; }
		done < <(grep -oE '\]\([^)#:]+\)' "$document" | sed 's/^](//; s/)$//')
	done
	return "$bad"
}

# A file says in its first lines what its one job is; a .c may leave that to its .h.
first_words() {
	local file bad=0
	for file in include/*.h lib/*.[ch] lib/*/*.[ch] examples/*.[ch] tests/*/*.[ch] bench/*.c; do
		[ "${file%.c}" = "$file" ] || [ ! -e "${file%.c}.h" ] || continue
		case $(head -c 2 "$file") in
		'/*') ;;
		*) echo "$file begins without a word on its job" && bad=1 ;;
		esac
	done
	return "$bad"
}

check "the C programs of the documents compile" c_programs
check "the table of options of the README is the library's" readme_options
check "the tables of docs/retry.md are the library's" retry_tables
check "each class of errors has a row in docs/retry.md" retry_classes
check "each public function is documented by the template" header_template
check "a manual page for each public function" manual_pages
check "links lead somewhere" links
check "each file says its job" first_words
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
