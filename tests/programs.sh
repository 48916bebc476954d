#!/usr/bin/env bash
# programs.sh: runs test programs, several at a time, and shows what each says when it has ended.
#
#   programs.sh [--alone "PROGRAM..."] [--without "PROGRAM..."] [--together N] PROGRAM...
#
# Those of --without are left out. Those of --alone come first and one after the other: what they measure must not be that of their neighbours. Then N (2) at a
# time: most of a cluster test is waiting. Every program is run even after one has failed, so that one run shows all there is to mend.
set -euo pipefail

ALONE=" " WITHOUT=" " TOGETHER=2
while [[ ${1:-} == --* ]]; do
	case $1 in
	--alone) ALONE=" $2 " ;;
	--without) WITHOUT=" $2 " ;;
	--together) TOGETHER=$2 ;;
	*)
		echo "programs.sh: unknown option $1" >&2
		exit 2
		;;
	esac
	shift 2
done

run_one() {
	local log status=0
	log=$(mktemp)
	"./$1" >"$log" 2>&1 || status=$?
	# In one write, so that two that end at a time do not mix.
	printf '%s\n' "== $1 ($SECONDS s)$( ((status == 0)) || echo " FAILED")
$(<"$log")"
	rm -f "$log"
	return "$status"
}
if [[ ${1:-} == one ]]; then
	SECONDS=0
	run_one "$2"
	exit
fi

status=0 together=()
for program; do
	if [[ $WITHOUT == *" $program "* ]]; then
		continue
	elif [[ $ALONE == *" $program "* ]]; then
		"$0" one "$program" || status=1
	else
		together+=("$program")
	fi
done
((${#together[@]} == 0)) || printf '%s\n' "${together[@]}" | xargs -P "$TOGETHER" -n 1 "$0" one || status=1
exit "$status"
