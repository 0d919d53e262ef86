#!/bin/sh
# Serves a model with the Clipper of the environment whose programs are in the folder $1: a home, ports and a model of its own.
set -eu
work=$(mktemp -d)
export CLIPPER_HOME="$work/home" PATH="$1:$PATH"
trap 'clipper stop > "$work/stopped" 2>&1 || true; chmod -R u+w "$work"; rm -rf "$work"' EXIT
printf 'def predict(inputs):\n    return inputs.sum(1)\n' >"$work/sums.py"
cd "$work"
clipper start --query-port 0 --management-port 0 --grpc-port off
clipper deploy sums sums:predict --input-type 'float64[2]'
clipper app create sums --model sums --slo-ms 20000
test "$(clipper predict sums '[1, 2]')" = 3.0
clipper load sums --rate 50 --duration 1s
clipper status
