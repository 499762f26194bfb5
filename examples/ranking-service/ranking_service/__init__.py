"""A ranking service on fresh user states: the shape of one's own, small enough to read in one go."""
