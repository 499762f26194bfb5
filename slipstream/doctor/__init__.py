"""What a deployment runs on, and what is wrong with it: facts are gathered at the edge, and judged by pure functions."""
