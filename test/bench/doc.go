// Package bench has the benchmarks of the assembled parts: each prints its ratio against the raw
// limit that it measured in the same run. docs/design/benchmarks.md tells how to read and repeat them.
package bench
