"""`slipstream bench chaos`: everything dies, nothing is lost. bench/README.md tells how to read it.

schedule      what is done to whom and when: pure, from the seed
load          the events: pure; flow: their sender
workers       the stages' processes: started, watched, killed
broker        what can happen to Kafka
redis         what can happen to Redis
states        states damaged by hand, and the oracle over all of them
faults        what can happen to workers, the directed zombie among it; redis_faults likewise
judge         the oracle over the raw topic, dead letters, exits
played        what a run is told and leaves behind; report: what it came to
run           all of it, in order
"""
