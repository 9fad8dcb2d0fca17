# Every script here sources this file: it says how large the experiments are, and what `run` means.
#
#   SCALE=cpu bash runs/table1.sh             # two cores: GPT pico, 5 million characters (the default)
#   SCALE=gpu bash runs/table1.sh             # one GPU: GPT mini, several epochs over the novels
#   SCALE=paper GPUS=8 bash runs/table1.sh    # the paper's: GPT small, 1.2 billion tokens of books
#   DRY=1 bash runs/table1.sh                 # only print the commands
#   SEED=1 bash runs/table1.sh                # another seed, in out/table1-seed1
#   SEEDS="0 1 2" bash runs/table1.sh         # three seeds in one table, of the rows that takeaways rest on
#   JOBS=8 bash runs/table1.sh                # eight runs side by side, a core or a GPU each (cpu: 2, else 1)
#   MINUTES=60 bash runs/table1.sh            # after an hour, runs save and end; the table has what is done
#   NOVELS=DIR bash runs/table3.sh            # DIR/en and DIR/fr hold texts; without it, novels are downloaded
#   RESULTS=results/cpu bash runs/table1.sh   # tables, figures, their commands (commands.txt), and numbers of
#                                             # runs: all that fit_scaling.py results/cpu/runs/table1 needs
#
#   PRECISION=fp32 bash runs/table1.sh        # on every machine; by default each chooses what is fastest there
#
# SIZE, TOKENS (of 1x) and FLAGS (more flags of train.py) replace what the scale says; then choose another OUT, too.
# A finished run is skipped, a stopped one goes on: every script can be stopped and started again at any time.
# A script only prints commands. Started without DRY=1, it starts itself once more with DRY=1, collects
# what that prints, and becomes paper/run.py (exec, below), which carries the commands out.
set -euo pipefail
SCALE=${SCALE:-cpu} SEED=${SEED:-0} GPUS=${GPUS:-1} DRY=${DRY:-} NOVELS=${NOVELS:-}
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ ! -d "$ROOT/.venv" ] || PATH="$ROOT/.venv/bin:$PATH" # the environment that make creates
PYTHON=$(command -v python || command -v python3)
[ -n "$DRY" ] || "$PYTHON" -c 'import sentencepiece' 2>/dev/null || {
    echo "error: python lacks the libraries of requirements.txt; make env installs them into .venv" >&2 && exit 2
}
[ -n "$DRY" ] || COMMANDS=$(DRY=1 bash "$0" "$@") || exit
cd "$ROOT"

# Values of each scale. ONE: tokens of 1x; LENGTHS: of monolingual runs, in units of 1x; SIZES: models of the
# figures by size; JOBS: runs side by side, a core or a GPU each, by which small models gain.
NOVEL_DATA=$([ -n "$NOVELS" ] && echo novels || echo eltec)
NOVELS_TEST="" # of the novels, one in fifty by default
case $SCALE in
cpu) # 4x is 20 of the 20.4 million characters of pydocs: no row of Table 1 reads a text twice
    STANDARD_SIZE=${SIZE:-pico} SIZES="pico nano" ONE=${TOKENS:-5e6} STANDARD_FLAGS=${FLAGS:-} ALONE="--batch 2"
    OTHER_FLAGS="--batch 8 --learning-rate 1e-3 --warmup 100" # pico's, but another rate; the best batch alone
    LENGTHS="2 1 0.5 0.4 0.3 0.25 0.2 0.1 0.05" REAL_LENGTHS="1 0.5 0.35 0.2 0.1 0.05"
    OTHER_LENGTHS="1 0.5 0.25 0.1 0.05"
    NOVELS_TEST="--test-fraction 0.15 --test-characters 10000" # a part of each of 15 or 19 novels, scored in seconds
    CLONE_DATA=pydocs REAL_DATA=$NOVEL_DATA-char PIECES="--pieces char" OUT=${OUT:-out} JOBS=${JOBS:-2}
    ;;
gpu) # 1x is one and a half passes over the English novels, 3x four and a half; more passes teach little
    STANDARD_SIZE=${SIZE:-mini} SIZES="mini small" ONE=${TOKENS:-20e6}
    OTHER_FLAGS="--batch 32 --warmup 100" STANDARD_FLAGS=${FLAGS:-$OTHER_FLAGS}
    LENGTHS="0.1 0.25 0.5 1 1.5 2 3" REAL_LENGTHS="0.1 0.25 0.5 1 2" OTHER_LENGTHS="0.1 0.25 0.5 1 2"
    CLONE_DATA=$NOVEL_DATA REAL_DATA=$NOVEL_DATA PIECES="--vocab-size 16384" OUT=${OUT:-out/gpu} JOBS=${JOBS:-1}
    ;;
paper) # 18,265 steps
    STANDARD_SIZE=${SIZE:-small} SIZES="mini small medium" ONE=${TOKENS:-1197015040}
    OTHER_FLAGS="" STANDARD_FLAGS=${FLAGS:-}
    LENGTHS="0.05 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.85 0.9 0.95 1 1.5 2 3" REAL_LENGTHS=$LENGTHS
    OTHER_LENGTHS="0.05 0.1 0.25 0.5 1" MEDIUM_LENGTHS="0.1 0.24 0.5 1 1.2 2.04 2.16 2.28 2.4"
    CLONE_DATA=books REAL_DATA=books PIECES="--vocab-size 16384" OUT=${OUT:-out/paper} JOBS=${JOBS:-1}
    ;;
*) echo "error: SCALE=$SCALE: expected cpu, gpu or paper" >&2 && exit 2 ;;
esac

seed() { # N: the seed of the runs that follow, in folders of its own
    SEED=$1 SUFFIX=$([ "$1" = 0 ] || echo "-seed$1")
}
SEEDS=${SEEDS:-$SEED} RUNS=() # RUNS: those that align.py is to look at
seed "$SEED"
once() { [ "$SEED" != "${SEEDS%% *}" ] || "$@"; } # runs with the first seed only: no takeaway rests on them
PAGE=${RESULTS:-$OUT}/$(basename "$0" .sh)$SUFFIX # where tables and figures go
LAUNCH=python # one process needs no launcher
[ "$GPUS" = 1 ] || LAUNCH="torchrun --standalone --nproc-per-node $GPUS"
[ -n "$DRY" ] || RESULTS=${RESULTS:-} \
    exec "$PYTHON" -m paper.run --jobs "$JOBS" ${MINUTES:+--minutes "$MINUTES"} <<<"$COMMANDS"

corpus() { # clones|real: the text of the runs that follow, prepared if it is not there
    local name=$CLONE_DATA
    [ "$1" = clones ] || name=$REAL_DATA
    DATA=data/$name
    case $name in
    pydocs) also python data.py ;;
    books) also python data.py --corpus books --max-tokens 5e9 ;;
    eltec*) also python data.py --corpus eltec --name "$name" $PIECES $NOVELS_TEST ;;
    novels*) also python data.py --name "$name" --text "en=$NOVELS/en" --text "fr=$NOVELS/fr" $PIECES $NOVELS_TEST ;;
    esac
}

aligned() { # aligned lines for align.py: PARALLEL.en and PARALLEL.fr, Europarl's unless PARALLEL is set
    [ -n "${PARALLEL:-}" ] || also python -m corpora.europarl
    PARALLEL=${PARALLEL:-data/downloads/europarl-v7/europarl-v7.fr-en}
}

into() { # NAME: the folder of the runs that follow, below out/; FOLDERS has all of them
    FOLDER=$OUT/$1$SUFFIX
    case " ${FOLDERS[*]-} " in *" $FOLDER "*) ;; *) FOLDERS+=("$FOLDER") ;; esac
}

size() { # SIZE: the model of the runs that follow; unless it is the standard one, their names begin with it
    SIZE=$1 FLAGS=$STANDARD_FLAGS PREFIX=""
    [ "$SIZE" = "$STANDARD_SIZE" ] || FLAGS=$OTHER_FLAGS PREFIX=$SIZE-
}
size "$STANDARD_SIZE"
OTHER_SIZES=${SIZES//$STANDARD_SIZE/}

also() { # WORDS...: print a command, so that a shell could read it
    local word line=""
    for word; do
        case $word in "" | *[!A-Za-z0-9_.,:/=+-]*) printf -v word %q "$word" ;; esac
        line+="$word "
    done
    echo "${line% }"
}

run() { # NAME TIMESx FLAGS...: train one model on TIMES the standard tokens
    local out=$FOLDER/$PREFIX$1 tokens
    tokens=$(awk "BEGIN { printf \"%.0f\", ${2%x} * $ONE }")
    shift 2
    local flags=$FLAGS${PRECISION:+ --precision $PRECISION}
    # shellcheck disable=SC2086
    also $LAUNCH train.py --data "$DATA" --size "$SIZE" --tokens "$tokens" $flags "$@" --seed "$SEED" --out "$out"
}

yardstick() { # [LANGUAGE]: monolingual runs of several lengths
    local times lengths=$LENGTHS
    [ $# = 0 ] || lengths=$REAL_LENGTHS
    [ "$SIZE" = "$STANDARD_SIZE" ] || lengths=$OTHER_LENGTHS
    [ "$SIZE" != medium ] || lengths=${MEDIUM_LENGTHS:-$lengths}
    for times in $lengths; do
        run "mono-${1:+$1-}${times}x" "${times}x" ${1:+--languages "$1"} --ratio 1 ${ALONE:-}
    done
}

yardstick_2x() { # English and French alone at 2x, unless their yardstick is that long
    case " $REAL_LENGTHS " in *" 2 "*) return 0 ;; esac
    local language
    for language in en fr; do
        run "mono-$language-2x" 2x --languages $language --ratio 1 ${ALONE:-}
    done
}

clones_by_ratio() { # the runs of Figures 1 and 6, RUNS
    local share
    into table1
    RUNS+=("$FOLDER/50-50" "$FOLDER/90-10")
    yardstick
    run 50-50 1x --ratio 0.5
    run 90-10 1x --ratio 0.9
    into figure1
    for share in 95 80 70 60; do
        run $share-$((100 - share)) 1x --ratio 0.$share
        RUNS+=("$FOLDER/$share-$((100 - share))")
    done
}
