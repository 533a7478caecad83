"""The benchmark of garbage collection: `make bench-gc`. docs/performance.md tells how to read it."""
