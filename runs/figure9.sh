#!/usr/bin/env bash
exec bash "$(dirname "$0")/figure2.sh" "$@" # Figure 9 is Figure 2 with MLTE beside it, from the same runs.
