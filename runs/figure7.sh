#!/usr/bin/env bash
# Figure 7 comes from the same runs and measurements as Figure 6.
exec bash "$(dirname "$0")/figure6.sh" "$@"
