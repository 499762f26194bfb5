"""Each figure of the README, reproducible: `slipstream bench NAME`. Ratios come from one run, side by side, on real Kafka."""
