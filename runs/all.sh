#!/usr/bin/env bash
# The whole paper, one script after the other. DRY=1 prints all commands; lib.sh explains SCALE, SEED and GPUS.
#
#   script                  shows                                          runs in out/...   shares with
#   table1.sh               clones: perplexity and TEff                    table1
#   table2.sh, figure11.sh  clones: hidden states, gradients                                 table1
#   figure1.sh              clones by ratio; GLUE=DIR: transfer            figure1           table1
#   figure2.sh, figure9.sh  clones by tokens and size                      figure2           table1
#   figure6.sh, figure7.sh  clones: embeddings                                               table1, figure1
#   figure8.sh              clones with anchor points                      figure8           table1
#   table3.sh               English and French: perplexity and TEff        table3
#   table4.sh, figure12.sh, figure13.sh
#                           English and French: hidden states, gradients                     table3
#   figure3.sh              English and French by ratio                    figure3           table3
#   figure4.sh, figure10.sh English and French by tokens and size          figure4           table3
#   figure14.sh             English and French: one matching, drawn                          table3
#   figure5.sh              the laws                                                         all of these
#   takeaways.sh            which of the eight takeaways hold                                all of these
#
# mylanguages.sh does none of this, but answers for two languages of yours which ratio serves the rarer one best.
set -euo pipefail
for page in table1 table2 figure1 figure2 figure6 figure8 table3 table4 figure3 figure4 figure14 figure5 takeaways; do
    echo "=== $page"
    bash "$(dirname "$0")/$page.sh"
done
