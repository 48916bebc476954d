#!/usr/bin/env bash
# build.sh BUILD_DIRECTORY: compiles the benchmarks against the library built there (configured with optimisation; a
# sanitizer or --enable-developer would be measured as well), into BUILD_DIRECTORY/bench.
set -euo pipefail
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$(cd "${1:?build directory}" && pwd)
[ -e "$BUILD/.libs/libdbha.so" ] || {
	echo "$BUILD/.libs/libdbha.so is missing: run make there first" >&2
	exit 1
}
mkdir -p "$BUILD/bench"
read -ra PQ <<<"$(pkg-config --cflags --libs libpq)"
for program in batch pipelined open_loop prepared_select transaction consistency acquire_release fairness herd monitor_cost; do
	"${CC:-cc}" -std=gnu11 -O2 -g -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Werror \
		-I"$TOP/include" "$TOP/bench/$program.c" "$TOP/bench/bench.c" -o "$BUILD/bench/$program" \
		-L"$BUILD/.libs" -ldbha "${PQ[@]}" -lpthread -Wl,-rpath,"$BUILD/.libs"
done
