"""`slipstream bench chaos`: everything dies, nothing is lost. bench/README.md tells how to read it.

schedule    what is done to whom and when: pure, from the seed
load        the events: pure; and their sender
workers     the stages' processes: started, watched, killed
broker      what can happen to Kafka
faults      what can happen to workers, the directed zombie among it
judge       the oracle over the raw topic, dead letters, exits
run         all of it, in order
"""
