#!/usr/bin/env bash
# Beyond the paper: what does a rare language take from its partner? A tenth of each run is English, nine tenths
# are a partner that keeps something of English and has lost the rest (corpora/partners.py); only the space is
# shared.
#
#   NOVELS=DIR bash runs/partners.sh        # also beside the novels of DIR/en and DIR/fr
SCALE=cpu SEEDS=${SEEDS:-0 1 2}
PRECISION=${PRECISION:-fp32}
source "$(dirname "$0")/lib.sh"
corpus clones
also python -m corpora.partners
DATA=data/partners TEXTS=()
PARTNERS="keyed reversed shuffled chain4 chain2 chain1 brackets"
for name in $PARTNERS; do TEXTS+=(--text "$name=data/downloads/partners/$name.jsonl"); done
[ -z "$NOVELS" ] || TEXTS+=(--text "novels=$NOVELS/en" --text "french=$NOVELS/fr")
[ -z "$NOVELS" ] || PARTNERS+=" novels french"
also python data.py --name partners --text en=data/downloads/pydocs.jsonl "${TEXTS[@]}" \
    --pieces char --test-fraction 0.01 --placebo

for SEED in $SEEDS; do
    seed "$SEED"
    into partners
    yardstick en
    run clone 1x --languages en --ratio 0.9
    RUNS+=("$FOLDER/clone")
    for partner in $PARTNERS noise; do
        run "$partner" 1x --languages "$partner" en --ratio 0.9
        RUNS+=("$FOLDER/$partner")
    done
done

also python align.py "${RUNS[@]}" --only embeddings --out "$PAGE"
also python -m paper.sharing "${FOLDERS[@]}" --out "$PAGE"
