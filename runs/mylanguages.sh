#!/usr/bin/env bash
# From texts in two or more languages: which mix serves the rarest one best, and what the others do for it.
#
#   bash runs/mylanguages.sh en=FOLDER sw=FOLDER                  # the rarest last; .txt and .jsonl files, also .gz
#   bash runs/mylanguages.sh en=FOLDER de=FOLDER sw=FOLDER        # the others share the rest of each mix equally
#   DRY=1 bash runs/mylanguages.sh en=FOLDER sw=FOLDER            # only print the commands
#   RARE=5e5 WARMUP=24 bash runs/mylanguages.sh en=FOLDER sw=FOLDER    # fewer tokens of it, less warm-up
#   MIXES="50 90" SEEDS="0 1" bash runs/mylanguages.sh en=FOLDER sw=FOLDER   # percent of the others; seeds
#   SCALE=gpu JOBS=8 bash runs/mylanguages.sh en=FOLDER sw=FOLDER # GPT mini, eight runs side by side, a GPU each
#   THOROUGH=1 bash runs/mylanguages.sh en=FOLDER sw=FOLDER       # two sizes, two RARE: does the best ratio move?
#   VOCAB=disjoint bash runs/mylanguages.sh en=FOLDER en2=FOLDER  # share only the space; here: one text as two clones
#
# Every mix reads RARE tokens of the rarest language (1x); mixes differ in how much of the others they add. Each
# has controls: the same shares beside noise (the first language's tokens, shuffled); the rarest alone on as many
# tokens in all, in more passes if its text has only RARE tokens; the rarest alone on 1x, in batches of the same
# size and in smaller ones, which take as many steps. HOLD_OUT=0.1 tests on a tenth of the documents (default:
# one in fifty).
CALLED_FROM=$PWD
SEEDS=${SEEDS:-0 1 2}
source "$(dirname "$0")/lib.sh"
refuse() { echo "error: $*" >&2 && exit 2; }
case $SCALE in
cpu) LENGTH=128 BATCH=${BATCH:-8} WARMUP=${WARMUP:-50} ;;
gpu) LENGTH=512 BATCH=${BATCH:-32} WARMUP=${WARMUP:-100} ;;
paper) LENGTH=512 BATCH=${BATCH:-128} WARMUP=${WARMUP:-500} ;;
esac
MIXES=${MIXES:-50 80 90 95} VOCAB=${VOCAB:-anchored} THOROUGH=${THOROUGH:-} HOLD_OUT=${HOLD_OUT:-}
AMOUNTS=$([ -n "$THOROUGH" ] && echo "0.25 1" || echo 1) # of RARE
least=$(awk "BEGIN { print 20 * $WARMUP * $BATCH * $LENGTH / ${AMOUNTS% *} }")
RARE=${RARE:-$least}

[ $# -ge 2 ] || refuse "expected two texts or more, the rarest language last, as in en=texts/english sw=texts/swahili"
languages=() texts=() bytes=""
for text; do
    name=${text%%=*} path=${text#*=}
    [ "$path" != "$text" ] || refuse "expected NAME=FOLDER, as in en=texts/english, found $text"
    [[ $name =~ ^[A-Za-z][A-Za-z0-9_]*$ && $name != noise ]] || refuse "$name: expected letters, digits and _, not noise"
    [[ $path = /* || $CALLED_FROM = "$PWD" ]] || path=$CALLED_FROM/$path
    languages+=("$name") texts+=(--text "$name=$path")
    found=$("$PYTHON" text.py "$path")
    bytes+=" ${found%% *}"
done
for percent in $MIXES; do
    [ "$percent" -gt 0 ] 2>/dev/null && [ "$percent" -lt 100 ] || refuse "MIXES: expected percents as 50 80, found $percent"
done
if awk "BEGIN { exit $RARE >= $least }"; then
    steps=$(awk "BEGIN { printf \"%d\", ${AMOUNTS% *} * $RARE / $BATCH / $LENGTH }")
    refuse "the shortest run would have $steps steps, not 20 times its $WARMUP of warm-up, which says little of" \
        "longer ones: RARE=$least or more, or a WARMUP of $((steps < 40 ? 1 : steps / 20)), or a BATCH below $BATCH"
fi

mixes() { # NAME TIMES SHARES REST RARE: each mix, its length in units of 1x, and its shares; the last by temperature
    awk -v mixes="$MIXES" -v bytes="$bytes" 'BEGIN {
        n = split(bytes, size, " ")
        for (many = split(mixes, percent, " "); ++i <= many;) {
            shares = ""
            for (j = 1; j < n; j++) shares = shares percent[i] / 100 / (n - 1) ","
            p = 1 - percent[i] / 100
            print percent[i] "-" 100 - percent[i], sprintf("%.3g", 1 / p), shares p, 1 - p, p
        }
        for (j = 1; j <= n; j++) sum += size[j] ^ 0.3 # usual: between equal shares and those of the texts
        for (j = 1; j < n; j++) temperature = temperature size[j] ^ 0.3 / sum ","
        p = size[n] ^ 0.3 / sum
        print "temperature", sprintf("%.3g", 1 / p), temperature p, 1 - p, p
    }'
}

NAME=$(IFS=- && echo "${languages[*]}") DATA=data/$(IFS=- && echo "${languages[*]}")
RAREST=${languages[$# - 1]} PAGE=${RESULTS:-$OUT}/mylanguages-$NAME
also python data.py --name "$NAME" "${texts[@]}" $PIECES --placebo ${HOLD_OUT:+--test-fraction "$HOLD_OUT"}
for SEED in $SEEDS; do
    seed "$SEED"
    for amount in $AMOUNTS; do
        ONE=$(awk "BEGIN { print $amount * $RARE }")
        into "mylanguages-$NAME$([ "$amount" = 1 ] || echo "-$amount")"
        for model in $([ -n "$THOROUGH" ] && echo "$SIZES" || echo "$STANDARD_SIZE"); do
            size "$model"
            FLAGS+=" --length $LENGTH --batch $BATCH --warmup $WARMUP"
            run alone-1x 1x --languages "$RAREST" --ratio 1
            while read -r name times shares rest share; do
                run "$name" "${times}x" --languages "${languages[@]}" --vocab "$VOCAB" --mix "$shares"
                run "placebo-$name" "${times}x" --languages noise "$RAREST" --vocab "$VOCAB" --mix "$rest,$share"
                run "alone-${times}x" "${times}x" --languages "$RAREST" --ratio 1
                [ -z "$THOROUGH" ] || run "common-$name" "$(awk "BEGIN { print $times - 1 }")x" \
                    --languages "${languages[0]}" --ratio 1 # what the first language loses
            done < <(mixes)
            for batch in $(mixes | awk -v b="$BATCH" '{ own = int(b * $5 + 0.5); print own < 1 ? 1 : own }' | sort -un); do
                FLAGS="$FLAGS --batch $batch" run "alone-1x-batch-$batch" 1x --languages "$RAREST" --ratio 1
            done
        done
    done
done
also python -m paper.recommend "${FOLDERS[@]}" --out "$PAGE"
