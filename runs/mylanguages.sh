#!/usr/bin/env bash
# Two folders of text in; out comes which ratio serves the rarer language best, and what a token of it is worth then.
#
#   bash runs/mylanguages.sh en=FOLDER sw=FOLDER        # the rarer language last; .txt and .jsonl files, also .gz
#   DRY=1 bash runs/mylanguages.sh en=FOLDER sw=FOLDER  # only print the commands
# Every mix holds the same RARE tokens of the rarer language (1x) and ever more of the other one: 50%, 80%, 90%, 95%.
# Whether it profits is measured against models that learn it alone, from a half of 1x to 4x. So its text should have
# 4 * RARE tokens or more, and the other one's 19 * RARE; less is read several times, which is worth less than new text.
#
#   RARE=1e6 SCALE=gpu bash runs/mylanguages.sh ...     # more tokens, a larger model; VOCAB=disjoint shares no pieces
if [ $# != 2 ] || [ "${1#*=}" = "$1" ] || [ "${2#*=}" = "$2" ]; then
    echo "error: expected two texts, COMMON=FOLDER RARER=FOLDER, as in en=texts/english sw=texts/swahili" >&2
    exit 2
fi
source "$(dirname "$0")/lib.sh"
COMMON=${1%%=*} RARER=${2%%=*} VOCAB=${VOCAB:-anchored}
ONE=${RARE:-$(awk "BEGIN { print 0.25 * $ONE }")}
DATA=data/$COMMON-$RARER
also python data.py --name "$COMMON-$RARER" --text "$1" --text "$2" $PIECES
into "mylanguages-$COMMON-$RARER"
PAGE=${RESULTS:-$OUT}/$(basename "$FOLDER")
for times in 0.5 1 1.5 2 4; do # the rarer language alone: the law
    run mono-${times}x ${times}x --languages "$RARER" --ratio 1
done
#   mix            tokens
run 50-50          2x  --languages "$COMMON" "$RARER" --vocab "$VOCAB" --ratio 0.5
run 80-20          5x  --languages "$COMMON" "$RARER" --vocab "$VOCAB" --ratio 0.8
run 90-10          10x --languages "$COMMON" "$RARER" --vocab "$VOCAB" --ratio 0.9
run 95-5           20x --languages "$COMMON" "$RARER" --vocab "$VOCAB" --ratio 0.95

also python fit_scaling.py "$FOLDER" --recommend --out "$PAGE"
