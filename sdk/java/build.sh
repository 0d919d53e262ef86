#!/bin/sh
# Builds clipper-container.jar, the examples sum.jar and record.jar, and the test's classes with a JDK of 17 or later and nothing else.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-$here/build}
rm -rf "$build/classes" "$build/example" "$build/test"
mkdir -p "$build"
javac --release 17 -Xlint:all -d "$build/classes" "$here"/src/clipper/*.java
jar --create --file "$build/clipper-container.jar" -C "$build/classes" .
javac --release 17 -Xlint:all -cp "$build/classes" -d "$build/example" "$here"/example/*.java
# Jars with all that they need: what `clipper deploy` takes.
jar --create --file "$build/sum.jar" --main-class SumContainer -C "$build/classes" . -C "$build/example" .
jar --create --file "$build/record.jar" --main-class RecordContainer -C "$build/classes" . -C "$build/example" .
javac --release 17 -Xlint:all -cp "$build/classes" -d "$build/test" "$here"/test/clipper/*.java
