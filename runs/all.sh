#!/usr/bin/env bash
# The whole paper, one script after the other. DRY=1 prints all commands; lib.sh explains SCALE, SEED and GPUS.
# Their runs lie in out/ and are shared:
#   table1     Table 1 (takeaways 1 to 5); Table 2, Figures 1, 2, 6 to 9 and 11 need some of them, too
#   figure1, figure2, figure8    what these add: clones by ratio; by tokens and size; with anchor points
#   table3     Table 3 (takeaways 6 to 8); Table 4, Figures 3, 4, 10 and 12 to 14 need some of them, too
#   figure3, figure4             what these add: English and French by ratio; by tokens and size
# Figure 7 comes with figure6.sh, 9 with figure2.sh, 10 with figure4.sh, 11 with table2.sh, 12 and 13 with table4.sh.
# Figure 5, the laws, and takeaways.sh use all of these runs. mylanguages.sh, for your languages, is apart.
set -euo pipefail
for page in table1 table2 figure1 figure2 figure6 figure8 table3 table4 figure3 figure4 figure14 figure5 takeaways; do
    echo "=== $page"
    bash "$(dirname "$0")/$page.sh"
done
