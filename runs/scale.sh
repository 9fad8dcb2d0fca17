# Sourced by every script here: how large the experiments are, and what `run` means.
#
#   SCALE=cpu bash runs/table1.sh      # two cores: GPT nano, 2 million tokens (the default)
#   SCALE=gpu bash runs/table1.sh      # one GPU: GPT mini, several epochs over the novels
#   SCALE=paper GPUS=8 bash runs/table1.sh     # the paper's: GPT small, 1.2 billion tokens of books
#   DRY=1 bash runs/table1.sh          # only list what would be run: commands, tokens, FLOPs, time
#   SEED=1 bash runs/table1.sh         # another seed, in out/table1-seed1
#   NOVELS=DIR bash runs/table3.sh     # DIR/en and DIR/fr hold texts; without it, novels are downloaded (data.py --corpus eltec)
#
# SIZE, TOKENS (of 1x) and RECIPE (more flags of train.py) replace what the scale says; then choose another OUT as well.
# A finished run is skipped, a stopped one goes on: every script can be stopped and started again at any time.
set -euo pipefail
SCRIPT=$(realpath "$0")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ ! -d .venv ] || PATH="$PWD/.venv/bin:$PATH" # the environment that make creates
python -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("sentencepiece"))' 2>/dev/null || {
    echo "error: $(command -v python || echo python) lacks the libraries of requirements.txt; make demo installs them into .venv" >&2
    exit 2
}

SCALE=${SCALE:-cpu} SEED=${SEED:-0} GPUS=${GPUS:-1} DRY=${DRY:-} NOVELS=${NOVELS:-} LISTING=${LISTING:-}
NOVEL_DATA=eltec
[ -z "$NOVELS" ] || NOVEL_DATA=novels

# What a scale is. LADDER: monolingual runs for the law, in units of 1x; SIZES: models of the figures that compare sizes.
case $SCALE in
cpu) # 3x is 6.0 of the 6.1 million tokens of pydocs: no row of Table 1 reads a text twice
    DEFAULT_SIZE=nano SIZES="nano mini" CLONE_TOKENS=2e6 REAL_TOKENS=2e6 DEFAULT_RECIPE="" PIECES=4096
    OTHER_RECIPE="--length 128 --batch 32 --learning-rate 1e-3 --warmup 20" # as nano's, but for the rate
    LADDER="0.1 0.25 0.5 1 1.5 2 3" REAL_LADDER="0.1 0.25 0.5 1 2" OTHER_LADDER="0.1 0.25 0.5 1" CLONE_DATA=pydocs REAL_DATA=$NOVEL_DATA-4096 OUT=${OUT:-out} ;;
gpu) # 1x is one and a half passes over the English novels, 3x four and a half, more than which teaches little
    DEFAULT_SIZE=mini SIZES="mini small" CLONE_TOKENS=20e6 REAL_TOKENS=20e6 DEFAULT_RECIPE="--batch 32 --warmup 100" PIECES=16384
    OTHER_RECIPE=$DEFAULT_RECIPE LADDER="0.1 0.25 0.5 1 1.5 2 3" REAL_LADDER="0.1 0.25 0.5 1 2" OTHER_LADDER="0.1 0.25 0.5 1 2" CLONE_DATA=$NOVEL_DATA REAL_DATA=$NOVEL_DATA OUT=${OUT:-out/gpu} ;;
paper) # 18,265 steps
    DEFAULT_SIZE=small SIZES="mini small medium" CLONE_TOKENS=1197015040 REAL_TOKENS=1197015040 DEFAULT_RECIPE="" OTHER_RECIPE="" PIECES=16384
    LADDER="0.05 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.85 0.9 0.95 1 1.5 2 3" REAL_LADDER=$LADDER
    LADDER_mini="0.05 0.1 0.25 0.5 1" LADDER_medium="0.1 0.24 0.5 1 1.2 2.04 2.16 2.28 2.4" OTHER_LADDER=$LADDER_mini
    CLONE_DATA=books REAL_DATA=books OUT=${OUT:-out/paper} ;;
*) echo "error: SCALE=$SCALE: expected cpu, gpu or paper" >&2 && exit 2 ;;
esac
SIZE=${SIZE:-$DEFAULT_SIZE} RECIPE=${RECIPE:-$DEFAULT_RECIPE}
SEED_SUFFIX=$([ "$SEED" = 0 ] || echo "-seed$SEED") # of folders
PAGE=${RESULTS:-$OUT}/$(basename "$0" .sh)$SEED_SUFFIX # where tables and figures go
STANDARD_SIZE=$SIZE STANDARD_RECIPE=$RECIPE PREFIX="" LAUNCH=python # one process needs no launcher
[ "$GPUS" = 1 ] && [ "$SCALE" = cpu ] || LAUNCH="torchrun --standalone --nproc-per-node $GPUS"

corpus() { # clones|real: the text of what follows, prepared if it is not there
    local name tokens
    case $1 in
    clones) name=$CLONE_DATA tokens=$CLONE_TOKENS ;;
    real) name=$REAL_DATA tokens=$REAL_TOKENS ;;
    esac
    DATA=data/$name ONE=${TOKENS:-$tokens}
    case $name in
    pydocs) also python data.py ;;
    books) also python data.py --corpus books --max-tokens 5e9 ;;
    eltec*) also python data.py --corpus eltec --name "$name" --vocab-size "$PIECES" ;;
    novels*) also python data.py --name "$name" --text "en=$NOVELS/en" --text "fr=$NOVELS/fr" --vocab-size "$PIECES" ;;
    esac
}

aligned() { # en=FILE fr=FILE, lines in step, for align.py; Europarl is downloaded unless PARALLEL names others
    if [ -z "${PARALLEL:-}" ]; then
        also python data.py --name "${DATA#data/}" --corpus europarl
        PARALLEL=data/downloads/europarl-v7/europarl-v7.fr-en
    fi
    LINES_IN_STEP=("en=$PARALLEL.en" "fr=$PARALLEL.fr")
}

into() { # NAME: the folder of the runs that follow, below out/
    FOLDER=$OUT/$1$SEED_SUFFIX
}

size() { # SIZE: the model of the runs that follow; unless it is the standard one, their names begin with it
    SIZE=$1 RECIPE=$STANDARD_RECIPE PREFIX=""
    [ "$SIZE" = "$STANDARD_SIZE" ] || RECIPE=$OTHER_RECIPE PREFIX=$SIZE-
}

run() { # NAME TIMESx FLAGS...: train and evaluate one model on TIMES the standard tokens, unless that is done
    local out=$FOLDER/$PREFIX$1 tokens
    tokens=$(awk "BEGIN { printf \"%.0f\", ${2%x} * $ONE }")
    shift 2
    # shellcheck disable=SC2086
    train_and_evaluate "$out" $LAUNCH train.py --data "$DATA" --size "$SIZE" --tokens "$tokens" "$@" $RECIPE --seed "$SEED" --out "$out"
}

ladder() { # [LANGUAGE]: monolingual runs of different length, for the law
    local times steps=$LADDER own=LADDER_$SIZE
    [ $# = 0 ] || steps=$REAL_LADDER
    [ "$SIZE" = "$STANDARD_SIZE" ] || steps=${!own:-$OTHER_LADDER}
    for times in $steps; do
        if [ $# = 0 ]; then run "mono-${times}x" "${times}x" --ratio 1; else run "mono-$1-${times}x" "${times}x" --languages "$1" --ratio 1; fi
    done
}

also() { # COMMAND...: anything that is not a training run
    if [ -n "$LISTING" ]; then printf 'then %s\n' "$*"; else
        echo "== $*"
        "$@" </dev/null
    fi
}

report() { # ARGUMENTS of fit_scaling.py: what it finds lands in out/TABLE, or in RESULTS/TABLE
    also python fit_scaling.py "$@" --out "$PAGE"
}

record() { # commands, machine and date of all runs, into runs.md beside the table
    [ -n "$LISTING" ] || python plan.py --record "$PAGE/runs.md" <<<"$PLAN"
}

train_and_evaluate() { # FOLDER COMMAND...
    local out=$1 seconds
    shift
    if [ -n "$LISTING" ]; then echo "$*"; elif grep -qs '"ppl"' "$out/result.json"; then echo "== $out is done already"; else
        seconds=$(awk -v out="$out" '$2 == out { print $1 }' <<<"$TIMES")
        echo "== $out ($(time_left))"
        echo "$*"
        "$@" </dev/null
        python evaluate.py "$out" </dev/null
        BEHIND=$((BEHIND + ${seconds:-0}))
    fi
}

time_left() { # from the estimates, corrected by how they came out so far
    awk -v all="$EXPECTED" -v behind="$BEHIND" -v took="$SECONDS" 'BEGIN {
        left = (all - behind) * (behind ? took / behind : 1)
        printf "about %dh%02dm of runs left", left / 3600, left % 3600 / 60 }'
}

# First the script is read for what it would do; that is the dry run, and what the time left is worked out from.
if [ -z "$LISTING" ]; then
    PLAN=$(LISTING=1 bash "$SCRIPT" "$@")
    if [ -n "$DRY" ]; then
        python plan.py --scale "$SCALE" <<<"$PLAN"
        exit
    fi
    TIMES=$(python plan.py --scale "$SCALE" --seconds <<<"$PLAN")
    EXPECTED=$(awk '{ sum += $1 } END { print sum + 0 }' <<<"$TIMES") BEHIND=0 SECONDS=0
fi
