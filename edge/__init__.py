"""The edge that the stages share: how they reach Kafka, end on signals, and show their metrics."""
