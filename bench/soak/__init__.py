"""`slipstream bench soak`: the same load for long, with faults now and then: nothing may grow. bench/README.md tells how to read.

config        what a run is told
load          the events, and what is done to whom and when: pure
watch         looks at every process, at lag and at Redis, every few seconds
growth        from looks to slopes: pure
probe         events of its own, and when a reader sees them: freshness
ranker        a ranking service's process: it reads states and crosses them
report        what it came to
run           all of it, on bench/chaos, whose processes, faults and judges these are
"""
