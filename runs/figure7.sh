#!/usr/bin/env bash
exec bash "$(dirname "$0")/figure6.sh" "$@" # Figure 7 comes from the same runs and measurements as Figure 6.
